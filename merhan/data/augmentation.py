"""Random changes of audio and text: augmentation of training data, and the corruptions of the robustness evaluation.

Every random draw depends on seed, epoch and row only. It is the same in every worker process and after a resume, and
does not depend on which other effects are on.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.signal import butter, sosfilt
from torchaudio.functional import fftconvolve, speed

from merhan.recipe.schema import AugmentationRecipe, NoiseRecipe
from processing_merhan import SAMPLING_RATE


DrawVoices = Callable[[np.random.Generator], list[np.ndarray]]  # draws other utterances, `(samples,)` at 16 kHz each


def white_noise(size: int, rng: np.random.Generator, draw_voices: DrawVoices) -> np.ndarray:
    """Noise `(size,)` with the same power at every frequency."""
    return rng.standard_normal(size)


def pink_noise(size: int, rng: np.random.Generator, draw_voices: DrawVoices) -> np.ndarray:
    """Noise `(size,)` with the same power in every octave (-3 dB per octave), as of wind, rain or a fan."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), size)


def mains_hum(size: int, rng: np.random.Generator, draw_voices: DrawVoices) -> np.ndarray:
    """Mains hum `(size,)` at 50 or 60 Hz with nine harmonics of decreasing amplitude and random phases."""
    time, mains = np.arange(size) / SAMPLING_RATE, rng.choice([50, 60])
    return sum(np.sin(2 * np.pi * (n * mains * time + rng.random())) / n for n in range(1, 11))


def babble_noise(size: int, rng: np.random.Generator, draw_voices: DrawVoices) -> np.ndarray:
    """Babble `(size,)` of other utterances at equal loudness, each repeated cyclically from a random start."""
    mixed = np.zeros(size)
    for voice in draw_voices(rng):
        loudness = np.sqrt(np.mean(voice**2))
        mixed += np.resize(np.roll(voice, rng.integers(len(voice))), size) / max(loudness, 1e-9)
    return mixed


NOISES: dict[str, Callable[[int, np.random.Generator, DrawVoices], np.ndarray]] = {
    "white": white_noise,
    "pink": pink_noise,
    "hum": mains_hum,
    "babble": babble_noise,
}

BABBLE_VOICES = 6

TELEPHONE = (300.0, 3400.0)  # Hz, the band of ITU-T G.712

_TELEPHONE_FILTER = butter(6, TELEPHONE, "bandpass", fs=SAMPLING_RATE, output="sos")


def augment(
    waveform: np.ndarray, recipe: AugmentationRecipe, key: Sequence[int], draw_voices: DrawVoices
) -> np.ndarray:
    """Apply the effects of a recipe to one utterance, in the order of the recipe's fields.

    Args:
        waveform: `(samples,)` at 16 kHz.
        recipe: the effects and their ranges.
        key: seed, epoch and row, which determine all random draws.
        draw_voices: draws the utterances that babble noise is made of.

    Returns:
        `(samples,)` float32, shorter or longer where the speed was changed. Samples are not clipped.
    """
    # A generator for each effect, so that its draws do not depend on which other effects are on. The 0 of the first
    # generator does not change its state, so that speeds are those of published results, which used only the key.
    speed_rng, room_rng, noise_rng, telephone_rng, gain_rng = (np.random.default_rng([*key, n]) for n in range(5))
    if recipe.speed:
        waveform = change_speed(waveform, float(speed_rng.choice(recipe.speed)))
    if recipe.room and room_rng.random() < recipe.room.probability:
        waveform = add_reverberation(waveform, _uniform(recipe.room.seconds, room_rng), room_rng)
    if recipe.noise and noise_rng.random() < recipe.noise.probability:
        waveform = _add_drawn_noise(waveform, recipe.noise, noise_rng, draw_voices)
    if telephone_rng.random() < recipe.telephone:
        waveform = telephone_band(waveform)
    if recipe.gain:
        waveform = waveform * 10 ** (_uniform(recipe.gain, gain_rng) / 20)
    return waveform.astype(np.float32, copy=False)


def _uniform(bounds: Sequence[float], rng: np.random.Generator) -> float:
    low, high = bounds
    return rng.uniform(low, high)


def _add_drawn_noise(
    waveform: np.ndarray, recipe: NoiseRecipe, rng: np.random.Generator, draw_voices: DrawVoices
) -> np.ndarray:
    make_noise = NOISES[rng.choice(recipe.kinds)]
    snr = _uniform(recipe.snr, rng)
    return add_noise(waveform, make_noise(len(waveform), rng, draw_voices), snr)


def change_speed(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Change tempo and pitch together by resampling; a factor above 1 is faster and higher.

    Source: Ko et al. 2015, "Audio augmentation for speech recognition", Interspeech.
    """
    changed, _ = speed(torch.from_numpy(waveform), SAMPLING_RATE, factor)
    return changed.numpy()


def add_noise(waveform: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Add noise `(samples,)` at a signal-to-noise ratio in dB, of the mean powers over the whole utterance."""
    ratio = np.mean(waveform.astype(np.float64) ** 2) / max(np.mean(noise**2), 1e-20)
    return waveform + noise * np.sqrt(ratio / 10 ** (snr / 10))


def add_reverberation(waveform: np.ndarray, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Convolve with the impulse response of a random room; length and loudness stay the same.

    The response is the direct sound followed by exponentially decaying noise (Polack 1988) of the same energy, which
    corresponds to a listener at the critical distance.

    Args:
        waveform: `(samples,)` at 16 kHz.
        seconds: reverberation time, after which the response is 60 dB down.
        rng: draws the response.
    """
    time = np.arange(1, round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    response = np.concatenate([[1.0], tail / np.sqrt(np.sum(tail**2))])
    reverberant = fftconvolve(torch.from_numpy(waveform).double(), torch.from_numpy(response)).numpy()[: len(waveform)]
    return reverberant * np.sqrt(np.mean(waveform**2) / max(np.mean(reverberant**2), 1e-20))


def telephone_band(waveform: np.ndarray) -> np.ndarray:
    """Limit to the telephone band, 300 to 3400 Hz, with a Butterworth band-pass filter."""
    return sosfilt(_TELEPHONE_FILTER, waveform)


def add_word_errors(text: str, rate: float, deletions: float, words: Sequence[str], rng: np.random.Generator) -> str:
    """Simulate the errors of a speech recogniser in a transcript.

    Args:
        text: the correct transcript.
        rate: probability of an error for each word, which is the expected word error rate.
        deletions: probability that an error is a deletion; otherwise it is a substitution.
        words: running words that substitutes are drawn from, so that frequent words are drawn often.
        rng: draws the errors.

    Returns:
        the transcript with errors. At least one word remains: if all were to be deleted, the first is substituted.
    """
    original = text.split()
    wrong = rng.random(len(original)) < rate
    deleted = wrong & (rng.random(len(original)) < deletions)
    if original and deleted.all():
        deleted[0] = False
    result = []
    for number, word in enumerate(original):
        if deleted[number]:
            continue
        if wrong[number]:
            word = _substitute(word, words, rng)
        result.append(word)
    return " ".join(result)


def _substitute(word: str, words: Sequence[str], rng: np.random.Generator) -> str:
    """A random one of `words` that differs from `word`; `word` itself if all are equal to it."""
    start = int(rng.integers(len(words)))
    for step in range(len(words)):
        candidate = words[(start + step) % len(words)]
        if candidate != word:
            return candidate
    return word
