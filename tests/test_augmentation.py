"""Augmentation: the effects, and that draws depend on seed, epoch and row only."""

import numpy as np
import pytest
from conftest import LABEL2ID

from merhan.data.augmentation import NOISES, add_reverberation, add_word_errors, augment, telephone_band
from merhan.data.dataset import EmotionDataset
from merhan.errors import InputError
from merhan.recipe.loading import load_recipe
from merhan.recipe.schema import AugmentationRecipe, NoiseRecipe, Recipe, RoomRecipe, StageRecipe, TranscriptNoiseRecipe
from merhan.training.stage import train_stage
from processing_merhan import SAMPLING_RATE


SPEEDS = [0.9, 1.0, 1.1]
EVERYTHING = AugmentationRecipe(
    SPEEDS, RoomRecipe(probability=1.0), NoiseRecipe(probability=1.0), telephone=0.5, gain=[-6.0, 6.0]
)


def augmented(demo, processor, size: int = 6, **options) -> EmotionDataset:
    rows = demo[demo["split"] == "train"].head(size)
    return EmotionDataset(rows, processor, LABEL2ID, ["audio", "text"], **options)


def draw_voices(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.standard_normal(9_000) * 0.1 for _ in range(6)]


def decibels(power: float) -> float:
    """A ratio of powers in dB."""
    return 10 * np.log10(power)


def power_between(waveform: np.ndarray, low: float, high: float) -> float:
    """The power between two frequencies in Hz."""
    spectrum = np.abs(np.fft.rfft(waveform)) ** 2
    hertz = np.fft.rfftfreq(len(waveform), 1 / SAMPLING_RATE)
    return spectrum[(hertz >= low) & (hertz < high)].sum()


# --- draws ---


def test_draws_depend_on_seed_epoch_and_row_only(demo, processor):
    options = {"augmentation": EVERYTHING, "transcript_noise": TranscriptNoiseRecipe([0.3, 0.3]), "seed": 5}
    data, same = (augmented(demo, processor, **options) for _ in range(2))
    backwards = [same[row] for row in reversed(range(6))][::-1]
    for row in range(6):
        assert np.array_equal(data[row]["audio"], backwards[row]["audio"])
        assert data[row]["text"] == backwards[row]["text"]
    first = [data[row] for row in range(6)]
    data.epoch = 1
    assert not any(np.array_equal(data[row]["audio"], first[row]["audio"]) for row in range(6))
    assert [data[row]["text"] for row in range(6)] != [example["text"] for example in first]
    reseeded = augmented(demo, processor, **{**options, "seed": 6})
    assert not any(np.array_equal(reseeded[row]["audio"], first[row]["audio"]) for row in range(6))


def test_speeds_are_those_of_published_results(demo, processor):
    """RESULTS.md was measured with them. They do not depend on which other effects are on."""
    speed_only = augmented(demo, processor, augmentation=AugmentationRecipe(SPEEDS), seed=5)
    everything = augmented(demo, processor, augmentation=EVERYTHING, seed=5)
    drawn = set()
    for epoch in range(3):
        speed_only.epoch = everything.epoch = epoch
        for row in range(6):
            factor = float(np.random.default_rng([5, epoch, row]).choice((0.9, 1.0, 1.1)))
            seconds = len(speed_only.waveform(row)) / SAMPLING_RATE
            assert len(speed_only[row]["audio"]) / SAMPLING_RATE == pytest.approx(seconds / factor, abs=1e-3)
            assert len(everything[row]["audio"]) == len(speed_only[row]["audio"])
            drawn.add(factor)
    assert drawn == set(SPEEDS)


def test_without_augmentation_nothing_changes(demo, processor):
    plain = augmented(demo, processor)
    assert np.array_equal(plain[0]["audio"], plain.waveform(0)) and plain[0]["text"] == plain.tokens[0]
    assert not plain.changing


