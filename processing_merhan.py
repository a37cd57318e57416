# Copyright 2026 The MER-HAN Authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""From a recording and its words to the tensors that MER-HAN reads, and from its logits back to emotions.

`load_audio` is the one door for sound, [`MerhanProcessor`] adds the words and makes batches,
[`EmotionRecognitionPipeline`] answers in one call.

This file is copied beside every checkpoint and loads alone: it imports nothing of this project.
"""

import functools
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio
from transformers import BatchEncoding, Pipeline
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin


SAMPLING_RATE = 16_000
_FIELDS = ("audio", "text", "speaker", "context")  # of an utterance
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"


class AudioError(ValueError):
    """A recording that cannot be used; the message names it and says what is wrong and what to do."""


# --- the audio door ---------------------------------------------------------------------------------------------------


def load_audio(
    source: str | os.PathLike | bytes | Mapping[str, Any],
    start: float | None = None,
    end: float | None = None,
    min_seconds: float = 0.5,
    max_seconds: float | None = None,
    trim_silence: float | None = None,
) -> np.ndarray:
    """Decode anything that holds sound into what the model reads.

    Args:
        source, start, end: as in [`decode_audio`].
        min_seconds: shorter sound gets zeros behind it (SpecAugment of wav2vec2 needs 0.2 s, its convolutions 25 ms).
        max_seconds: of longer sound the middle is kept: leading and trailing silence is the first to go.
        trim_silence: decibels; what lies before and after the sound and is that much weaker than its loudest 10 ms is
            cut off, but for 50 ms. `None` keeps it.

    Returns:
        `(samples,)` float32, mono, 16 kHz, mean removed.

    Raises:
        AudioError: as [`decode_audio`].
    """
    waveform, rate = read_audio(source, start, end)
    if rate != SAMPLING_RATE:
        waveform = _resampler(rate)(torch.from_numpy(waveform)).numpy()
    waveform = waveform - waveform.mean()
    if trim_silence is not None:
        waveform = _trim(waveform, trim_silence)
    return _fit(waveform, min_seconds, max_seconds)


def read_audio(
    source: str | os.PathLike | bytes | Mapping[str, Any], start: float | None = None, end: float | None = None
) -> tuple[np.ndarray, int]:
    """Decode sound as it stands: `(samples,)` float32, the mean of its channels, and its rate. See [`decode_audio`]."""
    waveform, rate = decode_audio(source, start, end)
    return waveform.mean(axis=0, dtype=np.float32), rate


def decode_audio(
    source: str | os.PathLike | bytes | Mapping[str, Any], start: float | None = None, end: float | None = None
) -> tuple[np.ndarray, int]:
    """Decode sound as it stands: `(channels, samples)` float32 and its rate.

    Args:
        source: a path or the bytes of a file (wav, flac, ogg, mp3 by soundfile; mp4, m4a, webm and whatever else FFmpeg
            knows by PyAV), or `{"array": ..., "sampling_rate": ...}` with the array as `(samples,)`,
            `(samples, channels)` or `(channels, samples)`, floats in [-1, 1] or signed integers.
        start, end: seconds within the recording; what lies outside is not read.

    Raises:
        AudioError: nothing there, not sound, shorter than its header says, no samples, NaN or infinite samples, a span
            that is none. Names the source.
    """
    name = _name(source)
    if (start or 0) < 0 or (end is not None and end <= (start or 0)):
        raise AudioError(f"{name}: has no sound{_span(start, end)}; mend the manifest's start and end (seconds).")
    if isinstance(source, Mapping):
        waveform, rate = _from_array(source, name)
        waveform = waveform[:, _samples(start, rate, 0) : _samples(end, rate, waveform.shape[1])]
    else:
        waveform, rate = _decode(source, name, start, end)
    if waveform.shape[1] == 0:
        raise AudioError(f"{name}: holds 0 samples{_span(start, end)}; remove it from the manifest or record it again.")
    if not np.isfinite(waveform).all():
        raise AudioError(f"{name}: holds NaN or infinite samples; write it again from its source.")
    return waveform, rate


def _name(source: Any) -> str:
    if isinstance(source, (str, os.PathLike)):
        return str(source)
    return f"<{len(source)} bytes>" if isinstance(source, bytes) else "<array>"


def _span(start: float | None, end: float | None) -> str:
    return "" if start is None and end is None else f" between {start or 0} s and {end or 'its end'} s"


def _samples(seconds: float | None, rate: int, default: int) -> int:
    return default if seconds is None else round(seconds * rate)


def _from_array(source: Mapping[str, Any], name: str) -> tuple[np.ndarray, int]:
    """-> `(channels, samples)` float32 and its rate."""
    missing = {"array", "sampling_rate"} - set(source)
    if missing:
        raise AudioError(f"{name}: needs 'array' and 'sampling_rate', lacks {' and '.join(sorted(missing))}.")
    array = np.atleast_2d(np.asarray(source["array"]))
    if array.ndim != 2:
        raise AudioError(f"{name}: has {array.ndim} dimensions; give (samples,) or (samples, channels).")
    if array.shape[0] > array.shape[1] > 0:
        array = array.T
    if np.issubdtype(array.dtype, np.signedinteger) and array.itemsize <= 4:
        array = array / (np.iinfo(array.dtype).max + 1)
    elif not np.issubdtype(array.dtype, np.floating):
        raise AudioError(f"{name}: holds {array.dtype}, whose range says nothing; give floats in [-1, 1], or int16.")
    rate = source["sampling_rate"]
    if not isinstance(rate, (int, float, np.number)) or rate <= 0:
        raise AudioError(f"{name}: has a sampling_rate of {rate!r}; give samples per second.")
    return array.astype(np.float32), int(rate)


def _decode(source: Any, name: str, start: float | None, end: float | None) -> tuple[np.ndarray, int]:
    """File or bytes -> `(channels, samples)` float32 and its rate."""
    import soundfile

    if not isinstance(source, (str, os.PathLike, bytes)):
        raise AudioError(
            f"{name}: is of type {type(source).__name__}; give a path, bytes, or an array with its rate as "
            f'{{"array": ..., "sampling_rate": ...}}.'
        )
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise AudioError(f"{name}: no such file; check the manifest's audio column and its root folder.")
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            first = min(_samples(start, file.samplerate, 0), file.frames)
            last = min(_samples(end, file.samplerate, file.frames), file.frames)
            file.seek(first)
            waveform = file.read(max(last - first, 0), dtype="float32", always_2d=True).T
            _refuse_truncated(name, file.extra_info, last - first, waveform.shape[1])
            return waveform, file.samplerate
    except soundfile.LibsndfileError as error:
        _refuse_non_audio(source, name)
        return _decode_with_av(source, name, start, end, error)


def _refuse_non_audio(source: Any, name: str):
    head = source[:64] if isinstance(source, bytes) else Path(source).read_bytes()[:64]
    if not head:
        raise AudioError(f"{name}: is an empty file; copy it again from its source.")
    if head.startswith(_LFS_POINTER):
        raise AudioError(f"{name}: is a Git LFS pointer, not audio; run `git lfs pull` where the corpus was cloned.")


def _refuse_truncated(name: str, log: str, expected: int, read: int):
    """A copy that was cut off opens without an error: its header says more than there is, or frames are missing."""
    # libsndfile's own words on a wav's or aiff's sound. Streams that were written to a pipe declare the largest size.
    declared = re.search(r"(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", log)
    cut = declared and int(declared[2]) < int(declared[1]) < 2**31 - 1
    # Other formats: an mp3's own count may be off by a frame or two.
    if cut or read < 0.9 * expected:
        raise AudioError(f"{name}: ends before its header says, it was cut off; copy it again from its source.")


def _decode_with_av(
    source: Any, name: str, start: float | None, end: float | None, reason: Exception
) -> tuple[np.ndarray, int]:
    try:
        import av
    except ImportError:
        raise AudioError(
            f"{name}: soundfile cannot read it ({reason}); `pip install av` reads mp4, m4a, webm."
        ) from None
    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as container:
            if not container.streams.audio:
                raise AudioError(f"{name}: has no sound track; drop it, or give its words alone.")
            stream = container.streams.audio[0]
            rate = stream.codec_context.sample_rate
            planar = av.AudioResampler(format="fltp")
            decoded = (part for frame in container.decode(stream) for part in planar.resample(frame))
            waveform = np.concatenate([part.to_ndarray() for part in decoded], axis=1)
    except AudioError:
        raise
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise AudioError(f"{name}: is not readable as audio ({error or reason}); copy it again or drop it.") from None
    return waveform[:, _samples(start, rate, 0) : _samples(end, rate, waveform.shape[1])], rate


@functools.lru_cache(maxsize=8)
def _resampler(rate: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(rate, SAMPLING_RATE)


def _trim(waveform: np.ndarray, decibels: float) -> np.ndarray:
    """Without the silence before and after; silence alone stays as it is."""
    frame = SAMPLING_RATE // 100
    whole = np.pad(waveform, (0, -len(waveform) % frame))
    power = np.square(whole.reshape(-1, frame)).mean(axis=1)
    (loud,) = np.nonzero(power >= power.max() * 10 ** (-decibels / 10))
    return waveform[max(loud[0] - 5, 0) * frame : (loud[-1] + 6) * frame]


def _fit(waveform: np.ndarray, min_seconds: float, max_seconds: float | None) -> np.ndarray:
    """Zeros behind sound that is too short, the middle of sound that is too long."""
    shortest = round(min_seconds * SAMPLING_RATE)
    longest = len(waveform) if max_seconds is None else round(max_seconds * SAMPLING_RATE)
    first = max(len(waveform) - longest, 0) // 2
    waveform = waveform[first : first + longest]
    return np.pad(waveform, (0, max(shortest - len(waveform), 0)))


# --- the processor ----------------------------------------------------------------------------------------------------


class MerhanProcessor(ProcessorMixin):
    r"""
    Feature extractor and tokenizer in one, with the template that makes text of words, speaker and dialogue.

    Args:
        feature_extractor: the speech backbone's, at 16 kHz.
        tokenizer: the text backbone's.
        modalities: what the model reads. A model of one modality still carries both parts, because a processor of
            transformers 5 cannot hold an absent one; the other part is never called.
        min_seconds, max_seconds, trim_silence: what is kept of the sound of one utterance, see [`load_audio`].
        max_tokens: bound on the text, special tokens included. It cuts the context, oldest turn first, **never the
            current turn**: that stays whole up to the tokenizer's `model_max_length`, which bounds `max_tokens` too.
        context_turns: how many earlier turns of the dialogue the model reads.
        use_speaker: whether the speaker's name stands in the text.
        turn_template: how a turn with a known speaker is written.

    The words and, after a separator, the turns before them: `<s> Ross: Fine. </s></s> Rachel: How are you? </s>`.
    """

    def __init__(
        self,
        feature_extractor,
        tokenizer,
        modalities: Sequence[str] = ("audio", "text"),
        min_seconds: float = 0.5,
        max_seconds: float | None = 12.0,
        max_tokens: int = 128,
        context_turns: int = 0,
        use_speaker: bool = False,
        turn_template: str = "{speaker}: {text}",
        trim_silence: float | None = None,
    ):
        super().__init__(feature_extractor, tokenizer)
        self.modalities = list(modalities)
        self.min_seconds = min_seconds
        self.max_seconds = max_seconds
        self.max_tokens = max_tokens
        self.context_turns = context_turns
        self.use_speaker = use_speaker
        self.turn_template = turn_template
        self.trim_silence = trim_silence
        # The oldest turns stand first, so they are what a full context loses.
        self.tokenizer.truncation_side = "left"

    @property
    def model_input_names(self) -> list[str]:
        return ["input_values", "audio_attention_mask", "input_ids", "attention_mask"]

    def __call__(
        self, audio: Any = None, text: Any = None, speaker: Any = None, context: Any = None, return_tensors: str = "pt"
    ) -> BatchFeature:
        """Tensors for one utterance, or for a list of them.

        Args:
            audio: whatever [`load_audio`] takes, or `None`; or a list of these.
            text: the words of the turn, or `None`; or a list.
            speaker: who says it, or `None`; or a list.
            context: the turns before, oldest first, each a string or `{"speaker": ..., "text": ...}`; or a list of
                such lists, one for each utterance.
            return_tensors: `"pt"`; there is nothing else.

        Returns:
            `input_values` and `audio_attention_mask` `(batch, samples)`, `input_ids` and `attention_mask`
            `(batch, tokens)`; a modality that no row has is absent, a row without it has a mask of zeros.

        Raises:
            AudioError: as [`decode_audio`].
            ValueError: lists of several lengths, or a single value beside a list; words that are no string; nothing to
                read.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors: there is 'pt' alone, not {return_tensors!r}.")
        rows = _rows(audio, text, speaker, context)
        waveforms = [None if row["audio"] is None else self.load_audio(row["audio"]) for row in rows]
        tokens = [self.encode_text(row["text"], row["speaker"], row["context"]) for row in rows]
        batch = self.pad(waveforms, tokens)
        self._require_readable(batch)
        return batch

    def load_audio(self, source: Any, start: float | None = None, end: float | None = None) -> np.ndarray:
        """[`load_audio`] with this processor's bounds."""
        return load_audio(source, start, end, self.min_seconds, self.max_seconds, self.trim_silence)

    def encode_text(self, text: str | None, speaker: str | None = None, context: Any = None) -> list[int] | None:
        """Token ids of a turn and what of its context fits; `None` where there are no words.

        Raises:
            ValueError: the turn alone is longer than the text backbone can read, or is no string.
        """
        encoding = self._encode(text, speaker, context)
        return None if encoding is None else encoding["input_ids"]

    def words(self, text: str | None, speaker: str | None = None, context: Any = None) -> list[tuple[str, list[int]]]:
        """Each word of the turn, without its context, and the places of its tokens in what [`encode_text`] gives."""
        encoding = self._encode(text, speaker, context)
        if encoding is None:
            return []
        turn, places = self._turn({"speaker": speaker, "text": text}), {}
        for place, (word, sequence) in enumerate(zip(encoding.word_ids(), encoding.sequence_ids(), strict=True)):
            if sequence == 0:
                places.setdefault(word, []).append(place)
        return [(turn[slice(*encoding.word_to_chars(word))].strip(), tokens) for word, tokens in places.items()]

    def _encode(self, text: str | None, speaker: str | None, context: Any) -> BatchEncoding | None:
        if text is not None and not isinstance(text, str):
            raise ValueError(f"text: {text!r} is no string; give the words, or None where there are none.")
        if not text or not text.strip():
            return None
        turn = self._turn({"speaker": speaker, "text": text})
        alone = self.tokenizer(turn)
        ids = alone["input_ids"]
        if len(ids) > self.tokenizer.model_max_length:
            raise ValueError(
                f"The turn {text[:60]!r}... has {len(ids)} tokens, the text backbone reads at most "
                f"{self.tokenizer.model_max_length}, and a turn is never truncated; split it into several."
            )
        earlier = list(context or ())[len(context or ()) - self.context_turns :] if self.context_turns else []
        before = " ".join(filter(None, map(self._turn, earlier)))
        longest = min(self.max_tokens, self.tokenizer.model_max_length)
        specials = [self.tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True)]
        if not before or len(ids) - specials[0] + specials[1] >= longest:
            return alone
        return self.tokenizer(turn, before, truncation="only_second", max_length=longest)

    def _turn(self, turn: str | Mapping[str, str | None]) -> str:
        turn = {"text": turn} if isinstance(turn, str) else turn
        words = turn.get("text") or ""
        if words and self.use_speaker and turn.get("speaker"):
            return self.turn_template.format(speaker=turn["speaker"], text=words)
        return words

    def pad(self, waveforms: Sequence[np.ndarray | None], tokens: Sequence[list[int] | None]) -> BatchFeature:
        """Loaded sound and encoded text, one each per row, as one padded batch with both masks."""
        batch: dict[str, torch.Tensor] = {}
        if any(waveform is not None for waveform in waveforms):
            silence = np.zeros(round(self.min_seconds * SAMPLING_RATE), dtype=np.float32)
            padded = self.feature_extractor(
                [silence if waveform is None else waveform for waveform in waveforms],
                sampling_rate=SAMPLING_RATE,
                padding=True,
                return_attention_mask=True,
                return_tensors="pt",
            )
            batch["input_values"] = padded["input_values"]
            batch["audio_attention_mask"] = padded["attention_mask"].long() * _present(waveforms)
        if any(ids is not None for ids in tokens):
            empty = [self.tokenizer.pad_token_id]
            padded = self.tokenizer.pad(
                {"input_ids": [empty if ids is None else ids for ids in tokens]}, return_tensors="pt"
            )
            batch["input_ids"] = padded["input_ids"]
            batch["attention_mask"] = padded["attention_mask"] * _present(tokens)
        return BatchFeature(batch)

    def _require_readable(self, batch: Mapping[str, torch.Tensor]):
        masks = {"audio": batch.get("audio_attention_mask"), "text": batch.get("attention_mask")}
        given = [name for name, mask in masks.items() if mask is not None]
        if unusable := [name for name in given if name not in self.modalities]:
            raise ValueError(
                f"This model reads {' and '.join(self.modalities)} only, but was given {' and '.join(unusable)}; "
                f"leave that out or load a model that reads it."
            )
        if not given:
            raise ValueError(f"Nothing to read: give {' or '.join(self.modalities)}.")
        readable = sum(mask.any(dim=1).long() for mask in masks.values() if mask is not None)
        if not readable.all():
            rows = [index for index, count in enumerate(readable.tolist()) if not count]
            raise ValueError(f"Utterances {rows} of the batch have neither audio nor text; give either.")


