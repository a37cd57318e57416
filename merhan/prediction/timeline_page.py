"""A timeline as a self-contained HTML page: player, waveform, utterances, smoothed scores and words."""

import base64
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import soundfile

from merhan.prediction.recordings import open_tracks, sound_blocks
from merhan.prediction.timeline import Timeline, answer, answer_counts, records
from merhan.reporting.pages import render
from processing_merhan import SAMPLING_RATE


LONGEST_EMBEDDED = 1800.0  # seconds; about 10 MB. The page of a longer recording refers to its file
_PEAKS = 12_000  # of the waveform, at most
_PEAK_SECONDS = 0.05  # of sound that a peak stands for, at least
# Of the labels, on a light and on a dark ground; more labels than these share colours.
_COLOURS = [
    ("#b3261e", "#ff8a80"),
    ("#2f6fb0", "#82b8f0"),
    ("#1f7a3a", "#74d493"),
    ("#8a4fb0", "#cf9ff0"),
    ("#a85b00", "#ffb866"),
    ("#00707a", "#66d0d8"),
    ("#a02766", "#f58fc0"),
    ("#5c6370", "#b4bcc8"),
    ("#7a6a00", "#dcc94f"),
    ("#3d4aa8", "#a3adff"),
]


def timeline_page(timeline: Timeline, out: Path) -> str:
    """The page of a timeline.

    Args:
        out: the file that it will be; a recording that is too long to be embedded is referred to from there.
    """
    with open_tracks(Path(timeline.recording), by_channel=False) as (track,):
        waveform = waveform_path(sound_blocks(track.path), timeline.seconds)
        is_embedded = timeline.seconds <= LONGEST_EMBEDDED
        audio = _audio(track.path) if is_embedded else _relative(timeline.recording, out)
    rows = [_row(timeline, number, row) for number, row in enumerate(records(timeline.utterances))]
    return render(
        "timeline.html.jinja",
        title=Path(timeline.recording).name,
        header=_header(timeline),
        colours=[_COLOURS[number % len(_COLOURS)] for number in range(len(timeline.labels))],
        labels=timeline.labels,
        seconds=round(timeline.seconds, 3),
        audio=audio,
        is_embedded=is_embedded,
        waveform=waveform,
        lanes=_lanes(timeline, rows),
        curve_text=_curve_text(timeline),
        ticks=_ticks(timeline.seconds),
        rows=rows,
        has_speakers=any(row["speaker"] for row in rows),
        has_words=any(row["words"] for row in rows),
    )


def _header(timeline: Timeline) -> dict[str, str]:
    speakers = sorted(timeline.utterances["speaker"].dropna().unique())
    counts = answer_counts(timeline)
    return {
        "Length": _clock(timeline.seconds),
        "Utterances": str(len(timeline.utterances)),
        "Speakers": ", ".join(map(str, speakers)),
        "Emotions": ", ".join(f"{label} {count}" for label, count in counts.most_common()),
        "Words": timeline.transcribed_by or "",
    }


def _row(timeline: Timeline, number: int, row: dict[str, Any]) -> dict[str, Any]:
    """An utterance as a row of the table."""
    label = answer(row)
    style = "open"
    if label == row["prediction"]:
        style = f"label{timeline.labels.index(label)}"
    score = None
    if row["prediction"] is not None:
        score = row["score_" + row["prediction"]]
    words = timeline.words[timeline.words["utterance"] == number]
    return {
        "start": round(row["start"], 3),
        "end": round(row["end"], 3),
        "clock": _clock(row["start"]),
        "speaker": row["speaker"] or "",
        "label": label,
        "style": style,
        "score": score,
        "error": row["error"] or "",
        "words": words.to_dict("records"),
    }


