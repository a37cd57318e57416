"""`merhan doctor`: problems of a corpus, and limits for a recipe that its statistics suggest.

A finding is an error if training must not start with it, and a warning otherwise. The exit code of the command is 1 if
there are errors.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from merhan.data.audio_facts import Recordings, inspect_audio
from merhan.data.leaks import normalise_text
from merhan.data.manifest import NULL_WORD_COLUMNS, has_modality, has_null_word
from merhan.reporting.markdown_tables import Markdown, markdown_table
from merhan.reporting.pages import figure_data_url, render


AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".mp4", ".webm")

# Seconds. Shorter recordings give a backbone only a few frames; longer ones need much memory for attention.
SHORT, LONG = 0.3, 30.0

SILENT = 0.001  # of full scale (-60 dB): a recording without a louder sample is silent

CLIPPED = 0.001  # a recording with a larger share of its samples at full scale is clipped

DURATION_TOLERANCE = 0.5  # seconds between the durations of a recording and of its annotation

FREQUENT_TEXT = 0.05  # share of the rows from which on their common text is reported

RARE_LABEL = 10  # rows below which a label is reported


@dataclass
class Finding:
    """One kind of problem."""

    severity: str  # error or warning
    problem: str
    count: int  # affected rows (or labels)
    examples: list[str]
    remedy: str


@dataclass
class Diagnosis:
    """The findings on a corpus and its statistics."""

    source: str
    utterances: int
    hours: float
    findings: list[Finding] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # label -> rows
    speakers: dict[str, int] = field(default_factory=dict)  # speaker -> rows
    seconds: dict[str, float] = field(default_factory=dict)  # quantile -> duration in seconds
    suggestions: dict[str, float] = field(default_factory=dict)  # recipe key -> value

    @property
    def healthy(self) -> bool:
        """Whether there is no error."""
        return not any(finding.severity == "error" for finding in self.findings)


def examine(rows: pd.DataFrame, source: str) -> tuple[Diagnosis, np.ndarray]:
    """Check every recording and every row of a manifest. Every recording is decoded, whatever is known of it already.

    Args:
        rows: a manifest with full paths.
        source: name of the corpus, for the diagnosis.

    Returns:
        the diagnosis, and the facts of each row's recording, `(rows,)` of `audio_facts.FACTS`.
    """
    recordings = inspect_audio(rows, again=True)
    facts = recordings.facts
    seconds = pd.Series(facts["duration"], index=rows.index)
    diagnosis = Diagnosis(source, len(rows), float(seconds.sum()) / 3600)
    diagnosis.labels, diagnosis.speakers = _counts(rows, "label"), _counts(rows, "speaker")
    diagnosis.findings = [
        *_unreadable_recordings(rows, recordings),
        *_unusual_recordings(rows, facts),
        *_duplicate_recordings(rows, facts),
        *_mixed_sampling_rates(rows, facts),
        *_wrong_durations(rows, seconds),
        *_rows_without_sound(rows),
        *_texts(rows),
        *_null_words(rows),
        *_labels(diagnosis.labels),
    ]
    audible = seconds[seconds > 0]
    if len(audible):
        quantiles = audible.quantile([0.0, 0.05, 0.5, 0.95, 0.99, 1.0])
        diagnosis.seconds = {f"{share:.0%}": round(value, 2) for share, value in quantiles.items()}
    diagnosis.suggestions = suggest(rows, seconds)
    return diagnosis, facts


def raw_folder(folder: Path) -> pd.DataFrame:
    """Every recording below a folder as a row without text and label, to check a release that has no reader."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.name[0] != ".")
    names = [str(path.relative_to(folder)) for path in files]
    return pd.DataFrame(
        {"utterance_id": names, "corpus": folder.name, "audio": [str(path) for path in files], "text": ""}
    )


def suggest(rows: pd.DataFrame, seconds: pd.Series) -> dict[str, float]:
    """Limits for a recipe that cut at most one utterance in a hundred.

    Args:
        rows: a manifest.
        seconds: the duration of each row, 0 without audio.

    Returns:
        recipe key (`data.max_seconds`, `data.context_turns`, `data.max_tokens`) -> value.
    """
    suggestions: dict[str, float] = {}
    audible = seconds[seconds > 0]
    if len(audible):
        suggestions["data.max_seconds"] = float(np.ceil(audible.quantile(0.99)))
    words = rows["text"].str.split().str.len()
    words = words[words > 0]
    if len(words):
        turns = 0
        if "dialogue" in rows and "turn" in rows and (rows["dialogue"] != "").any():
            turns = 3
        suggestions["data.context_turns"] = turns
        tokens = _tokens(words.quantile(0.99)) + turns * _tokens(words.quantile(0.75))
        suggestions["data.max_tokens"] = float(16 * np.ceil(tokens / 16))
    return suggestions