def _rows(audio: Any, text: Any, speaker: Any, context: Any) -> list[dict[str, Any]]:
    """One utterance, or lists of them in columns -> `[{"audio", "text", "speaker", "context"}, ...]`."""
    columns = {"audio": audio, "text": text, "speaker": speaker, "context": context}
    lists = {name: len(columns[name]) for name in _FIELDS[:3] if isinstance(columns[name], (list, tuple))}
    if not lists:
        return [columns]
    size = next(iter(lists.values()))
    for name, column in columns.items():
        if column is None:
            columns[name] = [None] * size
        elif not isinstance(column, (list, tuple)) or len(column) != size:
            given = f"a list of {len(column)}" if isinstance(column, (list, tuple)) else "a single value"
            raise ValueError(f"{name}: is {given} beside a list of {size}; give one for each utterance, or None.")
    if any(isinstance(turns, (str, Mapping)) for turns in columns["context"]):
        raise ValueError("context: give a list of turns for each utterance, or None.")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _present(items: Sequence[Any]) -> torch.Tensor:
    return torch.tensor([[item is not None] for item in items]).long()


# --- the pipeline -----------------------------------------------------------------------------------------------------

# What a modality is to the model: its values, and the mask that says which are real.
_INPUTS = {"audio": ("input_values", "audio_attention_mask"), "text": ("input_ids", "attention_mask")}


