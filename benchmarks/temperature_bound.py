"""Held-out calibration where no validation row is a mistake: the temperature rule against the unbounded best fit.

python benchmarks/temperature_bound.py $MERHAN_CORPORA/emodb

A logistic regression over means and deviations of log-mel bands tells pairs of emotions of EMO-DB apart. Four speakers
train it, validation rows are drawn from three others, and the last three are held out. Draws in which a validation row
is a mistake are left out, because there the rule does not apply.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from common import command, hardware, publish
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
        means = np.mean(values, axis=0)
        table.append([str(size), str(len(values)), *(f"{mean:.3f}" for mean in means)])
    titles = ["validation rows", "draws", "accuracy", "ECE: rule", "unbounded", "T = 1", "log loss: rule", "unbounded"]
    text = f"`{command(MERHAN_CORPORA=str(arguments.emodb.parent))}`, {hardware()}.\n\n"
    publish("temperature-bound", f"{text}{markdown_table([*titles, 'T = 1 '], table)}\n", arguments.write)


def _features(path: str) -> np.ndarray:
    bands = MelSpectrogram(SAMPLING_RATE, n_fft=400, hop_length=160, n_mels=40)(torch.from_numpy(load_audio(path)))
    logarithms = torch.log(bands + 1e-6)
    return torch.cat([logarithms.mean(dim=1), logarithms.std(dim=1)]).numpy()


def _measure(features: np.ndarray, labels: np.ndarray, speakers: np.ndarray, draw: int, results: dict):
    """One division of the speakers; adds accuracy, three ECEs and three log losses for each draw of rows."""
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
            temperatures = (fit_temperature(logits[sample], labels[sample]), LOWEST, 1.0)
            scores = [calibration_scores(logits[test] / value, labels[test]) for value in temperatures]
            accuracy = (logits[test].argmax(axis=1) == labels[test]).mean()
            eces, losses = ([score[name] for score in scores] for name in ("ece", "log_loss"))
            results[size].append([accuracy, *eces, *losses])


if __name__ == "__main__":
    main()
