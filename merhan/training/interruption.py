"""Signals that ask a training to end: it saves a checkpoint first. A second signal ends the process at once."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from merhan.errors import ENDING_SIGNALS, Interrupted
from merhan.logs import get_logger


logger = get_logger(__name__)

_SAME_SIGNAL = 1.0  # seconds; a launcher passes on what the terminal has already sent to every process


class Interruption:
    """The signal that asked this process to end, if one did."""

    def __init__(self):
        self.number: int | None = None
        self._time = 0.0
        self._process = os.getpid()

    def handle(self, number: int, frame: FrameType | None = None):
        """Note a signal, as a signal handler; a second one ends the process."""
        is_second = self.number is not None and time.monotonic() - self._time > _SAME_SIGNAL
        is_worker = os.getpid() != self._process  # of a data loader, which the terminal must not end before us
        if is_second or (is_worker and number != signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if not is_worker and self.number is None:
            self.number, self._time = number, time.monotonic()
            logger.warning(f"note: {signal.Signals(number).name}: saving a checkpoint; a second signal ends at once")

    def error(self, where: str) -> Interrupted:
        """The exception that ends the training.

        Args:
            where: what has been saved.
        """
        name = signal.Signals(self.number).name if self.number else "another process"
        return Interrupted(f"ended by {name} at {where}; continue with --resume", self.number)


@contextmanager
def signals_noted() -> Iterator[Interruption]:
    """Within it, SIGINT, SIGTERM and SIGHUP are noted and do not end the process; ignored ones stay ignored."""
    interruption = Interruption()
    previous = {}
    if threading.current_thread() is threading.main_thread():  # Python sets handlers in no other thread
        for number in ENDING_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, interruption.handle)
    try:
        yield interruption
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
