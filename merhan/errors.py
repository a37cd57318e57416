"""The error for invalid input, and suggestions for misspelled names."""

import difflib
import signal
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used. The message names the file, row or key, and the remedy.

    The command line prints the message without a traceback and exits with code 2.
    """


# Signals that ask a process to end. Windows has no SIGHUP.
ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(KeyboardInterrupt):
    """A signal ended the work. The message says what was saved and how to continue.

    Args:
        message: as of any exception.
        number: the signal, None if another process was sent it.
    """

    def __init__(self, message: str, number: int | None = None):
        super().__init__(message)
        self.number = number


# Extra -> its packages, by the names that they are imported by, and what needs them.
EXTRAS = {
    "train": (
        {"datasets", "accelerate", "evaluate", "peft", "sklearn", "scipy", "pandas", "omegaconf", "tensorboard"}
        | {"filelock", "psutil", "openpyxl", "matplotlib", "jinja2"},
        "training and evaluation need",
    ),
    "audio": ({"torchcodec"}, "audio columns of `datasets` need"),
    "timeline": ({"silero_vad"}, "finds speech"),
    "onnx": ({"onnx", "onnxscript", "onnxruntime"}, "ONNX graphs need"),
    "space": ({"gradio"}, "a Space needs"),
}


def missing_extra(error: ImportError) -> str | None:
    """What to install, if a package of one of our extras is missing."""
    package = (error.name or "").split(".")[0]
    for extra, (packages, use) in EXTRAS.items():
        if package in packages:
            return f"{package} is not installed, which {use}: pip install 'merhan[{extra}]'"
    return None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """End an error message about an unknown name with a suggestion.

    Args:
        word: the unknown name.
        known: the valid names.

    Returns:
        `"; did you mean 'epochs'?"` where a valid name begins with `word` or is similar to it, else a list of all
        valid names.
    """
    known = sorted(" ".join(str(name).split()) for name in known)  # a damaged table may have names of several lines
    matches = [name for name in known if word and name.startswith(str(word))]
    matches = matches or difflib.get_close_matches(str(word), known, n=1)
    if matches:
        return f"; did you mean {matches[0]!r}?"
    return f"; known are {', '.join(known)}."
