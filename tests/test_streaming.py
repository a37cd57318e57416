"""Answers while the sound comes in."""

from collections.abc import Iterator

import numpy as np
import psutil
import pytest
import soundfile
import torch
import torchaudio

from merhan import Predictor, StreamingRecogniser
from merhan.errors import InputError
from merhan.prediction import streaming
from merhan.prediction.streaming import Answer
from merhan.prediction.timeline import timeline
from merhan.prediction.transcription import Transcriber


pytest.importorskip("silero_vad")


@pytest.fixture
def predictor(trained_like, processor) -> Predictor:
    return Predictor(trained_like.eval(), processor)


def real_sound(corpora, clips: int) -> np.ndarray:
    """Sentences of EMO-DB with pauses between."""
    files = sorted((corpora / "emodb").rglob("*.wav"))[:clips]
    return np.concatenate([np.pad(soundfile.read(path, dtype="float32")[0], (8000, 8000)) for path in files])


def chunks(sound: np.ndarray, length: int) -> Iterator[np.ndarray]:
    for first in range(0, len(sound), length):
        yield sound[first : first + length]


def answers(stream: StreamingRecogniser, sound: np.ndarray, length: int) -> list[Answer]:
    return [answer for chunk in chunks(sound, length) for answer in stream.add(chunk)] + stream.finish()


def compare_with_offline(predictor, sound, folder, length, transcriber=None):
    """Final answers of the stream are those of a timeline; returns how many."""
    soundfile.write(folder / "call.wav", sound, 16_000, subtype="FLOAT")
    offline = timeline(predictor, folder / "call.wav", transcriber=transcriber).utterances
    online = answers(StreamingRecogniser(predictor, None, transcriber), sound, length)
    np.testing.assert_array_equal([answer[:2] for answer in online], offline[["start", "end"]])
    scores = [list(answer.scores.values()) for answer in online]
    np.testing.assert_allclose(scores, offline.filter(like="score_"), atol=1e-5)
    assert [answer.prediction for answer in online] == offline["prediction"].tolist()
    assert [answer.text for answer in online] == offline["text"].fillna("").tolist()
    assert all(answer.is_final and answer.error is None for answer in online)
    return len(online)


@pytest.mark.parametrize("length", [320, 4567])
def test_final_answers_are_those_of_a_timeline(predictor, corpora, tmp_path, length):
    assert compare_with_offline(predictor, real_sound(corpora, 4), tmp_path, length) >= 4


def test_words_of_a_recogniser_are_those_of_a_timeline(predictor, corpora, tmp_path):
    transcriber = Transcriber(lambda sound: f"the dinner was {len(sound['raw'])}")
    assert compare_with_offline(predictor, real_sound(corpora, 2), tmp_path, 1600, transcriber) >= 2


@pytest.mark.slow
def test_a_hundred_utterances_are_answered_as_offline(predictor, corpora, tmp_path):
    assert compare_with_offline(predictor, real_sound(corpora, 110), tmp_path, 320) >= 100


def test_there_are_answers_on_the_way(predictor, corpora):
    sound = real_sound(corpora, 2)
    every = answers(StreamingRecogniser(predictor, 0.5), sound, 320)
    final = [answer for answer in every if answer.is_final]
    assert final == answers(StreamingRecogniser(predictor, None), sound, 320)
    for answer in final:
        before = [other for other in every if not other.is_final and answer.start <= other.start < answer.end]
        assert len(before) == pytest.approx((answer.end - answer.start) / 0.5, abs=2) and len(before) >= 1
        assert all(other.start == answer.start for other in before)
        ends = [other.end for other in before]
        assert all(b - a == pytest.approx(0.5, abs=0.021) for a, b in zip(ends, ends[1:], strict=False))


