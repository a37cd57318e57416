"""Tables and pictures from figures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.metrics import ConfusionMatrixDisplay

from merhan.corpora import CORPORA, room
from merhan.history import Stage, stages_of
from merhan.inspection import segment
from merhan.metrics import FEWEST_CLUSTERS, SCORES
from merhan.pages import render, sound
from processing_merhan import load_audio


matplotlib.use("Agg")  # no screen is needed, and none is asked for

TITLES = {"war": "WAR", "uar": "UAR", "macro_f1": "macro F1", "weighted_f1": "weighted F1"}


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A GitHub table; the first column stands left, the others right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (header, rule, *rows))


def with_interval(metrics: Mapping[str, Any], score: str) -> str:
    """`0.612 [0.580, 0.645]`."""
    bounds = metrics["intervals"].get(score)
    return f"{metrics[score]:.3f}" + (f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "")


def interval_note(metrics: Mapping[str, Any]) -> str:
    """What the brackets say, or why there are none."""
    clusters = metrics["interval_clusters"]
    if metrics["intervals"]:
        return f"In brackets: 95 % intervals, bootstrap over {clusters}."
    return f"Without intervals: fewer than {FEWEST_CLUSTERS} {clusters} say too little of others."


def scores_table(named: Mapping[str, Mapping[str, Any]], first: str = "given") -> str:
    """One row per condition or run, the four scores with their intervals."""
    rows = [[name, found["n"], *(with_interval(found, score) for score in SCORES)] for name, found in named.items()]
    return markdown_table([first, "n", *(TITLES[score] for score in SCORES)], rows)


def class_table(metrics: Mapping[str, Any]) -> str:
    """One row per class: precision, recall, F1, support."""
    columns = metrics["per_class"]
    rows = [
        [
            label,
            *(f"{columns[name][number]:.3f}" for name in ("precision", "recall", "f1")),
            columns["support"][number],
        ]
        for number, label in enumerate(metrics["labels"])
    ]
    return markdown_table(["class", "precision", "recall", "F1", "support"], rows)


def write_page(metrics: Mapping[str, Any], predictions: pd.DataFrame, rows: pd.DataFrame, run: Path, path: Path):
    """The same for a browser, with groups, mistakes to listen to, curves, cost, and where the run comes from.

    Complete in itself: one file that asks nothing of any host.

    Args:
        rows: the manifest's, in the order of `predictions`; their sound is played where the corpus may be passed on.
        run: folder whose stages, `provenance.json` and `command.txt` are shown, where they are.
    """
    logits = np.stack(predictions["logits"]) / predictions["temperature"].to_numpy()[:, None]
    chances = softmax(logits, axis=1).max(axis=1)
    wrong = predictions["label"] != predictions["prediction"]
    worst = predictions.assign(confidence=chances)[wrong].nlargest(10, "confidence")
    said = rows.loc[worst.index].reindex(columns=["corpus", "audio", "start", "end", "text"]).to_dict("records")
    alone = metrics["condition"]  # what is not given is not shown either
    mistakes = [
        {
            **mistake,
            "text": "" if alone == "audio" else row["text"] or "",
            "sound": None if alone == "text" else _playable(row),
        }
        for mistake, row in zip(worst.to_dict("records"), said, strict=True)
    ]
    provenance, command = run / "provenance.json", run / "command.txt"
    page = render(
        "report.html.jinja",
        metrics=metrics,
        interval_note=interval_note(metrics),
        protocol=metrics["protocol"],
        titles=TITLES,
        mistakes=mistakes,
        votes_note=votes_note(metrics),
        temperature=temperatures_note(metrics),
        stages=[(stage, curves(stage)) for stage in stages_of(run)],
        provenance=json.loads(provenance.read_text()) if provenance.is_file() else None,
        command=command.read_text().strip() if command.is_file() else None,
    )
    path.write_text(page)


def curves(stage: Stage) -> dict[str, str]:
    """Training and validation loss and validation UAR by epoch, as the points of an SVG line in a box of 100 by 40.

    Losses share an axis from 0 to the highest of them, UAR has its own from 0 to 1.
    """
    top = max((one[name] or 0.0 for one in stage.epochs for name in ("loss", "validation_loss")), default=0.0) or 1.0
    last = max((one["epoch"] for one in stage.epochs), default=1.0)

    def line(name: str, highest: float) -> str:
        points = ((100 * one["epoch"] / last, 40 - 40 * one[name] / highest) for one in stage.epochs if one[name])
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)

    return {"loss": line("loss", top), "validation_loss": line("validation_loss", top), "uar": line("uar", 1.0)}


def _playable(row: Mapping[str, Any]) -> str | None:
    """The utterance as a sound that a page carries along; None where there is none, or it may not be passed on."""
    may = row["corpus"] in CORPORA and hasattr(room(row["corpus"]), "ABOUT") and room(row["corpus"]).ABOUT.shareable
    if not may or not row["audio"]:
        return None
    return sound(load_audio(row["audio"], *segment(row["start"], row["end"])))


def temperatures_note(metrics: Mapping[str, Any]) -> str:
    """The temperature of the rows, as `1.42`; each with what it is for, where some rows miss a modality."""
    found = metrics["temperatures"]
    several = (f"{value:.2f} ({name})" for name, value in found.items())
    return ", ".join(several) if len(found) > 1 else f"{next(iter(found.values())):.2f}"


def calibration_table(metrics: Mapping[str, Any]) -> str:
    """Whether confidence can be trusted, with the fitted temperature and without."""
    rows = [
        [name, temperature, *(f"{metrics[kind][score]:.3f}" for score in ("ece", "brier", "log_loss"))]
        for name, kind, temperature in (
            ("as fitted on validation", "calibration", temperatures_note(metrics)),
            ("none", "uncalibrated", "1.00"),
        )
    ]
    header = ["calibration", "temperature", "expected calibration error", "Brier", "log loss"]
    return markdown_table(header, rows)


def abstention_table(metrics: Mapping[str, Any]) -> str:
    """What answering only when sure would gain."""
    found = metrics["risk_coverage"]
    steps = zip(found["coverage"], found["threshold"], found["risk"], strict=True)
    rows = [[f"{coverage:.0%}", f"{threshold:.3f}", f"{1 - risk:.3f}"] for coverage, threshold, risk in steps]
    return markdown_table(["answered", "when the score is at least", "right among these"], rows)


def votes_note(metrics: Mapping[str, Any]) -> str:
    """How near the scores are to the raters' votes, where there are any."""
    if not (found := metrics.get("votes")):
        return ""
    return (
        f"\nOver the {found['n']} utterances with raters' votes, scores lie {found['kl']:.3f} nats from their shares "
        f"(Kullback-Leibler divergence; cross-entropy {found['cross_entropy']:.3f}).\n"
    )


