"""Bad input, told in one sentence."""

import difflib
import sys
from collections.abc import Callable, Iterable
from functools import wraps

import numpy as np

from processing_merhan import AudioError


class InputError(ValueError):
    """Input that cannot be used. The message names the file, row or key, and the remedy."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'epochs'?"`, or the whole list where nothing is near."""
    known = sorted(map(str, known))
    begun = [name for name in known if word and name.startswith(str(word))]
    close = begun or difflib.get_close_matches(str(word), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}."


def require_finite(logits: np.ndarray) -> np.ndarray:
    """Logits as they are; NaN would count as the first class without a word.

    Raises:
        InputError: NaN or infinity among them.
    """
    if bad := int((~np.isfinite(logits)).any(axis=-1).sum()):
        raise InputError(
            f"The model's logits of {bad} of {len(logits)} rows are not finite: training diverged. Lower the learning "
            f"rate (stages[].learning_rate), or use bf16 in place of fp16."
        )
    return logits


def exits_cleanly(main: Callable[..., None]) -> Callable[..., None]:
    """Make bad input end a program with its sentence and exit code 2, without a traceback."""

    @wraps(main)
    def run(*args, **kwargs):
        try:
            main(*args, **kwargs)
        except (InputError, AudioError) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    return run