def _lanes(timeline: Timeline, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each speaker: the utterances as bars, and the smoothed scores as paths."""
    lanes = []
    for speaker, curve in timeline.curve.groupby("speaker", dropna=False, sort=True):
        name = "" if pd.isna(speaker) else str(speaker)
        bars = [_bar(row, timeline.seconds) for row in rows if row["speaker"] == name]
        curves = [
            (f"label{number}", _path(curve[f"score_{label}"].to_numpy(float)))
            for number, label in enumerate(timeline.labels)
        ]
        lanes.append({"speaker": name, "bars": bars, "curves": curves})
    return lanes


def _curve_text(timeline: Timeline) -> str:
    """What the curve shows, for those who do not see it: how long each label has the highest score."""
    sentences = []
    for speaker, curve in timeline.curve.groupby("speaker", dropna=False, sort=True):
        counts = curve["prediction"].value_counts()
        parts = [f"{label} is highest for {_clock(count)}" for label, count in counts.items()]
        num_uncertain = int(curve["abstained"].eq(True).sum())
        if num_uncertain:
            parts.append(f"uncertain for {_clock(num_uncertain)}")
        name = "" if pd.isna(speaker) else f" of {speaker}"
        sentences.append(f"In the curve{name}: {', '.join(parts)}.")
    return " ".join(sentences)


def _bar(row: dict[str, Any], seconds: float) -> dict[str, Any]:
    left, width = 100 * row["start"] / seconds, 100 * (row["end"] - row["start"]) / seconds
    return {"left": f"{left:.4f}", "width": f"{width:.4f}", "style": row["style"], "label": row["label"]}


def _path(scores: np.ndarray) -> str:
    """A line through the middles of the seconds, with a gap where scores `(seconds,)` are open."""
    parts = []
    is_open = True
    for second, score in enumerate(scores):
        if np.isnan(score):
            is_open = True
            continue
        height = f"{1 - score:.3f}"
        # A second alone is as wide as it lasts.
        parts.append(f"M{second} {height}L{second + 1} {height}" if is_open else f"L{second + 1} {height}")
        is_open = False
    return "".join(parts)


def _ticks(seconds: float) -> list[tuple[str, str]]:
    """About a dozen times a minute of recording or less, as shares of its length in percent."""
    step = next((step for step in (5, 15, 30, 60, 300) if seconds / step <= 120), 900)
    return [(f"{100 * time / seconds:.4f}", _clock(time)) for time in range(0, int(seconds), step)]


def waveform_path(blocks: Iterable[np.ndarray], seconds: float, peak_seconds: float = _PEAK_SECONDS) -> str:
    """The peaks of a sound as an SVG path, from -1 to 1 high and `seconds` wide; each stands for `peak_seconds`, or
    for more in a long recording."""
    width = max(peak_seconds, seconds / _PEAKS)
    size = max(round(width * SAMPLING_RATE), 1)
    peaks: list[float] = []
    rest = np.zeros(0, np.float32)
    for block in blocks:
        sound = np.abs(np.concatenate([rest, block]))
        whole = len(sound) - len(sound) % size
        peaks += sound[:whole].reshape(-1, size).max(axis=1).tolist()
        rest = sound[whole:]
    heights = np.array(peaks) / max(max(peaks, default=0.0), 1e-6)
    times = (np.arange(len(peaks)) + 0.5) * size / SAMPLING_RATE
    upper = [f"{time:.2f} {-height:.2f}" for time, height in zip(times, heights, strict=True)]
    lower = [f"{time:.2f} {height:.2f}" for time, height in zip(times, heights, strict=True)]
    return "M0 0L" + "L".join([*upper, *reversed(lower)]) + "Z"


def _audio(path: Path) -> str:
    """The sound at 16 kHz as the data URL of an Ogg file."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", SAMPLING_RATE, 1, format="OGG") as ogg:
        for block in sound_blocks(path):
            for second in np.split(block, range(SAMPLING_RATE, len(block), SAMPLING_RATE)):
                ogg.write(second)  # libsndfile overflows its stack on long blocks of Vorbis
    return "data:audio/ogg;base64," + base64.b64encode(file.getvalue()).decode()


def _relative(recording: str, out: Path) -> str:
    """The address of a recording from the page: relative, so that both may be moved together."""
    return quote(Path(os.path.relpath(recording, out.parent)).as_posix())


def _clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
