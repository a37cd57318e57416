"""What a person sees of a program: log messages, progress bars, and errors as one sentence with an exit code."""

import logging
import os
import sys
from collections.abc import Callable
from functools import wraps

from merhan.errors import InputError, missing_extra


def exits_cleanly(main: Callable[..., None]) -> Callable[..., None]:
    """Make a function a program: input that cannot be used ends it with one sentence and exit code 2."""

    @wraps(main)
    def run(*args, **kwargs):
        configure_output()
        try:
            main(*args, **kwargs)
        except ImportError as error:
            _exit_with(missing_extra(error))
            raise
        except ValueError as error:
            if not _is_input_error(error):
                raise
            _exit_with(str(error))

    return run


def _exit_with(message: str | None):
    """End the program with a sentence, if there is one."""
    if message is not None:
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def configure_output():
    """Show the log messages of this package, and hide progress bars where there is no terminal.

    To be called before transformers is imported. What the user has set in the environment wins.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its load report tells a user of ours nothing
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logger = logging.getLogger("merhan")
    if not logger.handlers:
        logger.addHandler(_ConsoleHandler())
        logger.setLevel(logging.INFO)
        logger.propagate = False


class _ConsoleHandler(logging.Handler):
    """Writes messages to standard output, above any progress bar."""

    def emit(self, record: logging.LogRecord):
        from tqdm import tqdm

        tqdm.write(self.format(record))
        sys.stdout.flush()


def _is_input_error(error: ValueError) -> bool:
    # AudioError travels with every checkpoint and so cannot derive from our InputError; importing it loads torch.
    from processing_merhan import AudioError

    return isinstance(error, (InputError, AudioError))
