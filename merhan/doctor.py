"""What is wrong with a corpus, and what its own numbers suggest: `merhan doctor <manifest or raw folder>`.

An error is what training must not go ahead with; a warning is what its owner should know. The exit code says which.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from merhan.inspection import Facts, inspect_audio
from merhan.leaks import normalised
from merhan.pages import picture, render
from merhan.report import markdown_table
from processing_merhan import AudioError


AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".mp4", ".webm")
SHORT, LONG = 0.3, 30.0  # seconds: below, a backbone sees a handful of frames; above, attention grows out of memory
SILENT = 0.001  # of full scale (-60 dB): what no sample exceeds is no speech
CLIPPED = 0.001  # share of the samples at full scale
OFF = 0.5  # seconds by which a recording may differ from its annotation


@dataclass
class Finding:
    """One kind of trouble."""

    severity: str  # error or warning
    problem: str
    count: int
    examples: list[str]
    remedy: str


@dataclass
class Diagnosis:
    """What the doctor says."""

    source: str
    utterances: int
    hours: float
    findings: list[Finding] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    speakers: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # quantile -> seconds
    suggestions: dict[str, float] = field(default_factory=dict)  # recipe key -> value

    @property
    def healthy(self) -> bool:
        """Whether training should go ahead."""
        return not any(finding.severity == "error" for finding in self.findings)


def examine(rows: pd.DataFrame, source: str) -> tuple[Diagnosis, list[Facts | AudioError | None]]:
    """Look at every recording and every row of a manifest; returns the diagnosis and the facts behind it."""
    found = inspect_audio(rows)
    facts = [one if isinstance(one, Facts) else None for one in found]
    heard = pd.Series([0.0 if one is None else one.duration for one in facts], index=rows.index)
    diagnosis = Diagnosis(source, len(rows), float(heard.sum()) / 3600)
    diagnosis.findings = [*_unreadable(rows, found), *_sound(rows, facts), *_annotation(rows, heard), *_words(rows)]
    diagnosis.labels, diagnosis.speakers = _counts(rows, "label"), _counts(rows, "speaker")
    diagnosis.findings += _classes(diagnosis.labels)
    if (heard > 0).any():
        quantiles = heard[heard > 0].quantile([0.0, 0.05, 0.5, 0.95, 0.99, 1.0])
        diagnosis.seconds = {f"{share:.0%}": round(value, 2) for share, value in quantiles.items()}
    diagnosis.suggestions = suggest(rows, heard)
    return diagnosis, found


def raw_folder(folder: Path) -> pd.DataFrame:
    """Every recording below a folder as a row, for a look at a release before any reader knows it."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.name[0] != ".")
    names = [str(path.relative_to(folder)) for path in files]
    return pd.DataFrame(
        {"utterance_id": names, "corpus": folder.name, "audio": [str(path) for path in files], "text": ""}
    )


def suggest(rows: pd.DataFrame, seconds: pd.Series) -> dict[str, float]:
    """Limits for a recipe from the corpus's own distribution: what cuts one utterance in a hundred, or none at all."""
    suggestions: dict[str, float] = {}
    if (seconds > 0).any():
        suggestions["data.max_seconds"] = float(np.ceil(seconds[seconds > 0].quantile(0.99)))
    words = rows["text"].str.split().str.len()
    if (words > 0).any():
        # 1.5 tokens to a word is what subword vocabularies need for plain text; four for the special ones.
        per_turn = float(words[words > 0].quantile(0.99)) * 1.5 + 4
        turns = 3 if "dialogue" in rows and "turn" in rows and (rows["dialogue"] != "").any() else 0
        suggestions["data.context_turns"] = turns
        typical = float(words[words > 0].quantile(0.75)) * 1.5 + 4
        suggestions["data.max_tokens"] = float(16 * np.ceil((per_turn + turns * typical) / 16))
    return suggestions


# --- checks ---


def _finding(severity: str, problem: str, rows: pd.DataFrame, bad: Sequence[bool], remedy: str) -> list[Finding]:
    names = rows["utterance_id"][np.asarray(bad, dtype=bool)].tolist()
    return [Finding(severity, problem, len(names), names[:10], remedy)] if names else []


def _unreadable(rows: pd.DataFrame, found: Sequence[Facts | AudioError | None]) -> list[Finding]:
    """Recordings that do not open, by what is wrong with them."""
    kinds = {
        "Git LFS pointers in place of audio": ("Git LFS pointer", "run `git lfs pull` where the corpus was cloned"),
        "recordings that do not exist": (
            "no such file",
            "check the audio column and its folder",
        ),
        "empty recordings": ("empty file", "copy them again from their source"),
        "recordings without samples": ("0 samples", "leave them out, or record them again"),
        "recordings with NaN or infinite samples": ("NaN", "write them again from their source"),
        "unreadable recordings": ("", "copy them again from their source, or leave them out"),
    }
    errors = [str(one) if isinstance(one, AudioError) else None for one in found]
    findings = []
    for problem, (mark, remedy) in kinds.items():
        bad = [error is not None and mark in error for error in errors]
        errors = [None if hit else error for hit, error in zip(bad, errors, strict=True)]
        findings += _finding("error", problem, rows, bad, remedy)
    return findings


