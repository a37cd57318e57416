"""Where there is speech: sound, as it comes, to utterances that are split at pauses."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from processing_merhan import SAMPLING_RATE


WINDOW = 512  # samples that silero-vad reads at a time
PAUSE = round(0.3 * SAMPLING_RATE)  # samples without speech that end an utterance
SHORTEST = 0.25  # seconds of speech of an utterance; less is a click or a cough
_PADDING = round(0.1 * SAMPLING_RATE)  # samples before and after the speech; its softest sounds are among them
_SPEECH, _SILENCE = 0.5, 0.35  # probabilities at which speech begins, and below which it pauses


class Stretch(NamedTuple):
    """An utterance, in samples from the start of the sound."""

    start: int
    end: int


class PauseSplitter:
    """The probability of speech, window by window -> utterances.

    Without a limit on their length these are the stretches of `silero_vad.get_speech_timestamps`, which needs the whole
    recording: an utterance begins where the probability reaches 0.5, and ends where it falls below 0.35 and does not
    reach 0.5 again for 0.3 s. One that would be longer than the limit is split at its longest pause, and goes on behind
    it; at the limit itself, if it has no pause.

    Args:
        longest: limit on the length of an utterance in seconds.
    """

    def __init__(self, longest: float):
        self.longest = round(longest * SAMPLING_RATE) - WINDOW - 2 * _PADDING
        self.position = 0  # samples that were classified
        self.start: int | None = None  # of the speech of the open utterance
        self.padding = 0  # before it
        self.silence: int | None = None  # where the present pause began
        self.pauses: list[Stretch] = []  # the earlier ones of the open utterance

    @property
    def first(self) -> int:
        """The first sample that an utterance may need that has not ended yet."""
        if self.start is None:
            return self.position - _PADDING
        return self.start - self.padding

    def add(self, probability: float) -> Stretch | None:
        """Classify the next window; returns the utterance that ends with it."""
        here = self.position
        self.position += WINDOW
        if probability >= _SPEECH:
            self._speak(here)
        elif self.start is not None and probability < _SILENCE and self.silence is None:
            self.silence = here
        if self.start is None:
            return None
        if here - self.start > self.longest:
            return self._split(here)
        if probability < _SILENCE and self.silence is not None and here - self.silence >= PAUSE:
            return self._end(self.silence)
        return None

    def finish(self, length: int) -> Stretch | None:
        """The utterance that is open where the sound ends, after `length` samples."""
        if self.start is None:
            return None
        end = length
        if self.silence is not None:
            end = self.silence
        ending = self._end(end)
        if ending is None:
            return None
        return Stretch(ending.start, min(ending.end, length))

    def _speak(self, here: int):
        if self.start is None:
            self.start, self.padding = here, min(_PADDING, here)
        elif self.silence is not None:
            self.pauses.append(Stretch(self.silence, here))
        self.silence = None

    def _end(self, end: int) -> Stretch | None:
        """Close the open utterance, whose speech ends here; None if it is too short."""
        assert self.start is not None
        stretch = None
        if end - self.start > SHORTEST * SAMPLING_RATE:
            stretch = Stretch(self.start - self.padding, end + _PADDING)
        self.start = self.silence = None
        self.pauses = []
        return stretch

    def _split(self, here: int) -> Stretch:
        """Close the part of the open utterance before its longest pause; what follows stays open."""
        assert self.start is not None
        pauses = list(self.pauses)
        if self.silence is not None:
            pauses.append(Stretch(self.silence, here))
        pause = max(pauses, key=lambda pause: pause.end - pause.start, default=Stretch(here, here))
        padding = min(_PADDING, (pause.end - pause.start) // 2)
        stretch = Stretch(self.start - self.padding, pause.start + padding)
        self.start, self.padding = pause.end, padding
        self.pauses = [later for later in self.pauses if later.start > pause.start]
        return stretch


class SpeechSegmenter:
    """Sound at 16 kHz in pieces of any length -> utterances, each as soon as it has ended.

    Args:
        longest: limit on the length of an utterance in seconds.

    Raises:
        ImportError: silero-vad is not installed.
    """

    def __init__(self, longest: float):
        self.splitter = PauseSplitter(longest)
        self.detector = _silero().load_silero_vad()
        self.detector.reset_states()
        self.rest = torch.zeros(0)  # samples that do not fill a window yet

    @property
    def length(self) -> int:
        """The number of samples so far."""
        return self.splitter.position + len(self.rest)

    def add(self, samples: np.ndarray) -> list[Stretch]:
        """Read on `(samples,)` float32; returns the utterances that end in them."""
        sound = torch.cat([self.rest, torch.from_numpy(samples)])
        complete = len(sound) - len(sound) % WINDOW
        self.rest = sound[complete:].clone()
        ended = [self.splitter.add(self._probability(window)) for window in sound[:complete].split(WINDOW) if complete]
        return [stretch for stretch in ended if stretch is not None]

    def finish(self) -> list[Stretch]:
        """The utterances that end with the sound."""
        length = self.length
        ended = []
        if len(self.rest):
            ended = self.add(np.zeros(WINDOW - len(self.rest), np.float32))
        last = self.splitter.finish(length)
        if last is not None:
            ended.append(last)
        return ended

    def _probability(self, window: torch.Tensor) -> float:
        with torch.inference_mode():
            return self.detector(window, SAMPLING_RATE).item()


def speech_regions(blocks: Iterable[np.ndarray], longest: float) -> Iterator[tuple[float, float]]:
    """Start and end in seconds of the utterances of a sound at 16 kHz that comes in blocks `(samples,)`, none longer
    than `longest` seconds."""
    segmenter = SpeechSegmenter(longest)
    for block in blocks:
        yield from (_seconds(stretch) for stretch in segmenter.add(block))
    yield from (_seconds(stretch) for stretch in segmenter.finish())


def _seconds(stretch: Stretch) -> tuple[float, float]:
    return stretch.start / SAMPLING_RATE, stretch.end / SAMPLING_RATE


def _silero():
    """silero-vad, which sets the number of threads of PyTorch to one when it is imported."""
    threads = torch.get_num_threads()
    try:
        import silero_vad
    finally:
        torch.set_num_threads(threads)
    return silero_vad
