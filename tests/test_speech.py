"""Sound, as it comes, to utterances."""

import numpy as np
import pytest

from merhan.prediction.speech import PauseSplitter, SpeechSegmenter, speech_regions


silero_vad = pytest.importorskip("silero_vad")


def probabilities(generator: np.random.Generator) -> list[float]:
    """Speech, silence and doubt of random lengths, and a pause at the end."""
    values: list[float] = []
    for _ in range(generator.integers(1, 80)):
        low, high = [(0.0, 1.0), (0.0, 0.35), (0.5, 1.0), (0.3, 0.55)][generator.integers(4)]
        values += generator.uniform(low, high, generator.integers(1, 25)).tolist()
    return [*values, *[0.0] * 12]


@pytest.mark.parametrize("seed", range(50))
def test_without_a_limit_utterances_are_those_of_silero(seed):
    values = probabilities(np.random.default_rng(seed))
    expected = silero_vad.get_speech_timestamps_from_probs(values, min_silence_duration_ms=300, speech_pad_ms=100)
    splitter = PauseSplitter(1e6)
    assert [dict(stretch._asdict()) for stretch in filter(None, map(splitter.add, values))] == expected


@pytest.mark.parametrize("seed", range(50))
def test_a_limit_splits_and_loses_nothing(seed):
    generator = np.random.default_rng(seed)
    values, longest = probabilities(generator), generator.uniform(1, 6)
    splitter, whole = PauseSplitter(longest), PauseSplitter(1e6)
    parts = [stretch for stretch in map(splitter.add, values) if stretch]
    assert all(part.end - part.start <= 16_000 * longest for part in parts)
    assert all(part.end <= following.start for part, following in zip(parts, parts[1:], strict=False))
    covered = np.zeros(512 * len(values), bool)
    for part in parts:
        covered[part.start : part.end] = True
    for stretch in filter(None, map(whole.add, values)):
        for window, value in enumerate(values):
            inside = stretch.start <= 512 * window and 512 * (window + 1) <= stretch.end
            # The end of an utterance that was split may be too short to be one.
            if inside and value >= 0.5 and stretch.end - 512 * window > 4000 + 3200:
                assert covered[512 * window : 512 * (window + 1)].all()


def test_a_split_is_at_the_longest_pause():
    values = [1.0] * 20 + [0.0] * 2 + [1.0] * 20 + [0.0] * 5 + [1.0] * 20 + [0.0] * 3 + [1.0] * 40
    splitter = PauseSplitter(3.0)
    parts = [stretch for stretch in map(splitter.add, values) if stretch]
    assert [(part.start, part.end) for part in parts] == [(0, 42 * 512 + 1280)]
    assert splitter.pauses == [(67 * 512, 70 * 512)], "the later pause is remembered"
    assert splitter.finish(512 * len(values)) == (47 * 512 - 1280, 512 * len(values))


def test_pieces_of_any_length_give_the_same_utterances(corpora):
    import soundfile

    files = sorted((corpora / "emodb").rglob("*.wav"))[:4]
    pieces = [np.pad(soundfile.read(path, dtype="float32")[0], (8000, 8000)) for path in files]
    sound = np.concatenate(pieces)
    expected = list(speech_regions([sound], 2.0))
    assert len(expected) >= 4
    for length in (320, 511, 512, 5000):
        segmenter = SpeechSegmenter(2.0)
        stretches = [s for first in range(0, len(sound), length) for s in segmenter.add(sound[first : first + length])]
        stretches += segmenter.finish()
        assert [(start / 16_000, end / 16_000) for start, end in stretches] == expected
