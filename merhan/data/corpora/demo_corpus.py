"""The built-in corpus, synthesised by this module, so that everything runs without a download or a licence.

Four emotions, one for each combination of arousal and valence. **The audio depends on arousal only, the text on valence
only**: the vowels of the synthetic voice are drawn independently of the text, and its loudness of both. A model of one
modality therefore cannot do better than choose between two of the four emotions (UAR 0.5), while a model of both can be
almost always right. A fusion that ignores a modality is noticed immediately.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import soundfile
from scipy.signal import lfilter, sawtooth

from merhan.data.corpora.base import About, Corpus
from merhan.files import atomic_path
from merhan.logs import progress
from processing_merhan import SAMPLING_RATE


EMOTIONS = {
    "joy": ("aroused", "positive"),
    "anger": ("aroused", "negative"),
    "calm": ("quiet", "positive"),
    "sadness": ("quiet", "negative"),
}

LABELS = {word: word for word in EMOTIONS}

ABOUT = About("The built-in demo corpus", "Apache-2.0", "Made by this project", dict.fromkeys(EMOTIONS, 360))

# Number of speakers, and of utterances per speaker and emotion. No speaker is in two splits.
SPLITS = {"train": (24, 10), "validation": (6, 8), "test": (12, 6)}

_OPENINGS = ("I think", "they said", "you know", "as I told you,", "she felt that", "to be honest,")

_THINGS = (
    "the dinner",
    "your letter",
    "the concert",
    "that house",
    "our trip",
    "the weather",
    "his answer",
    "the game",
)

_VERBS = ("was", "is", "seems", "looked")

_WORDS = {
    "positive": ("wonderful", "lovely", "great", "delightful", "perfect", "charming", "brilliant", "excellent"),
    "negative": ("terrible", "awful", "horrible", "dreadful", "nasty", "miserable", "ghastly", "rotten"),
}

# Formants in Hz.
_VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))


class Manner(NamedTuple):
    """Acoustic parameters of a level of arousal."""

    syllable: float  # mean duration of a syllable in seconds
    pitch: float  # factor on the speaker's pitch
    spread: float  # standard deviation of the pitch relative to its mean
    tilt: float  # coefficient of a low-pass filter, 0 (none) to 1; higher values attenuate high frequencies more


MANNERS = {"aroused": Manner(0.13, 1.4, 0.22, 0.55), "quiet": Manner(0.21, 0.95, 0.05, 0.93)}


class Voice(NamedTuple):
    """A synthetic speaker."""

    name: str
    split: str
    pitch: float  # Hz
    tract: float  # factor on every formant; a shorter vocal tract has higher formants


def read(source: str | Path | None, seed: int = 0, scale: float = 1.0) -> Corpus:
    """List the corpus, and synthesise the recordings that do not exist yet.

    Args:
        source: folder for the recordings, by default `outputs/demo-corpus`.
        seed: seed of every draw.
        scale: factor on the number of utterances per speaker, for a smaller corpus in a test.
    """
    folder = Path(source or "outputs/demo-corpus") / f"seed{seed}-scale{scale:g}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for split, (speakers, per_emotion) in SPLITS.items():
        for number in progress(range(speakers), desc=f"demo corpus, {split} speakers", leave=False):
            rows += _speaker(folder, split, number, max(round(per_emotion * scale), 1), seed)
    return Corpus(pd.DataFrame(rows), [])


def _speaker(folder: Path, split: str, number: int, per_emotion: int, seed: int) -> list[dict[str, Any]]:
    """The rows of one speaker, whose recordings are written to the folder."""
    rng = np.random.default_rng([seed, list(SPLITS).index(split), number])
    voice = Voice(f"demo-{split}-{number:02d}", split, rng.uniform(95, 230), rng.uniform(0.88, 1.14))
    return [_utterance(folder, voice, emotion, take, rng) for emotion in EMOTIONS for take in range(per_emotion)]


def _utterance(folder: Path, voice: Voice, emotion: str, take: int, rng: np.random.Generator) -> dict[str, Any]:
    arousal, valence = EMOTIONS[emotion]
    waveform = speak(rng, voice.pitch, voice.tract, arousal)
    text = say(rng, valence)
    name = f"{voice.name}-{emotion}-{take:02d}"
    path = folder / f"{name}.wav"
    if not path.is_file():
        with atomic_path(path) as temporary:
            soundfile.write(temporary, waveform, SAMPLING_RATE)
    return {
        "utterance_id": name,
        "corpus": "demo",
        "audio": str(path),
        "text": text,
        "source_label": emotion,
        "split": voice.split,
        "speaker": voice.name,
        "duration": len(waveform) / SAMPLING_RATE,
        "language": "en",
    }


def say(rng: np.random.Generator, valence: str) -> str:
    """A random sentence.

    Args:
        rng: draws the words.
        valence: `positive` or `negative`.
    """
    return " ".join(str(rng.choice(words)) for words in (_OPENINGS, _THINGS, _VERBS, _WORDS[valence]))


def speak(rng: np.random.Generator, pitch: float, tract: float, manner: str) -> np.ndarray:
    """Random syllables, `(samples,)` in [-1, 1] at 16 kHz.

    Args:
        rng: draws the syllables, their pitch and the loudness.
        pitch: mean pitch of the speaker, in Hz.
        tract: factor on every formant; a shorter vocal tract has higher formants.
        manner: `aroused` or `quiet`.
    """
    duration, height, spread, tilt = MANNERS[manner]
    syllables = [
        _syllable(rng, pitch * height * (1 + spread * rng.standard_normal()), tract, duration * rng.uniform(0.8, 1.25))
        for _ in range(rng.integers(5, 9))
    ]
    waveform = lfilter([1 - tilt], [1, -tilt], np.concatenate(syllables))
    # Loudness depends on the microphone as well as on the speaker, so it is drawn independently of the manner.
    waveform *= rng.uniform(0.03, 0.12) / np.sqrt(np.mean(waveform**2))
    return np.clip(waveform + 0.001 * rng.standard_normal(len(waveform)), -1, 1)


def _syllable(rng: np.random.Generator, pitch: float, tract: float, seconds: float) -> np.ndarray:
    """A sawtooth at a pitch in Hz, filtered by the formants of a random vowel, with a rising and falling envelope."""
    size = round(seconds * SAMPLING_RATE)
    glide = np.linspace(1.0, rng.uniform(0.85, 1.1), size)
    phase = 2 * np.pi * np.cumsum(max(pitch, 60) * glide) / SAMPLING_RATE
    waveform = sawtooth(phase) + 0.05 * rng.standard_normal(size)
    for formant in _VOWELS[rng.integers(len(_VOWELS))]:
        radius, angle = 0.97, 2 * np.pi * formant * tract / SAMPLING_RATE
        waveform = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], waveform)
    return waveform / np.abs(waveform).max() * np.hanning(size) * rng.uniform(0.6, 1.0)
