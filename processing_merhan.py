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
"""Processor and pipeline of MER-HAN: from a recording and its text to tensors, and from logits to emotions.

`load_audio` decodes sound, [`MerhanProcessor`] adds the text and makes batches, [`EmotionRecognitionPipeline`] does all
of it in one call.

This file is copied beside every checkpoint and loads alone: nothing of this project is imported but for the pipeline's
`timeline=True`, which needs the package merhan.
"""

import atexit
import contextlib
import faulthandler
import functools
import http.client
import io
import itertools
import json
import logging
import marshal
import math
import os
import queue
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torchaudio
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, BatchEncoding, Pipeline
from transformers.feature_extraction_utils import BatchFeature
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.processing_utils import ProcessorMixin


logger = logging.getLogger(__name__)

SAMPLING_RATE = 16_000
SAMPLES_PER_FRAME = 320  # of wav2vec2 and its relatives
_FIELDS = ("audio", "text", "speaker", "context")  # of an utterance
_VECTORS = ("audio_features", "text_features")  # of an utterance, in place of `audio` and `text`
_SOUND_KEYS = {"array", "raw", "bytes", "path"}  # of a mapping that is sound, and no utterance
# Modality -> the model's arguments for its values and its mask; a batch has one of each.
_VALUES = {"audio": ("input_values", "input_features", "audio_features"), "text": ("input_ids", "text_features")}
_MASKS = {"audio": ("audio_attention_mask", "audio_features_mask"), "text": ("attention_mask", "text_features_mask")}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
# What FFmpeg may read: formats that hold their sound themselves. Others are lists of files and addresses.
_FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,loas,matroska,mov,mp3,mpeg,mpegts,nistsphere,ogg,tta,voc,w64,"
    "wav,wv"
)
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz
_LARGEST_SAMPLE = 2.0**31  # full scale is 1; some programs write integers as floats
_END_TOLERANCE = 0.1  # seconds
_MOST_SAMPLES = 2**28
_TOO_LONG = "holds over 2^28 samples (1 GiB); give `start` and `end`, or cut it into utterances"
_TRUNCATED = "is truncated, it holds less than its header says; copy it again from its source"
_DECODING_SECONDS = 30.0  # and 1 more per MiB
_MOST_DOWNLOADED, _DOWNLOAD_SECONDS = 100 * 2**20, 60.0  # bytes; of one address, from the request to the last byte
_BLOCK = 2**22  # samples that are read at a time
_LARGEST_KERNEL = 2**20  # source rate times target rate, both reduced, up to which torchaudio resamples


class AudioError(ValueError):
    """A recording that cannot be used; the message names it, the problem and the remedy."""


# --- audio ------------------------------------------------------------------------------------------------------------


def load_audio(
    source: Any,
    start: float | None = None,
    end: float | None = None,
    min_seconds: float = 0.5,
    max_seconds: float | None = None,
    trim_silence: float | None = None,
    sampling_rate: float | None = None,
) -> np.ndarray:
    """Decode sound into what the model reads.

    Args:
        source, start, end, sampling_rate: as in [`decode_audio`].
        min_seconds: shorter sound is padded with zeros (SpecAugment of wav2vec2 needs 0.2 s, its convolutions 25 ms).
        max_seconds: of longer sound only the middle is used, because the ends often hold silence; `None` = no limit.
        trim_silence: cut leading and trailing sound that is this many decibels below the loudest 10 ms, except for
            50 ms; `None` keeps it.

    Returns:
        `(samples,)` float32, mono, 16 kHz, mean removed.

    Raises:
        AudioError: as [`decode_audio`].
    """
    with _no_other_error(_name(source)):
        waveform = resample(*read_audio(source, start, end, sampling_rate))
        waveform = waveform - waveform.mean()
        if trim_silence is not None:
            waveform = _trim(waveform, trim_silence)
        return fit_length(waveform, min_seconds, max_seconds)


def read_audio(
    source: Any, start: float | None = None, end: float | None = None, sampling_rate: float | None = None
) -> tuple[np.ndarray, int]:
    """Decode sound without resampling: `(samples,)` float32, the mean of its channels, and its sampling rate in Hz.

    Args and errors as in [`decode_audio`].
    """
    waveform, rate = decode_audio(source, start, end, sampling_rate)
    return waveform.mean(axis=0, dtype=np.float32), rate


def decode_audio(
    source: Any, start: float | None = None, end: float | None = None, sampling_rate: float | None = None
) -> tuple[np.ndarray, int]:
    """Decode sound without resampling: `(channels, samples)` float32 and its sampling rate in Hz.

    Args:
        source: one of

            * a path, the bytes of a file, or a file opened for reading bytes (wav, flac, ogg and mp3 are decoded by
              soundfile; mp4, m4a, webm and other formats by FFmpeg through PyAV, in a process of its own),
            * `{"bytes": ..., "path": ...}` as in a data set; the path is read only where there are no bytes,
            * `{"array": ..., "sampling_rate": ...}`, or `raw` in place of `array`, with the array as `(samples,)`,
              `(samples, channels)` or `(channels, samples)`, floats in [-1, 1] or signed integers,
            * such an array or tensor alone, beside `sampling_rate`,
            * an `AudioDecoder` of torchcodec, which the audio columns of `datasets` hold.
        start, end: segment of the recording in seconds; by default all of it. An end may lie up to 0.1 s behind the end
            of the recording, because tables round it.
        sampling_rate: of an array or tensor alone, in Hz; other sound has its own.

    Raises:
        AudioError: no such file, an address, not audio, shorter than its header or its segment says, no samples, NaN,
            infinite or enormous samples, over 2^28 samples, or a sampling rate outside of 1 to 768 kHz. Names the
            source. Nothing else is raised.
    """
    name = _name(source)
    with _no_other_error(name):
        _require_segment(name, start, end)
        data, rate = _encoded_or_array(source, sampling_rate, name)
        if rate is None:
            waveform, rate = _decode(data, name, start, end)
        else:
            waveform, rate = _from_array(data, rate, name)
            waveform = waveform[:, slice(*_span(name, start, end, waveform.shape[1], rate))]
        _require_sound(waveform, name, start, end)
        return waveform, rate


# --- audio: forms and checks ---


@contextlib.contextmanager
def _no_other_error(name: str) -> Iterator[None]:
    """Turn whatever a damaged file, a foreign object or a lack of memory raises into an AudioError."""
    try:
        yield
    except AudioError:
        raise
    except Exception as error:
        raise AudioError(f"{name}: cannot be read ({type(error).__name__}: {error}); check it.") from error


def _name(source: Any) -> str:
    """What messages call some sound."""
    if isinstance(source, Mapping):
        return _name(next((source[key] for key in ("path", "bytes") if source.get(key) is not None), np.ndarray(0)))
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return "<array>"
    return str(getattr(source, "name", f"<{type(source).__name__}>"))


def _encoded_or_array(source: Any, sampling_rate: Any, name: str) -> tuple[Any, Any]:
    """Any form of sound as a path or bytes, with None; or as an array, with its sampling rate."""
    if isinstance(source, Mapping):
        return _from_mapping(source, name)
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source), None
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), None
    if hasattr(source, "get_all_samples"):
        samples = source.get_all_samples()
        return samples.data, samples.sample_rate
    if hasattr(source, "read"):
        return _read_file(source, name), None
    if isinstance(source, (np.ndarray, torch.Tensor)) and sampling_rate is not None:
        return source, sampling_rate
    raise AudioError(
        f"{name}: is of type {type(source).__name__}; give a path, bytes, an array with `sampling_rate=`, or "
        f'{{"array": ..., "sampling_rate": ...}}.'
    )


