"""Robustness: scores under noise, wrong words, and missing or mismatched modalities."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from accelerate import PartialState

from merhan.data.augmentation import BABBLE_VOICES, NOISES
from merhan.data.loading import Data
from merhan.data.manifest import has_modality
from merhan.evaluation.comparison import compare, read_system
from merhan.evaluation.evaluate import evaluate_split
from merhan.evaluation.report import bullet_list
from merhan.evaluation.report_charts import robustness_chart, robustness_curves
from merhan.evaluation.run_description import header_facts, model_source
from merhan.files import write_json, write_text
from merhan.logs import progress
from merhan.names import MODALITIES, SCORES
from merhan.recipe.schema import AugmentationRecipe, NoiseRecipe, RoomRecipe, TranscriptNoiseRecipe
from merhan.reporting.markdown_tables import Markdown, escape_markdown, format_score, interval_note, markdown_table
from merhan.reporting.matplotlib_plots import plot_robustness
from merhan.reporting.pages import render
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


SNRS = (20.0, 15.0, 10.0, 5.0, 0.0)  # dB

ERROR_RATES = (0.1, 0.2, 0.3, 0.4)

REVERBERATION = 0.8  # seconds until the response has decayed by 60 dB

AXES = {"SNR": "signal-to-noise ratio, dB", "WER": "word error rate"}

# Descriptions of the conditions whose name contains the key.
NOTES = {
    "noise": "Noise is added at a ratio of the mean power of the utterance to that of the noise. The noise is "
    f"synthetic; babble is {BABBLE_VOICES} other utterances of the split at once. An utterance gets the same noise at "
    "every ratio.",
    "telephone": "The audio is band-pass filtered to 300 to 3400 Hz.",
    "room": f"Synthetic reverberation that decays by 60 dB in {REVERBERATION} s, with the energy of the direct sound.",
    "word errors": "The share of words that are wrong: half of them are deleted, the others are replaced.",
    "alone": "The other modality is missing.",
    "foreign": "That modality is taken from another utterance, by a fixed derangement; the label is that of the other "
    "modality.",
}


class Condition(NamedTuple):
    """One way to corrupt a split."""

    name: str | None  # None for the clean split; with hyphens in place of spaces it is part of the folder's name
    axis: str | None = None  # a key of `AXES`, if the condition is one of several levels
    family: str = ""  # the line of the plot that it belongs to
    level: float = 0.0  # position on its axis
    corruption: dict[str, Any] = {}  # arguments of EmotionDataset
    foreign: str | None = None  # the modality that is taken from another utterance


def conditions_for(modalities: Sequence[str], raw: Sequence[str]) -> list[Condition]:
    """All conditions that apply to a model; the first is the clean split.

    Args:
        modalities: what the model reads.
        raw: the modalities that it reads as audio or text, in contrast to precomputed features, which cannot be
            corrupted.
    """
    conditions = [Condition(None)]
    if "audio" in raw:
        conditions += [_noise_condition(kind, snr) for kind in NOISES for snr in SNRS]
        conditions.append(Condition("telephone", corruption={"augmentation": AugmentationRecipe(telephone=1.0)}))
        reverberation = RoomRecipe([REVERBERATION, REVERBERATION], probability=1.0)
        conditions.append(Condition("room", corruption={"augmentation": AugmentationRecipe(room=reverberation)}))
    if "text" in raw:
        conditions += [_word_error_condition(rate) for rate in ERROR_RATES]
    if len(modalities) > 1:
        conditions += [Condition(name) for name in modalities]
        conditions += [Condition(f"foreign {name}", foreign=name) for name in modalities]
    return conditions


def _noise_condition(kind: str, snr: float) -> Condition:
    recipe = AugmentationRecipe(noise=NoiseRecipe([snr, snr], [kind], probability=1.0))
    return Condition(f"{kind} noise {snr:g} dB", "SNR", kind, snr, {"augmentation": recipe})


def _word_error_condition(rate: float) -> Condition:
    recipe = TranscriptNoiseRecipe([rate, rate])
    return Condition(f"word errors {rate:g}", "WER", "words", rate, {"transcript_noise": recipe})


def evaluate_robustness(
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    data: Data,
    split: str,
    folder: Path,
    conditions: Sequence[Condition] | None = None,
    batch_size: int = 16,
) -> list[dict[str, Any]]:
    """Evaluate a split under every condition, and write `robustness.md`, `.json`, `.png` and `.html`.

    A condition whose folder holds the result of the same weights on the same rows is not evaluated again.

    Args:
        folder: the evaluation folder; every condition gets a folder in it.
        conditions: the first of them clean; by default all that apply to the model.
        batch_size: utterances per batch.

    Returns:
        One row per condition: `condition, axis, family, level, folder, n`, the scores with `intervals`, and `change`,
        the difference in UAR from the clean condition on the same rows as `value, low, high` (bounds if there are
        intervals; None for the clean condition).
    """
    conditions = conditions or conditions_for(model.config.modalities, processor.modalities)
    results = []
    is_main = PartialState().is_main_process
    bar = progress(conditions, desc="robustness", unit="condition", disable=not is_main)
    for condition in bar:
        bar.set_postfix_str(condition.name or "clean")
        corrupted = data
        if condition.foreign is not None:
            corrupted = data._replace(rows=swap_modality(data.rows, split, condition.foreign))
        inputs = (model, processor, corrupted, split, folder, condition.name, batch_size)
        results.append(evaluate_split(*inputs, reuse=True, **condition.corruption))
    rows = [_result_row(*pair, results[0], folder) for pair in zip(conditions, results, strict=True)]
    if is_main:
        write_robustness(rows, results[0], folder, model_source(model, folder.parent).name)
    return rows


def swap_modality(rows: pd.DataFrame, split: str, modality: str, seed: int = 0) -> pd.DataFrame:
    """Exchange one modality between the rows of a split that have both, so that no row keeps its own.

    Args:
        rows: a manifest.
        split: the split whose rows are changed.
        modality: `audio` or `text`, the one that is exchanged.
        seed: seed of the cycle along which it is passed on.
    """
    columns = {"audio": ["audio", "start", "end", "duration"], "text": ["text"]}[modality]
    columns = [column for column in [*columns, f"{modality}_features"] if column in rows]
    both = np.flatnonzero((rows["split"] == split) & has_modality(rows, "audio") & has_modality(rows, "text"))
    cycle = np.random.default_rng(seed).permutation(both)
    source = np.arange(len(rows))
    source[cycle] = np.roll(cycle, 1)
    return rows.assign(**{column: rows[column].array[source] for column in columns})


def _result_row(condition: Condition, metrics: dict[str, Any], clean: dict[str, Any], folder: Path) -> dict[str, Any]:
    level = change = None
    if condition.axis:
        level = condition.level
    if metrics is not clean:
        change = _change(folder, clean, metrics)
    return {
        "condition": _display_name(condition),
        "axis": condition.axis,
        "family": condition.family,
        "level": level,
        **{key: metrics[key] for key in ("folder", "n", *SCORES, "intervals")},
        "change": change,
    }


def _display_name(condition: Condition) -> str:
    if condition.name in MODALITIES:
        return f"{condition.name} alone"
    return condition.name or "clean"


def _change(folder: Path, clean: dict[str, Any], corrupted: dict[str, Any]) -> dict[str, float]:
    """The paired difference in UAR, over the rows that both evaluations have."""
    first, second = (read_system(folder / metrics["folder"]) for metrics in (clean, corrupted))
    shared = first.predictions["utterance_id"].isin(second.predictions["utterance_id"])
    first = first._replace(predictions=first.predictions[shared].reset_index(drop=True))
    differences = compare([first, second], resamples=1000)
    uar = next(difference for difference in differences if difference.score == "uar")
    change = {"value": uar.value}
    if corrupted["intervals"]:
        change |= {"low": uar.low, "high": uar.high}
    return change


def write_robustness(rows: list[dict[str, Any]], clean: dict[str, Any], folder: Path, name: str):
    """Write the results of all conditions as JSON, Markdown, PNG and HTML.

    Args:
        rows: as [`evaluate_robustness`] returns them.
        clean: metrics of the clean split.
        folder: the evaluation folder.
        name: of the model.
    """
    summary = {key: clean[key] for key in ("split", "protocol", "labels", "interval_clusters")}
    write_json(folder / "robustness.json", summary | {"conditions": rows})
    curves, chance = robustness_curves(rows, AXES), 1 / len(clean["labels"])
    plot_robustness(curves, rows, chance, folder / "robustness.png")
    title = f"Robustness on the {clean['split']} split"
    if name:
        title = f"{name}: robustness on the {clean['split']} split"
    header, notes = header_facts(name, clean), _notes(rows)
    write_text(folder / "robustness.md", _markdown_report(title, header, notes, rows, clean))
    page = render(
        "robustness.html.jinja",
        title=title,
        header=header,
        clean=clean,
        rows=rows,
        charts=[robustness_chart(curve, clean["uar"], chance) for curve in curves],
        notes=notes,
        interval_note=interval_note(clean),
    )
    write_text(folder / "robustness.html", page)


def _notes(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The descriptions of the conditions that were evaluated."""
    return {key: note for key, note in NOTES.items() if any(key in row["condition"] for row in rows)}


def _markdown_report(
    title: str,
    header: dict[str, str],
    notes: dict[str, str],
    rows: Sequence[dict[str, Any]],
    clean: dict[str, Any],
) -> str:
    parts = [
        f"# {title}",
        bullet_list([f"{key}: {value}" for key, value in header.items() if value]),
        f"{interval_note(clean)} The change is against the clean condition, paired on the same rows.",
        "![UAR under every condition](robustness.png)",
        robustness_table(rows),
        bullet_list([Markdown(f"**{escape_markdown(key)}**: {escape_markdown(note)}") for key, note in notes.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def robustness_table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table with one row per condition."""
    lines = [
        [row["condition"], row["n"], format_score(row, "war"), format_score(row, "uar"), _format_change(row["change"])]
        for row in rows
    ]
    return markdown_table(["condition", "n", "WAR", "UAR", "change of UAR"], lines)


def _format_change(change: dict[str, float] | None) -> str:
    """`-0.112 [-0.150, -0.071]`, without bounds if there are none; empty for the clean condition."""
    if change is None:
        return ""
    text = f"{change['value']:+.3f}"
    if "low" in change:
        text += f" [{change['low']:+.3f}, {change['high']:+.3f}]"
    return text
