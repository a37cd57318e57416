"""Emotions while the sound comes in: answers on the way, and at the end of each utterance."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from merhan.errors import InputError
from merhan.logs import get_logger
from merhan.prediction.predict import Predictor
from merhan.prediction.recordings import Resampler
from merhan.prediction.speech import SpeechSegmenter, Stretch
from merhan.prediction.timeline import LONGEST, records
from merhan.prediction.transcription import Transcriber
from processing_merhan import HIGHEST_RATE, LOWEST_RATE, SAMPLING_RATE


logger = get_logger(__name__)


class Answer(NamedTuple):
    """What a stream says about an utterance, in seconds from its start."""

    start: float
    end: float  # of the sound that was read
    is_final: bool  # the utterance has ended
    prediction: str | None  # None where it has an error
    scores: dict[str, float]
    abstained: bool
    text: str  # the words that the model was given
    error: str | None


class StreamingRecogniser:
    """A recogniser that takes sound as it comes, in memory that does not grow.

        stream = StreamingRecogniser(Predictor(*load_checkpoint("outputs/quickstart")))
        for chunk in microphone:          # (samples,) at 16 kHz, or at `sampling_rate`
            for answer in stream.add(chunk):
                print(answer.is_final, answer.prediction)
        answers = stream.finish()

    An utterance ends with 0.3 s without speech, or where it would exceed the model's `max_seconds`, exactly as in
    [`merhan.timeline`]; its final answer is the one that is given there. While it lasts there is an answer every
    `every` seconds, about what was said so far.

    Args:
        every: seconds of sound between two answers on the way; None = final answers alone.
        transcriber: finds the words of an utterance at its end.
        sampling_rate: of the sound, in Hz; another than 16 kHz is converted as it comes.

    Raises:
        InputError: the model reads no sound, or `every` or `sampling_rate` cannot be used.
        ImportError: silero-vad is not installed.
    """

    def __init__(
        self,
        predictor: Predictor,
        every: float | None = 1.0,
        transcriber: Transcriber | None = None,
        sampling_rate: int = SAMPLING_RATE,
    ):
        if "audio" not in predictor.processor.modalities:
            raise InputError("StreamingRecogniser: this model reads no sound; choose one that does.")
        if every is not None and not every > 0:
            raise InputError(f"every: {every} is no time between two answers; give seconds, or None.")
        if not (isinstance(sampling_rate, int | np.integer) and LOWEST_RATE <= sampling_rate <= HIGHEST_RATE):
            raise InputError(
                f"sampling_rate: {sampling_rate} is not read; give a whole number of Hz, {LOWEST_RATE} to "
                f"{HIGHEST_RATE}."
            )
        self.predictor, self.transcriber = predictor, transcriber
        self.resampler = Resampler(int(sampling_rate))
        self.segmenter = SpeechSegmenter(predictor.processor.max_seconds or LONGEST)
        self.every = None if every is None else max(round(every * SAMPLING_RATE), 1)
        self.next_answer = self.every or 0  # sample at which the next answer on the way is due
        self.sound = np.zeros(0, np.float32)  # what an open utterance may need
        self.first = 0  # number of its first sample
        self.words: list[tuple[float, str]] = []  # times and words that belong to no finished utterance
        self.answered = 0  # samples up to which utterances are final

    def add(self, samples: np.ndarray, words: Sequence[tuple[float, str]] = ()) -> list[Answer]:
        """Read on.

        Args:
            samples: `(samples,)` of any length, floats in [-1, 1] or int16.
            words: `(time, word)` of a recogniser of your own, the time in seconds from the start of the stream, within
                the word. A word counts if it comes before its utterance ends; others are left out with a warning.

        Returns:
            The answers that are due, in the order of time.

        Raises:
            InputError: samples of another kind.
        """
        return self._read(self.resampler.add(_as_floats(samples)), words)

    def _read(self, samples: np.ndarray, words: Sequence[tuple[float, str]] = ()) -> list[Answer]:
        """Read on samples at 16 kHz."""
        self._remember(words)
        self.sound = np.concatenate([self.sound, samples])
        answers = [self._answer(stretch, True) for stretch in self.segmenter.add(samples)]
        answers += self._on_the_way()
        self._forget()
        return answers

    def finish(self) -> list[Answer]:
        """The answer of the utterance that the end of the sound ends. Afterwards the stream is used up."""
        answers = self._read(self.resampler.finish())
        answers += [self._answer(stretch, True) for stretch in self.segmenter.finish()]
        _warn_of([word for _, word in self.words], "lie where no utterance is")
        return answers

    def _on_the_way(self) -> list[Answer]:
        """The answer on the open utterance, if it is due."""
        length = self.segmenter.length
        if self.every is None or length < self.next_answer:
            return []
        self.next_answer = length + self.every
        splitter = self.segmenter.splitter
        if splitter.start is None:
            return []
        return [self._answer(Stretch(splitter.first, length), False)]

    def _answer(self, stretch: Stretch, is_final: bool) -> Answer:
        sound = self.sound[stretch.start - self.first : stretch.end - self.first]
        start, end = stretch.start / SAMPLING_RATE, stretch.end / SAMPLING_RATE
        text = " ".join(word for time, word in self.words if start <= time < end)
        if self.transcriber is not None and is_final:
            text = self.transcriber.usable_text(self.transcriber(sound), self.predictor.processor)
        if is_final:
            self.answered = stretch.end
            self.words = [(time, word) for time, word in self.words if not start <= time < end]
        return self._scored(sound, text, start, end, is_final)

    def _scored(self, sound: np.ndarray, text: str, start: float, end: float, is_final: bool) -> Answer:
        rows = pd.DataFrame({"audio": [{"array": sound, "sampling_rate": SAMPLING_RATE}], "text": [text]})
        (row,) = records(self.predictor.table(rows, quiet=True))
        scores = {label: row[f"score_{label}"] for label in self.predictor.labels}
        text = text if "text" in (row["given"] or "") else ""
        return Answer(start, end, is_final, row["prediction"], scores, bool(row["abstained"]), text, row["error"])

    def _remember(self, words: Sequence[tuple[float, str]]):
        late = [word for time, word in words if time * SAMPLING_RATE < self.answered]
        _warn_of(late, "came after their utterance had ended")
        self.words += [(time, word) for time, word in words if time * SAMPLING_RATE >= self.answered]

    def _forget(self):
        """Drop sound and words that no open or later utterance needs."""
        needed = max(self.segmenter.splitter.first, self.first)
        self.sound = self.sound[needed - self.first :].copy()
        self.first = needed
        _warn_of([word for time, word in self.words if time * SAMPLING_RATE < needed], "lie where no utterance is")
        self.words = [(time, word) for time, word in self.words if time * SAMPLING_RATE >= needed]


def _as_floats(samples: np.ndarray) -> np.ndarray:
    """Samples as float32, int16 scaled to [-1, 1]."""
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.dtype not in (np.int16, np.float32, np.float64):
        raise InputError(
            f"StreamingRecogniser: a chunk of {samples.dtype} and shape {samples.shape} is not read; give (samples,) "
            f"of one channel as float32 in [-1, 1] or int16."
        )
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / 2**15
    if not np.isfinite(samples).all():
        raise InputError("StreamingRecogniser: a chunk holds NaN or infinite samples; check where it comes from.")
    return samples.astype(np.float32)


def _warn_of(words: Sequence[str], why: str):
    if words:
        logger.warning(f"{len(words)} words {why}, and were left out: {words[0]} ...")
