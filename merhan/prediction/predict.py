"""Scores for any number of utterances, by one process or several, in memory or in a file."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from accelerate import PartialState
from tqdm.auto import tqdm

from merhan.errors import InputError
from merhan.files import locked
from merhan.logs import get_logger, progress_is_visible
from merhan.models.inference import Speed, label_ids, weights_digest
from merhan.prediction.batches import read_windows
from merhan.prediction.inputs import Source, Utterance, fingerprint, open_sources
from merhan.prediction.result_files import Parts, require_suffix, result_table, with_abstentions
from merhan.prediction.scoring import score_windows
from merhan.prediction.transcription import Transcriber
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


logger = get_logger(__name__)

PART_ROWS = 256  # utterances that are written, and given to a process, together


class Predictor:
    """A model with its options.

    Args:
        batch_size: utterances per batch and process.
        min_score: answers whose highest score is lower are marked as abstentions, 0 to 1.
        speed: precision and loader workers.
        transcriber: finds the words of utterances that have none.
    """

    def __init__(
        self,
        model: MerhanForSequenceClassification,
        processor: MerhanProcessor,
        batch_size: int = 16,
        min_score: float = 0.0,
        speed: Speed | None = None,
        transcriber: Transcriber | None = None,
    ):
        if batch_size < 1:
            raise InputError(f"batch_size: {batch_size} is not a number of utterances; give 1 or more.")
        if speed is not None and speed.workers < 0:
            raise InputError(f"workers: {speed.workers} is not a number of processes; give 0 or more.")
        if not 0 <= min_score <= 1:
            raise InputError(f"min_score: {min_score} is not a score; give a number from 0 to 1.")
        self.model, self.processor = model, processor
        self.labels = list(label_ids(model))
        self.batch_size, self.min_score, self.speed = batch_size, min_score, speed or Speed()
        self.transcriber = transcriber

    def table(self, inputs: Any, columns: Mapping[str, str | None] | None = None, quiet: bool = False) -> pd.DataFrame:
        """The results of all inputs, see [`open_sources`], in memory.

        Args:
            quiet: no progress bar, and no warning about rows; for many small calls.

        Returns:
            One row per utterance: `utterance_id`, `prediction`, `score_<label>` per label, `given` (as `audio+text`),
            `seconds` of sound, `seconds_used` of them, `transcript` (what a recogniser heard, where there was no text;
            used if `given` names the text), `abstained`, and `error`, which leaves the others empty.
        """
        sources = self._open(inputs, columns)
        parts = _parts(sources)
        results = [row for _, rows in self._results(parts, sum(map(len, sources)), quiet) for row in rows]
        summary = _Summary()
        table = self._finished(result_table(results, self.labels), summary)
        if not quiet:
            summary.log()
        return table

    def file(
        self,
        inputs: Any,
        out: Path,
        columns: Mapping[str, str | None] | None = None,
        overwrite: bool = False,
    ):
        """Write the results to a file, in parts that outlive an interruption; every process of a launch takes its
        share of them.

        Args:
            out: a .parquet, .csv or .jsonl file.
            overwrite: replace a file that is there, and parts of another model or input.

        Raises:
            InputError: the file exists; its parts are of another model or input, or another process writes them.
        """
        require_suffix(out)
        parts = Parts(out)
        if out.exists() and not parts.folder.exists() and not overwrite:
            raise InputError(f"{out}: exists already; choose another name, or replace it with --overwrite.")
        with locked(parts.folder) if PartialState().is_main_process else nullcontext():
            sources = self._open(inputs, columns)
            done = self._open_parts(parts, sources, overwrite)
            self._write_parts(parts, sources, done)
            PartialState().wait_for_everyone()
            if PartialState().is_main_process:
                summary = _Summary()
                tables = (self._finished(parts.read(number), summary) for number in range(_count(sources)))
                parts.merge(tables, self.labels)
                summary.log()
                logger.info(f"results: {out} ({summary.counts['rows']} rows)")

    def _open(self, inputs: Any, columns: Mapping[str, str | None] | None) -> list[Source]:
        return open_sources(inputs, columns or {}, self.processor.context_turns)

    def _open_parts(self, parts: Parts, sources: Sequence[Source], overwrite: bool) -> set[int]:
        """The finished parts, after the check that they are of this model and input."""
        state = {"model": self._digest(), "input": fingerprint(sources), "rows": PART_ROWS}
        is_resumed = parts.state() == state
        if not is_resumed and not overwrite:
            _require_none(parts, state)  # in every process: one that failed alone would leave the others waiting
        PartialState().wait_for_everyone()
        if PartialState().is_main_process and not is_resumed:
            parts.begin(state)
        PartialState().wait_for_everyone()
        done = parts.finished()
        PartialState().wait_for_everyone()  # nobody writes before all have seen what is there
        if done:
            logger.info(f"{parts.folder}: {len(done)} of {_count(sources)} parts are there already")
        return done

    def _write_parts(self, parts: Parts, sources: Sequence[Source], done: set[int]):
        state = PartialState()
        missing = _missing(_parts(sources), done, state.process_index, state.num_processes)
        total = (_count(sources) - len(done)) * PART_ROWS // state.num_processes
        for number, rows in self._results(missing, min(total, sum(map(len, sources)))):
            parts.write(number, result_table(rows, self.labels))

    def _results(
        self, parts: Iterator[tuple[int, list[Utterance]]], total: int, quiet: bool = False
    ) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Numbered parts of an input -> their results, with a progress bar."""
        modalities = self.model.config.modalities
        if self.transcriber is not None:
            parts = self._with_words(parts, self.transcriber)
        windows = read_windows(parts, self.processor, modalities, self.batch_size, self.speed.workers)
        hidden = quiet or not (progress_is_visible() and PartialState().is_main_process)
        with tqdm(total=total, unit=" utterances", smoothing=0.05, disable=hidden) as bar:
            yield from score_windows(self.model, windows, self.speed.precision, bar.update)

    def _with_words(
        self, parts: Iterator[tuple[int, list[Utterance]]], transcriber: Transcriber
    ) -> Iterator[tuple[int, list[Utterance]]]:
        for number, part in parts:
            yield number, [transcriber.with_words(utterance, self.processor) for utterance in part]
        transcriber.log()

    def _finished(self, table: pa.Table, summary: "_Summary") -> pd.DataFrame:
        frame = with_abstentions(table, self.labels, self.min_score)
        summary.add(frame)
        return frame

    def _digest(self) -> str:
        """A hash of everything about the model that scores depend on."""
        digest = weights_digest(self.model)
        settings = [self.model.config.to_dict(), self.processor.to_dict(), str(self.speed.precision), self.batch_size]
        if self.transcriber is not None:
            settings.append([self.transcriber.name, self.transcriber.language])
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        return hashlib.blake2b(digest.digest(), digest_size=16).hexdigest()