def _from_mapping(source: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    for key in ("array", "raw"):
        if source.get(key) is not None:
            return source[key], _rate(source.get("sampling_rate"), name)
    for key in ("bytes", "path"):
        if source.get(key) is not None:
            return _encoded_or_array(source[key], None, name)
    keys = ", ".join(map(str, source)) or "no keys"
    raise AudioError(f"{name}: has {keys}; give 'array' with 'sampling_rate', 'bytes', or 'path'.")


def _read_file(file: Any, name: str) -> bytes:
    """All bytes of an open file, wherever it stands."""
    if hasattr(file, "seek"):
        file.seek(0)
    content = file.read()
    if not isinstance(content, bytes):
        raise AudioError(f"{name}: is open for reading text; open it with mode 'rb'.")
    return content


def _rate(rate: Any, name: str) -> int:
    """A sampling rate as a whole number of Hz."""
    if isinstance(rate, (int, float, np.number)) and LOWEST_RATE <= rate <= HIGHEST_RATE:
        return round(float(rate))
    raise AudioError(
        f"{name}: has a sampling_rate of {rate!r}; give samples per second, {LOWEST_RATE} to {HIGHEST_RATE}."
    )


def _from_array(data: Any, rate: Any, name: str) -> tuple[np.ndarray, int]:
    """`(channels, samples)` float32 and its sampling rate."""
    if isinstance(data, torch.Tensor):
        data = data.detach().cpu()
        data = data.float() if data.is_floating_point() else data
    array = np.atleast_2d(np.asarray(data))
    if array.ndim != 2:
        raise AudioError(f"{name}: has {array.ndim} dimensions; give (samples,) or (samples, channels).")
    if array.shape[0] > array.shape[1] > 0:
        array = array.T
    if np.issubdtype(array.dtype, np.signedinteger) and array.itemsize <= 4:
        array = array / (np.iinfo(array.dtype).max + 1)
    elif not np.issubdtype(array.dtype, np.floating):
        raise AudioError(
            f"{name}: holds {array.dtype}, which has no defined full scale; give floats in [-1, 1], or int16."
        )
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        return array.astype(np.float32), _rate(rate, name)


def _require_segment(name: str, start: Any, end: Any):
    """Raise AudioError unless `start` and `end` are finite numbers in their order."""
    for value in (start, end):
        if value is not None and not (isinstance(value, (int, float, np.number)) and math.isfinite(value)):
            raise AudioError(f"{name}: {value!r} is no number of seconds; correct `start` and `end`.")
    if (start or 0) < 0 or (end is not None and end <= (start or 0)):
        raise AudioError(f"{name}: has no sound{_segment(start, end)}; correct `start` and `end` (seconds).")


def _segment(start: float | None, end: float | None) -> str:
    if start is None and end is None:
        return ""
    return f" between {start or 0} s and {'its end' if end is None else f'{end} s'}"


def _span(name: str, start: float | None, end: float | None, samples: int, rate: int) -> tuple[int, int]:
    """The first sample of a segment and the one after its last; AudioError if the recording ends before."""
    _rate(rate, name)
    if max(start or 0, end or 0) > samples / rate + _END_TOLERANCE:
        raise AudioError(
            f"{name}: lasts {samples / rate:.3f} s, and has no sound{_segment(start, end)}; correct `start` and `end`."
        )
    first = min(round((start or 0) * rate), samples)
    return first, samples if end is None else min(round(end * rate), samples)


def _require_sound(waveform: np.ndarray, name: str, start: float | None, end: float | None):
    """Raise AudioError for what decodes, but is no sound."""
    if waveform.shape[1] == 0:
        raise AudioError(f"{name}: holds 0 samples{_segment(start, end)}; leave it out, or record it again.")
    peak = max(waveform.max(), -waveform.min())  # NaN if any is
    if not np.isfinite(peak):
        raise AudioError(f"{name}: holds NaN or infinite samples; write it again from its source.")
    if peak > _LARGEST_SAMPLE:
        raise AudioError(f"{name}: holds samples of {peak:.1e}, where full scale is 1; write it again from its source.")


# --- audio: decoding ---


def _decode(source: str | bytes, name: str, start: float | None, end: float | None) -> tuple[np.ndarray, int]:
    """Decode a file or bytes: `(channels, samples)` float32 and its sampling rate."""
    import soundfile

    if isinstance(source, str):
        if re.match(r"[A-Za-z][\w+.-]+://", source):
            raise AudioError(
                f"{name}: is an address; download it first, or call processor or pipeline with allow_urls=True (http, "
                f"https)."
            )
        if not os.path.isfile(source):
            raise AudioError(f"{name}: no such file; check the path (in a table it is relative to the table's folder).")
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            if not _is_unfinished(file):
                return _read_segment(file, name, start, end), file.samplerate
    except (soundfile.LibsndfileError, TypeError):  # TypeError: the suffix .raw
        _refuse_non_audio(source, name)
    return _decode_apart(source, name, start, end)


def _read_segment(file: Any, name: str, start: float | None, end: float | None) -> np.ndarray:
    """Read a segment of an open `SoundFile`: `(channels, samples)` float32.

    In blocks, because the header of a damaged file may claim terabytes.
    """
    first, last = _span(name, start, end, file.frames, file.samplerate)
    file.seek(first)
    size = _BLOCK // file.channels
    blocks = [file.read(max(min(last - first, size), 0), dtype="float32", always_2d=True)]
    read = len(blocks[0])
    while len(blocks[-1]) == size and read < last - first:
        blocks.append(file.read(min(last - first - read, size), dtype="float32", always_2d=True))
        read += len(blocks[-1])
        if read * file.channels > _MOST_SAMPLES:
            raise AudioError(f"{name}: {_TOO_LONG}.")
    _refuse_truncated(name, file.extra_info, last - first, read)
    return (blocks[0] if len(blocks) == 1 else np.concatenate(blocks)).T


def _is_unfinished(file: Any) -> bool:
    """Whether a wav lacks its sizes, because the program that wrote it to a pipe left them at zero."""
    if file.frames > 0:
        return False
    sizes = re.search(r"Length : (\d+)\nRIFF : (\d+)", file.extra_info)
    return sizes is not None and int(sizes[1]) != int(sizes[2]) + 8


def _refuse_non_audio(source: str | bytes, name: str):
    """Raise AudioError for an empty file and for a Git LFS pointer."""
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        head = file.read(64)
    if not head:
        raise AudioError(f"{name}: is an empty file; copy it again from its source.")
    if head.startswith(_LFS_POINTER):
        raise AudioError(f"{name}: is a Git LFS pointer, not audio; run `git lfs pull` where the corpus was cloned.")


def _refuse_truncated(name: str, log: str, expected: int, read: int):
    """Raise AudioError for a truncated file, which opens without an error: its header declares more than it holds."""
    # The log of libsndfile on the data chunk of wav and aiff. Programs that write to a pipe declare 2 or 4 GiB, or a
    # little less.
    declared = re.search(r"(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", log)
    cut = declared and int(declared[2]) < int(declared[1]) < 2**31 - 2**16
    # In other formats the declared count may be slightly wrong, as in mp3 by a frame or two.
    if cut or read < 0.9 * expected:
        raise AudioError(f"{name}: {_TRUNCATED}.")


# --- audio: addresses ---


def _downloaded(source: Any) -> Any:
    """Sound at an address of http or https as `{"bytes", "path"}`; any other sound as it is.

    Raises:
        AudioError: it cannot be had, is over 100 MiB, or takes over 60 s.
    """
    url = source
    if isinstance(source, Mapping) and source.get("bytes") is None:
        url = source.get("path")
    if not (isinstance(url, str) and re.match("https?://", url, re.IGNORECASE)):
        return source
    answers: queue.SimpleQueue[bytes | str] = queue.SimpleQueue()
    # A thread, because nothing else bounds the time of looking up a host and of the header of an answer.
    threading.Thread(target=lambda: answers.put(_fetch(url)), daemon=True).start()
    try:
        content = answers.get(timeout=_DOWNLOAD_SECONDS)
    except queue.Empty:
        content = f"takes over {_DOWNLOAD_SECONDS:g} s"
    if isinstance(content, str):
        raise AudioError(f"{url}: {content}; download it yourself, and give the path of the file.")
    return {"bytes": content, "path": url}


def _fetch(url: str) -> bytes | str:
    """The content of an address, or why it cannot be had."""
    end = time.monotonic() + _DOWNLOAD_SECONDS
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
        _Redirects,
    ):
        opener.add_handler(handler())
    content = bytearray()
    try:
        with opener.open(url, timeout=_DOWNLOAD_SECONDS) as response:
            for block in iter(lambda: response.read1(2**16), b""):
                content += block
                if len(content) > _MOST_DOWNLOADED:
                    return f"holds over {_MOST_DOWNLOADED / 2**20:g} MiB"
                if time.monotonic() > end:  # nobody waits any more
                    return "takes too long"
            if response.length:
                return f"ended {response.length} bytes before its end"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"cannot be downloaded ({' '.join(str(error).split())})"
    return bytes(content)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to https, and from http to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        scheme = newurl.partition(":")[0]
        if scheme not in ("https", req.type):
            raise urllib.error.URLError(f"it redirects from {req.type} to {scheme}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


# --- audio: decoding in a process of its own ---


def _decode_apart(source: str | bytes, name: str, start: float | None, end: float | None) -> tuple[np.ndarray, int]:
    """Decode with FFmpeg, in a process of its own: a file that crashes the decoder, or keeps it busy, costs that file
    alone."""
    path, content, size = None, b"", len(source)
    if isinstance(source, bytes):
        content = source
    else:
        path, size = os.path.abspath(source), os.stat(source).st_size
    seconds = _DECODING_SECONDS + size / 2**20
    request = {
        "path": path,
        "size": len(content),
        "start": start or 0,
        "end": end,
        "seconds": seconds,
        "formats": _FORMATS,
        "most_samples": _MOST_SAMPLES,
        "too_long": _TOO_LONG,
        "truncated": _TRUNCATED,
    }
    decoder = _idle_decoder()
    begun = time.monotonic()
    try:
        answer, waveform = decoder.decode(request, content)
    except EOFError:
        decoder.stop()
        reason = "it crashed the decoder"
        if time.monotonic() - begun >= seconds:
            reason = f"it took over {seconds:.0f} s"
        raise AudioError(f"{name}: cannot be decoded ({reason}); copy it again, or leave it out.") from None
    except BaseException:
        decoder.stop()
        raise
    _IDLE.append(decoder)
    if "problem" in answer:
        raise AudioError(f"{name}: {answer['problem']}.")
    _span(name, start, end, answer["samples"], answer["rate"])
    return waveform, answer["rate"]


class _Decoder:
    """A process that decodes one file at a time.

    It starts in a tenth of a second, because it imports nothing but av, and ends with the process that it belongs to.
    """

    def __init__(self):
        paths = os.pathsep.join(path for path in sys.path if path)
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0) | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        self.owner = os.getpid()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOTSTRAP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pipesize=2**20,  # where the system allows it
            env=os.environ | {"PYTHONPATH": paths},
            start_new_session=True,  # Ctrl-C is for the process that it belongs to
            creationflags=flags,
        )
        functions = (_serve_requests, _limit_memory, _decode_track, _like_the_first)
        with contextlib.suppress(OSError):  # where it could not start, `decode` says so
            marshal.dump(tuple(function.__code__ for function in functions), cast(Any, self.process.stdin))

    def decode(self, request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], np.ndarray]:
        """The answer to a request, and its samples; EOFError if the process ends before it has answered."""
        pipes = cast(Any, self.process)
        try:
            pipes.stdin.write(json.dumps(request).encode() + b"\n" + content)
            pipes.stdin.flush()
        except OSError:
            raise EOFError from None
        line = pipes.stdout.readline()
        if not line:
            raise EOFError
        answer = json.loads(line)
        waveform = np.empty((answer["channels"], answer["length"]), np.float32)
        if pipes.stdout.readinto(waveform) < waveform.nbytes:
            raise EOFError
        return answer, waveform

    def is_usable(self) -> bool:
        """Whether it runs, and belongs to this process: a forked one must not talk to the decoders of its parent."""
        return self.owner == os.getpid() and self.process.poll() is None

    def stop(self):
        """End the process."""
        with contextlib.suppress(OSError), self.process:
            self.process.kill()


