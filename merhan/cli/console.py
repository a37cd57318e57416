"""What a person sees of a program: log messages, progress bars, and errors as one sentence with an exit code."""

import errno
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import FrameType

from merhan.errors import ENDING_SIGNALS, InputError, Interrupted, missing_extra


# Errors of the system that are not faults of the program -> what to do.
_REMEDIES = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room within your quota",
    errno.EACCES: "get the rights to it, or choose another path",
    errno.EPERM: "get the rights to it, or choose another path",
    errno.EROFS: "choose a path that can be written",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "name a path whose parents are folders",
    errno.EMFILE: "raise the number of open files (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOMEM: "end other programs",
    errno.EIO: "check the disk",
}


def exits_cleanly(main: Callable[..., None]) -> Callable[..., None]:
    """Make a function a program: input that cannot be used ends it with one sentence and exit code 2."""

    @wraps(main)
    def run(*args, **kwargs):
        configure_output()
        _end_by_exception()
        try:
            main(*args, **kwargs)
        except KeyboardInterrupt as error:
            number = getattr(error, "number", None) or signal.SIGINT
            if _reports_first():
                print(f"error: {str(error) or 'ended by SIGINT; a training continues with --resume'}", file=sys.stderr)
            sys.exit(128 + number)
        except Exception as error:
            if not _reports_first():
                sys.exit(2)
            _exit_with(_sentence(error))
            raise

    return run


def _sentence(error: Exception) -> str | None:
    """What a user can do about an error; None for one that is a fault of the program."""
    if isinstance(error, ImportError):
        return missing_extra(error)
    if isinstance(error, MemoryError):
        return "the memory of this machine is full; end other programs, or use smaller batches and shorter recordings."
    if isinstance(error, ValueError):
        return str(error) if _is_input_error(error) else None
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; {_REMEDIES[error.errno]}, and continue (a training with --resume)."
    if "No space left on device" in str(error) or "enforce fail at inline_container" in str(error):
        # safetensors and torch.save report a full disk as errors of their own.
        return f"{str(error).splitlines()[0]}: {_REMEDIES[errno.ENOSPC]}, and continue a training with --resume."
    return None


def _end_by_exception():
    """Let the signals that end a program raise an exception, so that temporary files are removed.

    SIGINT does so already. What is ignored stays so, as SIGHUP under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _raise_interrupted)


def _raise_interrupted(number: int, frame: FrameType | None):
    name = signal.Signals(number).name
    raise Interrupted(f"ended by {name}; a training continues with --resume", number)


def _reports_first() -> bool:
    """Whether no other process of the same launch on this machine has reported an error: it is the cause of ours."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return True
    import psutil

    launcher = psutil.Process().parent()
    started = launcher.create_time() if launcher else 0.0
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    mark = Path(tempfile.gettempdir()) / f"merhan-{os.getppid()}-{started:.0f}-{attempt}.error"
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # no room: rather twice than never
        return True
    return True


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
