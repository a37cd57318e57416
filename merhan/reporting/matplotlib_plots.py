"""Plots of results by matplotlib, in one style. Each function draws into a figure or writes a PNG file.

Figures are made without pyplot, so that no display is needed and no global state is changed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from merhan.reporting.markdown_tables import temperatures_note
from processing_merhan import SAMPLING_RATE


INK = "#222222"  # text and axes
MUTED = "#777777"  # reference lines and what is compared with
COLORS = ("#4477aa", "#cc7733", "#228833", "#aa3377")  # distinguishable for colour-blind readers (Tol 2021)
STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "font.size": 9,
    "font.family": "sans-serif",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 8,
    "ytick.color": INK,
    "ytick.labelsize": 8,
    "savefig.dpi": 150,
}


@rc_context(STYLE)
def plot_confusion_matrix(metrics: Mapping[str, Any], path: Path):
    """Write the confusion matrix: counts, shaded by their share of the row."""
    counts, labels = np.array(metrics["confusion_matrix"]), metrics["labels"]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 2.4 + 0.5 * len(counts)
    figure = Figure(figsize=(size + 0.7, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        ink = "white" if shares[row, column] > 0.5 else INK
        axes.text(column, row, str(count), ha="center", va="center", color=ink)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="prediction", ylabel="label", title=f"UAR {metrics['uar']:.3f}, n = {metrics['n']}")
    figure.colorbar(image, ax=axes, label="share of the row", shrink=0.8)
    figure.savefig(path)


@rc_context(STYLE)
def plot_reliability(metrics: Mapping[str, Any], path: Path):
    """Write the reliability diagram: accuracy against confidence, calibrated and uncalibrated."""
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="perfect calibration")
    variants = (
        ("uncalibrated", "uncalibrated", COLORS[1], "1.00"),
        ("calibrated", "calibration", COLORS[0], temperatures_note(metrics)),
    )
    for name, key, color, temperature in variants:
        bins = metrics[key]["bins"]
        sizes = 20 + 400 * np.array(bins["count"]) / sum(bins["count"])
        label = f"{name}, temperature {temperature}, ECE {metrics[key]['ece']:.3f}"
        axes.plot(bins["confidence"], bins["accuracy"], color=color, linewidth=1)
        axes.scatter(bins["confidence"], bins["accuracy"], s=sizes, color=color, label=label, clip_on=False, alpha=0.8)
    axes.legend(loc="upper left", markerscale=0.5)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", aspect="equal")
    axes.set_title("Reliability diagram; marker area: share of utterances")
    figure.savefig(path)


def plot_explanation(figure: Figure, waveform: np.ndarray, explanation: Mapping[str, Any]):
    """Draw waveform, spectrogram and the attention of each word over one time axis.

    Args:
        figure: an empty figure; its size is set. It is narrow, so that its text can be read on a phone.
        waveform: `(samples,)` at 16 kHz.
        explanation: what the pipeline returns with `explain=True`; `words` may be empty.
    """
    words = explanation["words"]
    heights = [0.8, 1.5]
    if words:
        heights.append(0.6 + 0.2 * len(words))
    figure.set_size_inches(4.2, sum(heights) + 0.7)
    panels = figure.subplots(len(heights), 2, sharex="col", width_ratios=[40, 1], height_ratios=heights, squeeze=False)
    panels[0, 1].axis("off")
    _draw_waveform(panels[0, 0], waveform)
    _draw_spectrogram(panels[1, 0], panels[1, 1], waveform)
    if words:
        _draw_attention(panels[2, 0], panels[2, 1], words, len(waveform) / SAMPLING_RATE)
    panels[-1, 0].set(xlabel="time, s", xlim=(0, len(waveform) / SAMPLING_RATE))


def _draw_waveform(axes: Axes, waveform: np.ndarray):
    axes.plot(np.arange(len(waveform)) / SAMPLING_RATE, waveform, linewidth=0.4)
    axes.set(ylabel="amplitude")


def _draw_spectrogram(axes: Axes, bar: Axes, waveform: np.ndarray):
    # The offset keeps the logarithm of digital silence finite.
    *_, image = axes.specgram(waveform + 1e-6, NFFT=400, noverlap=240, Fs=SAMPLING_RATE, cmap="viridis", vmin=-140)
    axes.set(ylabel="frequency, kHz")
    axes.set_yticks([0, 2000, 4000, 6000, 8000], ["0", "2", "4", "6", "8"])
    _draw_color_scale(image, bar, "dB/Hz")


def _draw_attention(axes: Axes, bar: Axes, words: Sequence[Mapping[str, Any]], duration: float):
    attention = np.array([word["attention"] for word in words])
    extent = (0.0, duration, len(words) - 0.5, -0.5)
    # Uniform attention gets a colour from the middle of the scale, so that it does not look like a peak.
    top = max(attention.max(), 2 / attention.shape[1])
    image = axes.imshow(
        attention, aspect="auto", extent=extent, cmap="viridis", vmin=0, vmax=top, interpolation="nearest"
    )
    axes.set_yticks(range(len(words)), [word["word"] for word in words])
    axes.set(ylabel="word")
    _draw_color_scale(image, bar, "attention")


def _draw_color_scale(image: AxesImage, bar: Axes, label: str):
    assert image.figure is not None
    image.figure.colorbar(image, cax=bar, label=label)


@rc_context(STYLE)
def plot_robustness(charts: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], chance: float, path: Path):
    """Write UAR against every axis of corruption, and bars of the conditions that have one level.

    Args:
        charts: `title`, `levels` and `lines` (family -> UAR at each level) of each axis.
        rows: results of all conditions, the first of the clean split.
        chance: UAR of a random guess.
    """
    bars = [row for row in rows[1:] if row["axis"] is None]
    count = max(len(charts) + bool(bars), 1)
    figure = Figure(figsize=(4 * count, 3.6), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    for chart, axes in zip(charts, panels, strict=False):
        _draw_robustness_lines(axes, chart)
    if bars:
        _draw_robustness_bars(panels[-1], bars)
    for axes in panels:
        axes.axhline(rows[0]["uar"], color=MUTED, linestyle="--", linewidth=1, label="clean")
        axes.axhline(chance, color=MUTED, linestyle=":", linewidth=1, label="chance")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)  # above the plot, to cover no data
    panels[0].set(ylim=(0, 1.04), ylabel="UAR")
    figure.savefig(path)


def _draw_robustness_lines(axes: Axes, chart: Mapping[str, Any]):
    for (family, scores), marker in zip(chart["lines"].items(), "osD^", strict=False):
        axes.plot(range(len(scores)), scores, marker=marker, markersize=4, label=family)
    axes.set_xticks(range(len(chart["levels"])), chart["levels"])
    axes.set_xlabel(chart["title"])


def _draw_robustness_bars(axes: Axes, rows: Sequence[Mapping[str, Any]]):
    names = [row["condition"].replace(" ", "\n") for row in rows]
    axes.bar(names, [row["uar"] for row in rows], color="#bbbbbb")
    axes.set_xlabel("condition")