# This file would import torch and transformers there; so only the code of four functions goes over.
_BOOTSTRAP = """
import faulthandler, io, json, marshal, os, sys, types
for code in marshal.load(sys.stdin.buffer):
    globals()[code.co_name] = types.FunctionType(code, globals())
_serve_requests()
"""
_IDLE: list[_Decoder] = []  # at most one for each thread that ever decoded at the same time


def _idle_decoder() -> _Decoder:
    """A decoder that nobody uses."""
    with contextlib.suppress(IndexError):  # another thread may take the last one
        while True:
            decoder = _IDLE.pop()
            if decoder.is_usable():
                return decoder
    return _Decoder()


@atexit.register
def _stop_idle_decoders():
    while _IDLE:
        decoder = _IDLE.pop()
        if decoder.is_usable():
            decoder.stop()


# The following functions run in that process: they use nothing else of this file.


def _serve_requests():
    """Answer requests on standard input until it is closed.

    A request is a line of JSON, and the bytes of a file that has no path. An answer is a line of JSON, and the samples
    channel by channel, in float32.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    _limit_memory()
    for line in iter(sys.stdin.buffer.readline, b""):
        request = json.loads(line)
        content = sys.stdin.buffer.read(request["size"])
        faulthandler.dump_traceback_later(request["seconds"], exit=True)  # ends the process, whatever it is doing
        try:
            with open(request["path"], "rb") if request["path"] else io.BytesIO(content) as file:
                answer, channels = _decode_track(file, request)
        except Exception as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            answer, channels = {"problem": f"cannot be decoded ({reason}); copy it again, or leave it out"}, []
        faulthandler.cancel_dump_traceback_later()
        answer["channels"], answer["length"] = len(channels), len(channels[0]) // 4 if channels else 0
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.writelines(channels)
        answers.flush()


def _limit_memory():
    """Allow 4 GiB, where the system limits memory; elsewhere only the number of samples is limited."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2**32, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, OSError, ValueError):  # ValueError: a lower limit is in force
        return


