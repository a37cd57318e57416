"""Who speaks when, from an RTTM file."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from merhan.errors import InputError
from merhan.prediction.speech import SHORTEST


class Turn(NamedTuple):
    """Speech of a speaker, in seconds."""

    start: float
    end: float
    speaker: str | None


def read_turns(rttm: Path, recording: str) -> list[Turn]:
    """The turns of a recording in the order of time; those of a speaker that overlap or touch are joined.

    Args:
        recording: name of the file; its stem is looked for among the recordings of the RTTM file. A file about a
            single recording may call it anything.

    Raises:
        InputError: it cannot be read, a line is no line of RTTM, or several recordings are in it and not this one.
    """
    try:
        lines = rttm.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{rttm}: cannot be read as RTTM ({error}); check it.") from None
    names: dict[str, list[Turn]] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if fields and fields[0] == "SPEAKER":
            names.setdefault(fields[1], []).append(_turn(fields, f"{rttm}, line {number}"))
    if not names:
        raise InputError(f"{rttm}: has no line that begins with SPEAKER; give a file of RTTM.")
    name = Path(recording).stem
    if len(names) == 1:
        (name,) = names
    if name not in names:
        raise InputError(f"{rttm}: is about {', '.join(sorted(names))}, not about {name}; name one of them {name}.")
    return _joined(names[name])


def by_speaker(regions: Sequence[tuple[float, float]], turns: Sequence[Turn]) -> list[Turn]:
    """Stretches of speech, split where the speaker changes. Speech of two at a time is an utterance of both; what
    nobody's turn covers has no speaker. Less than 0.25 s of a speaker are left out, as everywhere."""
    utterances = []
    for start, end in regions:
        pieces = [Turn(max(start, turn.start), min(end, turn.end), turn.speaker) for turn in turns]
        pieces = [piece for piece in pieces if piece.end - piece.start > 0]
        pieces += [Turn(*gap, None) for gap in _uncovered(start, end, pieces)]
        utterances += [piece for piece in pieces if piece.end - piece.start > SHORTEST]
    return sorted(utterances, key=lambda turn: turn[:2])


def _turn(fields: Sequence[str], place: str) -> Turn:
    try:
        start, duration, speaker = float(fields[3]), float(fields[4]), fields[7]
    except (IndexError, ValueError):
        start, duration, speaker = 0.0, -1.0, ""
    if not (start >= 0 and duration >= 0 and start + duration < float("inf")):
        raise InputError(
            f"{place}: is no line of RTTM; write SPEAKER file 1 start duration <NA> <NA> speaker <NA> <NA>."
        )
    return Turn(start, start + duration, speaker)


def _joined(turns: Sequence[Turn]) -> list[Turn]:
    """Turns in the order of time, those of a speaker without a gap between them as one."""
    joined: dict[str | None, list[Turn]] = {}
    for turn in sorted(turns):
        own = joined.setdefault(turn.speaker, [])
        if own and turn.start <= own[-1].end:
            own[-1] = own[-1]._replace(end=max(own[-1].end, turn.end))
        else:
            own.append(turn)
    return sorted(turn for own in joined.values() for turn in own)


def _uncovered(start: float, end: float, pieces: Sequence[Turn]) -> list[tuple[float, float]]:
    """The parts of a stretch that no piece, in the order of time, covers."""
    gaps = []
    for piece in pieces:
        if piece.start > start:
            gaps.append((start, piece.start))
        start = max(start, piece.end)
    if end > start:
        gaps.append((start, end))
    return gaps