def write_report(metrics: Mapping[str, Any], path: Path):
    """A page that says what was measured on what, with the figures behind it."""
    protocol, labels = metrics["protocol"], metrics["labels"]
    confusion = [[label, *row] for label, row in zip(labels, metrics["confusion_matrix"], strict=True)]
    fold = f", fold {protocol['fold']} of {protocol['folds']}" if "fold" in protocol else ""
    notes = "".join(f"\n* {note}" for note in metrics["notes"])
    leaks = "".join(f"\n* **leak**, {leak}" for leak in protocol["leaks"])
    path.write_text(f"""# {metrics["split"]}, given {metrics["condition"]}

Protocol `{protocol["name"]}` version {protocol["version"]} (hash `{protocol.get("hash", "none")}`){fold}.
{interval_note(metrics)}
{notes}{leaks}

{scores_table({metrics["condition"]: metrics})}

{class_table(metrics)}

Rows are the labels, columns the predictions:

{markdown_table(["", *labels], confusion)}

![confusion matrix](confusion.png)

{calibration_table(metrics)}

![reliability diagram](reliability.png)

{abstention_table(metrics)}
{votes_note(metrics)}""")


def confusion_picture(metrics: Mapping[str, Any], path: Path):
    """The confusion matrix, shaded by recall, with counts."""
    from matplotlib import pyplot

    counts = np.array(metrics["confusion_matrix"])
    size = 2.5 + 0.6 * len(counts)
    figure, axes = pyplot.subplots(figsize=(size, size), layout="constrained")
    recalls = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    display = ConfusionMatrixDisplay(recalls, display_labels=metrics["labels"])
    display.plot(ax=axes, cmap="Blues", colorbar=False, xticks_rotation=45, im_kw={"clim": (0, 1)})
    for text, count in zip(display.text_.flat, counts.flat, strict=True):
        text.set_text(f"{count}")
    axes.set(xlabel="predicted", ylabel="labelled", title=f"UAR {metrics['uar']:.3f}, n = {metrics['n']}")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def reliability_picture(metrics: Mapping[str, Any], path: Path):
    """Confidence against the share that is right; on the diagonal the model knows how sure it may be."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.5, 4.5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, color, temperature in (
        ("uncalibrated", "0.6", "1.00"),
        ("calibration", "tab:blue", temperatures_note(metrics)),
    ):
        bins = metrics[name]["bins"]
        share = np.array(bins["count"]) / sum(bins["count"])
        label = f"temperature {temperature}, ECE {metrics[name]['ece']:.3f}"
        axes.plot(bins["confidence"], bins["accuracy"], color=color, linewidth=1)
        axes.scatter(bins["confidence"], bins["accuracy"], s=20 + 400 * share, color=color, label=label)
    axes.legend(loc="upper left", frameon=False, markerscale=0.5)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right", aspect="equal")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
