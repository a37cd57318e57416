"""CMU-MOSEI in pieces: the two tables in circulation, whole recordings, cuts of them, transcripts."""

from pathlib import Path

from releases import tiny_sounds


HEADER = ",file,index,start,end,label2a,label2b,label6,label7,split"
# file, index, start, end, label2b, label6, label7, split, the clip's number in the transcript
SENTENCES = (
    # The first index is the last sentence; the numbers of the clips begin with 2.
    ("-3g5yACwYnA", 0, 2.0, 2.5, 1, 0, 1, 0, 5),
    ("-3g5yACwYnA", 1, 0.484, 1.405, 0, 0, 0, 0, 2),
    ("-3g5yACwYnA", 2, 1.321, 1.752, -1, 2, -2, 0, 3),
    # It begins before its recording.
    ("08d4NTXkSxw", 0, -0.038548752834, 0.66984126984, 0, 0, 0, 0, 1),
    ("100499", 0, 0.0, 0.9, 1, 0, 3, 1, 1),
    ("_0efYOjQYRc", 0, 0.0, 0.802, 1, 0, 1, 2, 0),
    # Rated as angry as happy, and therefore happy in label6.
    ("zv0Jl4TIQDc", 0, 0.5, 0.9, 1, 0, 1, 2, 0),
    ("-Alixo7euuU", 0, 0.0124716553288, 0.514081632653, 1, 1, 1, 3, 0),
)
_CUTS = {0: "train", 1: "dev", 2: "test"}
_MODES = {0: "train", 1: "valid", 2: "test"}
_ANNOTATIONS = {-1: "Negative", 0: "Neutral", 1: "Positive"}


def make(folder: Path, audio: str = "wholes", words: bool = True, label6: bool = True) -> Path:
    """What s3prl reads, with `wholes`, `cuts` or no recordings; the table has had no label6 once."""
    lines = []
    for row, (video, index, start, end, sign, strongest, sentiment, split, _) in enumerate(SENTENCES):
        emotion = f"{strongest}," if label6 else ""
        lines.append(f"{row},{video},{index},{start},{end},{int(sign >= 0)},{sign},{emotion}{sentiment},{split}")
    folder.mkdir(parents=True, exist_ok=True)
    header = HEADER if label6 else HEADER.replace("label6,", "")
    (folder / "CMU_MOSEI_Labels.csv").write_text("\n".join([header, *lines, ""]))
    for video, index, *_, split, _ in SENTENCES:
        whole = folder / "Raw" / "Audio" / "Full" / "WAV_16000" / f"{video}.wav"
        if audio == "wholes" and not whole.exists():
            tiny_sounds.write(whole, seconds=3.0)
        if audio == "cuts" and split in _CUTS:
            tiny_sounds.write(folder / "Segmented_Audio" / _CUTS[split] / f"{video}_{index}.wav")
    if words:
        _transcripts(folder / "Raw" / "Transcript" / "Segmented" / "Combined")
    return folder


def _transcripts(folder: Path):
    """In each file first a sentence that was not rated, then those of the table in the order of their clips."""
    folder.mkdir(parents=True)
    for video in {video for video, *_ in SENTENCES}:
        lines = [f"{video}___9___90.0___91.5___Nobody rated this."]
        for name, index, start, end, *_, clip in sorted(SENTENCES, key=lambda sentence: sentence[-1]):
            if name == video:
                said = f"Sentence {index} of it, a ___ blank\u2028or two. "
                lines.append(f"{video}___{clip}___{start}___{end}___{said}")
        (folder / f"{video}.txt").write_text("\n".join([*lines, "", ""]), encoding="utf-8")


def make_mmsa(folder: Path) -> Path:
    """What MMSA gives out: `label.csv` with the words in it, and clips by their numbers in the transcript."""
    lines = ["video_id,clip_id,text,label,annotation,mode,label_T,label_A,label_V"]
    for video, index, *_, sign, _, sentiment, split, clip in SENTENCES:
        if split in _MODES:
            text = f'"Sentence {index}, with  a comma"'
            lines.append(f"{video},{clip},{text},{sentiment}.0,{_ANNOTATIONS[sign]},{_MODES[split]},,,")
            # libsndfile looks at the content, so a clip can be a wav file under the name of a video.
            tiny_sounds.write(folder / "Raw" / video / f"{clip}.mp4", format="WAV")
    (folder / "label.csv").write_text("\n".join([*lines, ""]))
    return folder
