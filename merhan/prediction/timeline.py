"""Emotions along a long recording: where there is speech, split at pauses into utterances, each with its scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import soundfile

from merhan.errors import InputError
from merhan.prediction.curve import smoothed_curve
from merhan.prediction.predict import Predictor
from merhan.prediction.recordings import Track, open_tracks, sound_blocks
from merhan.prediction.speakers import Turn, by_speaker, read_turns
from merhan.prediction.speech import speech_regions


LONGEST = 12.0  # seconds of an utterance, for a model without a limit of its own


class Timeline(NamedTuple):
    """Emotions along a recording."""

    recording: str  # its path
    seconds: float  # its length
    labels: list[str]
    utterances: pd.DataFrame  # in the order of time: start, end (seconds), speaker, prediction, score_<label>, ...
    curve: pd.DataFrame  # second by second, see [`smoothed_curve`]


def timeline(
    predictor: Predictor, recording: str | Path, speakers: str | Path | None = None, channels: bool = False
) -> Timeline:
    """Scores of each utterance of a recording, and of each second.

    Args:
        speakers: an RTTM file, whose turns split the speech.
        channels: every channel is a speaker, and is read on its own.

    Returns:
        Its `utterances` have `start` and `end` in seconds, `speaker` (empty if unknown), `prediction`, a column
        `score_<label>` per label, `given`, `abstained`, and `error` where an utterance has no scores. No rows for a
        recording without speech.

    Raises:
        InputError: the model reads no sound, or speakers are asked for that are not there.
        AudioError: the recording cannot be read.
    """
    if "audio" not in predictor.processor.modalities:
        raise InputError("timeline: this model reads no sound; choose one that does.")
    if speakers is not None and channels:
        raise InputError("timeline: speakers come from an RTTM file or from channels; choose one of them.")
    turns = read_turns(Path(speakers), str(recording)) if speakers is not None else []
    with open_tracks(Path(recording), channels) as tracks:
        longest = predictor.processor.max_seconds or LONGEST
        rows = pd.concat([_utterances(track, turns, longest) for track in tracks], ignore_index=True)
        rows = rows.sort_values(["start", "end"], ignore_index=True)
        scores = predictor.table(rows[["audio", "start", "end"]])
        seconds = soundfile.info(str(tracks[0].path)).duration
    scores = scores.drop(columns=["utterance_id", "seconds", "seconds_used"])
    utterances = pd.concat([rows[["start", "end", "speaker"]], scores], axis=1)
    curve = smoothed_curve(utterances, predictor.labels, seconds, predictor.min_score)
    return Timeline(str(recording), seconds, predictor.labels, utterances, curve)


def _utterances(track: Track, turns: Sequence[Turn], longest: float) -> pd.DataFrame:
    """The utterances of a track, as rows that a predictor reads."""
    regions = list(speech_regions(sound_blocks(track.path), longest))
    pieces = by_speaker(regions, turns) if turns else [Turn(*region, track.speaker) for region in regions]
    rows = pd.DataFrame(pieces, columns=["start", "end", "speaker"])
    return rows.assign(audio=str(track.path.resolve()))