# --- audio ---


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("snr", [-5.0, 0.0, 20.0])
def test_the_signal_to_noise_ratio_is_the_requested_one(kind, snr, demo, processor):
    recipe = AugmentationRecipe(noise=NoiseRecipe([snr, snr], [kind], probability=1.0))
    data = augmented(demo, processor, augmentation=recipe)
    for row in range(3):
        clean, noisy = data.waveform(row).astype(np.float64), data[row]["audio"]
        assert noisy.dtype == np.float32
        assert decibels(np.mean(clean**2) / np.mean((noisy - clean) ** 2)) == pytest.approx(snr, abs=1e-3)


def test_drawn_ratios_are_uniform_and_have_their_probability():
    recipe = AugmentationRecipe(noise=NoiseRecipe([5.0, 15.0], ["white"], probability=0.25))
    clean = np.sin(np.arange(2000) / 5)
    noises = [augment(clean, recipe, (0, 0, row), draw_voices) - clean for row in range(800)]
    ratios = np.array(
        [decibels(np.mean(clean**2) / np.mean(noise**2)) for noise in noises if np.abs(noise).max() > 1e-6]
    )
    assert len(ratios) / 800 == pytest.approx(0.25, abs=0.05)
    assert ratios.min() >= 5 - 1e-3 and ratios.max() <= 15 + 1e-3
    assert np.histogram(ratios, bins=4, range=(5, 15))[0].min() > 0.15 * len(ratios)


def test_spectra_of_the_noises():
    rng = np.random.default_rng(0)
    octaves = [(200 * 2**n, 400 * 2**n) for n in range(5)]
    noises = {name: make(64_000, rng, draw_voices) for name, make in NOISES.items()}
    steps = {
        name: np.diff([decibels(power_between(noise, *octave)) for octave in octaves]) for name, noise in noises.items()
    }
    np.testing.assert_allclose(steps["white"], 3.0, atol=0.6)  # every octave is twice as wide as the one below
    np.testing.assert_allclose(steps["pink"], 0.0, atol=0.6)
    below = power_between(noises["hum"], 45, 650) / power_between(noises["hum"], 0, 8000)
    assert below > 0.999
    assert {name: len(noise) for name, noise in noises.items()} == dict.fromkeys(NOISES, 64_000)


def test_babble_consists_of_other_rows(demo, processor):
    """If all other rows are silent, there is no noise."""
    recipe = AugmentationRecipe(noise=NoiseRecipe([0.0, 0.0], ["babble"], probability=1.0))
    data = augmented(demo, processor, augmentation=recipe)
    own = data.waveform(2)
    requested = []

    def waveform(row: int) -> np.ndarray:
        if row == 2:
            return own
        requested.append(row)
        return np.zeros(100, dtype=np.float32)

    data.waveform = waveform
    np.testing.assert_array_equal(data[2]["audio"], own)
    assert sorted(requested) == [0, 1, 3, 4, 5]


def test_reverberation_decays_by_sixty_decibels_in_its_time():
    impulse = np.zeros(SAMPLING_RATE, dtype=np.float32)
    impulse[0] = 1.0
    for seconds in (0.3, 0.6):
        response = add_reverberation(impulse, seconds, np.random.default_rng(0))
        assert np.sum(response**2) == pytest.approx(1.0, rel=1e-5), "as loud as before"
        assert response[0] ** 2 == pytest.approx(0.5, abs=0.01), "half of the energy is the direct sound"
        remaining = np.cumsum(response[::-1] ** 2)[::-1]  # Schroeder 1965: the energy of the remaining response
        early, late = (decibels(remaining[round(share * seconds * SAMPLING_RATE)]) for share in (0.1, 0.6))
        assert early - late == pytest.approx(30.0, abs=1.5), "30 dB in half of the time"


