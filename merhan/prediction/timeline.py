"""Emotions along a long recording: where there is speech, split at pauses into utterances, each with its scores."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import soundfile

from merhan.errors import InputError
from merhan.logs import progress
from merhan.prediction.curve import smoothed_curve
from merhan.prediction.predict import Predictor
from merhan.prediction.recordings import Track, open_tracks, sound_blocks
from merhan.prediction.speakers import Turn, by_speaker, read_turns
from merhan.prediction.speech import speech_regions
from merhan.prediction.transcription import Transcriber, Transcript
from processing_merhan import load_audio


UNCERTAIN = "uncertain"  # what stands for the label where the model abstained
LONGEST = 12.0  # seconds of an utterance, for a model without a limit of its own


class Timeline(NamedTuple):
    """Emotions along a recording."""

    recording: str  # its path
    seconds: float  # its length
    labels: list[str]
    utterances: pd.DataFrame  # in the order of time: start, end (seconds), speaker, prediction, score_<label>, ...
    curve: pd.DataFrame  # second by second, see [`smoothed_curve`]
    words: pd.DataFrame  # of a recogniser: utterance (its row), start, end (seconds), word
    transcribed_by: str | None  # the recogniser


def timeline(
    predictor: Predictor,
    recording: str | Path,
    speakers: str | Path | None = None,
    channels: bool = False,
    transcriber: Transcriber | None = None,
) -> Timeline:
    """Scores of each utterance of a recording, and of each second.

    Args:
        speakers: an RTTM file, whose turns split the speech.
        channels: every channel is a speaker, and is read on its own.
        transcriber: finds the words; a model that reads words is given them.

    Returns:
        Its `utterances` have `start` and `end` in seconds, `speaker` (empty if unknown), `text` (what the recogniser
        heard), `prediction`, a column `score_<label>` per label, `given` (`audio+text` where the text was used),
        `abstained`, and `error` where an utterance has no scores. No rows for a recording without speech.

    Raises:
        InputError: the model reads no sound, or speakers are asked for that are not there.
        AudioError: the recording cannot be read.
    """
    if "audio" not in predictor.processor.modalities and transcriber is None:
        raise InputError("timeline: this model reads no sound; choose one that does, or a recogniser (transcribe).")
    if speakers is not None and channels:
        raise InputError("timeline: speakers come from an RTTM file or from channels; choose one of them.")
    turns = read_turns(Path(speakers), str(recording)) if speakers is not None else []
    with open_tracks(Path(recording), channels) as tracks:
        longest = predictor.processor.max_seconds or LONGEST
        rows = pd.concat([_utterances(track, turns, longest) for track in tracks], ignore_index=True)
        rows = rows.sort_values(["start", "end"], ignore_index=True)
        transcripts = _transcripts(rows, transcriber)
        scores = predictor.table(_with_words(rows, transcripts, transcriber, predictor))
        seconds = soundfile.info(str(tracks[0].path)).duration
    scores = scores.drop(columns=["utterance_id", "seconds", "seconds_used", "transcript"])
    rows["text"] = [transcript.text or None for transcript in transcripts] or None
    utterances = pd.concat([rows[["start", "end", "speaker", "text"]], scores], axis=1)
    curve = smoothed_curve(utterances, predictor.labels, seconds, predictor.min_score)
    words = _word_table(rows, transcripts)
    name = transcriber.name if transcriber else None
    return Timeline(str(recording), seconds, predictor.labels, utterances, curve, words, name)


def answer(row: Mapping[str, Any]) -> str:
    """The label of an utterance; `uncertain` where the model abstained, `error` where it has no scores."""
    if row["prediction"] is None:
        return "error"
    return UNCERTAIN if row["abstained"] else row["prediction"]


def answer_counts(timeline: Timeline) -> Counter[str]:
    """How many utterances have each answer."""
    return Counter(map(answer, records(timeline.utterances)))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, with None for what is empty."""
    return table.astype(object).where(table.notna(), None).to_dict("records")  # type: ignore[return-value]


def _transcripts(rows: pd.DataFrame, transcriber: Transcriber | None) -> list[Transcript]:
    """What is heard in each utterance; an empty list without a recogniser."""
    if transcriber is None:
        return []
    sounds = zip(rows["audio"], rows["start"], rows["end"], strict=True)
    return [transcriber(load_audio(path, start, end, 0.0)) for path, start, end in progress(list(sounds), desc="words")]


def _with_words(
    rows: pd.DataFrame, transcripts: Sequence[Transcript], transcriber: Transcriber | None, predictor: Predictor
) -> pd.DataFrame:
    """The utterances as a predictor reads them, with the text that it can use."""
    rows = rows[["audio", "start", "end"]]
    if transcriber is None:
        return rows
    rows = rows.assign(text=[transcriber.usable_text(transcript, predictor.processor) for transcript in transcripts])
    transcriber.log()
    return rows


def _word_table(rows: pd.DataFrame, transcripts: Sequence[Transcript]) -> pd.DataFrame:
    table = [
        (number, start + word.start, start + word.end, word.word)
        for number, (start, transcript) in enumerate(zip(rows["start"], transcripts, strict=False))
        for word in transcript.words
    ]
    return pd.DataFrame(table, columns=["utterance", "start", "end", "word"])


def _utterances(track: Track, turns: Sequence[Turn], longest: float) -> pd.DataFrame:
    """The utterances of a track, as rows that a predictor reads."""
    regions = list(speech_regions(sound_blocks(track.path), longest))
    pieces = by_speaker(regions, turns) if turns else [Turn(*region, track.speaker) for region in regions]
    rows = pd.DataFrame(pieces, columns=["start", "end", "speaker"])
    return rows.assign(audio=str(track.path.resolve()))