def _tokens(words: float) -> float:
    """About how many tokens a turn needs: 1.5 per word for subword vocabularies, and four special tokens."""
    return float(words) * 1.5 + 4


# --- checks ---


def _finding(
    severity: str, problem: str, rows: pd.DataFrame, affected: Sequence[bool] | np.ndarray | pd.Series, remedy: str
) -> list[Finding]:
    """One finding with the first affected rows as examples, none if no row is affected."""
    names = rows["utterance_id"][np.asarray(affected, dtype=bool)].tolist()
    if not names:
        return []
    return [Finding(severity, problem, len(names), names[:10], remedy)]


# Recordings that cannot be decoded: problem -> what the message of the AudioError contains, and the remedy. The first
# match counts.
_UNREADABLE = {
    "Git LFS pointers in place of audio": ("Git LFS pointer", "run `git lfs pull` where the corpus was cloned"),
    "recordings that do not exist": ("no such file", "check the audio column and its folder"),
    "empty recordings": ("empty file", "copy them again from their source"),
    "recordings without samples": ("0 samples", "leave them out, or record them again"),
    "recordings with NaN or infinite samples": ("NaN", "write them again from their source"),
    "segments that end after their recording": ("and has no sound between", "correct `start` and `end`"),
    "unreadable recordings": ("", "copy them again from their source, or leave them out"),
}


def _unreadable_recordings(rows: pd.DataFrame, recordings: Recordings) -> list[Finding]:
    """Recordings that cannot be decoded, by the kind of error."""
    problems = np.full(len(rows), "", dtype=object)
    for number, error in recordings.errors.items():
        problems[number] = _problem(str(error))
    findings = []
    for problem, (_, remedy) in _UNREADABLE.items():
        findings += _finding("error", problem, rows, problems == problem, remedy)
    return findings


def _problem(message: str) -> str:
    return next(problem for problem, (text, _) in _UNREADABLE.items() if text in message)


class _Check(NamedTuple):
    severity: str
    problem: str
    applies: Callable[[np.ndarray], np.ndarray]  # facts -> which recordings are so
    remedy: str


# Recordings that can be decoded, but are unusual.
_UNUSUAL = (
    _Check(
        "error",
        f"silent recordings (no sample above {SILENT} of full scale)",
        lambda facts: facts["peak"] < SILENT,
        "leave them out",
    ),
    _Check("warning", "clipped recordings", lambda facts: facts["clipped_share"] > CLIPPED, "record at a lower level"),
    _Check(
        "warning",
        f"recordings under {SHORT} s",
        lambda facts: facts["duration"] < SHORT,
        "check the cuts; they are padded with zeros",
    ),
    _Check(
        "warning",
        f"recordings over {LONG:g} s",
        lambda facts: facts["duration"] > LONG,
        "check the cuts; only the middle is read",
    ),
    _Check(
        "warning",
        "recordings with several channels",
        lambda facts: facts["channels"] > 1,
        "nothing: the channels are averaged",
    ),
    _Check(
        "warning",
        "recordings below 16 kHz",
        lambda facts: facts["sampling_rate"] < 16_000,
        "nothing: they are resampled, and their upper band is empty",
    ),
)


def _unusual_recordings(rows: pd.DataFrame, facts: np.ndarray) -> list[Finding]:
    findings = []
    for check in _UNUSUAL:
        affected = (facts["duration"] > 0) & check.applies(facts)
        findings += _finding(check.severity, check.problem, rows, affected, check.remedy)
    return findings


def _duplicate_recordings(rows: pd.DataFrame, facts: np.ndarray) -> list[Finding]:
    affected = (facts["duration"] > 0) & pd.Series(facts["digest"]).duplicated(keep=False)
    return _finding("warning", "byte-identical recordings", rows, affected, "keep them in one split")


def _mixed_sampling_rates(rows: pd.DataFrame, facts: np.ndarray) -> list[Finding]:
    counts = Counter(facts["sampling_rate"][facts["duration"] > 0].tolist())
    if len(counts) < 2:
        return []
    rarest = min(counts, key=counts.__getitem__)
    others = ", ".join(str(rate) for rate in counts if rate != rarest)
    problem = f"recordings of {rarest} Hz, where others have {others}"
    return _finding("warning", problem, rows, facts["sampling_rate"] == rarest, "nothing: all are resampled to 16 kHz")


def _wrong_durations(rows: pd.DataFrame, seconds: pd.Series) -> list[Finding]:
    """Recordings whose duration differs from the annotated one."""
    annotated = rows.get("duration", pd.Series(np.nan, rows.index))
    affected = (seconds > 0) & annotated.notna() & ((seconds - annotated).abs() > DURATION_TOLERANCE)
    problem = f"recordings that differ from their annotation by over {DURATION_TOLERANCE} s"
    return _finding("warning", problem, rows, affected, "check the cuts against the annotated times")


