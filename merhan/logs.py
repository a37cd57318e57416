"""Log messages of the package: one message, however many processes run."""

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class _MainProcessLogger(logging.LoggerAdapter):
    """Logs in the main process only. (accelerate's own logger raises before an Accelerator exists.)"""

    def isEnabledFor(self, level: int) -> bool:
        from accelerate import PartialState

        return super().isEnabledFor(level) and PartialState().is_main_process


def get_logger(name: str) -> logging.LoggerAdapter:
    """The logger of a module. Programs show its messages from INFO on, a notebook by default from WARNING on."""
    return _MainProcessLogger(logging.getLogger(name), {})


@contextmanager
def captured_messages() -> Iterator[list[str]]:
    """Collect the messages of the package instead of showing them."""
    logger = logging.getLogger("merhan")
    messages: list[str] = []
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [_ListHandler(messages)], False
    logger.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


class _ListHandler(logging.Handler):
    def __init__(self, messages: list[str]):
        super().__init__()
        self.messages = messages

    def emit(self, record: logging.LogRecord):
        self.messages.append(self.format(record))


def progress_is_visible() -> bool:
    """Whether progress bars make sense: in a terminal or a notebook, not in a log file."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def progress(iterable: Iterable[Any], disable: bool = False, **options: Any) -> Any:
    """A tqdm progress bar over an iterable, where progress bars make sense.

    Args:
        disable: hide it anyway.
        options: of tqdm, as `desc`, `total`, `unit`.
    """
    from tqdm.auto import tqdm

    return tqdm(iterable, disable=disable or not progress_is_visible(), **options)