def test_words_belong_to_the_utterance_of_their_time(predictor, corpora, monkeypatch):
    sound, warnings = real_sound(corpora, 2), []
    first, second = answers(StreamingRecogniser(predictor, None), sound, 320)[:2]
    monkeypatch.setattr(streaming.logger, "warning", warnings.append)
    stream, final, middle = StreamingRecogniser(predictor, None), [], first.start + 0.5
    for number, chunk in enumerate(chunks(sound, 320)):
        now = 0.02 * number
        words = [(middle, "lovely")] if now <= middle < now + 0.02 else []
        words += [(second.start + 0.1, "dinner")] if now <= middle < now + 0.02 else []  # announced early
        words += [(middle, "late")] if now <= second.start + 0.4 < now + 0.02 else []
        final += stream.add(chunk, words)
    final += stream.add(np.zeros(0, np.float32), [(1e4, "never")])
    final += stream.finish()
    assert [answer.text for answer in final[:2]] == ["lovely", "dinner"]
    assert final[0].scores != first.scores
    left_out = [text.split(", and")[0] for text in warnings]
    assert left_out == ["1 words came after their utterance had ended", "1 words lie where no utterance is"]
    assert warnings[0].endswith("late ...") and warnings[1].endswith("never ...")


def test_integers_and_floats_are_the_same_sound(predictor, corpora):
    sound = np.round(real_sound(corpora, 1) * 2**15).astype(np.int16)
    for other in (sound / 2**15, (sound / 2**15).astype(np.float32)):
        assert answers(StreamingRecogniser(predictor), sound, 512) == answers(
            StreamingRecogniser(predictor), other, 512
        )


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_another_rate_is_answered_as_offline(predictor, corpora, tmp_path, rate):
    sound = torchaudio.functional.resample(torch.from_numpy(real_sound(corpora, 3)), 16_000, rate).numpy()
    soundfile.write(tmp_path / "call.wav", sound, rate, subtype="FLOAT")
    offline = timeline(predictor, tmp_path / "call.wav").utterances
    online = answers(StreamingRecogniser(predictor, None, sampling_rate=rate), sound, rate // 50)
    np.testing.assert_array_equal([answer[:2] for answer in online], offline[["start", "end"]])
    scores = [list(answer.scores.values()) for answer in online]
    np.testing.assert_allclose(scores, offline.filter(like="score_"), atol=1e-3)
    assert len(online) >= 3 and [answer.prediction for answer in online] == offline["prediction"].tolist()


@pytest.mark.parametrize(
    "samples", [np.zeros((2, 320), np.float32), np.zeros(320, np.int32), np.full(320, np.nan), ["a"], np.float32(0)]
)
def test_other_samples_are_refused(predictor, samples):
    with pytest.raises(InputError, match="StreamingRecogniser: a chunk"):
        StreamingRecogniser(predictor).add(samples)


def test_options_are_checked(predictor):
    for every in (0, -1.0, float("nan")):
        with pytest.raises(InputError, match="is no time between two answers"):
            StreamingRecogniser(predictor, every)
    for rate in (0, 999, 768_001, 44_100.5, float("nan"), "16000", None):
        with pytest.raises(InputError, match=f"sampling_rate: {rate} is not read; give a whole number of Hz"):
            StreamingRecogniser(predictor, sampling_rate=rate)


def test_what_is_held_does_not_grow(predictor, corpora):
    stream = StreamingRecogniser(predictor, None)
    longest = 0
    for chunk in chunks(np.tile(real_sound(corpora, 2), 3), 1600):
        stream.add(chunk, [(stream.segmenter.length / 16_000, "word")])
        longest = max(longest, len(stream.sound))
    limit = predictor.processor.max_seconds * 16_000
    assert longest <= limit + 3 * 1600 and len(stream.words) < 100


@pytest.mark.slow
def test_memory_is_flat_over_an_hour(predictor, corpora):
    sound, process = real_sound(corpora, 12), psutil.Process()
    stream, used = StreamingRecogniser(predictor, None), []
    for _ in range(round(3600 * 16_000 / len(sound))):
        for chunk in chunks(sound, 1600):
            stream.add(chunk)
        used.append(process.memory_info().rss / 2**20)
    assert used[-1] - used[len(used) // 10] < 16, used
