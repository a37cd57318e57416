"""The error for invalid input, and suggestions for misspelled names."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used. The message names the file, row or key, and the remedy.

    The command line prints the message without a traceback and exits with code 2.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """End an error message about an unknown name with a suggestion.

    Args:
        word: the unknown name.
        known: the valid names.

    Returns:
        `"; did you mean 'epochs'?"` where a valid name begins with `word` or is similar to it, else a list of all
        valid names.
    """
    known = sorted(map(str, known))
    matches = [name for name in known if word and name.startswith(str(word))]
    matches = matches or difflib.get_close_matches(str(word), known, n=1)
    if matches:
        return f"; did you mean {matches[0]!r}?"
    return f"; known are {', '.join(known)}."