def _rows_without_sound(rows: pd.DataFrame) -> list[Finding]:
    """Rows without sound in a corpus that has some."""
    audible = has_modality(rows, "audio")
    if not audible.any():
        return []
    remedy = "check the audio column, and failed.csv of `merhan prepare`; or use modality dropout"
    return _finding("warning", "rows without sound", rows, ~audible, remedy)


def _null_words(rows: pd.DataFrame) -> list[Finding]:
    """Cells such as "nan", which are read as words."""
    findings = []
    for column in NULL_WORD_COLUMNS:
        if column in rows:
            problem = Markdown(f"cells of {column} such as `nan`, which exports write for empty ones")
            findings += _finding("warning", problem, rows, has_null_word(rows[column]), "clear them, or leave them out")
    return findings


def _texts(rows: pd.DataFrame) -> list[Finding]:
    """Texts that are missing or frequent; nothing for a corpus without text."""
    texts = rows["text"]
    if (texts == "").all():
        return []
    normalised = normalise_text(texts)
    frequent = normalised.map(normalised.value_counts()) > max(FREQUENT_TEXT * len(rows), 1)
    problem = "rows whose text is that of one row in twenty"
    remedy = "a text model can memorise them; check the splits with `merhan audit`"
    return [
        *_finding("warning", "rows without text", rows, texts == "", "transcribe them, or use modality dropout"),
        *_finding("warning", problem, rows, frequent & (normalised != ""), remedy),
    ]


def _labels(labels: dict[str, int]) -> list[Finding]:
    if len(labels) == 1:
        label = next(iter(labels))
        return [Finding("error", "only one label", labels[label], [label], "check the label column")]
    rare = sorted(label for label, count in labels.items() if count < RARE_LABEL)
    if not rare:
        return []
    remedy = "merge or drop them (data.label_map, or `--label` of `merhan prepare`); their scores are unreliable"
    return [Finding("warning", "labels with under ten rows", len(rare), rare, remedy)]


def _counts(rows: pd.DataFrame, column: str) -> dict[str, int]:
    """Value -> rows, without the empty value."""
    if column not in rows:
        return {}
    return rows[column][rows[column] != ""].value_counts().to_dict()


# --- output ---


def as_text(diagnosis: Diagnosis) -> str:
    """The diagnosis for a terminal."""
    parts = [f"{diagnosis.source}: {diagnosis.utterances} utterances, {diagnosis.hours:.2f} h of audio"]
    if diagnosis.findings:
        lines = [
            [finding.severity, finding.problem, finding.count, ", ".join(finding.examples[:5])]
            for finding in diagnosis.findings
        ]
        parts.append(markdown_table(["", "problem", "rows", "such as"], lines))
        errors = [finding for finding in diagnosis.findings if finding.severity == "error"]
        parts += [f"{finding.problem}: {finding.remedy}." for finding in errors]
    if diagnosis.seconds:
        parts.append(markdown_table(["quantile", *diagnosis.seconds], [["seconds", *diagnosis.seconds.values()]]))
    if diagnosis.labels:
        parts.append(markdown_table(["label", "rows"], list(diagnosis.labels.items())))
    if diagnosis.suggestions:
        parts.append("suggested: " + ", ".join(f"{key}={value:g}" for key, value in diagnosis.suggestions.items()))
    if diagnosis.healthy:
        parts.append("training can start")
    else:
        parts.append("fix the errors before training")
    return "\n\n".join(parts)


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as JSON content."""
    return {**asdict(diagnosis), "healthy": diagnosis.healthy}


def as_html(diagnosis: Diagnosis, facts: np.ndarray) -> str:
    """The diagnosis as one HTML page with plots, which needs no other file.

    Args:
        diagnosis, facts: as [`examine`] returns them.
    """
    measured = facts[facts["duration"] > 0]
    pictures = {}
    if len(measured):
        pictures["Seconds per recording"] = _histogram(measured["duration"], "seconds")
        pictures["Level"] = _histogram(measured["level"].clip(min=-80.0), "dB relative to full scale")
    if diagnosis.labels:
        pictures["Rows per label"] = _bars(diagnosis.labels)
    if diagnosis.speakers:
        pictures["Rows per speaker"] = _histogram(list(diagnosis.speakers.values()), "rows of a speaker")
    return render("doctor.html.jinja", diagnosis=diagnosis, pictures=pictures)


def _histogram(values: Sequence[float] | np.ndarray, label: str) -> str:
    def draw(figure: Any):
        axes = figure.subplots()
        axes.hist(values, bins=40, color="#4477aa")
        axes.set(xlabel=label, ylabel="count")

    return figure_data_url(draw)


def _bars(counts: dict[str, int]) -> str:
    def draw(figure: Any):
        figure.subplots().barh(list(counts)[::-1], list(counts.values())[::-1], color="#4477aa")

    return figure_data_url(draw)
