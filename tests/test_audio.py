"""Sound of every rate and form, and files that are broken, hostile or unusual: each gives sound or an AudioError."""

import io
import math
import os
import struct
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import torchaudio

import processing_merhan
from merhan.data import audio_facts
from merhan.data.preparation import convert
from processing_merhan import AudioError, decode_audio, load_audio, read_audio


RATE = 16_000
CODECS = {
    "m4a": "aac",
    "mp4": "aac",
    "webm": "libopus",
    "aac": "aac",
    "wv": "wavpack",
    "mov": "pcm_s16le",
    "nut": "pcm_s16le",
}


def wave(rate: int = RATE, seconds: float = 1.0, hertz: float = 440.0, channels: int = 1) -> np.ndarray:
    time = np.arange(round(rate * seconds)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * hertz * time)] * channels).astype(np.float32)


def written(kind: str, sound: np.ndarray | None = None, rate: int = RATE, **options) -> bytes:
    """The bytes of a file that soundfile writes, or FFmpeg, if the format is one of `CODECS`."""
    sound = wave(rate) if sound is None else sound
    file = io.BytesIO()
    if kind in CODECS:
        encode(file, kind, sound, rate)
    else:
        soundfile.write(file, sound.T, rate, format=kind, **options)
    return file.getvalue()


