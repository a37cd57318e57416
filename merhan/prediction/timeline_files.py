"""A timeline as JSON, CSV, SRT, WebVTT, RTTM, ELAN annotations (.eaf), labels of Audacity or an HTML page."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from merhan.errors import InputError
from merhan.files import atomic_path, write_text
from merhan.prediction.timeline import Timeline, answer, records
from merhan.prediction.timeline_page import timeline_page


_SCHEMA = "{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation"  # an attribute that readers require


def write_timeline(timeline: Timeline, out: Path):
    """Write a timeline in the format of the suffix.

    Raises:
        InputError: another suffix.
    """
    require_suffix(out)
    if out.suffix == ".csv":
        with atomic_path(out) as temporary:
            timeline.utterances.to_csv(temporary, index=False, encoding="utf-8")
        return
    if out.suffix == ".html":
        write_text(out, timeline_page(timeline, out))
        return
    write_text(out, _WRITERS[out.suffix](timeline))


def require_suffix(out: Path):
    """Raise InputError unless a timeline can be written to a file of this name."""
    if out.suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise InputError(f"{out}: a timeline is written as {known}, not {out.suffix or 'no suffix'}.")


def caption(row: dict[str, Any]) -> str:
    """An utterance in a line: its speaker, label, score and words."""
    label = answer(row)
    line = label
    if label == row["prediction"]:
        line += f" {row['score_' + label]:.2f}"
    if row["speaker"]:
        line = f"{row['speaker']}: {line}"
    if row["text"]:
        line += f": {row['text']}"
    return " ".join(line.split())


def _json(timeline: Timeline) -> str:
    content = timeline._asdict() | {name: records(getattr(timeline, name)) for name in ("utterances", "curve", "words")}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _srt(timeline: Timeline) -> str:
    cues = [f"{number}\n{cue}" for number, cue in enumerate(_cues(timeline, ","), start=1)]
    return "\n".join(cues)


def _webvtt(timeline: Timeline) -> str:
    escaped = [cue.replace("&", "&amp;").replace("<", "&lt;") for cue in _cues(timeline, ".")]
    return "\n".join(["WEBVTT\n", *escaped])


def _cues(timeline: Timeline, point: str) -> Iterator[str]:
    """Subtitles: times and a line each."""
    for row in records(timeline.utterances):
        yield f"{_clock(row['start'], point)} --> {_clock(row['end'], point)}\n{caption(row)}\n"


def _audacity(timeline: Timeline) -> str:
    rows = records(timeline.utterances)
    return "".join(f"{row['start']:.3f}\t{row['end']:.3f}\t{caption(row)}\n" for row in rows)


def _rttm(timeline: Timeline) -> str:
    """A line per utterance, with the emotion in place of a speaker's name, behind the speaker where one is known, and
    the score as its confidence."""
    lines = []
    name = "_".join(Path(timeline.recording).stem.split()) or "recording"
    for row in records(timeline.utterances):
        label = answer(row)
        score = "<NA>"
        if label == row["prediction"]:
            score = f"{row['score_' + label]:.3f}"
        names = "/".join("_".join(text.split()) for text in (row["speaker"], label) if text)
        times = f"{row['start']:.3f} {row['end'] - row['start']:.3f}"
        lines.append(f"SPEAKER {name} 1 {times} <NA> <NA> {names} {score} <NA>\n")
    return "".join(lines)


def _eaf(timeline: Timeline) -> str:
    """Annotations of ELAN, version 3.0: a tier of emotions per speaker, and one of words where there are any."""
    facts = {"AUTHOR": "", "DATE": "1970-01-01T00:00:00+00:00", "FORMAT": "3.0", "VERSION": "3.0"}
    document = ElementTree.Element("ANNOTATION_DOCUMENT", facts | {_SCHEMA: "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"})
    header = ElementTree.SubElement(document, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    name = f"./{Path(timeline.recording).name}"  # relative: the file may move, and names no folder of this machine
    ElementTree.SubElement(header, "MEDIA_DESCRIPTOR", MEDIA_URL=name, RELATIVE_MEDIA_URL=name, MIME_TYPE="audio/*")
    order = ElementTree.SubElement(document, "TIME_ORDER")
    for speaker, rows in timeline.utterances.groupby("speaker", dropna=False, sort=True):
        emotions = [(row["start"], row["end"], answer(row)) for row in records(rows)]
        words = timeline.words[timeline.words["utterance"].isin(rows.index)]
        _add_tier(document, order, "emotion", speaker, emotions)
        if len(words):
            _add_tier(document, order, "words", speaker, words[["start", "end", "word"]].to_numpy().tolist())
    for name in ("emotion", "words"):
        constraints = {"LINGUISTIC_TYPE_ID": name, "TIME_ALIGNABLE": "true", "GRAPHIC_REFERENCES": "false"}
        ElementTree.SubElement(document, "LINGUISTIC_TYPE", constraints)
    ElementTree.indent(document)
    return ElementTree.tostring(document, encoding="utf-8", xml_declaration=True).decode("utf-8") + "\n"


def _add_tier(
    document: ElementTree.Element, order: ElementTree.Element, kind: str, speaker: Any, spans: Sequence[Sequence[Any]]
):
    """Add annotations `(start, end, value)` of a speaker, who may be unknown, as a tier."""
    names = {"TIER_ID": kind}
    if _is_text(speaker):
        names = {"TIER_ID": f"{kind} {speaker}", "PARTICIPANT": speaker}
    tier = ElementTree.SubElement(document, "TIER", names | {"LINGUISTIC_TYPE_REF": kind})
    for start, end, value in spans:
        number = len(order) // 2 + 1
        slots = {"TIME_SLOT_REF1": f"ts{2 * number - 1}", "TIME_SLOT_REF2": f"ts{2 * number}"}
        for slot, time in zip(slots.values(), (start, end), strict=True):
            ElementTree.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slot, TIME_VALUE=str(round(1000 * time)))
        outer = ElementTree.SubElement(tier, "ANNOTATION")
        inner = ElementTree.SubElement(outer, "ALIGNABLE_ANNOTATION", {"ANNOTATION_ID": f"a{number}"} | slots)
        ElementTree.SubElement(inner, "ANNOTATION_VALUE").text = value


def _is_text(cell: Any) -> bool:
    return isinstance(cell, str) and cell != ""


def _clock(seconds: float, point: str) -> str:
    """`01:02:03,456`, in hours, minutes and seconds."""
    whole, rest = divmod(round(1000 * seconds), 60_000)
    return f"{whole // 60:02d}:{whole % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


_WRITERS: dict[str, Callable[[Timeline], str]] = {
    ".json": _json,
    ".srt": _srt,
    ".vtt": _webvtt,
    ".rttm": _rttm,
    ".eaf": _eaf,
    ".txt": _audacity,
}
SUFFIXES = (".csv", *_WRITERS, ".html")
