"""Emotions second by second, smoothed over the utterances around."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import ndtr


WIDTH = 2.0  # seconds; standard deviation of the window
_REACH = 3 * WIDTH  # of the window to either side


def smoothed_curve(utterances: pd.DataFrame, labels: Sequence[str], seconds: float, min_score: float) -> pd.DataFrame:
    """The scores of each second and speaker.

    The scores of a second are the mean of the scores of the utterances around, weighted by the share of a Gaussian
    window (standard deviation 2 s, cut at 6 s) around the middle of the second that each of them fills. Utterances that
    have no scores or are below `min_score` do not count. A second is left open, with empty scores, if no utterance that
    counts reaches into it, or if its highest mean is below `min_score`.

    Args:
        utterances: `start`, `end`, `speaker`, `score_<label>`, `abstained`.
        seconds: length of the recording.

    Returns:
        `second` (0 is from 0 s to 1 s), `speaker`, `prediction`, `score_<label>`, and `abstained`: whether there is
        speech, but no answer; empty where there is no speech.
    """
    names = [f"score_{label}" for label in labels]
    columns = ["second", "speaker", "prediction", *names, "abstained"]
    parts = []
    for speaker, own in utterances.groupby("speaker", dropna=False, sort=True):
        own = own.sort_values("start")
        scores = _scores(own[own["abstained"].eq(False).fillna(False).astype(bool)], names, seconds)
        scores[scores.max(axis=1) < min_score] = np.nan
        part = pd.DataFrame(scores, columns=names)
        has_scores = part[names[0]].notna()
        answers = np.array(labels, dtype=object)[np.nan_to_num(scores).argmax(axis=1)]
        part["prediction"] = pd.Series(answers, dtype=object).where(has_scores, None)
        is_speech = pd.Series(_reached(own, len(part)))
        part["abstained"] = (~has_scores).astype("boolean").mask(~is_speech)
        part["speaker"] = None if pd.isna(speaker) else speaker
        parts.append(part.assign(second=range(len(part))))
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _scores(utterances: pd.DataFrame, names: Sequence[str], seconds: float) -> np.ndarray:
    """Scores `(seconds, labels)`, NaN where a second is open."""
    length = int(np.ceil(seconds))
    curve = np.full((length, len(names)), np.nan)
    starts, ends = utterances["start"].to_numpy(float), utterances["end"].to_numpy(float)
    scores = utterances[list(names)].to_numpy(float)
    for second in np.flatnonzero(_reached(utterances, length)):
        middle = second + 0.5
        first, last = np.searchsorted(ends, middle - _REACH), np.searchsorted(starts, middle + _REACH)
        low, high = ((edges[first:last] - middle).clip(-_REACH, _REACH) / WIDTH for edges in (starts, ends))
        weights = ndtr(high) - ndtr(low)
        curve[second] = weights @ scores[first:last] / weights.sum()
    return curve


def _reached(utterances: pd.DataFrame, length: int) -> np.ndarray:
    """Whether an utterance reaches into each of so many seconds."""
    reached = np.zeros(length, bool)
    for start, end in utterances[["start", "end"]].to_numpy(float):
        reached[int(start) : int(np.ceil(end))] = True
    return reached
