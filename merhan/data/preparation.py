"""`merhan prepare`: convert a raw release to 16 kHz FLAC files and a manifest in one folder.

    <out>/manifest.parquet    one row per utterance, paths relative to this folder
    <out>/audio/*.flac        mono, 16 kHz
    <out>/corpus.json         title, licence, citation, label table, labels outside of the vocabulary, and what was left
                              out with the reason
    <out>/failed.csv          recordings that could not be read, if there are any

An interrupted conversion is resumed by the same call; a finished one is not repeated. A recording that cannot be read
is listed and left out, never replaced by silence; the row stays if it has text or feature vectors.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd
import soundfile
import torch
from tqdm.contrib.concurrent import thread_map

from merhan.data.audio_facts import segment_bounds
from merhan.data.corpora.base import About, Corpus, corpus_reader, read_corpus
from merhan.data.manifest import has_modality, validate, write_manifest
from merhan.errors import InputError
from merhan.files import atomic_path, remove_leftovers, write_json
from merhan.logs import get_logger, progress_is_visible
from merhan.names import VOCABULARY
from merhan.reporting.markdown_tables import markdown_table
from processing_merhan import SAMPLING_RATE, AudioError, load_audio


logger = get_logger(__name__)


class Prepared(NamedTuple):
    """A prepared corpus."""

    rows: pd.DataFrame  # of the manifest, with full paths
    recordings: int  # number of rows that named a recording
    failed: int  # number of those whose recording could not be read


class Outcome(NamedTuple):
    """The result of converting one recording."""

    duration: float  # seconds, 0 without audio
    error: str  # empty = none
    written: bool  # whether the file was written by this call


def prepare(
    name: str,
    source: str | Path | None,
    out: Path,
    options: dict[str, Any] | None = None,
    strict: bool = False,
    workers: int | None = None,
) -> Prepared:
    """Convert a corpus to audio files and a manifest, and log its label counts beside the published ones.

    Args:
        name: a reader of merhan.data.corpora.
        source: the raw release.
        out: folder to write.
        options: options of the reader, `label_map` and `own_labels`.
        strict: whether counts that differ from the published ones are an error. It is raised before anything is
            written. A corpus without published counts is accepted.
        workers: number of recordings that are converted at a time, by default one per core.

    Raises:
        InputError: see [`read_corpus`]; or `strict` and different counts; or no recording can be read.
    """
    corpus = read_corpus(name, source, **(options or {}))
    about: About | None = getattr(corpus_reader(name), "ABOUT", None)
    if about:
        logger.info(count_table(corpus, about))
        different = differences(corpus, about)
        if strict and different:
            raise InputError(f"{source}: not the published counts: {'; '.join(different)}. Complete the release.")
    for note in corpus.notes:
        logger.info(f"note: {note}")
    outcomes = convert(corpus.rows, out / "audio", workers)
    rows = write_results(corpus.rows, outcomes, out)
    write_json(out / "corpus.json", description(corpus, about))
    recordings, failed = int((corpus.rows["audio"] != "").sum()), sum(bool(outcome.error) for outcome in outcomes)
    _log_summary(rows, outcomes, recordings, failed, out)
    return Prepared(rows, recordings, failed)


def _log_summary(rows: pd.DataFrame, outcomes: list[Outcome], recordings: int, failed: int, out: Path):
    written = sum(outcome.written for outcome in outcomes)
    summary = f"{written} recordings written, {recordings - written - failed} existed already"
    if failed:
        rest = len(rows) - len(outcomes) + failed
        summary += f", {failed} failed ({rest} of their rows stay, with their words), see {out / 'failed.csv'}"
    if recordings < len(outcomes):
        summary += f", {len(outcomes) - recordings} rows have no recording"
    logger.info(f"{out / 'manifest.parquet'}: {len(rows)} utterances, {rows['duration'].sum() / 3600:.2f} h")
    logger.info(summary)


# --- audio ---


def convert(rows: pd.DataFrame, folder: Path, workers: int | None = None) -> list[Outcome]:
    """Write the audio of every row as FLAC, unless the file exists already.

    Args:
        rows: a manifest with full paths.
        folder: where to write `<utterance_id>.flac`.
        workers: number of recordings at a time, by default one per core.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    columns = rows.reindex(columns=["utterance_id", "audio", "start", "end"])
    jobs = [(*row, folder) for row in columns.itertuples(index=False, name=None)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the cores are shared out over recordings, not within one
    try:
        # Threads are enough: decoding, resampling and encoding release the interpreter's lock.
        return thread_map(
            _convert,
            jobs,
            max_workers=workers or os.cpu_count(),
            desc="writing audio",
            unit="file",
            disable=not progress_is_visible(),
        )
    finally:
        torch.set_num_threads(threads)


def _convert(job: tuple[str, str, float, float, Path]) -> Outcome:
    utterance, audio, start, end, folder = job
    if not audio:
        return Outcome(0.0, "", False)
    path = _flac_path(folder, utterance)
    try:
        origin = _origin(Path(audio), start, end)
        seconds = _existing_duration(path, origin)
        if seconds:
            return Outcome(seconds, "", False)
        waveform = load_audio(audio, *segment_bounds(start, end), min_seconds=0.0)
    except (AudioError, OSError) as error:
        return Outcome(0.0, str(error), False)
    with atomic_path(path) as temporary, soundfile.SoundFile(temporary, "w", SAMPLING_RATE, channels=1) as file:
        file.comment = origin
        file.write(waveform)
    return Outcome(len(waveform) / SAMPLING_RATE, "", True)


def _flac_path(folder: Path, utterance: str) -> Path:
    return folder / f"{quote(utterance, safe='')}.flac"


def _origin(audio: Path, start: float, end: float) -> str:
    """Identifies the source of a FLAC file, and is stored in it as a comment.

    The file's own name does not suffice: rows of a table without ids are numbered, so that the name of a recording
    changes when a line before it is removed.
    """
    status = audio.stat()
    return f"{audio.name} {status.st_size} {status.st_mtime_ns} {start} {end}"


def _existing_duration(path: Path, origin: str) -> float:
    """Seconds of a FLAC file that was converted from this source before; 0 if there is none."""
    if not path.is_file():
        return 0.0
    with soundfile.SoundFile(path) as file:
        if file.comment != origin:
            return 0.0
        return file.frames / file.samplerate


# --- results ---


def write_results(rows: pd.DataFrame, outcomes: list[Outcome], out: Path) -> pd.DataFrame:
    """Write `manifest.parquet` with the converted rows and `failed.csv` with the others.

    Args:
        rows: the rows of the corpus.
        outcomes: the result of each row's conversion.
        out: the folder of the prepared corpus.

    Returns:
        the rows of the manifest, with full paths.

    Raises:
        InputError: no recording could be read.
    """
    failed = pd.Series([bool(outcome.error) for outcome in outcomes], index=rows.index)
    _write_failures(rows, outcomes, failed, out)
    converted = (rows["audio"] != "") & ~failed
    paths = rows["utterance_id"].map(lambda name: str(_flac_path(out / "audio", name)))
    rows = rows.assign(audio=paths.where(converted, ""), duration=[outcome.duration for outcome in outcomes])
    readable = has_modality(rows, "audio") | has_modality(rows, "text")
    rows = rows.drop(columns=["start", "end"], errors="ignore")[readable].reset_index(drop=True)
    write_manifest(validate(rows, str(out), rows["label"]), out / "manifest.parquet")
    return rows


def _write_failures(rows: pd.DataFrame, outcomes: list[Outcome], failed: pd.Series, out: Path):
    if not failed.any():
        (out / "failed.csv").unlink(missing_ok=True)
        return
    errors = rows[["utterance_id", "audio"]].assign(error=[outcome.error for outcome in outcomes])[failed]
    errors.to_csv(out / "failed.csv", index=False)
    if failed.sum() == (rows["audio"] != "").sum():
        hint = ""
        if not any(Path(path).is_file() for path in errors["audio"]):
            hint = " No recording exists: name the folder that paths are relative to with `--option root=...`."
        raise InputError(f"{out}: no recording could be read; the first: {errors['error'].iloc[0]}{hint}")


def description(corpus: Corpus, about: About | None) -> dict[str, Any]:
    """The content of `corpus.json`."""
    counts = corpus.rows.groupby(["source_label", "label"]).size()
    labels = [{"word": word, "label": label, "utterances": int(n)} for (word, label), n in counts.items()]
    content: dict[str, Any] = {}
    if about:
        content |= about._asdict()
    own_labels = sorted(set(corpus.rows["label"]) - {*VOCABULARY, ""})
    return content | {"labels": labels, "own_labels": own_labels, "left_out": corpus.notes}


# --- comparison with the published counts ---


def count_table(corpus: Corpus, about: About) -> str:
    """A table with one row per source label: our label, and how many were published, read and left out."""
    labels = corpus.rows.groupby("source_label")["label"].unique()
    read, left_out = _counts(corpus)
    header = ["source label", "label", "published", "read", "left out"]
    rows: list[list[Any]] = []
    for word in _source_labels(corpus, about):
        names = "; ".join(sorted(labels.get(word, []))) or "-"
        rows.append([word, names, about.published.get(word, 0), read[word], left_out[word]])
    rows.append(["all", "", *(sum(row[column] for row in rows) for column in (2, 3, 4))])
    title = f"{about.title} ({about.licence})"
    if about.published:
        return f"{title}\n\n{markdown_table(header, rows)}\n"
    table = markdown_table(_without_published(header), [_without_published(row) for row in rows])
    return f"{title}\n\n{table}\n\nno published counts are known, so nothing was compared\n"


def _without_published(cells: list[Any]) -> list[Any]:
    return [*cells[:2], *cells[3:]]


def differences(corpus: Corpus, about: About) -> list[str]:
    """Source labels whose count differs from the published one; none if no published counts are known."""
    if not about.published:
        return []
    read, _ = _counts(corpus)
    different = []
    for word in _source_labels(corpus, about):
        published = about.published.get(word, 0)
        if read[word] != published:
            different.append(f"{word!r} {read[word]} instead of {published}")
    return different


def _source_labels(corpus: Corpus, about: About) -> list[str]:
    """The published source labels, and then the other ones that were read."""
    read, _ = _counts(corpus)
    return [*about.published, *sorted(set(read) - set(about.published))]


def _counts(corpus: Corpus) -> tuple[Counter[str], Counter[str]]:
    """Source label -> utterances: all that were read, and those of them that were left out."""
    left_out = Counter(skipped.source_label for skipped in corpus.skipped if skipped.source_label)
    return Counter(corpus.rows["source_label"]) + left_out, left_out
