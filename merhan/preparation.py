"""`merhan prepare`: a raw release -> 16 kHz FLAC beside a manifest, complete in itself.

    <out>/manifest.parquet    one row per utterance, audio relative to this folder
    <out>/audio/*.flac        mono, 16 kHz
    <out>/corpus.json         title, licence, citation, label table, what was left out and why
    <out>/failed.csv          recordings that could not be read, where there are any

Interrupted, it goes on where it stopped; run again, it does nothing. A recording that cannot be read is listed and left
out, never replaced by silence; a turn of a dialogue stays with its words.
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

from merhan.corpora import About, Corpus, read_corpus, room
from merhan.errors import InputError
from merhan.inspection import segment
from merhan.manifest import validate, write_manifest
from merhan.provenance import write_json
from merhan.report import markdown_table
from processing_merhan import SAMPLING_RATE, AudioError, load_audio


class Outcome(NamedTuple):
    """What came of one recording."""

    duration: float  # seconds, 0 without audio
    error: str  # empty = none
    made: bool  # whether a file was written now


def prepare(
    name: str,
    source: str | Path | None,
    out: Path,
    options: dict[str, Any] | None = None,
    strict: bool = False,
    workers: int | None = None,
) -> pd.DataFrame:
    """Read a corpus, write its audio and manifest, print what was found against what was published.

    Args:
        name: a reader of merhan/corpora.
        source: the raw release.
        out: folder to write.
        options: of the reader, and `label_map`.
        strict: make a difference from the published counts, if any are known, an error before anything is written.
        workers: recordings at a time, by default one per core.

    Raises:
        InputError: what the reader refuses; under `strict`, different counts; nothing left at all.
    """
    corpus = read_corpus(name, source, **(options or {}))
    about: About | None = getattr(room(name), "ABOUT", None)
    if about:
        print(reconciliation(corpus, about))
        if strict and (wrong := differences(corpus, about)):
            raise InputError(f"{source}: not the published counts: {'; '.join(wrong)}. Complete the release.")
    for note in corpus.notes:
        print(f"note: {note}")
    outcomes = convert(corpus.rows, out / "audio", workers)
    rows = finish(corpus.rows, outcomes, out)
    write_json(out / "corpus.json", description(corpus, about))
    made, failed = sum(one.made for one in outcomes), sum(bool(one.error) for one in outcomes)
    trouble = f", {failed} failed, see {out / 'failed.csv'}" if failed else ""
    print(f"{out / 'manifest.parquet'}: {len(rows)} utterances, {rows['duration'].sum() / 3600:.2f} h")
    print(f"{made} recordings written now, {len(rows) - made} were there{trouble}")
    return rows


def convert(rows: pd.DataFrame, folder: Path, workers: int | None = None) -> list[Outcome]:
    """Write every row's audio as FLAC unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = rows.reindex(columns=["utterance_id", "audio", "start", "end"])
    jobs = [(*row, folder) for row in columns.itertuples(index=False, name=None)]
    torch.set_num_threads(1)  # the recordings share the cores, not the steps of one
    # Threads suffice: decoding, resampling and encoding all release the interpreter's lock.
    return thread_map(_convert, jobs, max_workers=workers or os.cpu_count(), desc="writing audio", unit="file")


def _convert(job: tuple[str, str, float, float, Path]) -> Outcome:
    utterance, audio, start, end, folder = job
    if not audio:
        return Outcome(0.0, "", False)
    path = folder / f"{quote(utterance, safe='')}.flac"
    try:
        origin = _origin(Path(audio), start, end)
        if path.is_file() and (seconds := _duration(path, origin)):
            return Outcome(seconds, "", False)
        waveform = load_audio(audio, *segment(start, end), min_seconds=0.0)
    except (AudioError, OSError) as error:
        return Outcome(0.0, str(error), False)
    temporary = path.with_suffix(".part")
    with soundfile.SoundFile(temporary, "w", SAMPLING_RATE, channels=1, format="FLAC") as file:
        file.comment = origin
        file.write(waveform)
    temporary.replace(path)
    return Outcome(len(waveform) / SAMPLING_RATE, "", True)