def encode(file: Any, kind: str, sound: np.ndarray, rate: int, metadata: Any = (), **options: str):
    """Encode sound with FFmpeg into a file object or path."""
    layout = {1: "mono", 2: "stereo"}[len(sound)]
    with av.open(file, "w", format={"m4a": "ipod", "aac": "adts"}.get(kind, kind), options=options) as container:
        container.metadata.update(metadata)
        stream = container.add_stream(CODECS[kind], rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=layout)
        frame.rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def hertz(waveform: np.ndarray) -> float:
    """The frequency of a tone, from the drift of its phase."""
    middle = waveform[len(waveform) // 10 : -len(waveform) // 10]
    positions = np.arange(len(middle))
    turned = middle * np.hanning(len(middle)) * np.exp(-2j * np.pi * 440 * positions / RATE)
    halves = [part.sum() for part in np.array_split(turned, 2)]
    drift = np.angle(halves[1] * np.conj(halves[0]))
    return 440 + drift * RATE / (np.pi * len(middle))


# --- resampling ---


def check_rate(rate: int):
    """A tone keeps its frequency, level and length, and the filter is small."""
    resampled = processing_merhan.resample(wave(rate, 0.5)[0], rate)
    assert len(resampled) == math.ceil(round(0.5 * rate) * RATE / rate)
    assert abs(hertz(resampled) - hertz(wave(RATE, 0.5)[0])) < 1e-3
    assert abs(np.abs(resampled[1000:-1000]).max() - 0.5) < 0.01
    divisor = math.gcd(rate, RATE)
    if rate * RATE // divisor**2 > 2**20:
        filters = processing_merhan._filters(rate // divisor, RATE // divisor)
        assert filters.nbytes < 2**24, "16 MiB"


RATES = np.random.default_rng(0).integers(4_000, 192_001, size=240).tolist()


@pytest.mark.parametrize("rate", [15_999, 16_001, 22_254, 24_414, 44_101, 191_999, *RATES[:12]])
def test_any_rate_is_resampled_in_bounded_memory(rate):
    check_rate(rate)


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
def test_each_of_many_rates_is_resampled_in_bounded_memory(rate):
    check_rate(rate)


@pytest.mark.parametrize(
    "rate", [8_000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000]
)
def test_usual_rates_are_resampled_by_torchaudio_bit_by_bit(rate):
    sound = np.random.default_rng(0).standard_normal(rate // 2).astype(np.float32)
    expected = torchaudio.transforms.Resample(rate, RATE)(torch.from_numpy(sound)).numpy()
    np.testing.assert_array_equal(processing_merhan.resample(sound, rate), expected)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_100, 19_980, 44_100, 96_000])
def test_the_filter_of_unusual_rates_is_that_of_torchaudio(rate, monkeypatch):
    sound = np.random.default_rng(0).standard_normal(rate).astype(np.float32)
    expected = processing_merhan.resample(sound, rate)
    monkeypatch.setattr(processing_merhan, "_LARGEST_KERNEL", 0)
    np.testing.assert_allclose(processing_merhan.resample(sound, rate), expected, atol=3e-4)


@pytest.mark.parametrize("rate", [0, -1, 1, 999, 800_000, math.nan, math.inf, None, "16000", 2**31 - 1])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(AudioError, match="sampling_rate of .* give samples per second"):
        load_audio({"array": np.zeros(800), "sampling_rate": rate})


@pytest.mark.parametrize("rate", [1, 900, 2**31 - 1])
def test_a_rate_in_a_header_that_is_none_is_refused(rate):
    content = bytearray(written("wav"))
    content[24:28] = struct.pack("<I", rate)
    with pytest.raises(AudioError, match="sampling_rate"):
        load_audio(bytes(content))


# --- sound that refers elsewhere ---

REFERENCES = {
    "ffconcat": "ffconcat version 1.0\nfile {name}\n",
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{name}\n#EXT-X-ENDLIST\n",
    "m3u8 with an address": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nhttp://127.0.0.1:9/{name}\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 15004 RTP/AVP 0\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="1" mimeType="audio/mp4"><BaseURL>{name}</BaseURL></Representation></AdaptationSet></Period>'
    "</MPD>",
}


@pytest.mark.parametrize("kind", REFERENCES)
@pytest.mark.parametrize("suffix", ["wav", "m3u8", "txt", "sdp", "mpd", "m4a"])
def test_sound_that_refers_elsewhere_is_refused(kind, suffix, tone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = REFERENCES[kind].format(name=tone("other.wav").name)
    (tmp_path / f"list.{suffix}").write_text(text, encoding="utf-8")
    for source in (f"list.{suffix}", text.encode(), io.BytesIO(text.encode())):
        with pytest.raises(AudioError, match="cannot be decoded"):
            decode_audio(source)


def test_only_formats_of_the_list_are_read():
    with pytest.raises(AudioError, match="its format is not among those that are read"):
        decode_audio(written("nut"))


ADDRESSES = ["http://127.0.0.1:9/a.wav", "file:///etc/hosts", "s3://bucket/a.wav", "hf://datasets/me/x/a.wav"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_refused_with_the_remedy(address):
    for source in (address, {"path": address, "bytes": None}):
        with pytest.raises(AudioError, match="is an address; download it first"):
            decode_audio(source)


@pytest.mark.parametrize(
    "path", ["concat:other.wav|other.wav", "subfile,,start,0,end,9,,:other.wav", "pipe:0", "async:other.wav"]
)
def test_protocols_of_ffmpeg_are_no_paths(path, tone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tone("other.wav")
    with pytest.raises(AudioError, match="no such file"):
        decode_audio(path)


# --- sound that kills ---


def _decode_track(file, request):
    """In place of the decoder: what a broken file may make it do."""
    content = file.read()
    if content == b"crash":
        os.abort()
    while content == b"endless":
        pass
    if content == b"memory":
        bytearray(2**33)
    return {"rate": 16_000, "samples": 2}, [b"\0\0\0\0\0\0\x80\x3f"]


@pytest.fixture
def fragile(monkeypatch):
    """A decoder that a file can crash."""
    monkeypatch.setattr(processing_merhan, "_IDLE", [])
    monkeypatch.setattr(processing_merhan, "_decode_track", _decode_track)
    monkeypatch.setattr(processing_merhan, "_DECODING_SECONDS", 0.3)
    yield
    for decoder in processing_merhan._IDLE:
        decoder.stop()


def test_a_crash_costs_one_file(fragile):
    outcomes = {"crash": "crashed the decoder", "endless": "took over 0 s", "good": ""}
    if sys.platform == "linux":
        outcomes["memory"] = "MemoryError"
    words = [word for word in outcomes for _ in range(3)]

    def outcome(word: str) -> bool:
        try:
            return decode_audio(word.encode())[0].tolist() == [[0.0, 1.0]] and word == "good"
        except AudioError as error:
            return word != "good" and outcomes[word] in str(error)

    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(outcome, words))
    assert 0 < len(processing_merhan._IDLE) <= 3
    assert all(decoder.is_usable() for decoder in processing_merhan._IDLE)


def test_one_process_decodes_file_after_file(monkeypatch):
    monkeypatch.setattr(processing_merhan, "_IDLE", [])
    content = written("m4a")
    decode_audio(content)
    (decoder,) = processing_merhan._IDLE
    with pytest.raises(AudioError, match="cannot be decoded"):
        decode_audio(content[:400])
    decode_audio(content)
    assert [decoder] == processing_merhan._IDLE
    decoder.process.kill()  # as a system that is short of memory does
    decoder.process.wait()
    decode_audio(content)
    assert decoder not in processing_merhan._IDLE
    processing_merhan._IDLE[0].stop()


class Clips(torch.utils.data.Dataset):
    def __init__(self, content: bytes):
        self.content = content

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        waveform = load_audio(self.content)
        assert [decoder.owner for decoder in processing_merhan._IDLE] == [os.getpid()]
        return torch.from_numpy(waveform)


def test_workers_of_a_data_loader_have_decoders_of_their_own():
    content = written("m4a", rate=44_100)
    expected = torch.from_numpy(load_audio(content))  # this process has a decoder that they must not use
    for batch in torch.utils.data.DataLoader(Clips(content), batch_size=2, num_workers=2):
        torch.testing.assert_close(batch, torch.stack([expected, expected]))
    torch.testing.assert_close(torch.from_numpy(load_audio(content)), expected)


def test_without_pyav_the_remedy_is_named(monkeypatch, tmp_path):
    (tmp_path / "av.py").write_text("raise ImportError('no av')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(processing_merhan, "_IDLE", [])
    with pytest.raises(AudioError, match="pip install av"):
        decode_audio(written("m4a"))
    processing_merhan._IDLE[0].stop()


# Format -> where a header declares the length, and how.
LENGTHS = {
    "wav": (40, "<I"),
    "aiff": (22, ">I"),
    "au": (8, ">I"),
    "flac": (22, ">I"),
    "caf": (4084, ">q"),
    "w64": (120, "<q"),
    "rf64": (28, "<q"),
    "voc": (27, "<I"),
}


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("claim", [0, 1, 2**20, 2**30, 2**31 - 1, 2**32 - 1, 2**40, 2**62, -1])
def test_a_length_that_a_header_claims_costs_no_memory(kind, claim):
    content = bytearray(written(kind))
    place, code = LENGTHS[kind]
    size = struct.calcsize(code)
    content[place : place + size] = (claim % 2 ** (8 * size)).to_bytes(size, "little" if code[0] == "<" else "big")
    tracemalloc.start()
    try:
        assert decode_audio(bytes(content))[0].shape[1] <= 16_400
    except AudioError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**26


def test_sound_beyond_the_limit_is_refused_before_it_is_held(monkeypatch):
    monkeypatch.setattr(processing_merhan, "_BLOCK", 2**12)
    monkeypatch.setattr(processing_merhan, "_MOST_SAMPLES", 15_999)
    for content in (written("flac"), written("m4a")):
        with pytest.raises(AudioError, match="give `start` and `end`"):
            decode_audio(content)
        assert decode_audio(content, 0.25, 0.5)[0].shape == (1, 4000)


def test_blocks_join_to_the_whole(monkeypatch):
    for content in (written("flac", wave(channels=2)), written("wav", wave(channels=3))):
        whole = decode_audio(content)[0]
        part = decode_audio(content, 0.1, 0.9)[0]
        monkeypatch.setattr(processing_merhan, "_BLOCK", 1000)
        np.testing.assert_array_equal(decode_audio(content)[0], whole)
        np.testing.assert_array_equal(decode_audio(content, 0.1, 0.9)[0], part)
        monkeypatch.undo()


@pytest.mark.parametrize("value", [1e38, -3e38, 1e30, 1e10, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("form", ["wav", "array", "double"])
def test_samples_that_are_no_sound_are_refused(value, form):
    sound = wave()
    sound[0, 77] = value
    forms = {
        "wav": lambda: written("wav", sound, subtype="FLOAT"),
        "array": lambda: {"array": sound, "sampling_rate": RATE},
        "double": lambda: {"array": sound.astype(np.float64) * 1e5, "sampling_rate": RATE},
    }
    with pytest.raises(AudioError, match="NaN or infinite|where full scale is 1"):
        load_audio(forms[form]())


def test_floats_in_the_range_of_integers_are_sound():
    loud = load_audio({"array": wave() * 2**30, "sampling_rate": RATE})
    assert np.isfinite(loud).all() and abs(np.abs(loud).max() / 2**29 - 1) < 0.01


# --- headers of pipes, and streams that change ---


@pytest.mark.parametrize(
    ("riff", "data"),
    [
        (0xFFFFFFFF, 0xFFFFFFFF),  # ffmpeg
        (0x7FFFF024, 0x7FFFF000),  # sox
        (0x80000024, 0x80000000),  # arecord
        (0x7FFFFFFF, 0x7FFFFFDB),
        (0xFFFFFFFF, 0xFFFFFFDB),
        (0, 0),  # gstreamer, and programs that are killed
        (36, 0),
        (0xFFFFFFFF, 0),
    ],
)
@pytest.mark.parametrize("chunk", [b"", b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf60.16.100\0"])
def test_placeholders_for_the_size_of_a_wav_are_no_truncation(riff, data, chunk):
    content = written("wav", wave() + 0.1)
    content = content[:36] + chunk + content[36:]
    place = 40 + len(chunk)
    content = content[:4] + struct.pack("<I", riff) + content[8:place] + struct.pack("<I", data) + content[place + 4 :]
    expected = decode_audio(written("wav", wave() + 0.1))[0]
    np.testing.assert_array_equal(decode_audio(content)[0], expected)
    np.testing.assert_array_equal(decode_audio(content, 0.5, 0.75)[0], expected[:, 8_000:12_000])


@pytest.mark.parametrize("kind", ["flac", "caf", "au"])
def test_placeholders_for_the_size_in_other_formats(kind):
    content = bytearray(written(kind))
    if kind == "flac":
        content[21] &= 0xF0
        content[22:26] = bytes(4)
    elif kind == "caf":
        content[4084:4092] = b"\xff" * 8
    else:
        content[8:12] = b"\xff" * 4
    np.testing.assert_allclose(decode_audio(bytes(content))[0], decode_audio(written(kind))[0], atol=1e-4)


def test_an_empty_recording_is_not_taken_for_an_unfinished_one():
    content = written("wav", np.zeros((1, 0)))
    content = (
        content[:4] + struct.pack("<I", 36 + 34) + content[8:] + b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf60.16.100\0"
    )
    with pytest.raises(AudioError, match="0 samples"):
        decode_audio(content)


@pytest.mark.parametrize("rates", [(44_100, 22_050), (22_050, 48_000), (16_000, 16_000)])
@pytest.mark.parametrize("channels", [(1, 1), (2, 1), (1, 2)])
def test_a_stream_that_changes_is_resampled_by_its_own_rates(rates, channels):
    parts = [written("aac", wave(rate, 1.0, channels=n), rate) for rate, n in zip(rates, channels, strict=True)]
    waveform, rate = read_audio(b"".join(parts))
    assert rate == rates[0] and abs(len(waveform) / rate - 2) < 0.2
    for half in (waveform[rate // 5 : rate * 4 // 5], waveform[rate * 6 // 5 : rate * 9 // 5]):
        spectrum = np.abs(np.fft.rfft(half))
        assert abs(np.fft.rfftfreq(len(half), 1 / rate)[spectrum.argmax()] - 440) < 4
        assert 0.3 < np.abs(half).max() < 0.8


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_a_film_that_is_cut_is_no_shorter_recording(share, tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 4 * RATE)).astype(np.float32)
    encode(str(tmp_path / "a.mov"), "mov", noise, RATE, movflags="faststart")  # the header comes first, and survives
    content = (tmp_path / "a.mov").read_bytes()
    assert abs(decode_audio(content)[0].shape[1] / RATE - 4) < 0.2
    cut = content[: round(len(content) * share)]
    with pytest.raises(AudioError, match="is truncated"):
        decode_audio(cut)
    np.testing.assert_array_equal(decode_audio(cut, 0.1, 0.5)[0], decode_audio(content, 0.1, 0.5)[0])


# --- segments ---


@pytest.mark.parametrize("form", ["wav", "mp3", "m4a", "array"])
def test_a_segment_lies_within_its_recording(form):
    source = {"array": wave()[0], "sampling_rate": RATE} if form == "array" else written(form)
    assert decode_audio(source, 0.5, 1.05)[0].shape[1] >= 7_999, "an end that was rounded up"
    for start, end in ((0.0, 1.7), (0.5, 99.0), (2.0, 3.0), (2.0, None)):
        with pytest.raises(AudioError, match=r"lasts 1\.0\d\d s, and has no sound between"):
            decode_audio(source, start, end)
    for start, end in ((0, math.inf), (math.nan, 1), (0, math.nan), (math.inf, None), ("0", 1), (0, "1")):
        with pytest.raises(AudioError, match="is no number of seconds"):
            decode_audio(source, start, end)


# --- a corpus with such files ---


def test_a_corpus_with_files_that_kill_is_prepared_without_them(tmp_path):
    caf, mp3 = bytearray(written("caf")), bytearray(written("mp3"))
    frames = max(mp3.find(b"Xing"), mp3.find(b"Info")) + 8
    files = {
        "good.wav": written("wav"),
        "channels.caf": caf[:47] + bytes([30]) + caf[48:],  # one byte: a segmentation fault in PyAV
        "codec.caf": caf[:32] + b"none" + caf[36:],
        "terabytes.mp3": mp3[:frames] + b"\x7f" + mp3[frames + 1 :],
        "elsewhere.wav": b"ffconcat version 1.0\nfile good.wav\n",
        "loud.wav": written("wav", wave() * 3e38, subtype="FLOAT"),
        "also_good.m4a": written("m4a"),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    names = list(files)
    rows = pd.DataFrame({"utterance_id": names, "audio": [str(tmp_path / name) for name in names]})
    outcomes = convert(rows, tmp_path / "out", workers=2)
    written_names = [name for name, result in zip(names, outcomes, strict=True) if result.written]
    assert written_names == ["good.wav", "also_good.m4a"]
    assert all(bool(result.error) != result.written for result in outcomes)
    facts, errors = audio_facts.inspect_audio(rows)
    assert [names[row] for row in np.flatnonzero(facts["duration"])] == written_names
    assert sorted(errors) == [row for row, name in enumerate(names) if name not in written_names]


@pytest.mark.parametrize("samples", [1, 511, 512, 640, 4 * 128 + 512, 9_999])
def test_the_fingerprint_of_a_long_recording_is_computed_in_blocks(samples, monkeypatch):
    sound = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    whole = audio_facts.acoustic_fingerprint(sound, RATE)
    monkeypatch.setattr(audio_facts, "BLOCK", 5)
    np.testing.assert_allclose(audio_facts.acoustic_fingerprint(sound, RATE), whole, atol=1e-5)


def test_a_lack_of_memory_after_decoding_is_an_audio_error(monkeypatch):
    def resample(waveform, rate):
        raise MemoryError("9 GB")

    monkeypatch.setattr(processing_merhan, "resample", resample)
    with pytest.raises(AudioError, match="<[0-9]+ bytes>: cannot be read .MemoryError: 9 GB"):
        load_audio(written("wav"))


# --- forms of sound ---


class Samples:
    """What an `AudioDecoder` of torchcodec returns."""

    def __init__(self, data: torch.Tensor, sample_rate: int):
        self.data, self.sample_rate = data, sample_rate
        self.pts_seconds, self.duration_seconds = 0.0, data.shape[1] / sample_rate


class AudioDecoder:
    """The interface of `torchcodec.decoders.AudioDecoder`, as the audio columns of `datasets` hold it."""

    def __init__(self, content: bytes):
        self.content = content

    def get_all_samples(self) -> Samples:
        sound, rate = soundfile.read(io.BytesIO(self.content), dtype="float32", always_2d=True)
        return Samples(torch.from_numpy(sound.T), rate)


FORMS = {
    "path": lambda path, sound: str(path),
    "path object": lambda path, sound: path,
    "bytes": lambda path, sound: path.read_bytes(),
    "bytearray": lambda path, sound: bytearray(path.read_bytes()),
    "memoryview": lambda path, sound: memoryview(path.read_bytes()),
    "file": lambda path, sound: open(path, "rb"),  # noqa: SIM115
    "file in memory": lambda path, sound: io.BytesIO(path.read_bytes()),
    "array and rate": lambda path, sound: {"array": sound, "sampling_rate": RATE},
    "array, rate and path": lambda path, sound: {"path": "gone.wav", "array": sound, "sampling_rate": RATE},
    "raw and rate": lambda path, sound: {"raw": sound, "sampling_rate": float(RATE)},
    "bytes and path": lambda path, sound: {"bytes": path.read_bytes(), "path": "gone.wav"},
    "bytes alone": lambda path, sound: {"bytes": path.read_bytes()},
    "path and no bytes": lambda path, sound: {"bytes": None, "path": str(path)},
    "list and rate": lambda path, sound: {"array": sound.tolist(), "sampling_rate": np.int64(RATE)},
    "AudioDecoder": lambda path, sound: AudioDecoder(path.read_bytes()),
}
BARE = {
    "array": lambda sound: sound,
    "stereo": lambda sound: np.stack([sound, sound]),
    "double": lambda sound: sound.astype(np.float64),
    "integers": lambda sound: (sound * 2**15).astype(np.int16),
    "tensor": torch.from_numpy,
    "tensor with a gradient": lambda sound: torch.from_numpy(sound).requires_grad_(),
    "half precision": lambda sound: torch.from_numpy(sound).bfloat16(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_sound(form, tone, processor):
    path = tone(rate=RATE)
    expected = load_audio(path)
    source = FORMS[form](path, soundfile.read(path, dtype="float32")[0])
    np.testing.assert_allclose(load_audio(source), expected, atol=1e-6)
    np.testing.assert_allclose(load_audio(source, 0.25, 0.75), load_audio(path, 0.25, 0.75), atol=1e-6)
    inputs = processor(audio=source)["input_values"]
    torch.testing.assert_close(inputs, processor(audio=str(path))["input_values"])
    torch.testing.assert_close(processor(audio=[source, None], text=["no", "no"])["input_values"][:1], inputs)


@pytest.mark.parametrize("form", BARE)
def test_a_bare_array_needs_its_rate(form, tone, processor):
    path = tone(rate=RATE)
    source = BARE[form](soundfile.read(path, dtype="float32")[0])
    tolerance = 4e-3 if form == "half precision" else 1e-4
    np.testing.assert_allclose(load_audio(source, sampling_rate=RATE), load_audio(path), atol=tolerance)
    inputs = processor(audio=[source, str(path)], sampling_rate=RATE)["input_values"]
    torch.testing.assert_close(inputs[0], inputs[1], atol=1e-2, rtol=0)
    for read in (load_audio, processor):
        with pytest.raises(AudioError, match="`sampling_rate=`"):
            read(source)


@pytest.mark.parametrize("form", FORMS)
def test_the_pipeline_takes_every_form(form, tone, recogniser):
    path = tone(rate=RATE)
    source = FORMS[form](path, soundfile.read(path, dtype="float32")[0])
    expected = [entry["score"] for entry in recogniser(str(path), text="no")]
    for results in (recogniser(source, text="no"), recogniser([{"audio": source, "text": "no"}])[0]):
        np.testing.assert_allclose([entry["score"] for entry in results], expected, atol=1e-5)
    assert len(recogniser([source])[0]) == 4


def test_the_pipeline_takes_a_bare_array_with_its_rate(tone, recogniser):
    path = tone(rate=44_100)
    sound, rate = soundfile.read(path, dtype="float32")
    expected = [entry["score"] for entry in recogniser(str(path))]
    rows = recogniser([sound, {"audio": torch.from_numpy(sound)}, str(path)], sampling_rate=rate)
    stream = recogniser((array for array in [sound]), sampling_rate=rate)
    for results in (recogniser(sound, sampling_rate=rate), *rows, *stream):
        np.testing.assert_allclose([entry["score"] for entry in results], expected, atol=1e-5)
    with pytest.raises(AudioError, match="`sampling_rate=`"):
        recogniser(sound)


class Broken:
    """A file object or decoder that fails in its own way."""

    def __init__(self, method: str, error: Exception):
        self.error = error
        setattr(self, method, self.fail)

    def fail(self, *arguments):
        raise self.error


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({}, "has no keys; give 'array'"),
        ({"bytes": None, "path": None}, "has bytes, path; give 'array'"),
        ({"sampling_rate": RATE}, "has sampling_rate; give 'array'"),
        ({"bytes": "a.wav", "path": 3}, "no such file"),
        ({"path": 3}, "is of type int"),
        ({"array": [[0.0], [0.0, 1.0]], "sampling_rate": RATE}, "cannot be read"),
        ({"array": np.zeros(8, complex), "sampling_rate": RATE}, "no defined full scale"),
        ({"array": np.array(["a", "b"]), "sampling_rate": RATE}, "no defined full scale"),
        ({"array": np.zeros(0), "sampling_rate": RATE}, "0 samples"),
        (io.StringIO("text"), "mode 'rb'"),
        (io.BytesIO(), "empty file"),
        (3, "is of type int"),
        (np.float32(0), "is of type float32"),
        ("a\0b.wav", "no such file"),
        ("a" * 5000, "cannot be read|no such file"),
        (".", "no such file"),
        (Broken("read", RuntimeError("gone")), "cannot be read .*gone"),
        (Broken("get_all_samples", LookupError("no stream")), "cannot be read .*no stream"),
        (Broken("read", MemoryError()), "cannot be read .*MemoryError"),
    ],
)
def test_what_is_no_form_of_sound_is_refused(source, sentence):
    with pytest.raises(AudioError, match=sentence):
        decode_audio(source)


def test_a_suffix_that_libsndfile_takes_for_headerless_samples(tmp_path):
    (tmp_path / "a.raw").write_bytes(written("wav"))
    with pytest.raises(AudioError, match="cannot be decoded"):
        (tmp_path / "b.raw").write_bytes(bytes(999))
        decode_audio(tmp_path / "b.raw")
    assert decode_audio(tmp_path / "a.raw")[0].shape == (1, RATE)


def test_metadata_in_another_encoding_is_no_fault():
    file = io.BytesIO()
    encode(file, "m4a", wave(), RATE, {"title": "Grusse"})
    content = file.getvalue()
    assert b"Grusse" in content
    assert decode_audio(content.replace(b"Grusse", b"Gr\xfc\xdfe"))[0].shape[1] > RATE
