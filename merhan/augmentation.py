"""What training does to sound and words so that a model learns not to mind; the robustness sweep spoils rows alike.

Every draw depends on seed, epoch and row alone: the same in any worker process, after a resume, and whatever other
effects are switched on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.signal import butter, sosfilt
from torchaudio.functional import fftconvolve, speed

from processing_merhan import SAMPLING_RATE


Voices = Callable[[np.random.Generator], list[np.ndarray]]  # draws other utterances, `(samples,)` each


def white(size: int, rng: np.random.Generator, voices: Voices) -> np.ndarray:
    """As much in every hertz: a hiss."""
    return rng.standard_normal(size)


def pink(size: int, rng: np.random.Generator, voices: Voices) -> np.ndarray:
    """As much in every octave, so 3 dB less with each: wind, rain, a ventilator."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), size)


def hum(size: int, rng: np.random.Generator, voices: Voices) -> np.ndarray:
    """Mains at 50 or 60 Hz with its harmonics, each weaker, at drawn phases."""
    time, mains = np.arange(size) / SAMPLING_RATE, rng.choice([50, 60])
    return sum(np.sin(2 * np.pi * (n * mains * time + rng.random())) / n for n in range(1, 11))


def babble(size: int, rng: np.random.Generator, voices: Voices) -> np.ndarray:
    """Other utterances of the data talking at once, equally loud, each from a drawn point on and over again."""
    mixed = np.zeros(size)
    for voice in voices(rng):
        loudness = np.sqrt(np.mean(voice**2))
        mixed += np.resize(np.roll(voice, rng.integers(len(voice))), size) / max(loudness, 1e-9)
    return mixed


NOISES: dict[str, Callable[[int, np.random.Generator, Voices], np.ndarray]] = {
    "white": white,
    "pink": pink,
    "hum": hum,
    "babble": babble,
}
BABBLE_VOICES = 6
TELEPHONE = (300.0, 3400.0)  # Hz, the band of ITU-T G.712
_TELEPHONE_FILTER = butter(6, TELEPHONE, "bandpass", fs=SAMPLING_RATE, output="sos")


@dataclass
class NoiseRecipe:
    """Noise behind the speech."""

    snr: list[float] = field(default_factory=lambda: [5.0, 20.0])  # dB, drawn evenly between
    kinds: list[str] = field(default_factory=lambda: list(NOISES))  # one of them each time
    probability: float = 0.5  # share of the utterances


@dataclass
class RoomRecipe:
    """Reverberation."""

    seconds: list[float] = field(default_factory=lambda: [0.2, 0.8])  # until the echo is 60 dB down, drawn between
    probability: float = 0.5  # share of the utterances


@dataclass
class AugmentationRecipe:
    """What happens to the sound of each training utterance, in this order; by default nothing."""

    speed: list[float] = field(default_factory=list)  # each is played at one of them; [0.9, 1.0, 1.1] is usual
    room: RoomRecipe | None = None
    noise: NoiseRecipe | None = None
    telephone: float = 0.0  # share of the utterances that keep 300 to 3400 Hz alone
    gain: list[float] = field(default_factory=list)  # dB, drawn evenly between the two


@dataclass
class TranscriptNoiseRecipe:
    """Words that a recogniser of speech would have got wrong."""

    error_rate: list[float] = field(default_factory=lambda: [0.0, 0.3])  # of words, drawn evenly between
    deletions: float = 0.5  # share of the errors that lose the word; the others put another in its place


def augment(waveform: np.ndarray, recipe: AugmentationRecipe, key: Sequence[int], voices: Voices) -> np.ndarray:
    """One utterance as it is heard in one epoch.

    Args:
        waveform: `(samples,)` at 16 kHz.
        key: seed, epoch and row, which all draws come from.
        voices: draws the utterances that a babble is made of.

    Returns:
        `(samples,)` float32, shorter or longer where the speed changed. Nothing is clipped.
    """
    # A generator for each effect, so that none depends on which others are on. The trailing zero changes nothing: the
    # speeds are those of a generator of the key alone.
    pace, echo, behind, line, level = (np.random.default_rng([*key, number]) for number in range(5))
    if recipe.speed:
        waveform = at_speed(waveform, float(pace.choice(recipe.speed)))
    if recipe.room and echo.random() < recipe.room.probability:
        waveform = in_room(waveform, echo.uniform(*recipe.room.seconds), echo)
    if recipe.noise and behind.random() < recipe.noise.probability:
        noise, snr = NOISES[behind.choice(recipe.noise.kinds)], behind.uniform(*recipe.noise.snr)
        waveform = with_noise(waveform, noise(len(waveform), behind, voices), snr)
    if line.random() < recipe.telephone:
        waveform = by_telephone(waveform)
    if recipe.gain:
        waveform = waveform * 10 ** (level.uniform(*recipe.gain) / 20)
    return waveform.astype(np.float32, copy=False)


def at_speed(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Faster and higher (factor above 1), or slower and lower, as a tape (Ko et al. 2015, "Audio augmentation for
    speech recognition", Interspeech)."""
    changed, _ = speed(torch.from_numpy(waveform), SAMPLING_RATE, factor)
    return changed.numpy()


def with_noise(waveform: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Add noise `(samples,)` at a signal-to-noise ratio in dB: of the mean powers over the whole utterance."""
    ratio = np.mean(waveform.astype(np.float64) ** 2) / max(np.mean(noise**2), 1e-20)
    return waveform + noise * np.sqrt(ratio / 10 ** (snr / 10))


def in_room(waveform: np.ndarray, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """The utterance as a room gives it back, as long and as loud as before.

    Args:
        seconds: reverberation time, until the echo is 60 dB down.
        rng: draws the room.

    The response is the direct sound and behind it noise that decays exponentially (Polack 1988), of equal energy: the
    listener stands at the critical distance.
    """
    time = np.arange(1, round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    echo = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    response = np.concatenate([[1.0], echo / np.sqrt(np.sum(echo**2))])
    heard = fftconvolve(torch.from_numpy(waveform).double(), torch.from_numpy(response)).numpy()[: len(waveform)]
    return heard * np.sqrt(np.mean(waveform**2) / max(np.mean(heard**2), 1e-20))


def by_telephone(waveform: np.ndarray) -> np.ndarray:
    """What a telephone lets through: 300 to 3400 Hz, by a Butterworth band-pass filter."""
    return sosfilt(_TELEPHONE_FILTER, waveform)


def with_word_errors(text: str, rate: float, deletions: float, words: Sequence[str], rng: np.random.Generator) -> str:
    """A transcript with errors.

    Args:
        rate: chance in [0, 1] that a word is wrong, so the expected word error rate.
        deletions: chance in [0, 1] that a wrong word is lost; else another takes its place.
        words: running words that substitutes come from, so that frequent ones come often.

    Never all words are lost, because the utterance would then have none: one is substituted in place of that.
    """
    said = text.split()
    wrong = rng.random(len(said)) < rate
    lost = wrong & (rng.random(len(said)) < deletions)
    if said and lost.all():
        lost[0] = False
    heard = zip(said, wrong & ~lost, lost, strict=True)
    return " ".join(_other_than(word, words, rng) if other else word for word, other, gone in heard if not gone)


def _other_than(word: str, words: Sequence[str], rng: np.random.Generator) -> str:
    start = int(rng.integers(len(words)))
    others = (words[(start + step) % len(words)] for step in range(len(words)))
    return next((other for other in others if other != word), word)
