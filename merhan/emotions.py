"""The emotion vocabulary, and how another vocabulary's words are mapped onto it: explicitly, or not at all."""

from collections.abc import Mapping

from merhan.errors import InputError, nearest


# Ekman's six, neutral, and what the corpora of the field add to them.
EMOTIONS = (
    "neutral",
    "calm",
    "joy",
    "excitement",
    "amusement",
    "anger",
    "frustration",
    "sadness",
    "fear",
    "disgust",
    "contempt",
    "surprise",
    "boredom",
    "sleepiness",
)


# What corpora of sentiment say in place of an emotion; "neutral" is above.
SENTIMENTS = ("negative", "positive")
VOCABULARY = EMOTIONS + SENTIMENTS


def map_label(word: str, table: Mapping[str, str | None], where: str) -> str | None:
    """A corpus's own word in our vocabulary; None for a word that names no emotion.

    Raises:
        InputError: the table does not have the word. Nothing is ever guessed: a silent default is how a published
            system came to train on one class alone (label_map.get(label, 0) in melike1818's loader, on MELD).
    """
    if word not in table:
        raise InputError(f"{where}: label {word!r} is not in the table of this corpus{nearest(word, table)}")
    return table[word]