def _decode_track(file, request):
    """Decode the first sound track of a file: an answer, and the samples of each channel as bytes."""
    try:
        import av
    except ImportError:
        return {"problem": "needs PyAV; `pip install av` reads mp4, m4a, webm and others"}, []
    channels: list[bytearray] = []
    position = rate = 0
    options = {"format_whitelist": request["formats"], "protocol_whitelist": ""}
    try:
        container = av.open(file, "r", container_options=options, metadata_errors="replace")
    except av.error.ArgumentError:
        raise ValueError("its format is not among those that are read") from None
    with container:
        if not container.streams.audio:
            return {"problem": "has no sound track; leave it out, or give its text alone"}, []
        stream = container.streams.audio[0]
        for frame in _like_the_first(container.decode(stream), av.AudioResampler):
            rate = frame.sample_rate
            channels = channels or [bytearray() for _ in frame.planes]
            first = max(round(request["start"] * rate) - position, 0)
            last = frame.samples if request["end"] is None else round(request["end"] * rate) - position
            for channel, plane in zip(channels, frame.planes, strict=True):
                channel += memoryview(plane)[4 * first : 4 * min(last, frame.samples)]
            position += frame.samples
            if sum(map(len, channels)) > 4 * request["most_samples"]:
                return {"problem": request["too_long"]}, []
            if last < frame.samples:
                return {"rate": rate, "samples": position}, channels
        # Other formats do not declare the length of a track, or FFmpeg estimates it.
        declared = stream.duration * stream.time_base if "mp4" in container.format.name and stream.duration else 0
    if not channels:
        return {"problem": "holds 0 samples; leave it out, or record it again"}, []
    if position < 0.9 * declared * rate:
        return {"problem": request["truncated"]}, []
    return {"rate": rate, "samples": position}, channels


def _like_the_first(frames, resampler_class):
    """The frames as planes of float32, all with the sampling rate and the channels of the first one."""
    kind = None
    resampler: Any = None
    target: dict = {}
    for frame in frames:
        target = target or {"format": "fltp", "layout": frame.layout, "rate": frame.sample_rate}
        if kind != (frame.format.name, frame.layout.name, frame.sample_rate):
            if resampler is not None:
                yield from filter(None, resampler.resample(None))
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            resampler = resampler_class(**target)
        yield from resampler.resample(frame)
    if resampler is not None:
        yield from filter(None, resampler.resample(None))


# --- audio: resampling and length ---