class EmotionRecognitionPipeline(Pipeline):
    """`pipeline("emotion-recognition", model=..., trust_remote_code=True)`: from sound and words to emotions.

        recogniser("a.wav", text="I can't believe it!")     -> [{"label": "surprise", "score": 0.83}, ...]
        recogniser("a.wav")                                 voice alone
        recogniser(text="I can't believe it!")              words alone
        recogniser([{"audio": "a.wav", "text": "Oh!"}, "b.flac", {"text": "No."}], batch_size=8)   one list each

    Audio is whatever [`load_audio`] takes. `speaker` and `context` (the turns before, oldest first) are read by a model
    that was trained with them. `top_k` keeps the best few labels.

    `explain=True` gives for each utterance, in place of the list of scores, a dictionary of

        scores: that list.
        contributions: `{"audio": ..., "text": ...}` in [-1, 1], where both were given: how much of the first label's
            score goes when that modality is taken away (occlusion; its learned token takes its place).
        words: `{"word", "attention"}` of the turn, where both were given and the fusion has cross attention: how the
            word, as a query, spreads its attention over `seconds` (mean over heads and over the word's tokens; sums
            to 1).
        seconds: the middle of each audio frame, counted from the first sample that the model was given.

    Attention says where the model looked, not what it would have answered without: that is what occlusion says.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False

    def __call__(self, audio: Any = None, text: Any = None, batch_size: int = 8, **kwargs) -> list:
        fields = {name: kwargs.pop(name, None) for name in ("speaker", "context")}
        many = isinstance(audio, (list, tuple)) or isinstance(text, (list, tuple))
        utterances = [_utterance(row.pop("audio"), **row) for row in _rows(audio, text, **fields)]
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size: {batch_size!r} is not a number of utterances; give 1 or more.")
        if kwargs.get("explain"):
            batch_size = 1  # without padding, every frame and token is the utterance's own
        batches = (utterances[first : first + batch_size] for first in range(0, len(utterances), batch_size))
        results = [
            one
            for batch in batches
            for one in super(EmotionRecognitionPipeline, self).__call__({"utterances": batch}, **kwargs)
        ]
        return results if many else results[0]

    def _sanitize_parameters(self, top_k: int | None = None, explain: bool = False, **kwargs):
        if kwargs:
            known = "speaker, context, batch_size, top_k, explain"
            raise TypeError(f"Unknown argument {', '.join(kwargs)}; known are {known}.")
        return {"explain": explain}, {"explain": explain}, {"top_k": top_k, "explain": explain}

    def preprocess(self, inputs: dict[str, list[dict]], explain: bool = False) -> dict[str, Any]:
        rows = inputs["utterances"]
        batch = self.processor(**{name: [row[name] for row in rows] for name in _FIELDS})
        if not explain or len(_given(batch)) < 2:
            return {"batch": batch, "words": []}
        return {"batch": batch, "words": self.processor.words(*(rows[0][name] for name in _FIELDS[1:]))}

    def _forward(self, inputs: dict[str, Any], explain: bool = False) -> dict[str, Any]:
        batch = inputs["batch"]
        outputs = self.model(**batch, output_attentions=explain)
        found = {"scores": self._scores(batch, outputs.logits), "words": inputs["words"]}
        given = _given(batch)
        if explain and len(given) == 2:
            kept = {"audio": given["text"], "text": given["audio"]}
            found["without"] = {name: self._scores(other, self.model(**other).logits) for name, other in kept.items()}
            found["attention"] = outputs.attentions.get("text_to_audio")
            found["samples"] = batch["input_values"].shape[1]
        return found

    def postprocess(self, outputs: dict[str, Any], top_k: int | None = None, explain: bool = False) -> list[Any]:
        names = self.model.config.id2label
        ranked = outputs["scores"].sort(dim=-1, descending=True)
        scores = [
            [{"label": names[index], "score": score} for index, score in zip(indices, scores, strict=True)][:top_k]
            for indices, scores in zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
        ]
        return [{"scores": scores[0], **self._explanation(outputs)}] if explain else scores

    def _scores(self, batch: Mapping[str, torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
        """Calibrated for what each utterance has."""
        there = {name: batch[keys[1]].any(dim=1).tolist() for name, keys in _INPUTS.items() if keys[1] in batch}
        given = ["+".join(name for name in there if there[name][row]) for row in range(len(logits))]
        temperatures = [self.model.config.temperature.get(names, 1.0) for names in given]
        return (logits.float() / logits.new_tensor(temperatures, dtype=torch.float)[:, None]).softmax(dim=-1)

    def _explanation(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Of one utterance; nothing where it has one modality alone, which leaves nothing to tell apart."""
        found: dict[str, Any] = {"contributions": {}, "words": [], "seconds": []}
        scores = outputs["scores"][0]
        for name, others in outputs.get("without", {}).items():
            found["contributions"][name] = (scores.max() - others[0, scores.argmax()]).item()
        if outputs.get("attention") is not None:
            attention = outputs["attention"][0].float().mean(dim=0)  # (tokens, frames)
            duration, frames = outputs["samples"] / SAMPLING_RATE, attention.shape[1]
            found["seconds"] = [(frame + 0.5) * duration / frames for frame in range(frames)]
            found["words"] = [
                {"word": word, "attention": attention[places].mean(dim=0).tolist()} for word, places in outputs["words"]
            ]
        return found


def _given(batch: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of each modality that a batch has."""
    return {name: {key: batch[key] for key in keys} for name, keys in _INPUTS.items() if keys[0] in batch}


def _utterance(item: Any, **fields: Any) -> dict[str, Any]:
    """One input in any of its forms -> `{"audio", "text", "speaker", "context"}`."""
    if isinstance(item, Mapping) and "array" not in item:
        if unknown := set(item) - set(_FIELDS):
            raise ValueError(f"An utterance has {', '.join(_FIELDS)}; unknown: {', '.join(sorted(unknown))}.")
        fields |= item
    else:
        fields["audio"] = item
    return {name: fields.get(name) for name in _FIELDS}


MerhanProcessor.register_for_auto_class()

__all__ = [
    "AudioError",
    "EmotionRecognitionPipeline",
    "MerhanProcessor",
    "decode_audio",
    "load_audio",
    "read_audio",
]
