"""The mapping of a corpus's own labels to the shared vocabulary."""

from collections.abc import Mapping

from merhan.errors import InputError, did_you_mean


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
