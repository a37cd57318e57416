"""How much of its score a model keeps when sound is noisy, words are wrong, or a modality is missing or another's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from accelerate import PartialState
from tqdm.auto import tqdm

from merhan.augmentation import (
    BABBLE_VOICES,
    NOISES,
    AugmentationRecipe,
    NoiseRecipe,
    RoomRecipe,
    TranscriptNoiseRecipe,
)
from merhan.comparison import compare, read_system
from merhan.dataset import Data
from merhan.evaluation import MODALITIES, evaluate_split
from merhan.manifest import has
from merhan.metrics import SCORES
from merhan.pages import render
from merhan.provenance import write_json
from merhan.report import interval_note, markdown_table, with_interval
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


SNRS = (20.0, 15.0, 10.0, 5.0, 0.0)  # dB
ERROR_RATES = (0.1, 0.2, 0.3, 0.4)
ROOM = 0.8  # seconds of reverberation
AXES = {"SNR": "signal-to-noise ratio, dB", "WER": "word error rate"}

# What is said of the conditions whose name holds the key.
NOTES = {
    "noise": "The ratio is that of the powers of the whole utterance and of the noise, which is made here; babble is "
    f"{BABBLE_VOICES} other utterances of the split at once. At every ratio an utterance gets the same noise.",
    "telephone": "300 to 3400 Hz alone.",
    "room": f"A synthetic response that decays by 60 dB in {ROOM} s, of the direct sound's energy.",
    "word errors": "The share of words that are wrong. Half of them are lost, for the rest stand others.",
    "alone": "The other modality is missing.",
    "foreign": "That modality is another utterance's, by a fixed derangement; the label is that of the other modality.",
}


class Condition(NamedTuple):
    """One way to spoil a split."""

    name: str | None  # None: as it is. With hyphens for blanks it names the folder, `<split>--<name>`
    axis: str | None = None  # of `AXES`, where it is one of several levels
    family: str = ""  # which line of the picture it stands on
    level: float = 0.0  # where on its axis
    spoil: dict[str, Any] = {}  # arguments of EmotionDataset
    foreign: str | None = None  # the modality that is another utterance's


def conditions_for(modalities: Sequence[str], raw: Sequence[str]) -> list[Condition]:
    """All that make sense for a model of these modalities, first of them none.

    Args:
        raw: those of them that are read as sound or words; noise cannot reach features that are the data's own.
    """
    found = [Condition(None)]
    if "audio" in raw:
        found += [_noisy(kind, snr) for kind in NOISES for snr in SNRS]
        found.append(Condition("telephone", spoil={"augmentation": AugmentationRecipe(telephone=1.0)}))
        room = AugmentationRecipe(room=RoomRecipe([ROOM, ROOM], probability=1.0))
        found.append(Condition("room", spoil={"augmentation": room}))
    if "text" in raw:
        found += [_misheard(rate) for rate in ERROR_RATES]
    if len(modalities) > 1:
        found += [Condition(name) for name in modalities]
        found += [Condition(f"foreign {name}", foreign=name) for name in modalities]
    return found


def _noisy(kind: str, snr: float) -> Condition:
    recipe = AugmentationRecipe(noise=NoiseRecipe([snr, snr], [kind], probability=1.0))
    return Condition(f"{kind} noise {snr:g} dB", "SNR", kind, snr, {"augmentation": recipe})


def _misheard(rate: float) -> Condition:
    return Condition(
        f"word errors {rate:g}", "WER", "words", rate, {"transcript_noise": TranscriptNoiseRecipe([rate, rate])}
    )


def sweep(
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
        folder: the evaluation folder, which gets a folder per condition.
        conditions: the first of them unspoilt; by default all that the model can be given.

    Returns:
        One row per condition: its `condition, axis, family, level, folder, n`, the scores with `intervals`, and
        `change`, the UAR's `value, low, high` over the unspoilt one's on the same rows (bounds where there are
        intervals).
    """
    conditions = conditions or conditions_for(model.config.modalities, processor.modalities)
    found = []
    bar = tqdm(conditions, desc="robustness", unit="condition", disable=not PartialState().is_main_process)
    for condition in bar:
        bar.set_postfix_str(condition.name or "clean")
        rows = data.rows if condition.foreign is None else mismatched(data.rows, split, condition.foreign)
        given = (model, processor, data._replace(rows=rows), split, folder, condition.name, batch_size)
        found.append(evaluate_split(*given, again=False, **condition.spoil))
    rows = [_row(*pair, found[0], folder) for pair in zip(conditions, found, strict=True)]
    if PartialState().is_main_process:
        write_sweep(rows, found[0], folder)
    return rows


def mismatched(rows: pd.DataFrame, split: str, modality: str, seed: int = 0) -> pd.DataFrame:
    """Rows of which those of a split that have both modalities have swapped one: none keeps its own.

    Args:
        modality: `audio` or `text`, the one that goes to another row.
        seed: of the one cycle that they are passed on in.
    """
    columns = [*{"audio": ["audio", "start", "end", "duration"], "text": ["text"]}[modality], f"{modality}_features"]
    both = np.flatnonzero((rows["split"] == split) & has(rows, "audio") & has(rows, "text"))
    cycle = np.random.default_rng(seed).permutation(both)
    source = np.arange(len(rows))
    source[cycle] = np.roll(cycle, 1)
    return rows.assign(**{column: rows[column].array[source] for column in columns if column in rows})