def resample(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Resample `(samples,)` float32 of any rate in Hz to 16 kHz, in bounded memory."""
    divisor = math.gcd(rate, SAMPLING_RATE)
    source, target = rate // divisor, SAMPLING_RATE // divisor
    if source == target:
        return waveform
    if source * target <= _LARGEST_KERNEL:
        return _resampler(rate)(torch.from_numpy(waveform)).numpy()
    filters = _filters(source, target)
    taps = filters.shape[1]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(waveform, (taps // 2 - 1, taps // 2)), taps)
    resampled = np.empty(-(-len(waveform) * target // source), np.float32)
    for first in range(0, len(resampled), 2**14):  # in blocks, to bound the memory
        place = np.arange(first, min(first + 2**14, len(resampled)))
        resampled[place] = np.einsum("nt,nt->n", windows[place * source // target], filters[place % target])
    return resampled


@functools.lru_cache(maxsize=8)
def _resampler(rate: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(rate, SAMPLING_RATE)


@functools.lru_cache(maxsize=8)
def _filters(source: int, target: int) -> np.ndarray:
    """The filter of torchaudio's `Resample` where it is not zero: `(target, taps)`, a row for each position that an
    output sample may have between two input samples.

    torchaudio stores `(target, source + taps)`: 1 GB for 15,999 Hz, and computing it takes 9 GB.
    """
    zeros, rolloff = 6, 0.99  # its defaults: zero crossings on each side, cutoff relative to the lower rate's
    cutoff = min(source, target) * rolloff / source
    width = math.ceil(zeros / cutoff)
    offsets = np.arange(target) * source % target / target
    lags = ((np.arange(-width, width + 2) - offsets[:, None]) * cutoff).clip(-zeros, zeros)
    return (np.sinc(lags) * np.cos(lags * np.pi / zeros / 2) ** 2 * cutoff).astype(np.float32)


def _trim(waveform: np.ndarray, decibels: float) -> np.ndarray:
    """Cut leading and trailing silence; a silent recording is returned as it is."""
    frame = SAMPLING_RATE // 100
    whole = np.pad(waveform, (0, -len(waveform) % frame))
    power = np.square(whole.reshape(-1, frame)).mean(axis=1)
    (loud,) = np.nonzero(power >= power.max() * 10 ** (-decibels / 10))
    return waveform[max(loud[0] - 5, 0) * frame : (loud[-1] + 6) * frame]


def fit_length(waveform: np.ndarray, min_seconds: float, max_seconds: float | None) -> np.ndarray:
    """Pad short sound `(samples,)` at 16 kHz with zeros, and take the middle of long sound, as [`load_audio`] does."""
    shortest = round(min_seconds * SAMPLING_RATE)
    longest = len(waveform) if max_seconds is None else round(max_seconds * SAMPLING_RATE)
    first = max(len(waveform) - longest, 0) // 2
    waveform = waveform[first : first + longest]
    if len(waveform) >= shortest:
        return waveform
    return np.pad(waveform, (0, shortest - len(waveform)))


# --- the processor ----------------------------------------------------------------------------------------------------


class MerhanProcessor(ProcessorMixin):
    r"""
    Feature extractor and tokenizer in one, with the template that puts speaker and dialogue context into the text.

    The text is the turn and, after a separator, its context: `<s> Ross: Fine. </s></s> Rachel: How are you? </s>`.

    Args:
        feature_extractor: of the speech backbone, for 16 kHz.
        tokenizer: of the text backbone.
        modalities: the modalities that the model reads in raw form. A model of one modality still has both parts,
            because a processor of transformers 5 needs them; the other part is never called.
        min_seconds, max_seconds, trim_silence: limits on the sound of an utterance, see [`load_audio`].
        max_tokens: maximum number of tokens, special tokens included. Truncates the context, oldest turn first, **never
            the current turn**, which may have up to the tokenizer's `model_max_length` tokens.
        context_turns: number of previous turns of the dialogue in the text.
        use_speaker: whether the speaker's name is put before a turn.
        turn_template: format of a turn with a speaker.
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
        # Some tokenizers of decoders pad on the left, where padding would shift the positions of the tokens.
        self.tokenizer.padding_side = "right"
        # The oldest turns come first in the context, so truncation on the left removes them first.
        self.tokenizer.truncation_side = "left"

    @property
    def model_input_names(self) -> list[str]:
        return [self.audio_input_name, "audio_attention_mask", "input_ids", "attention_mask"]

    @property
    def audio_input_name(self) -> str:
        """`input_values` for waveforms, `input_features` for the spectrogram of Whisper or w2v-BERT 2.0."""
        return self.feature_extractor.model_input_names[0]

    @property
    def seconds_per_step(self) -> float:
        """Time between two steps of the audio input: samples, or spectrogram frames."""
        if self.audio_input_name == "input_values":
            return 1 / SAMPLING_RATE
        hop = getattr(self.feature_extractor, "hop_length", 160) * getattr(self.feature_extractor, "stride", 1)
        return hop / SAMPLING_RATE

    def __call__(
        self,
        audio: Any = None,
        text: Any = None,
        speaker: Any = None,
        context: Any = None,
        padding: bool | str = True,
        truncation: bool = True,
        return_tensors: str = "pt",
        sampling_rate: float | None = None,
        allow_urls: bool = False,
    ) -> BatchFeature:
        """Make the tensors of one utterance, or of a list of utterances.

        Args:
            audio: anything that [`load_audio`] decodes, or `None`; or a list of these.
            text: the words of the turn, or `None`; or a list.
            speaker: name of the speaker, or `None`; or a list.
            context: the previous turns, oldest first, each a string or `{"speaker": ..., "text": ...}`; or a list of
                such lists, one per utterance.
            padding: `True` or `"longest"`: to the longest row; `"max_length"`: to `max_seconds` and `max_tokens`, so
                that every batch has the same shape; `"grid"`: to one of few lengths, see [`shape`], for speed on a
                GPU; `False`: not at all, for one utterance.
            truncation: `False` keeps sound beyond `max_seconds`, and context beyond `max_tokens` as far as the text
                backbone can read it.
            return_tensors: `"pt"` or `"np"`.
            sampling_rate: in Hz, of audio that is a bare array or tensor; other sound has its own.
            allow_urls: download audio that is an address of http or https, each of at most 100 MiB and 60 s. Not for
                addresses that strangers name: they may mean hosts that only this machine reaches.

        Returns:
            `input_values` and `audio_attention_mask` `(batch, samples)`, `input_ids` and `attention_mask`
            `(batch, tokens)`. Without the keys of a modality that no row has; a row without it has a mask of zeros.

        Raises:
            AudioError: as [`decode_audio`].
            ValueError: lists of different lengths, or a single value beside a list; text that is not a string; an
                utterance without any modality, or longer than the backbone can read.
        """
        rows = _rows(audio, text, speaker, context)
        if allow_urls:
            rows = [_with_downloaded_sound(row) for row in rows]
        _require_choice("return_tensors", return_tensors, ("pt", "np"))
        _require_choice("padding", padding, (True, False, "longest", "max_length", "grid"))
        if not padding and len(rows) > 1:
            raise ValueError(f"padding=False: {len(rows)} utterances do not fit into one tensor; pad them.")
        batch, _ = self.batch(rows, padding, truncation, sampling_rate)
        if return_tensors == "np":
            return BatchFeature({name: tensor.numpy() for name, tensor in batch.items()})
        return batch

    def batch(
        self,
        rows: Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        truncation: bool = True,
        sampling_rate: float | None = None,
    ) -> tuple[BatchFeature, int]:
        """The tensors of utterances `{"audio", "text", "speaker", "context"}`, and the number of those that have sound
        beyond `max_seconds`, of which only the middle is in the tensors. Arguments and errors as in a call.

        For a model of stored features an utterance has `audio_features` or `text_features`: `(width,)`, or
        `(length, width)`.
        """
        waveforms: list[np.ndarray | None] = []
        num_cut = 0
        for row in rows:
            whole = waveform = self.load_audio(row["audio"], None, None, False, sampling_rate)
            if whole is not None and truncation:
                waveform = fit_length(whole, self.min_seconds, self.max_seconds)
                num_cut += len(waveform) < len(whole)
            waveforms.append(waveform)
        tokens = [self.encode_text(row["text"], row["speaker"], row["context"], truncation) for row in rows]
        batch = self.pad(waveforms, tokens, padding=padding)
        for name in _VECTORS:
            batch.update(_pad_vectors(name, [row.get(name) for row in rows]))
        self._require_readable(batch)
        return batch, num_cut

    def load_audio(
        self,
        source: Any,
        start: float | None = None,
        end: float | None = None,
        truncation: bool = True,
        sampling_rate: float | None = None,
        allow_urls: bool = False,
    ) -> np.ndarray | None:
        """[`load_audio`] with the limits of this processor; `None` for `None`. `allow_urls` as in a call."""
        if source is None:
            return None
        if allow_urls:
            source = _downloaded(source)
        longest = self.max_seconds if truncation else None
        return load_audio(source, start, end, self.min_seconds, longest, self.trim_silence, sampling_rate)

    def encode_text(
        self, text: str | None, speaker: str | None = None, context: Any = None, truncation: bool = True
    ) -> list[int] | None:
        """Token ids of a turn with as much of its context as fits; `None` for an empty turn.

        Raises:
            ValueError: the turn alone is longer than the text backbone can read, or is not a string.
        """
        encoding = self._encode(text, speaker, context, truncation)
        return None if encoding is None else encoding["input_ids"]

    def words(self, text: str | None, speaker: str | None = None, context: Any = None) -> list[tuple[str, list[int]]]:
        """The words of the turn, without its context, each with the positions of its tokens in [`encode_text`]."""
        encoding = self._encode(text, speaker, context)
        if encoding is None:
            return []
        turn = self._format_turn({"speaker": speaker, "text": text})
        positions: dict[Any, list[int]] = {}
        for position, (word, sequence) in enumerate(zip(encoding.word_ids(), encoding.sequence_ids(), strict=True)):
            if sequence == 0:
                positions.setdefault(word, []).append(position)
        return [(turn[slice(*encoding.word_to_chars(word))].strip(), tokens) for word, tokens in positions.items()]

    def _encode(
        self, text: str | None, speaker: str | None, context: Any, truncation: bool = True
    ) -> BatchEncoding | None:
        if text is not None and not isinstance(text, str):
            raise ValueError(f"text: {text!r} is not a string; give the words, or None where there are none.")
        if not text or not text.strip():
            return None
        turn = self._format_turn({"speaker": speaker, "text": text})
        alone = self.tokenizer(turn)
        ids = alone["input_ids"]
        if len(ids) > self.tokenizer.model_max_length:
            raise ValueError(
                f"The turn {text[:60]!r}... has {len(ids)} tokens, and the text backbone reads at most "
                f"{self.tokenizer.model_max_length}. A turn is never truncated: split it into several."
            )
        before = self._format_context(context or [])
        longest = self.tokenizer.model_max_length
        if truncation:
            longest = min(self.max_tokens, longest)
        specials = [self.tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True)]
        if not before or len(ids) - specials[0] + specials[1] >= longest:
            return alone
        return self.tokenizer(turn, before, truncation="only_second", max_length=longest)

    def _format_context(self, turns: Sequence[Any]) -> str:
        """The last `context_turns` turns as one text."""
        if not self.context_turns:
            return ""
        formatted = [self._format_turn(turn) for turn in list(turns)[-self.context_turns :]]
        return " ".join(turn for turn in formatted if turn)

    def _format_turn(self, turn: str | Mapping[str, str | None]) -> str:
        turn = {"text": turn} if isinstance(turn, str) else turn
        words = turn.get("text") or ""
        if words and self.use_speaker and turn.get("speaker"):
            return self.turn_template.format(speaker=turn["speaker"], text=words)
        return words

    def pad(
        self,
        waveforms: Sequence[np.ndarray | None],
        tokens: Sequence[list[int] | None],
        always: Sequence[str] = (),
        padding: bool | str = True,
    ) -> BatchFeature:
        """Pad decoded sound and token ids, one each per row, to a batch with masks; None = the row lacks the
        modality. `padding` as in a call of the processor; modalities in `always` are there even if no row has them.

        Raises:
            ValueError: sound that is longer than the speech backbone reads, which its extractor would cut.
        """
        batch: dict[str, torch.Tensor] = {}
        silence, empty = np.zeros(round(self.min_seconds * SAMPLING_RATE), np.float32), [self.tokenizer.pad_token_id]
        sounds = [silence if waveform is None else waveform for waveform in waveforms]
        ids = [empty if row is None else row for row in tokens]
        has_audio = "audio" in always or any(waveform is not None for waveform in waveforms)
        has_text = "text" in always or any(row is not None for row in tokens)
        num_samples = max(map(len, sounds), default=0) if has_audio else 0
        num_tokens = max(map(len, ids), default=0) if has_text else 0
        if has_audio:
            padded = self.feature_extractor(
                sounds,
                sampling_rate=SAMPLING_RATE,
                return_attention_mask=True,
                return_tensors="pt",
                **self._audio_padding(num_samples, num_tokens, padding),
            )
            batch[self.audio_input_name] = padded[self.audio_input_name]
            batch["audio_attention_mask"] = padded["attention_mask"].long() * _presence(waveforms)
        if has_text:
            options = self._text_padding(num_samples, num_tokens, padding)
            padded = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt", **options)
            batch["input_ids"] = padded["input_ids"]
            batch["attention_mask"] = padded["attention_mask"] * _presence(tokens)
        return BatchFeature(batch)

    def shape(self, samples: int, tokens: int) -> tuple[int, int]:
        """The grid of lengths: what a batch is padded to whose longest rows have so many samples and tokens, 0 = none.

        A GPU takes up to a second for every batch shape that it has not seen before. Sound has `320 n^2` samples, 320
        being the step between two frames of wav2vec2: the lengths are closer where most utterances are. Tokens are a
        multiple of 64 beside up to 3 s of sound, of 128 beside more, where they are a smaller part of the work, and of
        16 alone. Neither exceeds what the model reads.
        """
        step = 16
        if samples:
            step = 64 if samples <= 3 * SAMPLING_RATE else 128
            padded = SAMPLES_PER_FRAME * (math.isqrt(math.ceil(samples / SAMPLES_PER_FRAME) - 1) + 1) ** 2
            if self.max_seconds is not None:
                padded = min(padded, round(self.max_seconds * SAMPLING_RATE))
            samples = max(samples, padded)
        if tokens > 1:  # a single vector of stored features stays one
            longest = min(max(self.max_tokens, tokens), self.tokenizer.model_max_length)
            tokens = max(tokens, min(math.ceil(tokens / step) * step, longest))
        return samples, tokens

    def _audio_padding(self, samples: int, tokens: int, padding: bool | str) -> dict[str, Any]:
        """The padding options of the feature extractor for a batch whose longest rows have so many samples and
        tokens."""
        fixed = getattr(self.feature_extractor, "n_samples", None)  # Whisper's encoder reads one length
        if fixed is not None:
            if samples > fixed:
                raise ValueError(
                    f"A recording of {samples / SAMPLING_RATE:.1f} s is longer than the {fixed / SAMPLING_RATE:g} s "
                    f"that the speech backbone reads; split it."
                )
            return {"padding": "max_length"}
        if padding not in ("max_length", "grid"):
            return {"padding": padding}
        seconds = self.max_seconds
        if padding == "grid":
            seconds = self.shape(samples, tokens)[0] / SAMPLING_RATE
        if seconds is None:
            raise ValueError("padding='max_length' needs max_seconds, and this processor has no limit on sound.")
        step = self.seconds_per_step / getattr(self.feature_extractor, "stride", 1)  # w2v-BERT 2.0 joins frames last
        return {"padding": "max_length", "max_length": round(seconds / step)}

    def _text_padding(self, samples: int, tokens: int, padding: bool | str) -> dict[str, Any]:
        """The same for the tokenizer."""
        if padding == "grid":
            return {"padding": "max_length", "max_length": self.shape(samples, tokens)[1]}
        if padding == "max_length":
            return {"padding": padding, "max_length": self.max_tokens}
        return {"padding": padding}

    def _require_readable(self, batch: Mapping[str, torch.Tensor]):
        """Raise ValueError for modalities that the model does not read, and for rows without any."""
        masks = _masks(batch)
        unread = [name for name, keys in _MASKS.items() if keys[0] in batch and name not in self.modalities]
        if unread:
            raise ValueError(
                f"This model reads {' and '.join(self.modalities)} only; leave out {' and '.join(unread)}, or load a "
                f"model that reads it."
            )
        if not masks:
            raise ValueError(f"Nothing to read: give {' or '.join(self.modalities or _VECTORS)}.")
        present = torch.stack([mask.any(dim=1) for mask in masks.values()]).any(dim=0)
        if not present.all():
            rows = [index for index, is_present in enumerate(present.tolist()) if not is_present]
            raise ValueError(f"Utterances {rows} of the batch have neither audio nor text; give at least one.")


