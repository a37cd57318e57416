"""Hugging Face Inference Endpoints: answers requests with the model of this folder.

A request is `{"inputs": ...}` with an utterance or a list of them, each a dictionary with `audio` (the bytes of a file
in base64), `text`, or both, and optionally `speaker` and `context`, a list of turns as strings. The bytes of a
recording alone, or a string with its words alone, are an utterance, too. `"parameters": {"top_k": 1}` limits the
labels. The answer to an utterance is a list of `{"label": ..., "score": ...}`, the most likely first.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from transformers import pipeline


MOST_UTTERANCES = 32  # of a request
BATCH = 8
MOST_BYTES = 2**24  # of a recording
MOST_CHARACTERS = 4_000  # of a text, and of its context
FIELDS = ("audio", "text", "speaker", "context")


class EndpointHandler:
    """Made once by the server, and called for every request."""

    def __init__(self, path: str = ""):
        self.recogniser: Any = pipeline("emotion-recognition", model=path, trust_remote_code=True)
        self.processor = self.recogniser.processor

    def __call__(self, data: Mapping[str, Any]) -> list[Any]:
        """Answer a request.

        Raises:
            ValueError: it cannot be answered; the message says why, and is what the server sends back.
        """
        if not isinstance(data, Mapping) or "inputs" not in data:
            raise ValueError('The request has no "inputs".')
        inputs = data["inputs"]
        utterances = inputs if isinstance(inputs, list) else [inputs]
        if not 1 <= len(utterances) <= MOST_UTTERANCES:
            raise ValueError(f"The request has {len(utterances)} utterances; send 1 to {MOST_UTTERANCES}.")
        options = data.get("parameters") or {}
        if not isinstance(options, Mapping) or set(options) - {"top_k"}:
            raise ValueError('"parameters" has the key "top_k" alone.')
        rows = [self._utterance(number, utterance) for number, utterance in enumerate(utterances)]
        answers = self.recogniser(rows, batch_size=BATCH, **options)
        return answers if isinstance(inputs, list) else answers[0]

    def _utterance(self, number: int, utterance: Any) -> dict[str, Any]:
        """An utterance of a request as the pipeline takes it."""
        place = f"inputs[{number}]"
        if isinstance(utterance, (bytes, bytearray)):
            return {"audio": self._sound(place, bytes(utterance))}
        if isinstance(utterance, str):
            utterance = {"text": utterance}
        if not isinstance(utterance, Mapping) or not utterance or set(utterance) - set(FIELDS):
            raise ValueError(f"{place}: must have some of the keys {', '.join(FIELDS)}, and no other.")
        row = dict(utterance)
        _require_words(place, row)
        if row.get("audio") is not None:
            row["audio"] = self._sound(place, _decoded(place, row["audio"]))
        if row.get("audio") is None and not str(row.get("text") or "").strip():
            raise ValueError(f"{place}: has neither audio nor text.")
        return row

    def _sound(self, place: str, content: bytes) -> dict[str, Any]:
        """A recording; never a path of the server. Of a longer one the model would read the middle alone."""
        if len(content) > MOST_BYTES:
            raise ValueError(f"{place}: the recording has {len(content)} bytes; send at most {MOST_BYTES}.")
        try:
            waveform = self.processor.load_audio(content, truncation=False)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        longest = self.processor.max_seconds
        if longest is not None and len(waveform) > longest * 16_000:
            raise ValueError(
                f"{place}: lasts {len(waveform) / 16_000:.1f} s, and the model reads {longest:g} s; send its parts."
            )
        return {"array": waveform, "sampling_rate": 16_000}


def _require_words(place: str, row: Mapping[str, Any]):
    """Raise ValueError unless text, speaker and turns are strings, and not too long together."""
    context = row.get("context") or []
    if not isinstance(context, list):
        raise ValueError(f"{place}: `context` must be a list of strings.")
    words = [text for text in (row.get("text"), row.get("speaker"), *context) if text is not None]
    if not all(isinstance(text, str) for text in words):
        raise ValueError(f"{place}: `text`, `speaker` and the turns of `context` must be strings.")
    if sum(map(len, words)) > MOST_CHARACTERS:
        raise ValueError(f"{place}: has {sum(map(len, words))} characters; send at most {MOST_CHARACTERS}.")


def _decoded(place: str, text: Any) -> bytes:
    """The bytes that base64 stands for."""
    if not isinstance(text, (str, bytes)) or len(text) > 2 * MOST_BYTES:
        raise ValueError(f"{place}: `audio` must be a string of base64, of at most {MOST_BYTES} bytes.")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{place}: `audio` is not base64; paths and addresses are not read.") from None