def test_the_telephone_filter_passes_its_band_only():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(32_000)
    filtered = telephone_band(noise)
    passed = {
        band: decibels(power_between(filtered, *band) / power_between(noise, *band))
        for band in ((0, 150), (500, 3000), (5000, 8000))
    }
    assert passed[500, 3000] == pytest.approx(0.0, abs=0.2)
    assert passed[0, 150] < -25 and passed[5000, 8000] < -25


def test_gain_is_in_decibels():
    clean = np.sin(np.arange(1000) / 7)
    recipe = AugmentationRecipe(gain=[-6.0, 3.0])
    louder = [augment(clean, recipe, (0, 0, row), draw_voices) for row in range(200)]
    gains = np.array([decibels(np.sum(waveform**2) / np.sum(clean**2)) for waveform in louder])
    assert -6.001 < gains.min() < -5.5 and 2.5 < gains.max() < 3.001


# --- text ---


def edits(reference: list[str], hypothesis: list[str]) -> tuple[int, int, int]:
    """The minimal numbers of deletions, substitutions and insertions between two word sequences."""
    table = [[(column, 0, 0, column) for column in range(len(hypothesis) + 1)]]
    for row, word in enumerate(reference, start=1):
        line = [(row, row, 0, 0)]
        for column, other in enumerate(hypothesis, start=1):
            same, above, left = table[-1][column - 1], table[-1][column], line[-1]
            wrong = int(word != other)
            line.append(
                min(
                    (same[0] + wrong, same[1], same[2] + wrong, same[3]),
                    (above[0] + 1, above[1] + 1, above[2], above[3]),
                    (left[0] + 1, left[1], left[2], left[3] + 1),
                )
            )
        table.append(line)
    return table[-1][-1][1:]


@pytest.mark.parametrize(("rate", "deletions"), [(0.1, 0.5), (0.4, 0.25), (0.3, 1.0), (0.2, 0.0)])
def test_the_word_error_rate_is_the_expected_one(rate, deletions):
    rng = np.random.default_rng(1)
    words = [f"other{number}" for number in range(30)]
    counts, total = np.zeros(3), 0
    for size in (1, 3, 8, 20) * 150:
        reference = [f"word{number}" for number in range(size)]
        counts += edits(reference, add_word_errors(" ".join(reference), rate, deletions, words, rng).split())
        total += size
    assert counts.sum() / total == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / total))
    assert counts[0] / counts.sum() == pytest.approx(deletions, abs=0.06)
    assert counts[2] == 0


def test_substitutes_are_words_of_the_training_split(demo, processor):
    """They are as frequent as in that split, and differ from the original word."""
    rng = np.random.default_rng(0)
    words = ["often"] * 9 + ["seldom"]
    substitutes = add_word_errors("here " * 3000, 1.0, 0.0, words, rng).split()
    assert set(substitutes) == {"often", "seldom"} and substitutes.count("often") / 3000 == pytest.approx(0.9, abs=0.03)
    assert set(add_word_errors("often " * 50, 1.0, 0.0, words, rng).split()) == {"seldom"}
    rows = demo[demo["split"] == "train"]
    assert set(augmented(demo, processor).words) == set(" ".join(rows["text"].head(6)).split())


def test_at_least_one_word_remains():
    rng = np.random.default_rng(0)
    assert add_word_errors("no", 1.0, 1.0, ["yes"], rng) == "yes"
    assert add_word_errors("", 1.0, 1.0, ["yes"], rng) == ""


def test_the_context_has_word_errors_too(demo, processor):
    rows = demo[demo["split"] == "train"].head(2).assign(dialogue="d", turn=[0, 1])
    rows["text"] = ["the dinner was lovely", "they said you know"]
    reader = type(processor)(processor.feature_extractor, processor.tokenizer, context_turns=1)
    noise = TranscriptNoiseRecipe([1.0, 1.0], deletions=0.0)
    data = EmotionDataset(rows, reader, LABEL2ID, ["text"], transcript_noise=noise)
    turn, context = reader.tokenizer.decode(data[1]["text"], skip_special_tokens=False).split("</s></s>")
    clean = reader.tokenizer.decode(data.tokens[1]).split("</s></s>")
    for noisy, original in zip((turn, context), clean, strict=True):
        assert len(noisy.split()) == len(original.split())
    assert context != clean[1] and turn != clean[0]