class MerhanDataCollator:
    """Utterances with labels -> a batch of [`MerhanForSequenceClassification`], for a plain `Trainer`:

        arguments = TrainingArguments(..., remove_unused_columns=False)
        Trainer(model, arguments, train_dataset=rows, data_collator=MerhanDataCollator(processor))

    Rows are dictionaries with `audio` or `text` or both, optionally `speaker` and `context`, as a call of the processor
    takes them, and `label` or `labels`: a class id, or a distribution over the labels. Other columns are ignored.
    """

    def __init__(self, processor: MerhanProcessor):
        self.processor = processor

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> BatchFeature:
        rows = [{name: example.get(name) for name in (*_FIELDS, *_VECTORS)} for example in examples]
        batch, _ = self.processor.batch(rows, "grid")
        for name in ("label", "labels"):
            if any(name in example for example in examples):
                batch["labels"] = torch.tensor([example[name] for example in examples])
        return batch


def _require_choice(name: str, value: Any, choices: Sequence[Any]):
    if value not in choices:
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(map(repr, choices))}.")


def _is_list(values: Any) -> bool:
    """Whether these are the values of several utterances: a list, a tuple, a column of `datasets`."""
    return isinstance(values, Sequence) and not isinstance(values, (str, bytes, bytearray, memoryview))


def _is_stream(values: Any) -> bool:
    """Whether these are read one by one: a generator, or a data set of `torch` or `datasets`."""
    is_iterator = isinstance(values, Iterator) and not isinstance(values, io.IOBase)
    return is_iterator or isinstance(values, torch.utils.data.Dataset) or hasattr(values, "column_names")


def _stream(audio: Any, text: Any, **fields: Any) -> Iterator[dict[str, Any]]:
    """Utterances of streams that are read side by side, as `{"audio", "text", "speaker", "context"}`."""
    columns = {name: values for name, values in {"audio": audio, "text": text, **fields}.items() if values is not None}
    for name, values in columns.items():
        if not _is_stream(values) and not _is_list(values):
            raise ValueError(f"{name}: is a single value beside a stream; give one value per utterance, or None.")
    for row in zip(*(_items(values) for values in columns.values()), strict=True):
        yield dict.fromkeys(_FIELDS) | dict(zip(columns, row, strict=True))


def _items(values: Any) -> Iterator[Any]:
    """The items of a stream or list; of the rows of a data set, the fields of an utterance."""
    columns = getattr(values, "column_names", None)
    if columns and not {"audio", "text", *_VECTORS} & set(columns):
        raise ValueError(f"The data set has no column `audio` or `text`, but {', '.join(columns)}; rename one of them.")
    for item in values:
        if columns:
            item = {name: item[name] for name in (*_FIELDS, *_VECTORS) if name in item}
        yield item


def _rows(audio: Any, text: Any, speaker: Any, context: Any) -> list[dict[str, Any]]:
    """Turn one utterance, or columns of utterances, into `[{"audio", "text", "speaker", "context"}, ...]`."""
    columns = {"audio": audio, "text": text, "speaker": speaker, "context": context}
    lists = {name: len(columns[name]) for name in _FIELDS[:3] if _is_list(columns[name])}
    if not lists:
        return [columns]
    size = next(iter(lists.values()))
    for name, column in columns.items():
        if column is None:
            columns[name] = [None] * size
        elif not _is_list(column) or len(column) != size:
            kind = f"a list of {len(column)}" if _is_list(column) else "a single value"
            raise ValueError(f"{name}: is {kind} beside a list of {size}; give one value per utterance, or None.")
    if any(isinstance(turns, (str, Mapping)) for turns in columns["context"]):
        raise ValueError("context: give one list of turns per utterance, or None.")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _pad_vectors(name: str, rows: Sequence[Any]) -> dict[str, torch.Tensor]:
    """Stored features of each row, None where it has none, as a batch `(rows, length, width)` with its mask; empty if
    no row has any."""
    arrays = [None if row is None else _vectors(name, row) for row in rows]
    widths = {array.shape[1] for array in arrays if array is not None}
    if not widths:
        return {}
    if len(widths) > 1:
        raise ValueError(f"{name}: have the widths {', '.join(map(str, sorted(widths)))}; give vectors of one width.")
    absent = torch.zeros(0, *widths)
    tensors = [absent if array is None else torch.from_numpy(array) for array in arrays]
    masks = [torch.ones(len(tensor), dtype=torch.long) for tensor in tensors]
    return {name: pad_sequence(tensors, batch_first=True), f"{name}_mask": pad_sequence(masks, batch_first=True)}


