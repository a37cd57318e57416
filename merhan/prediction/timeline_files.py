"""A timeline as JSON, CSV, SRT, WebVTT or labels of Audacity."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from merhan.errors import InputError
from merhan.files import atomic_path, write_text


UNCERTAIN = "uncertain"  # what subtitles and labels show where the model abstained


def write_timeline(table: pd.DataFrame, recording: str, out: Path):
    """Write a timeline in the format of the suffix.

    Raises:
        InputError: another suffix.
    """
    require_suffix(out)
    if out.suffix == ".csv":
        with atomic_path(out) as temporary:
            table.to_csv(temporary, index=False, encoding="utf-8")
        return
    write_text(out, _WRITERS[out.suffix](table, recording))


def require_suffix(out: Path):
    """Raise InputError unless a timeline can be written to a file of this name."""
    if out.suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise InputError(f"{out}: a timeline is written as {known}, not {out.suffix or 'no suffix'}.")


def _json(table: pd.DataFrame, recording: str) -> str:
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return json.dumps({"recording": recording, "utterances": rows}, indent=2, ensure_ascii=False) + "\n"


def _srt(table: pd.DataFrame, recording: str) -> str:
    blocks = []
    for number, row in enumerate(table.to_dict("records"), start=1):
        blocks.append(f"{number}\n{_clock(row['start'], ',')} --> {_clock(row['end'], ',')}\n{_caption(row)}\n")
    return "\n".join(blocks)


def _webvtt(table: pd.DataFrame, recording: str) -> str:
    cues = [
        f"{_clock(row['start'], '.')} --> {_clock(row['end'], '.')}\n{_caption(row)}\n"
        for row in table.to_dict("records")
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _audacity(table: pd.DataFrame, recording: str) -> str:
    lines = [f"{row['start']:.3f}\t{row['end']:.3f}\t{_caption(row)}\n" for row in table.to_dict("records")]
    return "".join(lines)


_WRITERS = {".json": _json, ".srt": _srt, ".vtt": _webvtt, ".txt": _audacity}

SUFFIXES = (".csv", *_WRITERS)


def _caption(row: dict[str, Any]) -> str:
    """`joy 0.83`, `uncertain`, or `error`."""
    if pd.isna(row["prediction"]):
        return "error"
    if row["abstained"]:
        return UNCERTAIN
    return f"{row['prediction']} {row['score_' + row['prediction']]:.2f}"


def _clock(seconds: float, point: str) -> str:
    """`01:02:03,456`."""
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
