"""A synthetic CMU-MOSEI: the two tables in circulation, whole recordings or segments, and transcripts."""

from pathlib import Path

from releases import tiny_sounds


HEADER = ",file,index,start,end,label2a,label2b,label6,label7,split"
# file, index, start, end, label2b, label6, label7, split, number of the clip in the transcript
SENTENCES = (
    # The first index is the last sentence; clips are numbered from 2.
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
_FOLDERS = {0: "train", 1: "dev", 2: "test"}
_MODES = {0: "train", 1: "valid", 2: "test"}
_ANNOTATIONS = {-1: "Negative", 0: "Neutral", 1: "Positive"}


def make(folder: Path, audio: str = "recordings", texts: bool = True, label6: bool = True) -> Path:
    """Write a release in the layout of s3prl.

    Args:
        folder: where to write.
        audio: `recordings`, `segments` or `none`.
        texts: whether there are transcripts.
        label6: whether the table has the column label6, which an older version lacks.
    """
    lines = []
    for row, (video, index, start, end, sign, strongest, sentiment, split, _) in enumerate(SENTENCES):
        emotion = f"{strongest}," if label6 else ""
        lines.append(f"{row},{video},{index},{start},{end},{int(sign >= 0)},{sign},{emotion}{sentiment},{split}")
    folder.mkdir(parents=True, exist_ok=True)
    header = HEADER if label6 else HEADER.replace("label6,", "")
    (folder / "CMU_MOSEI_Labels.csv").write_text("\n".join([header, *lines, ""]))
    for video, index, *_, split, _ in SENTENCES:
        recording = folder / "Raw" / "Audio" / "Full" / "WAV_16000" / f"{video}.wav"
        if audio == "recordings" and not recording.exists():
            tiny_sounds.write(recording, seconds=3.0)
        if audio == "segments" and split in _FOLDERS:
            tiny_sounds.write(folder / "Segmented_Audio" / _FOLDERS[split] / f"{video}_{index}.wav")
    if texts:
        _transcripts(folder / "Raw" / "Transcript" / "Segmented" / "Combined")
    return folder


def _transcripts(folder: Path):
    """Write a file per video: a sentence that is not in the table, then its sentences in the order of their clips."""
    folder.mkdir(parents=True)
    for video in {video for video, *_ in SENTENCES}:
        lines = [f"{video}___9___90.0___91.5___Nobody rated this."]
        for name, index, start, end, *_, clip in sorted(SENTENCES, key=lambda sentence: sentence[-1]):
            if name == video:
                text = f"Sentence {index} of it, a ___ blank\u2028or two. "
                lines.append(f"{video}___{clip}___{start}___{end}___{text}")
        (folder / f"{video}.txt").write_text("\n".join([*lines, "", ""]), encoding="utf-8")


def make_mmsa(folder: Path) -> Path:
    """Write a release in the layout of MMSA: `label.csv` with the texts, and clips named by number."""
    lines = ["video_id,clip_id,text,label,annotation,mode,label_T,label_A,label_V"]
    for video, index, *_, sign, _, sentiment, split, clip in SENTENCES:
        if split in _MODES:
            text = f'"Sentence {index}, with  a comma"'
            lines.append(f"{video},{clip},{text},{sentiment}.0,{_ANNOTATIONS[sign]},{_MODES[split]},,,")
            # libsndfile looks at the content, so a clip can be a wav file under the name of a video.
            tiny_sounds.write(folder / "Raw" / video / f"{clip}.mp4", format="WAV")
    (folder / "label.csv").write_text("\n".join([*lines, ""]))
    return folder