# --- in training ---


def test_features_of_augmented_modalities_are_not_cached(demo, processor, trained_like, tmp_path):
    recipe = Recipe(run_name="x", trainer={"report_to": "none", "max_steps": 1, "use_cpu": True})
    stage = StageRecipe("s", 1, {"head": 1e-3})
    validation = augmented(demo, processor, 4)
    for number, (options, cached) in enumerate(
        (
            ({"augmentation": EVERYTHING}, {"text"}),
            ({"transcript_noise": TranscriptNoiseRecipe()}, {"audio"}),
            ({}, {"audio", "text"}),
        )
    ):
        train = augmented(demo, processor, 4, **options)
        train_stage(recipe, stage, 0, trained_like, processor, train, validation, tmp_path / str(number))
        assert set(train.features) == cached and set(validation.features) == {"audio", "text"}


# --- in a recipe ---


RECIPE = """
run_name: x
model: {audio_backbone: tiny, text_backbone: tiny}
stages: [{name: warmup, epochs: 1, learning_rate: {head: 1.0e-3}}]
data:
  augmentation: {speed: [0.9, 1.1], noise: {snr: [0, 10]}, room: {}, telephone: 0.2, gain: [-3, 3]}
  transcript_noise: {error_rate: [0, 0.2]}
"""


def test_recipe_keys(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    data = load_recipe(path, ["data.augmentation.noise.kinds=[pink]"]).data
    assert data.augmentation == AugmentationRecipe(
        [0.9, 1.1], RoomRecipe(), NoiseRecipe([0.0, 10.0], ["pink"]), 0.2, [-3.0, 3.0]
    )
    assert data.transcript_noise == TranscriptNoiseRecipe([0.0, 0.2])
    path.write_text(RECIPE.split("data:")[0])
    assert load_recipe(path).data.augmentation == AugmentationRecipe()
    assert load_recipe(path, ["data.augmentation.noise={snr: [1, 2]}"]).data.augmentation.noise.snr == [1.0, 2.0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            "augmentation.speed=[0]",
            "data.augmentation.speed is [0.0], out of its range; it must be at least 0.5, at most 2",
        ),
        ("augmentation.gain=[3]", "data.augmentation.gain"),
        ("augmentation.gain=[3, -3]", "data.augmentation.gain"),
        ("augmentation.noise.snr=[20, 0]", "data.augmentation.noise.snr"),
        ("augmentation.noise.snr=5", "data.augmentation.noise.snr"),
        ("augmentation.noise.kinds=[brown]", "unknown 'brown'; known are babble, hum, pink, white"),
        ("augmentation.noise.kinds=[]", "data.augmentation.noise.kinds"),
        ("augmentation.noise.probability=2", "data.augmentation.noise.probability"),
        ("augmentation.room.seconds=[0, 1]", "data.augmentation.room.seconds"),
        ("augmentation.room.probability=-1", "data.augmentation.room.probability"),
        ("augmentation.telephone=30", "data.augmentation.telephone"),
        ("augmentation.noize={}", "did you mean 'data.augmentation.noise'?"),
        ("augmentation.noise.srn=[1, 2]", "did you mean 'data.augmentation.noise.snr'?"),
        ("transcript_noise.error_rate=[0, 30]", "data.transcript_noise.error_rate"),
        ("transcript_noise.deletions=1.5", "data.transcript_noise.deletions"),
    ],
)
def test_errors_name_the_recipe_key(change, expected, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    with pytest.raises(InputError) as error:
        load_recipe(tmp_path / "recipe.yaml", [f"data.{change}"])
    assert expected in str(error.value)
