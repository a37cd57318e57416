"""Words where none are given: those that a speech recogniser hears."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from merhan.errors import InputError
from merhan.logs import get_logger
from merhan.prediction.inputs import Utterance
from processing_merhan import SAMPLING_RATE, AudioError, MerhanProcessor, load_audio


logger = get_logger(__name__)

Recogniser = str | Path | Callable[[dict[str, Any]], Any]


class Word(NamedTuple):
    """A word, in seconds from the start of the sound."""

    start: float
    end: float
    word: str


class Transcript(NamedTuple):
    """What a recogniser heard in an utterance."""

    text: str
    words: list[Word]
    language: str | None  # if the recogniser says it


class Transcriber:
    """A speech recogniser, and whether a model can use what it hears.

    Args:
        recogniser: a Hub id or folder of a recogniser of transformers, as Whisper; or a function that is called as its
            pipelines are, with `{"raw": (samples,) float32, "sampling_rate": 16000}`, and returns the text or
            `{"text": ..., "chunks": [{"text": ..., "timestamp": (start, end)}, ...]}`, chunks and times if it has them.
        language: of the model's words, by name or code. What the recogniser says is of another one is not used.

    Raises:
        InputError: there is no such recogniser.
    """

    def __init__(self, recogniser: Recogniser, language: str | None = None):
        self.language = None if language is None else _language_name(language)
        self.name = getattr(recogniser, "__qualname__", None) or str(recogniser)
        self.recognise: Callable[[dict[str, Any]], Any]
        if isinstance(recogniser, str | Path):
            self.recognise = _pipeline(str(recogniser))
        elif callable(recogniser):
            self.recognise = recogniser
        else:
            raise InputError(f"transcribe: {recogniser!r} is no recogniser; give a Hub id, a folder or a function.")
        self.counts: Counter[str] = Counter()

    def __call__(self, waveform: np.ndarray) -> Transcript:
        """Transcribe an utterance `(samples,)` at 16 kHz."""
        result = self.recognise({"raw": waveform, "sampling_rate": SAMPLING_RATE})
        if isinstance(result, str):
            result = {"text": result}
        if not isinstance(result, Mapping) or not isinstance(result.get("text"), str):
            raise InputError(
                f"transcribe: {self.name} returned {str(result)[:80]!r}; it must return the text, or a dict with it."
            )
        seconds = len(waveform) / SAMPLING_RATE
        chunks = result.get("chunks") or [{"text": result["text"], "timestamp": (0.0, seconds)}]
        words = [word for chunk in chunks for word in _words(chunk, seconds)]
        languages = Counter(chunk["language"] for chunk in [result, *chunks] if chunk.get("language"))
        language = next((name for name, _ in languages.most_common(1)), None)
        return Transcript(" ".join(result["text"].split()), words, language)

    def usable_text(self, transcript: Transcript, processor: MerhanProcessor) -> str:
        """The text for the model; empty where nothing was heard, or nothing that it can use, which is counted."""
        reason = "used"
        if not transcript.text:
            reason = "empty"
        elif self.language and transcript.language and _language_name(transcript.language) != self.language:
            reason = "of another language"
        elif not _is_readable(processor, transcript.text):
            reason = "too long for the text backbone"
        self.counts[reason] += 1
        if reason != "used":
            return ""
        return transcript.text

    def with_words(self, utterance: Utterance, processor: MerhanProcessor) -> Utterance:
        """An utterance without words, with those that are heard in it; one that cannot be decoded as it is."""
        if utterance.text or utterance.audio is None or utterance.error is not None:
            return utterance
        try:
            waveform = load_audio(utterance.audio, utterance.start, utterance.end, 0.0)
        except AudioError:
            return utterance  # whoever decodes it for the model says why
        transcript = self(waveform)
        return utterance._replace(text=self.usable_text(transcript, processor), transcript=transcript.text)

    def log(self):
        """Say how many transcripts were not used, and why."""
        total = self.counts.total()
        for reason in sorted(set(self.counts) - {"used"}):
            logger.warning(f"{self.counts[reason]} of {total} transcripts are {reason}, and not used")


def optional_transcriber(recogniser: Recogniser | None, language: str | None) -> Transcriber | None:
    """The transcriber of a call's options; None if they name none.

    Raises:
        InputError: as [`Transcriber`], or there is a language and no recogniser.
    """
    if recogniser is not None:
        return Transcriber(recogniser, language)
    if language is not None:
        raise InputError("language: is that of the words that a recogniser hears; name one with `transcribe`.")
    return None


def _is_readable(processor: MerhanProcessor, text: str) -> bool:
    try:
        processor.encode_text(text)
    except ValueError:
        return False
    return True


def _words(chunk: Mapping[str, Any], seconds: float) -> Iterator[Word]:
    """The words of a chunk; its time is shared among them by their letters."""
    words = str(chunk["text"]).split()
    start, end = chunk.get("timestamp") or (0.0, seconds)
    start = min(start or 0.0, seconds)
    end = seconds if end is None else min(max(end, start), seconds)
    letters = sum(map(len, words))
    for word in words:
        stop = start + (end - start) * len(word) / letters
        yield Word(start, stop, word)
        start, end, letters = stop, end, letters - len(word)


def _language_name(language: str) -> str:
    """`en`, `EN` and `English` as `english`."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return LANGUAGES.get(language.lower(), language.lower())


def _pipeline(name: str) -> Callable[[dict[str, Any]], Any]:
    """A recogniser of transformers, with the finest times that it has."""
    from transformers import pipeline

    try:
        recogniser: Any = pipeline("automatic-speech-recognition", model=name)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"transcribe: {name} is no speech recogniser that transformers loads ({reason}).") from None
    options: dict[str, Any] = {}
    if recogniser.type == "seq2seq_whisper":
        has_words = getattr(recogniser.model.generation_config, "alignment_heads", None) is not None
        options = {"return_timestamps": "word" if has_words else True}
        if getattr(recogniser.model.generation_config, "is_multilingual", False):
            options["return_language"] = True
    elif recogniser.type.startswith("ctc"):
        options = {"return_timestamps": "word"}
    return lambda sound: recogniser(dict(sound), **options)
