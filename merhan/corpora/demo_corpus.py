"""The built-in corpus: made here by a small synthesiser, so that everything runs without a download or a licence.

Four emotions, one for each pairing of arousal and valence. **The voice tells arousal and nothing of valence, the words
tell valence and nothing of arousal**: the two are drawn apart. So neither modality alone can do better than guess
between two of the four (UAR 0.5), and both together can be nearly always right. A fusion that ignores either modality
shows at once. The voice babbles: its vowels are drawn apart from the words, or sound would carry the words too.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from scipy.signal import lfilter, sawtooth
from tqdm.auto import tqdm

from merhan.corpora import About, Corpus
from processing_merhan import SAMPLING_RATE


EMOTIONS = {
    "joy": ("aroused", "positive"),
    "anger": ("aroused", "negative"),
    "calm": ("quiet", "positive"),
    "sadness": ("quiet", "negative"),
}
LABELS = {word: word for word in EMOTIONS}
ABOUT = About("The built-in demo corpus", "Apache-2.0", "Made by this project", dict.fromkeys(EMOTIONS, 360))
# Speakers and utterances per speaker and emotion; no speaker stands in two splits.
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
_VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))  # Hz
# Seconds per syllable; pitch over the speaker's own and its spread; spectral tilt (1 = dullest).
_MANNERS = {"aroused": (0.13, 1.4, 0.22, 0.55), "quiet": (0.21, 0.95, 0.05, 0.93)}


def read(source: str | Path | None, seed: int = 0, scale: float = 1.0) -> Corpus:
    """Make the corpus in the folder `source`, unless it is there, and list it.

    Args:
        source: folder for the recordings.
        seed: of every draw.
        scale: factor on the number of utterances per speaker, for a smaller corpus in a test.
    """
    folder = Path(source or "outputs/demo-corpus") / f"seed{seed}-scale{scale:g}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for split, (speakers, per_emotion) in SPLITS.items():
        for number in tqdm(range(speakers), desc=f"demo corpus, {split} speakers", leave=False):
            rows += _speaker(folder, split, number, max(round(per_emotion * scale), 1), seed)
    return Corpus(pd.DataFrame(rows), [])


def _speaker(folder: Path, split: str, number: int, per_emotion: int, seed: int) -> list[dict]:
    name = f"demo-{split}-{number:02d}"
    rng = np.random.default_rng([seed, list(SPLITS).index(split), number])
    pitch, tract = rng.uniform(95, 230), rng.uniform(0.88, 1.14)
    return [
        _utterance(folder, f"{name}-{emotion}-{take:02d}", emotion, rng, pitch, tract, split, name)
        for emotion in EMOTIONS
        for take in range(per_emotion)
    ]


def _utterance(folder, utterance_id, emotion, rng, pitch, tract, split, speaker) -> dict:
    voice, words = EMOTIONS[emotion]
    waveform, text = speak(rng, pitch, tract, voice), say(rng, words)
    path = folder / f"{utterance_id}.wav"
    if not path.is_file():
        temporary = path.with_suffix(f".{os.getpid()}.part")
        soundfile.write(temporary, waveform, SAMPLING_RATE, format="wav")
        temporary.replace(path)
    return {
        "utterance_id": utterance_id,
        "corpus": "demo",
        "audio": str(path),
        "text": text,
        "source_label": emotion,
        "split": split,
        "speaker": speaker,
        "duration": len(waveform) / SAMPLING_RATE,
        "language": "en",
    }


def say(rng: np.random.Generator, valence: str) -> str:
    """A sentence of the given valence."""
    return " ".join(str(rng.choice(words)) for words in (_OPENINGS, _THINGS, _VERBS, _WORDS[valence]))


def speak(rng: np.random.Generator, pitch: float, tract: float, manner: str) -> np.ndarray:
    """Babble of some syllables, `(samples,)` in [-1, 1] at 16 kHz.

    Args:
        pitch: the speaker's own, in Hz.
        tract: factor on every formant; a shorter vocal tract has higher ones.
        manner: `aroused` or `quiet`.
    """
    seconds, height, spread, tilt = _MANNERS[manner]
    syllables = [
        _syllable(rng, pitch * height * (1 + spread * rng.standard_normal()), tract, seconds * rng.uniform(0.8, 1.25))
        for _ in range(rng.integers(5, 9))
    ]
    waveform = lfilter([1 - tilt], [1, -tilt], np.concatenate(syllables))
    # Loudness is the microphone's as much as the speaker's: it is drawn apart from the manner.
    waveform *= rng.uniform(0.03, 0.12) / np.sqrt(np.mean(waveform**2))
    return np.clip(waveform + 0.001 * rng.standard_normal(len(waveform)), -1, 1)


def _syllable(rng: np.random.Generator, pitch: float, tract: float, seconds: float) -> np.ndarray:
    """A buzz at the given pitch through the formants of a drawn vowel, swelling and dying away."""
    size = round(seconds * SAMPLING_RATE)
    glide = np.linspace(1.0, rng.uniform(0.85, 1.1), size)
    phase = 2 * np.pi * np.cumsum(max(pitch, 60) * glide) / SAMPLING_RATE
    sound = sawtooth(phase) + 0.05 * rng.standard_normal(size)
    for formant in _VOWELS[rng.integers(len(_VOWELS))]:
        radius, angle = 0.97, 2 * np.pi * formant * tract / SAMPLING_RATE
        sound = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], sound)
    return sound / np.abs(sound).max() * np.hanning(size) * rng.uniform(0.6, 1.0)