def _vectors(name: str, value: Any) -> np.ndarray:
    """`(length, width)` float32; a single vector becomes a sequence of length 1."""
    try:
        array = np.array(value.tolist() if isinstance(value, torch.Tensor) else value, dtype=np.float32)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name}: is of type {type(value).__name__}; give an array of floats, as of np.load."
        ) from None
    if array.ndim not in (1, 2) or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name}: has the shape {array.shape}; give (width,) or (length, width), all finite.")
    return np.atleast_2d(array)


def _presence(items: Sequence[Any]) -> torch.Tensor:
    """`(rows, 1)`: 1 where a row has the modality, else 0."""
    return torch.tensor([[item is not None] for item in items]).long()


# --- the pipeline -----------------------------------------------------------------------------------------------------


class EmotionRecognitionPipeline(Pipeline):
    """`pipeline("emotion-recognition", model=..., trust_remote_code=True)`: emotions from sound and text.

        recogniser("a.wav", text="I can't believe it!")     -> [{"label": "surprise", "score": 0.83}, ...]
        recogniser("a.wav")                                 sound alone
        recogniser(text="I can't believe it!")              text alone
        recogniser([{"audio": "a.wav", "text": "Oh!"}, "b.flac", {"text": "No."}], batch_size=8)   one list each
        recogniser(data_set)                                an iterator over the results of its columns `audio`, `text`

    Generators and `KeyDataset`s give an iterator, too. `pipeline("audio-classification", ...)` makes the same pipeline,
    and so does `pipeline("text-classification", ...)` for a model of text alone, whose first argument is the text.

    Audio is anything that [`load_audio`] decodes, with `sampling_rate=` for bare arrays and tensors, and with
    `allow_urls=True` also an address of http or https, as in a call of [`MerhanProcessor`]. `speaker` and `context`
    (the previous turns, oldest first) are used by a model that was trained with them. A model of stored features reads
    `{"audio_features": ..., "text_features": ...}`, arrays `(width,)` or `(length, width)` like those of its training,
    in place of `audio` and `text`. Scores are calibrated (`config.temperature`); `top_k` keeps the best few labels. Of
    sound beyond the processor's `max_seconds` only the middle is used, and a warning per call says of how many
    recordings.

    With `explain=True` the result of each utterance is not the list of scores, but a dictionary of

        scores: that list.
        contributions: `{"audio": ..., "text": ...}` in [-1, 1], if both were given: by how much the score of the first
            label decreases without that modality (occlusion; its learned token takes its place).
        words: `{"word", "attention"}` of the turn, if both were given and the fusion has cross attention: the attention
            weights of the word over `seconds` (mean over heads and over the word's tokens; sums to 1).
        seconds: the centre of each audio frame, from the first sample that the model was given.

    Attention shows where the model looked; what it would have answered without an input is shown by occlusion.

    With `timeline=True` the input is the path of a recording of any length, or a list of paths, and the result of each
    is what `merhan.timeline` returns: utterances between pauses, with their times and scores, and a curve. It needs the
    package: `pip install 'merhan[train,timeline]'`.
    """

    _load_processor = True  # type: ignore[assignment]  # transformers declares these flags as None
    _load_tokenizer = False  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]
    _load_image_processor = False  # type: ignore[assignment]

    def __init__(self, *args: Any, timeline: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.timeline = timeline

    def __call__(self, audio: Any = None, text: Any = None, batch_size: int | None = None, **kwargs) -> Any:  # type: ignore[override]
        fields = {name: kwargs.pop(name, None) for name in ("speaker", "context")}
        rate, allow_urls = kwargs.pop("sampling_rate", None), kwargs.pop("allow_urls", False)
        size = next((value for value in (batch_size, self._batch_size) if value is not None), 8)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"batch_size: {size!r} is not a number of utterances; give 1 or more.")
        if kwargs.pop("timeline", self.timeline):
            others = {"text": text, **fields, "sampling_rate": rate, "allow_urls": allow_urls or None}
            others |= {**self._postprocess_params, **kwargs}
            return self._timelines(audio, size, others)
        if kwargs.get("explain", self._forward_params.get("explain")):
            size = 1  # without padding, every frame and token belongs to the utterance
        if any(_is_stream(values) for values in (audio, text)):
            return self._results(_stream(audio, text, **fields), rate, allow_urls, size, kwargs)
        results = list(self._results(_rows(audio, text, **fields), rate, allow_urls, size, kwargs))
        return results if _is_list(audio) or _is_list(text) else results[0]

    def _results(
        self,
        rows: Iterable[dict[str, Any]],
        rate: float | None,
        allow_urls: bool,
        batch_size: int,
        options: dict[str, Any],
    ) -> Iterator[Any]:
        """The result of each utterance, batch by batch as they are asked for."""
        utterances: Iterator[dict[str, Any]] = (self._utterance(row.pop("audio"), **row) for row in rows)
        if allow_urls:
            utterances = map(_with_downloaded_sound, utterances)
        cut: list[int] = []  # the number of each batch
        for batch in iter(lambda: list(itertools.islice(utterances, batch_size)), []):
            yield from super().__call__({"utterances": batch, "sampling_rate": rate, "cut": cut}, **options)
        if sum(cut):
            logger.warning(
                f"Of {sum(cut)} recordings only the middle was used: they are longer than the "
                f"{cast(MerhanProcessor, self.processor).max_seconds:g} s that this model was made for. Split them."
            )

    def _timelines(self, audio: Any, batch_size: int, others: Mapping[str, Any]) -> Any:
        """The timeline of a recording, or of each recording of a list.

        Raises:
            ImportError: the package merhan, or one that it needs, is not installed.
            ValueError: an input that is no path, or an argument that timelines do not have.
        """
        unused = [name for name, value in others.items() if value is not None]
        if unused:
            raise ValueError(
                f"timeline=True: does not use {', '.join(unused)}; leave it out, or call `merhan.timeline`, which has "
                f"options for words and speakers."
            )
        recordings = list(audio) if _is_list(audio) else [audio]
        for recording in recordings:
            if not isinstance(recording, (str, os.PathLike)):
                raise ValueError(f"timeline=True: reads files, not {type(recording).__name__}; give the path of one.")
        try:
            # Within `try`, because transformers requires every other import of this file where a model is loaded.
            from merhan.prediction.predict import Predictor
            from merhan.prediction.timeline import timeline

            model: Any = self.model
            processor = cast(MerhanProcessor, self.processor)
            predictor = Predictor(model, processor, batch_size)
            results = [timeline(predictor, os.fspath(recording)) for recording in recordings]
        except ModuleNotFoundError as error:
            message = f"timeline=True: {error.name} is not installed; `pip install 'merhan[train,timeline]'`."
            raise ImportError(message, name=error.name) from error
        finally:
            cast(Any, self.model).to(self.device)
        return results if _is_list(audio) else results[0]

    def _utterance(self, item: Any, **fields: Any) -> dict[str, Any]:
        """One input in any of its forms as a dictionary of `_FIELDS` and `_VECTORS`.

        A string is the text for a model of text alone, as in `pipeline("text-classification")`.
        """
        reads_sound = "audio" in cast(Any, self.model.config).modalities
        if isinstance(item, str) and not reads_sound and fields["text"] is None:
            item = {"text": item}
        return _utterance(item, **fields)

    def _sanitize_parameters(self, **options):
        unknown = set(options) - {"top_k", "explain"}
        if unknown:
            known = "speaker, context, sampling_rate, allow_urls, batch_size, top_k, explain, timeline"
            raise TypeError(f"Unknown argument {', '.join(sorted(unknown))}; known are {known}.")
        top_k = options.get("top_k")
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k: {top_k!r} is not a number of labels; give 1 or more, or None for all.")
        explain = {name: value for name, value in options.items() if name == "explain"}
        return explain, explain, options

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any):
        """Save model and processor, with the code of both, as a folder that loads anywhere."""
        self.model.save_pretrained(save_directory, **kwargs)
        cast(MerhanProcessor, self.processor).save_pretrained(save_directory, **kwargs)

    def preprocess(self, inputs: dict[str, Any], explain: bool = False) -> dict[str, Any]:  # type: ignore[override]
        rows: list[dict[str, Any]] = inputs["utterances"]
        processor: Any = self.processor
        padding = "longest" if explain else "grid"
        self._require_forms(rows)
        batch, num_cut = processor.batch(rows, padding, sampling_rate=inputs.get("sampling_rate"))
        self._require_widths(batch)
        inputs["cut"].append(num_cut)
        if not explain or len(_by_modality(batch)) < 2:
            return {"batch": batch, "words": []}
        return {"batch": batch, "words": processor.words(*(rows[0][name] for name in _FIELDS[1:]))}

    def _stored(self) -> list[str]:
        """The modalities that the model reads as stored features."""
        modalities = cast(Any, self.model.config).modalities
        return [name for name in modalities if name not in cast(MerhanProcessor, self.processor).modalities]

    def _require_forms(self, rows: Sequence[Mapping[str, Any]]):
        """Raise ValueError for sound or text where the model reads stored features, and the reverse."""
        stored, modalities = self._stored(), cast(Any, self.model.config).modalities
        read = " and ".join(f"{name}_features" if name in stored else name for name in modalities)
        for name in _VALUES:
            unread = name if name in stored else f"{name}_features"
            if any(row[unread] is not None for row in rows):
                raise ValueError(f"{unread}: this model reads {read}; give these, see the model card.")

    def _require_widths(self, batch: Mapping[str, torch.Tensor]):
        """Raise ValueError for vectors of another width than those of the training."""
        for name in self._stored():
            width = getattr(self.model.config, f"{name}_config").hidden_size
            vectors = batch.get(f"{name}_features")
            if vectors is not None and vectors.shape[-1] != width:
                raise ValueError(
                    f"{name}_features: are of width {vectors.shape[-1]}, and this model reads {width}; give features "
                    f"like those of its training."
                )

    def _forward(self, inputs: dict[str, Any], explain: bool = False) -> dict[str, Any]:  # type: ignore[override]
        batch = inputs["batch"]
        outputs = self.model(**batch, output_attentions=explain)
        result = {"scores": self._scores(batch, outputs.logits), "words": inputs["words"]}
        tensors = _by_modality(batch)
        if explain and len(tensors) == 2:
            remaining = {"audio": tensors["text"], "text": tensors["audio"]}
            result["without"] = {
                name: self._scores(other, self.model(**other).logits) for name, other in remaining.items()
            }
            if "audio_attention_mask" in batch:  # stored features have no known rate
                result["attention"] = outputs.attentions.get("text_to_audio")
                steps = batch["audio_attention_mask"].shape[1]
                result["duration"] = steps * cast(MerhanProcessor, self.processor).seconds_per_step
        return result

    def postprocess(self, outputs: dict[str, Any], top_k: int | None = None, explain: bool = False) -> list[Any]:  # type: ignore[override]
        labels = cast(dict[int, str], self.model.config.id2label)
        ranked = outputs["scores"].sort(dim=-1, descending=True)
        scores = []
        for indices, values in zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True):
            row = [{"label": labels[index], "score": value} for index, value in zip(indices, values, strict=True)]
            scores.append(row[:top_k])
        return [{"scores": scores[0], **self._explanation(outputs)}] if explain else scores

    def _scores(self, batch: Mapping[str, torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
        """Calibrated scores `(batch, num_labels)`, each row with the temperature of the modalities that it has."""
        present = {name: mask.any(dim=1).tolist() for name, mask in _masks(batch).items()}
        modalities = ["+".join(name for name in present if present[name][row]) for row in range(len(logits))]
        temperatures = [self.model.config.temperature.get(names, 1.0) for names in modalities]
        return (logits.float() / logits.new_tensor(temperatures, dtype=torch.float)[:, None]).softmax(dim=-1)

    def _explanation(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Contributions and attention of one utterance; empty where it has one modality alone."""
        result: dict[str, Any] = {"contributions": {}, "words": [], "seconds": []}
        scores = outputs["scores"][0]
        for name, others in outputs.get("without", {}).items():
            result["contributions"][name] = (scores.max() - others[0, scores.argmax()]).item()
        if outputs.get("attention") is not None:
            attention = outputs["attention"][0].float().mean(dim=0)  # (tokens, frames)
            duration, frames = outputs["duration"], attention.shape[1]
            result["seconds"] = [(frame + 0.5) * duration / frames for frame in range(frames)]
            for word, positions in outputs["words"]:
                result["words"].append({"word": word, "attention": attention[positions].mean(dim=0).tolist()})
        return result


def _by_modality(batch: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of each modality that a batch has."""
    tensors = {}
    for name in _masks(batch):
        tensors[name] = {key: batch[key] for key in (*_VALUES[name], *_MASKS[name]) if key in batch}
    return tensors


def _masks(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The mask of each modality that a batch has."""
    return {name: batch[key] for name, keys in _MASKS.items() for key in keys if key in batch}


def _with_downloaded_sound(row: Mapping[str, Any]) -> dict[str, Any]:
    """An utterance whose sound may be at an address."""
    return {**row, "audio": _downloaded(row["audio"])}


def _utterance(item: Any, **fields: Any) -> dict[str, Any]:
    """One input in any of its forms as a dictionary of `_FIELDS` and `_VECTORS`."""
    keys = (*_FIELDS, *_VECTORS)
    if isinstance(item, Mapping) and not _SOUND_KEYS & set(item):
        unknown = sorted(set(item) - set(keys))
        if unknown:
            raise ValueError(f"An utterance has the keys {', '.join(keys)}; unknown: {', '.join(unknown)}.")
        fields |= item
    else:
        fields["audio"] = item
    return {name: fields.get(name) for name in keys}


MerhanProcessor.register_for_auto_class()
# So that `pipeline("emotion-recognition", model=model, processor=processor)` takes a model that is loaded already.
if "emotion-recognition" not in PIPELINE_REGISTRY.get_supported_tasks():
    PIPELINE_REGISTRY.register_pipeline(
        "emotion-recognition", EmotionRecognitionPipeline, pt_model=AutoModelForSequenceClassification
    )

__all__ = [
    "AudioError",
    "EmotionRecognitionPipeline",
    "MerhanDataCollator",
    "MerhanProcessor",
    "decode_audio",
    "fit_length",
    "load_audio",
    "read_audio",
    "resample",
]