def _row(condition: Condition, metrics: dict[str, Any], clean: dict[str, Any], folder: Path) -> dict[str, Any]:
    name = f"{condition.name} alone" if condition.name in MODALITIES else condition.name or "clean"
    level = condition.level if condition.axis else None
    scores = {key: metrics[key] for key in ("folder", "n", *SCORES, "intervals")}
    change = None if metrics is clean else _change(folder, clean, metrics)
    return {
        "condition": name,
        "axis": condition.axis,
        "family": condition.family,
        "level": level,
        **scores,
        "change": change,
    }


def _change(folder: Path, clean: dict[str, Any], spoilt: dict[str, Any]) -> dict[str, float]:
    """The paired difference in UAR, over the rows that both have."""
    systems = [read_system(folder / metrics["folder"]) for metrics in (clean, spoilt)]
    kept = systems[0].predictions["utterance_id"].isin(systems[1].predictions["utterance_id"])
    systems[0] = systems[0]._replace(predictions=systems[0].predictions[kept].reset_index(drop=True))
    uar = next(one for one in compare(systems, resamples=1000) if one.score == "uar")
    bounds = {"low": uar.low, "high": uar.high} if spoilt["intervals"] else {}
    return {"value": uar.value, **bounds}


def write_sweep(rows: list[dict[str, Any]], clean: dict[str, Any], folder: Path):
    """Table, figures, picture and page.

    Args:
        clean: metrics of the unspoilt split.
        folder: the evaluation folder.
    """
    protocol = clean["protocol"]
    shown = {key: clean[key] for key in ("split", "protocol", "labels", "interval_clusters")}
    write_json(folder / "robustness.json", shown | {"conditions": rows})
    charts = _charts(rows)
    draw(charts, rows, len(clean["labels"]), folder / "robustness.png")
    notes = {key: note for key, note in NOTES.items() if any(key in row["condition"] for row in rows)}
    listed = "\n".join(f"* **{name}**: {note}" for name, note in notes.items())
    (folder / "robustness.md").write_text(f"""# Robustness of the {clean["split"]} split

Protocol `{protocol["name"]}` version {protocol["version"]} (hash `{protocol.get("hash", "none")}`).
{clean["n"]} utterances. {interval_note(clean)} The change is the UAR's over the clean one, paired on the same rows.

![UAR under every condition](robustness.png)

{table(rows)}

{listed}
""")
    page = render(
        "robustness.html.jinja", clean=clean, rows=rows, charts=charts, notes=notes, note=interval_note(clean)
    )
    (folder / "robustness.html").write_text(page)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line per condition."""
    lines = [
        [row["condition"], row["n"], with_interval(row, "war"), with_interval(row, "uar"), signed(row["change"])]
        for row in rows
    ]
    return markdown_table(["condition", "n", "WAR", "UAR", "change of UAR"], lines)


def signed(change: dict[str, float] | None) -> str:
    """`-0.112 [-0.150, -0.071]`."""
    if change is None:
        return ""
    return f"{change['value']:+.3f}" + (f" [{change['low']:+.3f}, {change['high']:+.3f}]" if "low" in change else "")


def _charts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One for each axis: its name, its levels from clean to the harshest, and the UAR at each by family."""
    found = []
    for axis, title in AXES.items():
        there = [row for row in rows if row["axis"] == axis]
        levels = list(dict.fromkeys(f"{row['level']:g}" for row in there))
        families = dict.fromkeys(row["family"] for row in there)
        lines = {name: [rows[0]["uar"], *(row["uar"] for row in there if row["family"] == name)] for name in families}
        if there:
            found.append({"title": title, "levels": ["clean", *levels], "lines": lines})
    return found


def draw(charts: list[dict[str, Any]], rows: list[dict[str, Any]], num_labels: int, path: Path):
    """UAR against the ratio of signal to noise and the word error rate, and as bars where there is one level."""
    from matplotlib import pyplot

    clean, bars = rows[0]["uar"], [row for row in rows[1:] if row["axis"] is None]
    panels = len(charts) + bool(bars)
    figure, axes = pyplot.subplots(
        1, panels, figsize=(4 * panels, 3.6), layout="constrained", squeeze=False, sharey=True
    )
    for chart, panel in zip(charts, axes[0], strict=False):
        for (name, scores), marker in zip(chart["lines"].items(), "osD^", strict=False):
            panel.plot(range(len(scores)), scores, marker=marker, label=name)
        panel.set_xticks(range(len(chart["levels"])), chart["levels"])
        panel.set_xlabel(chart["title"])
    if bars:
        axes[0, -1].bar(
            [row["condition"].replace(" ", "\n") for row in bars], [row["uar"] for row in bars], color="0.6"
        )
        axes[0, -1].tick_params(axis="x", labelsize="small")
    for panel in axes[0]:
        panel.axhline(clean, color="0.3", linestyle="--", linewidth=1, label="clean")
        panel.axhline(1 / num_labels, color="0.3", linestyle=":", linewidth=1, label="chance")
    axes[0, 0].set(ylim=(0, 1.04), ylabel="UAR")
    axes[0, 0].legend(fontsize="small", loc="lower left")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
