"""Labels: the mapping of a corpus's own labels to the shared vocabulary, and suggestions for unknown ones."""

import difflib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from merhan.errors import InputError, did_you_mean
from merhan.names import VOCABULARY


# Common words for the labels of the vocabulary, to suggest a mapping. They are never applied without being asked for:
# "excited" is joy in some corpora.
_SYNONYMS = {
    "joy": ("happy", "happiness", "hap", "joyful", "cheerful", "glad", "delighted"),
    "anger": ("angry", "ang", "annoyed", "annoyance", "mad", "rage", "furious", "irritated"),
    "sadness": ("sad", "unhappy", "sorrow", "grief", "depressed"),
    "fear": ("fearful", "fea", "afraid", "scared", "anxious", "anxiety", "terrified"),
    "disgust": ("disgusted", "dis"),
    "surprise": ("surprised", "sur", "pleasant_surprise", "ps", "astonished", "amazed"),
    "neutral": ("neu", "no emotion"),
    "calm": ("calmness", "relaxed", "peaceful"),
    "excitement": ("excited", "exc"),
    "frustration": ("frustrated", "fru"),
    "amusement": ("amused",),
    "contempt": ("contemptuous", "con", "scorn"),
    "boredom": ("bored", "bor"),
    "sleepiness": ("sleepy", "tired"),
    "negative": ("neg",),
    "positive": ("pos",),
}
# Words that YAML reads as something else than a string.
_YAML_WORDS = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
_MEANINGS = {word: label for label, words in _SYNONYMS.items() for word in words}


def map_label(word: str, table: Mapping[str, str | None], where: str) -> str | None:
    """Look up a corpus's own label.

    Args:
        word: the label as the corpus writes it.
        table: the corpus's label -> label of the vocabulary, or None for a label that is not an emotion.
        where: file and row, for the error message.

    Raises:
        InputError: `table` does not contain `word`. There is no default label, because a default turns a misspelled
            or new label into wrong training data without any sign of it.
    """
    if word not in table:
        raise InputError(f"{where}: label {word!r} is not in the label table of this corpus{did_you_mean(word, table)}")
    return table[word]


def relabel(words: Iterable[str], label_map: Mapping[str, str | None], own_labels: Collection[str] = ()) -> list:
    """Apply a label map; case and surrounding blanks do not matter.

    Args:
        words: labels as the source writes them.
        label_map: label of the source -> label of the vocabulary, or None to drop it.
        own_labels: labels that are valid in addition to the vocabulary.

    Returns:
        the label of each word, None if it is dropped; a word that is neither mapped nor known stays as it is.
    """
    known = {_simplified(label): label for label in (*VOCABULARY, *own_labels)}
    changes = {_simplified(word): label for word, label in label_map.items()}
    labels = {}
    for word in set(words):
        if word in label_map:
            labels[word] = label_map[word]
        elif _simplified(word) in changes:
            labels[word] = changes[_simplified(word)]
        else:
            labels[word] = known.get(_simplified(word), word)
    return [labels[word] for word in words]


def unused_keys(label_map: Mapping[str, str | None], words: Iterable[str]) -> list[str]:
    """The sorted keys of a label map that none of the words matches."""
    present = {_simplified(word) for word in words}
    return sorted(word for word in label_map if _simplified(word) not in present)


def check_label_map(label_map: Mapping[str, str | None], own_labels: Collection[str]):
    """Check that a label map leads to known labels.

    Raises:
        InputError: a target is neither in the vocabulary nor one of `own_labels`.
    """
    known = {*VOCABULARY, *own_labels}
    for word, label in label_map.items():
        if label is not None and label not in known:
            raise InputError(
                f"data.label_map (`--label {word}={label}`): {label!r} is not in the vocabulary"
                f"{did_you_mean(label, known)} A label of your own is declared with data.own_labels: [{label}] "
                f"(`--own_label {label}`)."
            )


def exact_label(word: str) -> str | None:
    """The label of the vocabulary that a word is, or is a common word for; None if it is neither."""
    word = _simplified(word)
    if word in VOCABULARY:
        return word
    return _MEANINGS.get(word)


def nearest_label(word: str, known: Collection[str] = VOCABULARY) -> str | None:
    """The known label that a word most likely means; None if no guess is possible."""
    word = _simplified(word)
    if word in known:
        return word
    if exact_label(word):
        return exact_label(word)
    candidates = [*known, *(meaning for meaning in _MEANINGS if len(meaning) > 3)]
    matches = difflib.get_close_matches(word, candidates, n=1, cutoff=0.75)
    if not matches:
        return None
    return _MEANINGS.get(matches[0], matches[0])


def unknown_labels_sentence(words: Iterable[str], known: Collection[str]) -> str:
    """What to do about labels that are not in the vocabulary: counts, and the lines to paste.

    Args:
        words: the unknown labels, one per row.
        known: the valid labels.
    """
    counts = Counter(words)
    listed = ", ".join(f"{word!r} ({count} rows)" for word, count in counts.most_common())
    subject = f"label {listed} is" if len(counts) == 1 else f"labels {listed} are"
    guesses = {word: nearest_label(word, known) for word, _ in counts.most_common()}
    recipe = ", ".join(f"{yaml_key(word)}: {label or 'null'}" for word, label in guesses.items())
    options = " ".join(_quoted(f"{word}={label or ''}") for word, label in guesses.items())
    return (
        f"{subject} not in the vocabulary. Map with data.label_map: {{{recipe}}} (command line: {options}; null or "
        f"nothing drops the rows), or declare a label of your own with data.own_labels: "
        f"[{yaml_key(next(iter(counts)))}] (`--own_label`)."
    )


def yaml_key(word: str) -> str:
    """A word as YAML reads it back as a string."""
    if word.isdecimal() or (word.isalpha() and word.lower() not in _YAML_WORDS):
        return word
    return json.dumps(word, ensure_ascii=False)  # a string of JSON is one of YAML


def _quoted(change: str) -> str:
    if change.replace("=", "").replace("_", "").isalnum():
        return f"--label {change}"
    return f'--label "{change}"'


def _simplified(word: str) -> str:
    return word.strip().casefold()