def _origin(audio: Path, start: float, end: float) -> str:
    """What a FLAC was made of. Its own name says too little: a table's rows are numbered, and a line may go."""
    found = audio.stat()
    return f"{audio.name} {found.st_size} {found.st_mtime_ns} {start} {end}"


def _duration(path: Path, origin: str) -> float:
    """Seconds of a FLAC that was made of this; 0 for any other."""
    with soundfile.SoundFile(path) as file:
        return file.frames / file.samplerate if file.comment == origin else 0.0


def finish(rows: pd.DataFrame, outcomes: list[Outcome], out: Path) -> pd.DataFrame:
    """Write the manifest of what was read, and the list of what was not."""
    failed = pd.Series([bool(one.error) for one in outcomes], index=rows.index)
    errors = rows[["utterance_id", "audio"]].assign(error=[one.error for one in outcomes])[failed]
    if failed.all():
        raise InputError(f"{out}: no recording could be read; the first: {errors['error'].iloc[0]}")
    if failed.any():
        errors.to_csv(out / "failed.csv", index=False)
    else:
        (out / "failed.csv").unlink(missing_ok=True)
    heard = (rows["audio"] != "") & ~failed
    # A turn of a dialogue stays with its words: the turns after it answer them.
    spoken = (rows.get("dialogue", pd.Series("", rows.index)) != "") & (rows["text"] != "")
    path = rows["utterance_id"].map(lambda name: str(out / "audio" / f"{quote(name, safe='')}.flac"))
    rows = rows.assign(audio=path.where(heard, ""), duration=[one.duration for one in outcomes])
    rows = rows.drop(columns=["start", "end"], errors="ignore")[~failed | spoken].reset_index(drop=True)
    write_manifest(validate(rows, str(out), rows["label"]), out / "manifest.parquet")
    return rows


# --- found against published ---


def reconciliation(corpus: Corpus, about: About) -> str:
    """A table, word by word: our label, how many were published, how many are here, how many of these are left out."""
    labels = corpus.rows.groupby("source_label")["label"].unique()
    here, left_out = _counts(corpus)
    rows = [
        [word, "; ".join(sorted(labels.get(word, []))) or "-", about.published.get(word, 0), here[word], left_out[word]]
        for word in _words(corpus, about)
    ]
    rows.append(["all", "", *(sum(row[column] for row in rows) for column in (2, 3, 4))])
    header = ["word", "label", "published", "here", "left out"]
    if about.published:
        return f"{about.title} ({about.licence})\n\n{markdown_table(header, rows)}\n"
    table = markdown_table([*header[:2], *header[3:]], [[*row[:2], *row[3:]] for row in rows])
    return f"{about.title} ({about.licence})\n\n{table}\n\nno published counts are known, so nothing was compared\n"


def differences(corpus: Corpus, about: About) -> list[str]:
    """Words whose number is not the published one; none where no published counts are known."""
    if not about.published:
        return []
    here, _ = _counts(corpus)
    counts = [(word, here[word], about.published.get(word, 0)) for word in _words(corpus, about)]
    return [f"{word!r} {found} instead of {published}" for word, found, published in counts if found != published]


def _words(corpus: Corpus, about: About) -> list[str]:
    here, _ = _counts(corpus)
    return [*about.published, *sorted(set(here) - set(about.published))]


def _counts(corpus: Corpus) -> tuple[Counter, Counter]:
    """Utterances by the corpus's own word: all that are here, and those of them that are left out."""
    left_out = Counter(one.word for one in corpus.skipped if one.word)
    return Counter(corpus.rows["source_label"]) + left_out, left_out


def description(corpus: Corpus, about: About | None) -> dict[str, Any]:
    """What `corpus.json` says."""
    table = corpus.rows.groupby(["source_label", "label"]).size()
    known = about._asdict() if about else {}
    labels = [{"word": word, "label": label, "utterances": int(n)} for (word, label), n in table.items()]
    return {**known, "labels": labels, "left_out": corpus.notes}
