"""A synthetic CREMA-D with the names, tables and irregular files of the release; the audio is noise."""

import os
from pathlib import Path

import numpy as np
import soundfile


ACTORS = {"1001": "Male", "1040": "Female", "1076": "Female"}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 72862\n".format("0" * 64)
_SENTENCES = ("TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
_HEADER = '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote","meanEmoResp"'


def names(actor: str) -> list[str]:
    """The names of the 82 recordings of an actor; only the sentence `IEO` has three levels."""
    emotions = ("ANG", "DIS", "FEA", "HAP", "SAD")
    levels = [f"{actor}_IEO_{emotion}_{level}" for emotion in emotions for level in ("LO", "MD", "HI")]
    others = [f"{actor}_{sentence}_{emotion}_XX" for sentence in _SENTENCES for emotion in (*emotions, "NEU")]
    return [*levels, f"{actor}_IEO_NEU_XX", *others]


def votes(name: str, modality: int) -> dict[str, int]:
    """The votes for a recording: of the voice neutral, but a tie for TSI, and the intended emotion for WSI.

    Args:
        name: name of the recording.
        modality: what the raters were shown: 1 the voice, 2 the face, 3 both.
    """
    _, sentence, emotion, _ = name.split("_")
    letter = emotion[0]
    if modality > 1:
        return {letter: 8 + modality, _another(letter, "HA"): 1}
    if sentence == "TSI":
        return {"A": 4, "D": 4, "N": 1}
    if sentence == "WSI":
        return {letter: 7, _another(letter, "FS"): 2}
    return {"N": 7, "H": 2}


def _another(letter: str, choices: str) -> str:
    return next(choice for choice in choices if choice != letter)


def make(folder: Path) -> Path:
    """Write `AudioWAV` for three actors, with the misnamed recording, a Git LFS pointer and other files."""
    (folder / "AudioWAV").mkdir(parents=True)
    (folder / "AudioMP3").mkdir()
    (folder / "processedResults").mkdir()
    first = folder / "AudioWAV" / "1001_IEO_ANG_LO.wav"
    soundfile.write(first, np.random.default_rng(0).normal(0, 0.1, 1600), 16_000)
    all_names = [name for actor in ACTORS for name in names(actor)]
    for name in all_names[1:]:
        os.link(first, folder / "AudioWAV" / f"{name}.wav")
    (folder / "AudioWAV" / "1040_ITH_SAD_XX.wav").rename(folder / "AudioWAV" / "1040_ITH_SAD_X.wav")
    pointer = folder / "AudioWAV" / "1001_DFA_ANG_XX.wav"
    pointer.unlink()
    pointer.write_text(POINTER)
    (folder / "AudioWAV" / "._1001_DFA_ANG_XX.wav").write_bytes(b"\0")
    (folder / "AudioMP3" / "1001_DFA_ANG_XX.mp3").write_text(POINTER)
    lines = [_line(modality, number, name) for modality in (1, 2, 3) for number, name in enumerate(all_names, start=1)]
    (folder / "processedResults" / "tabulatedVotes.csv").write_text("\n".join([_HEADER, *lines]) + "\n")
    demographics = [f'{actor},51,"{sex}","Caucasian","Not Hispanic"' for actor, sex in ACTORS.items()]
    header = '"ActorID","Age","Sex","Race","Ethnicity"'
    (folder / "VideoDemographics.csv").write_text("\n".join([header, *demographics]) + "\n")
    return folder


def _line(modality: int, number: int, name: str) -> str:
    counts = votes(name, modality)
    most = max(counts.values())
    winners = ":".join(letter for letter in "ADFHNS" if counts.get(letter) == most)
    total = sum(counts.values())
    cells = ",".join(str(counts.get(letter, 0)) for letter in "ADFHNS")
    return f'"{modality}{number:05d}",{cells},"{name}",{total},{most / total},"{winners}",71.7'