# What is odd about recordings that do open: severity, problem, how to tell, what to do.
_ODD: tuple[tuple[str, str, Callable[[Facts], bool], str], ...] = (
    (
        "error",
        f"silent recordings (no sample above {SILENT} of full scale)",
        lambda one: one.peak < SILENT,
        "leave them out",
    ),
    ("warning", "clipped recordings", lambda one: one.clipped > CLIPPED, "record at a lower level"),
    (
        "warning",
        f"recordings under {SHORT} s",
        lambda one: one.duration < SHORT,
        "check the cuts; zeros are put behind",
    ),
    ("warning", f"recordings over {LONG:g} s", lambda one: one.duration > LONG, "check the cuts; the middle is kept"),
    ("warning", "recordings with several channels", lambda one: one.channels > 1, "nothing: channels are averaged"),
    ("warning", "recordings below 16 kHz", lambda one: one.rate < 16_000, "nothing: the upper band stays empty"),
)


def _sound(rows: pd.DataFrame, facts: Sequence[Facts | None]) -> list[Finding]:
    """Recordings that open, but are odd, or there twice."""
    findings = []
    for severity, problem, test, remedy in _ODD:
        findings += _finding(severity, problem, rows, [one is not None and test(one) for one in facts], remedy)
    digests = pd.Series([None if one is None else one.digest for one in facts])
    twice = digests.notna() & digests.duplicated(keep=False)
    findings += _finding("warning", "byte-identical recordings", rows, twice, "keep them on one side of the split")
    return findings + _rates(rows, facts)


def _rates(rows: pd.DataFrame, facts: Sequence[Facts | None]) -> list[Finding]:
    counts = Counter(one.rate for one in facts if one is not None)
    if len(counts) < 2:
        return []
    rarest = min(counts, key=counts.__getitem__)
    problem = (
        f"recordings of {rarest} Hz, where others have {', '.join(str(rate) for rate in counts if rate != rarest)}"
    )
    bad = [one is not None and one.rate == rarest for one in facts]
    return _finding("warning", problem, rows, bad, "nothing: all become 16 kHz")


def _annotation(rows: pd.DataFrame, heard: pd.Series) -> list[Finding]:
    """Recordings that are not as long as the annotation says."""
    told = rows.get("duration", pd.Series(np.nan, rows.index))
    bad = (heard > 0) & told.notna() & ((heard - told).abs() > OFF)
    remedy = "check the cuts against the annotation's times"
    return _finding("warning", f"recordings that differ from their annotation by over {OFF} s", rows, bad, remedy)


def _words(rows: pd.DataFrame) -> list[Finding]:
    """Transcripts that are missing or the same."""
    text = rows["text"]
    if (text == "").all():
        return []
    same = normalised(text)
    frequent = same.map(same.value_counts()) > 0.05 * len(rows)
    remedy = "a text model can learn them by heart; see the leak auditor"
    return [
        *_finding("warning", "rows without words", rows, text == "", "transcribe them, or use modality dropout"),
        *_finding("warning", "rows whose words are those of one row in twenty", rows, frequent & (same != ""), remedy),
    ]


def _classes(labels: dict[str, int]) -> list[Finding]:
    if len(labels) == 1:
        only = next(iter(labels))
        return [Finding("error", "only one label", labels[only], [only], "check the label column")]
    rare = {label: count for label, count in labels.items() if count < 10}
    remedy = "merge or drop them with data.label_map; figures on them mean little"
    return [Finding("warning", "labels with under ten rows", len(rare), sorted(rare), remedy)] if rare else []


def _counts(rows: pd.DataFrame, column: str) -> dict[str, int]:
    if column not in rows:
        return {}
    return rows[column][rows[column] != ""].value_counts().to_dict()


# --- what the doctor says ---


def as_text(diagnosis: Diagnosis) -> str:
    """For a terminal."""
    findings = [[f.severity, f.problem, f.count, ", ".join(f.examples[:5])] for f in diagnosis.findings]
    parts = [f"{diagnosis.source}: {diagnosis.utterances} utterances, {diagnosis.hours:.2f} h of sound"]
    if findings:
        parts.append(markdown_table(["", "problem", "rows", "such as"], findings))
        parts += [f"{f.problem}: {f.remedy}." for f in diagnosis.findings if f.severity == "error"]
    if diagnosis.seconds:
        parts.append(markdown_table(["quantile", *diagnosis.seconds], [["seconds", *diagnosis.seconds.values()]]))
    if diagnosis.labels:
        parts.append(markdown_table(["label", "rows"], list(diagnosis.labels.items())))
    if diagnosis.suggestions:
        parts.append("suggested: " + ", ".join(f"{key}={value:g}" for key, value in diagnosis.suggestions.items()))
    parts.append("training can go ahead" if diagnosis.healthy else "mend the errors before training")
    return "\n\n".join(parts)


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """For a program."""
    return {**asdict(diagnosis), "healthy": diagnosis.healthy}


def as_html(diagnosis: Diagnosis, found: Sequence[Facts | AudioError | None]) -> str:
    """For people: one page with pictures, complete in itself."""
    facts = [one for one in found if isinstance(one, Facts)]
    pictures = {}
    if facts:
        pictures["Seconds per recording"] = _histogram([one.duration for one in facts], "seconds")
        pictures["Level"] = _histogram([max(one.level, -80.0) for one in facts], "dB below full scale")
    if diagnosis.labels:
        pictures["Rows per label"] = _bars(diagnosis.labels)
    if diagnosis.speakers:
        pictures["Rows per speaker"] = _histogram(list(diagnosis.speakers.values()), "rows of one speaker")
    return render("doctor.html.jinja", diagnosis=diagnosis, pictures=pictures)


def _histogram(values: Sequence[float], label: str) -> str:
    def draw(figure: Any):
        axes = figure.subplots()
        axes.hist(values, bins=40, color="#4477aa")
        axes.set(xlabel=label, ylabel="count")

    return picture(draw)


def _bars(counts: dict[str, int]) -> str:
    return picture(
        lambda figure: figure.subplots().barh(list(counts)[::-1], list(counts.values())[::-1], color="#4477aa")
    )
