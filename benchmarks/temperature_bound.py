"""Held-out calibration where no validation row is a mistake: the temperature rule against others.

python benchmarks/temperature_bound.py $MERHAN_CORPORA/emodb

A logistic regression over means and deviations of log-mel bands tells pairs of emotions of EMO-DB apart. Four speakers
train it, validation rows are drawn from three others, and the last three are held out. Draws in which a validation row
is a mistake are left out, because there the rule does not apply.

The rules: `bound` is that of the package (no score of a validation row exceeds (n + 1) / (n + 2)); `mean` bounds the
mean score by it in place of each; `Platt` minimises the log loss of the targets (n + 1) / (n + 2) and 1 / (n + 2)
(Platt 1999); `none` is the best fit, the lowest temperature; `T = 1` does not change a score. `bound` is kept because
of the four that sharpen it has the lowest log loss and Brier score at every size, though `mean` and `none` have a lower
ECE from 10 or 20 rows on. A lower ECE alone is no reason to sharpen: it is no proper score (Gneiting and Raftery 2007),
and averages away confident mistakes, which are what a bound is to prevent.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from common import command, hardware, publish
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torchaudio.transforms import MelSpectrogram

from merhan.data.corpora.base import read_corpus
from merhan.metrics.calibration import calibration_scores, fit_temperature, is_without_mistake
from merhan.reporting.markdown_tables import markdown_table
from processing_merhan import SAMPLING_RATE, load_audio


SIZES = (5, 10, 20, 40)
DRAWS = 10  # of speakers, and of rows for each
LOWEST = float(np.exp(-3.0))  # the temperature to which a fit without mistakes goes
SCORES = ("ece", "log_loss", "brier")


def mean_bound(logits: np.ndarray, labels: np.ndarray) -> float:
    """The lowest temperature, 1 at most, at which the mean score of the rows does not exceed what they support."""
    supported = (len(logits) + 1) / (len(logits) + 2)

    def excess(log_temperature: float) -> float:
        return softmax(logits / np.exp(log_temperature), axis=1).max(axis=1).mean() - supported

    if excess(0.0) >= 0:
        return 1.0
    return float(np.exp(brentq(excess, -20.0, 0.0)))


def platt(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the lowest log loss of targets that are smoothed by one pseudo-row of each class."""
    targets = (np.eye(2)[labels] * len(labels) + 1) / (len(labels) + 2)

    def loss(log_temperature: float) -> float:
        return -(targets * log_softmax(logits / np.exp(log_temperature), axis=1)).sum()

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


RULES = {
    "bound": fit_temperature,
    "mean": mean_bound,
    "Platt": platt,
    "none": lambda logits, labels: LOWEST,
    "T = 1": lambda logits, labels: 1.0,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("emodb", type=Path)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    rows = read_corpus("emodb", arguments.emodb).rows
    features = np.stack([_features(path) for path in rows["audio"]])
    results: dict[int, list[list[float]]] = {size: [] for size in SIZES}
    for pair in combinations(sorted(rows["label"].unique()), 2):
        chosen = rows["label"].isin(pair).to_numpy()
        labels = (rows["label"] == pair[1]).to_numpy(int)[chosen]
        for draw in range(DRAWS):
            _measure(features[chosen], labels, rows["speaker"].to_numpy()[chosen], draw, results)
    table = []
    for size, values in results.items():
        accuracy, *means = np.mean(values, axis=0)
        scores = np.reshape(means, (len(RULES), len(SCORES)))
        for rule, row in zip(RULES, scores, strict=True):
            table.append([str(size), str(len(values)), f"{accuracy:.3f}", rule, *(f"{score:.3f}" for score in row)])
    titles = ["validation rows", "draws", "accuracy", "rule", "ECE", "log loss", "Brier score"]
    text = f"`{command(MERHAN_CORPORA=str(arguments.emodb.parent))}`, {hardware()}.\n\n"
    publish("temperature-bound", f"{text}{markdown_table(titles, table)}\n", arguments.write)


def _features(path: str) -> np.ndarray:
    bands = MelSpectrogram(SAMPLING_RATE, n_fft=400, hop_length=160, n_mels=40)(torch.from_numpy(load_audio(path)))
    logarithms = torch.log(bands + 1e-6)
    return torch.cat([logarithms.mean(dim=1), logarithms.std(dim=1)]).numpy()


def _measure(features: np.ndarray, labels: np.ndarray, speakers: np.ndarray, draw: int, results: dict):
    """One division of the speakers; adds accuracy, and the scores of each rule, for each draw of rows."""
    rng = np.random.default_rng(draw)
    order = rng.permutation(np.unique(speakers))
    train, validation, test = (np.isin(speakers, part) for part in (order[:4], order[4:7], order[7:]))
    scaler = StandardScaler().fit(features[train])
    model = LogisticRegression(C=0.1, max_iter=1000).fit(scaler.transform(features[train]), labels[train])
    margins = model.decision_function(scaler.transform(features))
    logits = np.stack([-margins / 2, margins / 2], axis=1)
    for size in results:
        for _ in range(DRAWS):
            sample = rng.choice(np.flatnonzero(validation), size=min(size, validation.sum()), replace=False)
            if not is_without_mistake(logits[sample], labels[sample]):
                continue
            accuracy = (logits[test].argmax(axis=1) == labels[test]).mean()
            values = [accuracy]
            for rule in RULES.values():
                temperature = rule(logits[sample], labels[sample])
                scores = calibration_scores(logits[test] / temperature, labels[test])
                values += [scores[name] for name in SCORES]
            results[size].append(values)


if __name__ == "__main__":
    main()