def _parts(sources: Sequence[Source]) -> Iterator[tuple[int, list[Utterance]]]:
    """The utterances of all sources in numbered parts."""
    utterances = (utterance for source in sources for utterance in source)
    yield from enumerate(iter(lambda: list(islice(utterances, PART_ROWS)), []))


def _count(sources: Sequence[Source]) -> int:
    """The number of parts."""
    return -(-sum(map(len, sources)) // PART_ROWS)


def _missing(
    parts: Iterator[tuple[int, list[Utterance]]], done: set[int], process: int, processes: int
) -> Iterator[tuple[int, list[Utterance]]]:
    """The share of a process: every n-th part of those that are not there."""
    missing = (part for part in parts if part[0] not in done)
    yield from islice(missing, process, None, processes)


def _require_none(parts: Parts, state: Mapping[str, Any]):
    """Raise InputError if there are parts of another model or input."""
    recorded = parts.state()
    changed = [name for name in state if recorded and state[name] != recorded.get(name)]
    if changed:
        raise InputError(
            f"{parts.folder}: holds part of a result whose {' and '.join(changed)} differ from this call's (its "
            f"options count); start again with --overwrite, or choose another name."
        )


class _Summary:
    """What a user should know about the rows of a result."""

    def __init__(self):
        self.counts = dict.fromkeys(("rows", "errors", "cut", "abstained"), 0)
        self.first_error = ""

    def add(self, table: pd.DataFrame):
        """Count the rows of a part."""
        errors = table["error"].dropna().tolist()
        self.first_error = self.first_error or next(iter(errors), "")
        self.counts["rows"] += len(table)
        self.counts["errors"] += len(errors)
        self.counts["cut"] += int((table["seconds_used"] < table["seconds"]).sum())
        self.counts["abstained"] += int(table["abstained"].fillna(False).sum())

    def log(self):
        """Say what has an error, and what was left out."""
        counts = self.counts
        if counts["errors"]:
            logger.warning(f"{counts['errors']} of {counts['rows']} rows have an error, the first: {self.first_error}")
        if counts["cut"]:
            logger.warning(
                f"{counts['cut']} of {counts['rows']} rows have more sound than the model reads, and only its middle "
                f"counts (compare `seconds` and `seconds_used`); `merhan timeline` scores all of a recording"
            )
        if counts["abstained"]:
            logger.info(f"{counts['abstained']} of {counts['rows']} rows are below the lowest score, and abstained")
