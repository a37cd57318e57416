"""Training strategies: each by its effect."""

import copy
import itertools
import json
import re
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import LABEL2ID, LABELS
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerState, TrainingArguments, WavLMConfig, WavLMModel

from merhan.api import train_on
from merhan.data.collator import Collator
from merhan.data.corpora.base import read_corpus
from merhan.data.dataset import EmotionDataset
from merhan.data.loading import Data
from merhan.errors import InputError
from merhan.models.adapters import add_adapters, merge_adapters
from merhan.names import SCORES
from merhan.recipe.loading import load_recipe
from merhan.recipe.schema import (
    ADAPTER_KINDS,
    AdversaryRecipe,
    CurriculumRecipe,
    DataRecipe,
    ModelRecipe,
    Recipe,
    SamplingRecipe,
    StageRecipe,
)
from merhan.training import stage_history as history
from merhan.training.adversary import ADAM_BETA1, add_adversary, remove_adversary
from merhan.training.curriculum import curriculum_share, label_uncertainty, load_or_compute, row_difficulty, row_weights
from merhan.training.parameter_groups import GradualUnfreezing, parameter_group, parameter_groups, set_trainable
from merhan.training.preflight import check_strategies
from merhan.training.sampling import build_sampler
from merhan.training.stage import train_stage
from merhan.training.trainer import EpochLog, MerhanTrainer
from modeling_merhan import emotion_loss


ALL = {"head": 1e-3, "audio": 1e-3, "text": 1e-3}
QUIET = {"report_to": "none", "use_cpu": True, "disable_tqdm": True}


@pytest.fixture
def train(demo, processor):
    """Builds the training rows; a data set of their first `size`."""

    def build(size: int = 32, split: str = "train", **options) -> EmotionDataset:
        return EmotionDataset(
            demo[demo["split"] == split].head(size), processor, LABEL2ID, ["audio", "text"], **options
        )

    return build


@pytest.fixture
def run_stage(trained_like, train, processor, tmp_path):
    """Trains a stage on a few rows, from the same weights each time."""

    def run(name: str, rates=ALL, epochs: int = 2, stage=(), data=None, callbacks=(), **recipe):
        options = QUIET | {"per_device_train_batch_size": 8} | recipe.pop("trainer", {})
        return train_stage(
            Recipe(run_name="x", trainer=options, **recipe),
            StageRecipe("s", epochs, rates, **dict(stage)),
            0,
            copy.deepcopy(trained_like),
            processor,
            data or train(),
            train(8, "validation"),
            tmp_path / name,
            callbacks,
        )

    return run


# --- what a stage costs ---


class Holding(TrainerCallback):
    """A stage that holds so many GiB of the stand-in for a GPU."""

    def __init__(self, gpu: dict[str, float], size: float):
        self.gpu, self.size = gpu, size

    def on_train_begin(self, args, state, control, **kwargs):
        self.gpu["peak"] = max(self.gpu["peak"], self.size)


def test_the_peak_of_a_stage_is_its_own(run_stage, tmp_path, monkeypatch):
    gpu = {"peak": 5.0}
    cuda = SimpleNamespace(
        is_available=lambda: True,
        max_memory_allocated=lambda: gpu["peak"] * 2**30,
        reset_peak_memory_stats=lambda: gpu.update(peak=0.0),
    )
    monkeypatch.setattr(history, "torch", SimpleNamespace(cuda=cuda))
    for name, size in (("large", 3.0), ("small", 1.0)):
        run_stage(name, {"head": 1e-3}, 1, callbacks=[Holding(gpu, size)])
        log = json.loads((tmp_path / name / "trainer_state.json").read_text())["log_history"]
        assert log[-1]["peak_memory"] == size


# --- adapters ---


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_merged_adapters_leave_a_plain_model_with_equal_logits(kind, make_model, batch):
    options = {"IA3": {"feedforward_modules": []}, "OFT": {"oft_block_size": 4}}.get(kind, {"r": 2})
    for audio in ("layer", "light"):
        model = make_model(audio)
        plain = set(model.state_dict())
        before = model(**batch).logits
        added = add_adapters(model, {name: {"peft_type": kind, **options} for name in ("audio", "text")}, ALL)
        torch.testing.assert_close(model(**batch).logits, before)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter_group(name) != "head" and parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
        adapted = model(**batch).logits
        assert (adapted - before).abs().max() > 1e-3
        merge_adapters(added)
        torch.testing.assert_close(model(**batch).logits, adapted)
        assert set(model.state_dict()) == plain


def test_a_stage_with_adapters_changes_a_backbone_by_a_matrix_of_their_rank(run_stage, trained_like, train):
    targets = {"audio": ["q_proj", "intermediate_dense"], "text": ["query"]}
    adapters = {name: {"r": 2, "lora_alpha": 32, "target_modules": modules} for name, modules in targets.items()}
    rates = {"head": 1e-3, "audio": 1e-1, "text": 1e-1}
    model = run_stage("a", rates, data=train(16), model=ModelRecipe(adapters=adapters))
    before, after = trained_like.state_dict(), model.state_dict()
    assert set(after) == set(before), "the result needs no peft"
    moved = {name for name in before if parameter_group(name) != "head" and not torch.equal(before[name], after[name])}
    assert {name.rsplit(".", 2)[1] for name in moved} == {"q_proj", "intermediate_dense", "query"}
    assert all(name.endswith(".weight") for name in moved)
    for name in moved:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) == 2
    untrained = run_stage("b", {"head": 1e-3}, 1, data=train(8), model=ModelRecipe(adapters=adapters)).state_dict()
    backbones = [name for name in before if parameter_group(name) != "head"]
    assert all(torch.equal(before[name], untrained[name]) for name in backbones), "a stage that trains the head alone"


def test_adapters_go_where_wavlm_calls_them(make_model, batch):
    """Its attention takes the projections' weights past their modules: adapters there would never learn."""
    model = make_model(None)
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    backbone = WavLMModel(WavLMConfig(**tiny, num_conv_pos_embedding_groups=2, layerdrop=0.0))
    model.merhan.audio_backbone = backbone
    with pytest.raises(InputError, match=r"model\.adapters\.audio"):
        add_adapters(model, {"audio": {"target_modules": ["q_proj"]}}, ALL)
    add_adapters(model, {"audio": {}}, ALL)
    backbone.train()(batch["input_values"]).last_hidden_state.sum().backward()
    adapters = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    assert adapters and all(parameter.grad is not None for parameter in adapters)
    below = backbone.feature_extractor(batch["input_values"])
    assert not below.requires_grad, "nothing there trains, so nothing there is kept for a gradient"


def test_what_a_recipe_leaves_out_gets_no_adapters(make_model):
    model = make_model(None)
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model.merhan.audio_backbone = WavLMModel(WavLMConfig(**tiny, num_conv_pos_embedding_groups=2, layerdrop=0.0))
    with pytest.raises(InputError, match="exclude_modules: is 'output_dense'; give a list for this backbone"):
        add_adapters(model, {"audio": {"exclude_modules": "output_dense"}}, ALL)
    (adapted,) = add_adapters(model, {"audio": {"exclude_modules": ["output_dense"]}}, ALL)
    names = {name.split(".lora_")[0].rsplit(".", 1)[1] for name, _ in adapted.named_parameters() if ".lora_" in name}
    assert "intermediate_dense" in names and not names & {"output_dense", "q_proj", "out_proj"}


# --- moving average ---


class Recorder(TrainerCallback):
    """Keeps one weight after every step, and every validation loss."""

    def __init__(self):
        self.weights, self.losses, self.scores = [], [], []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append(model.classifier.weight.detach().double().clone())

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.losses.append(metrics["eval_loss"])
        self.scores.append(metrics["eval_uar"])


@pytest.mark.parametrize("best", [False, True])
def test_a_stage_keeps_and_validates_the_average_of_its_weights(best, run_stage, train, processor):
    recorder, decay, epochs = Recorder(), 0.5, 4
    options = {"load_best_model_at_end": best, "per_device_train_batch_size": 4}
    data = train(16)
    model = run_stage("a", {"head": 3e-2}, epochs, (), data, [recorder], ema_decay=decay, trainer=options)
    steps = len(recorder.weights)
    rates = [min(decay, step / (9 + step)) for step in range(2, steps + 1)]
    averages = [recorder.weights[0]]
    for rate, weight in zip(rates, recorder.weights[1:], strict=True):
        averages.append(rate * averages[-1] + (1 - rate) * weight)
    kept = [
        epoch
        for epoch in range(1, epochs + 1)
        if torch.allclose(model.classifier.weight.double(), averages[epoch * steps // epochs - 1], atol=1e-6)
    ]
    assert kept == [recorder.scores.index(max(recorder.scores)) + 1 if best else epochs]
    assert best == (kept != [epochs]), "the best epoch is not the last"
    loss = model.eval()(**Collator(processor)([train(8, "validation")[row] for row in range(8)])).loss
    assert loss.item() == pytest.approx(recorder.losses[kept[0] - 1], abs=1e-3)
    assert len({round(loss, 3) for loss in recorder.losses}) == epochs, "the epochs differ in what was compared"


# --- sampling ---


def table(**columns) -> pd.DataFrame:
    return pd.DataFrame(columns)


def epoch_of(rows: pd.DataFrame, batch_size: int = 8, epoch: int = 0, **sampling) -> list[int]:
    """The rows of an epoch as a recipe's `sampling` orders them."""
    sampler = build_sampler(SamplingRecipe(**sampling), rows)([0] * len(rows), batch_size, seed=3)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_balanced_sampling_gives_each_class_as_many_rows():
    rows = table(label=["joy"] * 70 + ["fear"] * 4 + ["anger"] * 29)
    order = epoch_of(rows, balance="label")
    assert len(order) == len(rows)
    assert sorted(rows["label"].iloc[order].value_counts()) == [34, 34, 35]
    times = pd.Series(order).value_counts().reindex(rows.index, fill_value=0).groupby(rows["label"])
    assert (times.max() - times.min() <= 1).all(), "within a class no row comes again before the others"
    assert order == epoch_of(rows, balance="label") != epoch_of(rows, epoch=1, balance="label")
    assert sorted(epoch_of(rows)) == list(range(103)), "without it each row once"


def test_balanced_sampling_is_the_same_for_any_number_of_processes(trained_like, train, tmp_path, monkeypatch):
    """Two processes with half of a batch each, or accumulation, see what one process sees."""
    data = train(40)

    def order(batch_size: int, accumulation: int, processes: int = 1, epoch: int = 0) -> list[int]:
        monkeypatch.setattr(TrainingArguments, "world_size", processes)
        options = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation}
        sampler = build_sampler(SamplingRecipe("speaker", 2), data.rows)
        arguments = TrainingArguments(tmp_path, report_to="none", **options)
        trainer = MerhanTrainer(
            trained_like, arguments, learning_rates=ALL, num_labels=4, sampler=sampler, train_dataset=data
        )
        order = trainer._get_train_sampler()
        order.set_epoch(epoch)
        return list(order)

    whole = order(8, 1)
    assert whole == order(4, 2) == order(2, 4) == order(4, 1, processes=2) != order(8, 1, epoch=1)
    speakers = data.rows["speaker"].iloc[whole]
    assert all(speakers[start : start + 8].nunique() <= 2 for start in range(0, 40, 8)), "it is the recipe's sampling"


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_batch_has_no_more_speakers_than_promised(most):
    sizes = {"a": 40, "b": 31, "c": 22, "d": 9, "e": 1}
    rows = table(speaker=[name for name, size in sizes.items() for _ in range(size)])
    missed, met = [], set()
    for epoch in range(20):
        order = epoch_of(rows, epoch=epoch, speakers_per_batch=most)
        assert len(order) == len(rows)
        batches = [rows["speaker"].iloc[order[start : start + 8]] for start in range(0, len(rows), 8)]
        assert all(batch.nunique() <= most for batch in batches)
        assert all(batch.nunique() == most for batch in batches[:5]), "as many, while there are as many"
        met |= {frozenset(batch) for batch in batches}
        missed.append(1 - len(set(order)) / len(rows))
    assert sum(missed) / 20 < 0.12, "few rows wait for another epoch"
    assert len(met) >= 5, "who meets whom is drawn"


def test_balance_and_speaker_groups_together():
    rows = table(speaker=["a"] * 30 + ["b"] * 5 + ["c"] * 5, label=["joy"] * 20 + ["fear"] * 20)
    order = epoch_of(rows, balance="speaker", speakers_per_batch=1)
    assert len(order) == 40
    assert all(rows["speaker"].iloc[order[start : start + 8]].nunique() == 1 for start in range(0, 40, 8))
    assert rows["speaker"].iloc[order].value_counts().max() <= 24


# --- layers ---


@pytest.mark.parametrize("audio", ["layer", "light"])
def test_each_layer_has_the_rate_of_the_one_above_it_times_the_decay(audio, make_model):
    model = make_model(audio)
    decay = {"audio": 0.5, "text": 0.1}
    groups = parameter_groups(model, {"head": 3.0, "audio": 2.0, "text": 1.0}, set(), 0.0, decay)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    below_audio = "convolutions" if audio == "light" else "feature_projection"
    layers = "" if audio == "light" else "encoder."
    expected = {
        "classifier": 3.0,
        "merhan.fusion": 3.0,
        f"merhan.audio_backbone.{layers}layers.1.": 2.0,
        f"merhan.audio_backbone.{layers}layers.0.": 1.0,
        f"merhan.audio_backbone.{below_audio}": 0.5,
        "merhan.text_backbone.encoder.layer.1.": 1.0,
        "merhan.text_backbone.encoder.layer.0.": 0.1,
        "merhan.text_backbone.embeddings": 0.01,
    }
    for start, rate in expected.items():
        found = [rates[id(parameter)] for name, parameter in model.named_parameters() if name.startswith(start)]
        assert found and found == pytest.approx([rate] * len(found)), start


def test_a_stage_has_a_rate_for_each_layer(run_stage, trained_like, train):
    stage = {"layer_decay": {"text": 1e-4}}
    after = run_stage("a", {"text": 1e-2}, epochs=1, stage=stage, data=train(8), trainer={"warmup_steps": 0})
    moved = [0.0, 0.0]
    for (name, one), other in zip(trained_like.named_parameters(), after.parameters(), strict=True):
        for layer in (0, 1):
            if f"text_backbone.encoder.layer.{layer}." in name:
                moved[layer] = max(moved[layer], (one - other).abs().max().item())
    assert moved[0] == pytest.approx(1e-4 * moved[1], rel=0.05), moved


class Movements(TrainerCallback):
    """Which parts of the text backbone each epoch has moved."""

    def __init__(self):
        self.moved = []

    def on_epoch_begin(self, args, state, control, model=None, **kwargs):
        self.before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        start = "merhan.text_backbone."
        names = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, self.before[name])]
        self.moved.append({name.removeprefix(start).split(".attention")[0] for name in names if name.startswith(start)})


def test_layers_are_unfrozen_from_the_top(run_stage, train):
    movements = Movements()
    stage = {"unfreeze_layers": {"text": 1}}
    options = {"weight_decay": 0.1, "warmup_steps": 0}
    run_stage("a", epochs=3, stage=stage, data=train(8), callbacks=[movements], trainer=options)
    first, second, third = ({".".join(name.split(".")[:3]) for name in moved} for moved in movements.moved)
    assert first == {"encoder.layer.1"}
    assert second == {"encoder.layer.1", "encoder.layer.0"}
    assert third > second and all(name.startswith("embeddings") for name in third - second)


@pytest.mark.parametrize(("layers", "rests"), [(1, [True, True, False]), (2, [True, False, False])])
def test_frozen_layers_are_deterministic(layers, rests, make_model, batch):
    """Of what the embeddings give, then each layer."""
    model = make_model()
    text = model.merhan.text_backbone
    GradualUnfreezing(model, {"text": layers}).on_epoch_begin(None, TrainerState(epoch=0.0), None)
    model.train()

    def states() -> tuple[torch.Tensor, ...]:
        return text(batch["input_ids"], output_hidden_states=True).hidden_states

    assert [torch.equal(one, other) for one, other in zip(states(), states(), strict=True)] == rests


def test_unfreezing_leaves_out_what_the_stage_freezes(make_model):
    model = make_model()
    set_trainable(model, ALL, freeze_feature_encoder=True)
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    GradualUnfreezing(model, {"audio": 1}).on_epoch_begin(None, TrainerState(epoch=9.0), None)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trains


# --- curriculum ---


ROWS = table(
    corpus=["x"] * 6 + ["y"] * 3,
    label=["joy", "joy", "joy", "fear", "fear", "anger"] + ["joy", "joy", "fear"],
    valence=[5.0, 5.0, 2.0, 1.0, 2.0, 1.5] + [50, 90, 20],
    arousal=[4.0, 4.2, 4.1, 3.0, 3.0, 5.0] + [np.nan, np.nan, np.nan],
    mine=["0.4", "0.1", "10", "0.3", "0.2", "9", "0.5", "0.7", "0.6"],
)


def difficulty(order: str, column: str | None = None) -> pd.Series:
    return pd.Series(row_difficulty(CurriculumRecipe(order, column), ROWS, lambda: None))


def test_the_order_of_a_curriculum_determines_the_difficulty():
    assert difficulty("column", "mine").rank().tolist() == [4, 1, 9, 3, 2, 8, 5, 7, 6]
    assert difficulty("label_frequency").tolist() == pytest.approx(
        [1 - {"joy": 5, "fear": 3}.get(x, 1) / 9 for x in ROWS["label"]]
    )
    assert label_uncertainty(np.log([[0.9, 0.1], [0.2, 0.8]]) + 7, np.array([0, 0])) == pytest.approx([0.1, 0.8])


def test_the_further_from_its_class_prototype_the_harder():
    far = difficulty("prototypes")
    assert far[:3].idxmax() == 2, "the joy that is not like the others"
    assert far[5] == far[8] == 0, "the only one of its class is its prototype"
    scaled = ROWS[:6][["valence", "arousal"]].apply(lambda one: (one - one.mean()) / one.std(ddof=0))
    joy = scaled[:3] - scaled[:3].mean()
    assert far[:3].tolist() == pytest.approx(np.sqrt((joy**2).mean(axis=1)).tolist())
    other_scale = ROWS.assign(valence=ROWS["valence"] * 10 + 3)
    again = row_difficulty(CurriculumRecipe("prototypes"), other_scale, lambda: None)
    assert again == pytest.approx(far.to_numpy()), "the scale of the annotations is the corpus's own affair"
    bare = ROWS.assign(valence=[np.nan, *ROWS["valence"][1:]], arousal=[np.nan, *ROWS["arousal"][1:]])
    assert row_difficulty(CurriculumRecipe("prototypes"), bare, lambda: None)[0] > 0, "without annotations: the median"


@pytest.mark.parametrize(
    ("pacing", "shares"),
    [
        ("linear", [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]),
        ("root", [0.2, 0.28**0.5, 0.52**0.5, 0.76**0.5, 1.0, 1.0]),
        ("step", [0.2, 0.2, 0.2, 0.2, 1.0, 1.0]),
    ],
)
def test_an_epoch_draws_evenly_from_the_easiest_rows(pacing, shares):
    rows = table(label=["joy", "fear"] * 50, mine=np.random.default_rng(0).permutation(100))
    curriculum = CurriculumRecipe("column", "mine", pacing, start=0.2, epochs=4)
    for epoch, share in enumerate(shares):
        assert curriculum_share(curriculum, epoch) == pytest.approx(share)
        sampler = build_sampler(SamplingRecipe(curriculum=curriculum), rows, rows["mine"])([1.0] * 100, 8)
        sampler.set_epoch(epoch)
        times = rows["mine"].iloc[list(sampler)].value_counts()
        assert times.sum() == 100, "as many steps as any epoch"
        assert set(times.index) == set(range(round(100 * share))) and times.max() - times.min() <= 1


def test_confidence_is_that_of_the_initial_weights_of_the_stage(run_stage, trained_like, train, processor, tmp_path):
    sampling = SamplingRecipe(curriculum=CurriculumRecipe("confidence", start=0.5))
    batch = Collator(processor)([train(16)[row] for row in range(16)])
    chances = trained_like.eval()(**batch).logits.softmax(dim=-1)
    run_stage("a", {"head": 1e-2}, epochs=1, data=train(16), sampling=sampling)
    expected = 1 - chances[torch.arange(16), batch["labels"]].detach()
    np.testing.assert_allclose(np.load(tmp_path / "a" / "difficulty.npy"), expected, atol=1e-3)


def test_what_an_interrupted_stage_has_computed_is_read(tmp_path):
    """On a GPU another process would find other last digits, and so another order."""
    file = tmp_path / "stage" / "difficulty.npy"
    assert load_or_compute(file, lambda: np.arange(3), writes=False).tolist() == [0, 1, 2] and not file.exists()
    load_or_compute(file, lambda: np.arange(3), writes=True)
    assert load_or_compute(file, lambda: np.zeros(3), writes=True).tolist() == [0, 1, 2]


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_flipped_bit_of_the_difficulty_is_noticed(tmp_path, place):
    file = tmp_path / "stage" / "difficulty.npy"
    load_or_compute(file, lambda: np.arange(3.0), writes=True)
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert load_or_compute(file, lambda: np.ones(3), writes=True).tolist() == [1, 1, 1]
    assert load_or_compute(file, lambda: np.zeros(3), writes=True).tolist() == [1, 1, 1], "with its new hash"


@pytest.mark.parametrize("weight", [None, 1.0])
def test_a_stage_learns_from_the_rows_that_its_curriculum_chooses(weight, run_stage, train, trained_like):
    """Rows of one label alone, because the others are too hard yet, or because only these have weight."""
    data = train(16)
    ours = data.rows["label"] == "joy"
    data.rows = data.rows.assign(mine=(~ours if weight is None else ours).astype(float))
    start = ours.mean() if weight is None else 1.0
    sampling = SamplingRecipe(curriculum=CurriculumRecipe("column", "mine", "step", start))
    after = run_stage("a", {"head": 1e-2}, 1, data=data, sampling=sampling, difficulty_weight=weight)
    moved = after.classifier.bias - trained_like.classifier.bias
    assert [label for label in LABELS if moved[LABEL2ID[label]] > 0] == ["joy"], moved


def test_a_hard_row_weighs_as_much_more_as_it_is_harder(make_model, batch, tmp_path):
    weights = torch.from_numpy(row_weights(np.array([0.1, 0.2, 0.6]), 0.5)).float()
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 5 / 6, 1.5]))
    model = make_model(label_smoothing=0.2, class_weights=[0.5, 1.0, 2.0, 3.0], focal_gamma=1.0)
    trainer = MerhanTrainer(
        model, TrainingArguments(tmp_path, report_to="none", use_cpu=True), learning_rates=ALL, num_labels=4
    )
    labels = torch.tensor([0, 3, 1])
    logits = model(**batch).logits
    losses = torch.stack([emotion_loss(logits[[row]], labels[[row]], model.config) for row in range(3)])
    found = trainer.compute_loss(model, {**batch, "labels": labels, "row_weights": weights})
    torch.testing.assert_close(found, (weights * losses).mean())


# --- adversary ---


class Voices(Dataset):
    """Features that tell the emotion faintly and the speaker loudly, who in training has mostly one emotion."""

    def __init__(self, seed: int, share: float):
        generator = torch.Generator().manual_seed(seed)
        self.emotions = torch.randint(0, 2, (512,), generator=generator)
        usual = torch.rand(512, generator=generator) < share
        self.speakers = torch.where(usual, self.emotions, 1 - self.emotions)
        self.features = torch.randn(512, 3, 16, generator=generator) * 0.3
        faint = 0.3 * torch.randn(512, 1, generator=generator)
        self.features[:, :, 0] += 0.3 * (2 * self.emotions[:, None] - 1) + faint
        self.features[:, :, 1] += 2 * self.speakers[:, None] - 1
        self.extras = {}
        self.cells = [0] * 512

    def __len__(self) -> int:
        return len(self.emotions)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        example = {"audio_features": self.features[row], "labels": self.emotions[row]}
        return example | {name: values[row] for name, values in self.extras.items()}


def accuracies(model, voices: Voices) -> tuple[float, float]:
    """Of the model for the emotion, and of a probe, learnt on half of the embeddings, for the speaker of the others."""
    with torch.no_grad():
        outputs = model.eval()(audio_features=voices.features)
    known, asked = outputs.pooler_output.numpy()[:256], outputs.pooler_output.numpy()[256:]
    probe = LogisticRegression(max_iter=1000).fit(known, voices.speakers[:256])
    right = outputs.logits.argmax(dim=-1) == voices.emotions
    return right.float().mean().item(), probe.score(asked, voices.speakers[256:])


def test_an_adversary_makes_the_speaker_harder_to_read(make_model, tmp_path):
    """With a recipe's defaults; over three seeds, because a single run varies."""
    rates = {"head": 1e-3, "adversary": AdversaryRecipe().learning_rate}
    options = {
        "num_train_epochs": 40,
        "per_device_train_batch_size": 64,
        "save_strategy": "no",
        "adam_beta1": ADAM_BETA1,
    }
    options |= {"warmup_steps": 0.1, "weight_decay": 0.01, "remove_unused_columns": False}
    found = {False: [], True: []}
    for guarded, seed in itertools.product(found, range(3)):
        model = make_model("layer", text=False, seed=seed, hidden_dropout=0.0, attention_dropout=0.0)
        plain, voices = set(model.state_dict()), Voices(0, share=0.8)
        set_trainable(model, {"head": 1e-2}, True)
        if guarded:
            rows = table(speaker=[f"s{number}" for number in voices.speakers.tolist()])
            voices.extras["adversary_labels"] = add_adversary(model, AdversaryRecipe(), rows)
        arguments = TrainingArguments(tmp_path, **QUIET, **options)
        MerhanTrainer(model, arguments, learning_rates=rates, num_labels=4, train_dataset=voices).train()
        if guarded:
            remove_adversary(model)
        assert set(model.state_dict()) == plain
        found[guarded].append(accuracies(model, Voices(1, share=0.5)))
    (emotion, speaker), (guarded_emotion, guarded_speaker) = np.mean(found[False], axis=0), np.mean(found[True], axis=0)
    assert guarded_speaker < speaker - 0.06, found
    assert guarded_emotion > emotion - 0.02, found


def test_the_adversary_goes_down_the_loss_that_the_model_goes_up(make_model, batch):
    """The gradient below is the reversed one, times its weight; a row without a speaker has no part in it."""
    model = make_model()
    rows = table(speaker="carla", accent=["irish", "", "welsh"])
    labels = add_adversary(model, AdversaryRecipe("accent", 0.3), rows)
    assert labels.tolist() == [0, -100, 1]
    pooled = torch.randn(3, 16, requires_grad=True)
    losses = nn.functional.cross_entropy(model.adversary(pooled)[[0, 2]], torch.tensor([0, 1]), reduction="none")
    straight = torch.autograd.grad(losses.sum() / 3, [pooled, *model.adversary.parameters()], retain_graph=True)
    found = torch.autograd.grad(model.adversary.loss(pooled, labels), [pooled, *model.adversary.parameters()])
    for one, other in zip(found, straight, strict=True):
        torch.testing.assert_close(one, other)
    assert found[0][1].abs().max() == 0
    model.adversary.weight = -1.0  # a reversal reversed: the plain gradient
    (downhill,) = torch.autograd.grad(model.adversary.loss(pooled, labels), [pooled])
    torch.testing.assert_close(found[0], -0.3 * downhill)


class Adversaries(TrainerCallback):
    """How far a stage has moved its adversary, and with what momentum."""

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        self.betas = {group["betas"][0] for group in optimizer.param_groups}
        self.before = copy.deepcopy(model.adversary.classifier.weight)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        self.moved = (model.adversary.classifier.weight - self.before).abs().max().item()


def test_a_stage_trains_an_adversary_and_keeps_none_of_it(run_stage, train, tmp_path):
    adversaries, recipe = Adversaries(), AdversaryRecipe(learning_rate=0.5)
    options = {"warmup_steps": 0}
    after = run_stage("a", ALL, 1, (), train(8), [adversaries], adversary=recipe, trainer=options).state_dict()
    assert adversaries.moved == pytest.approx(0.5, rel=0.05), "one step of AdamW, at its own rate"
    assert adversaries.betas == {ADAM_BETA1}
    assert set(load_file(tmp_path / "a" / "model" / "model.safetensors")) == set(after)
    run_stage("b", ALL, 1, (), train(8), [adversaries], adversary=recipe, trainer=options | {"adam_beta1": 0.8})
    assert adversaries.betas == {0.8}, "as the recipe says"


# --- soft labels ---


def test_soft_labels_give_the_gradient_of_the_expected_loss(trained_like, processor, demo):
    """Over the raters' votes; what nobody voted for, or only for other words, keeps its label."""
    rows = demo.head(3).assign(votes=['{"joy": 3, "anger": 1, "other": 9}', '{"other": 2}', ""], audio="")
    soft, hard = (EmotionDataset(rows, processor, LABEL2ID, ["text"], soft_labels=one) for one in (True, False))
    batch = Collator(processor)([soft[row] for row in range(3)])
    own = Collator(processor)([hard[row] for row in range(3)])["labels"]
    assert own.tolist() == soft.labels
    model = trained_like.eval()

    def gradient(labels: torch.Tensor) -> torch.Tensor:
        loss = model(**{**batch, "labels": labels}).loss
        return torch.autograd.grad(loss, model.classifier.weight)[0]

    joy, anger = (torch.tensor([LABEL2ID[name], *own[1:]]) for name in ("joy", "anger"))
    torch.testing.assert_close(gradient(batch["labels"]), 0.75 * gradient(joy) + 0.25 * gradient(anger))


class Begun(Exception):
    """Stands for a stage, with what it was given."""


def test_votes_are_learnt_from_and_not_validated_on(demo, tiny_recipe, tmp_path, monkeypatch):
    def begin(recipe, stage, seed, model, processor, train, validation, folder):
        raise Begun(train[0]["labels"], validation[0]["labels"])

    monkeypatch.setattr("merhan.api.train_stage", begin)
    rows = demo.assign(votes='{"joy": 3, "anger": 1}')
    stages, data = [StageRecipe("s", 1, ALL)], DataRecipe(soft_labels=True)
    recipe = Recipe(run_name="x", output_dir=str(tmp_path), model=tiny_recipe, stages=stages, data=data)
    with pytest.raises(Begun) as begun:
        train_on(recipe, Data(rows, rows, {"name": "x", "version": 1, "hash": "x"}, [], []))
    learnt, validated = begun.value.args
    assert learnt == [{"joy": 0.75, "anger": 0.25}.get(label, 0) for label in LABELS]
    assert validated in LABEL2ID.values()


def test_votes_follow_the_label_map(tmp_path):
    votes = ['{"excitement": 2, "joy": 1, "surprise": 4}', '{"surprise": 3}', ""]
    columns = {"utterance_id": ["a", "b", "c"], "corpus": "x", "audio": "", "text": "Oh!", "votes": votes}
    table(label=["excitement", "joy", "surprise"], **columns).to_csv(tmp_path / "m.csv", index=False)
    rows = read_corpus("manifest", tmp_path / "m.csv", {"excitement": "joy", "surprise": None}).rows
    assert rows["votes"].tolist() == ['{"joy": 3}', ""]


# --- resume ---


class Interruption(TrainerCallback):
    """Ends a training before the given step, as a signal would."""

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise InterruptedError


SAVED = {"load_best_model_at_end": False, "save_strategy": "steps", "save_steps": 3}
ONCE = {"trainer": SAVED | {"per_device_train_batch_size": 4}}
STRATEGIES = {
    "average, layers, curriculum": (
        {
            "ema_decay": 0.9,
            "difficulty_weight": 0.5,
            "sampling": SamplingRecipe("label", None, CurriculumRecipe("confidence", start=0.4, epochs=2)),
        },
        {"layer_decay": {"text": 0.5}, "unfreeze_layers": {"text": 1}},
    ),
    "adapters, adversary, speaker groups": (
        {
            "model": ModelRecipe(adapters={"audio": {"r": 2}, "text": {"r": 2}}),
            "adversary": AdversaryRecipe(),
            "sampling": SamplingRecipe("speaker", 1),
        },
        {},
    ),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_interrupted_stage_goes_on_as_if_nothing_had_happened(name, run_stage, train):
    """Cut before its first checkpoint, then amid its second epoch of four steps."""
    recipe, stage = STRATEGIES[name]
    whole = run_stage("whole", stage=stage, data=train(16), **ONCE, **recipe).state_dict()
    for step in (2, 7):
        with pytest.raises(InterruptedError):
            torch.randn(step)  # what else a process has drawn does not matter
            run_stage("cut", stage=stage, data=train(16), callbacks=[Interruption(step)], **ONCE, **recipe)
    again = [Interruption(2)]  # which a stage that goes on does not come by
    resumed = run_stage("cut", stage=stage, data=train(16), callbacks=again, **ONCE, **recipe).state_dict()
    assert all(torch.equal(tensor, resumed[key]) for key, tensor in whole.items())


# --- recipes ---


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.adapters.audio.rank", "8", "unknown key 'rank'"),
        ("model.adapters.audio.peft_type", "PREFIX_TUNING", "model.adapters.audio.peft_type"),
        ("model.adapters.video.r", "8", "unknown key 'video'"),
        ("model.adapters.audio.r", "8", "model.adapters.audio: no stage trains that backbone"),
        ("ema_decay", "1.5", "ema_decay is 1.5, out of its range"),
        ("sampling.balance", "labels", "did you mean 'label'?"),
        ("sampling.curriculum", "{order: column}", "give both or neither"),
        ("sampling.curriculum", "{order: prototypes, pacing: lineal}", "did you mean 'linear'?"),
        ("sampling.curriculum", "{order: prototypes, start: 0}", "sampling.curriculum.start is 0.0, out of its range"),
        ("difficulty_weight", "0.5", "difficulty_weight needs sampling.curriculum"),
        ("stages.0.layer_decay", "{text: 1.2}", "stages[0].layer_decay is {'text': 1.2}, out of its range"),
        ("stages.0.unfreeze_layers", "{audio: 1}", "unknown key 'audio'"),
    ],
)
def test_a_mistake_in_a_strategy_is_named_before_anything_is_loaded(key, value, said, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "run_name: x\nmodel: {audio_backbone: light, text_backbone: tiny}\n"
        "stages: [{name: a, epochs: 1, learning_rate: {head: 1.0e-3, text: 1.0e-3}}]\n"
    )
    load_recipe(path)
    with pytest.raises(InputError, match=re.escape(said)):
        load_recipe(path, [f"{key}={value}"])


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ({"sampling": SamplingRecipe("speaker")}, "sampling.balance: 1 of 3"),
        ({"sampling": SamplingRecipe(None, 2)}, "sampling.speakers_per_batch: 1 of 3"),
        ({"sampling": SamplingRecipe(curriculum=CurriculumRecipe("column", "text"))}, "must hold numbers"),
        (
            {"sampling": SamplingRecipe(curriculum=CurriculumRecipe("column", "mine")), "difficulty_weight": 0.5},
            "must hold numbers of 0 or more",
        ),
        ({"sampling": SamplingRecipe(curriculum=CurriculumRecipe("prototypes"))}, "needs valence, arousal or"),
        ({"adversary": AdversaryRecipe("gender")}, "adversary.column"),
        ({"data": DataRecipe(soft_labels=True)}, "data.soft_labels"),
    ],
)
def test_rows_that_do_not_serve_a_strategy_are_refused(strategy, said):
    rows = table(label=["joy", "fear", "joy"], speaker=["a", "b", ""], text="Oh!", gender="f", corpus="x")
    rows["mine"] = [0.5, -0.5, 1.0]
    check_strategies(Recipe(run_name="x"), rows)
    with pytest.raises(InputError, match=re.escape(said)):
        check_strategies(Recipe(run_name="x", **strategy), rows)


def test_an_epoch_without_a_logged_loss_shows_none_of_an_earlier_one(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("merhan.training.trainer.logger", Mock(info=said.append))
    state = TrainerState()
    for epoch, losses in enumerate(([], [0.5, 0.25], [], [0.125]), start=1):
        scores = {"epoch": epoch, "eval_loss": 1.0} | {f"eval_{name}": 1.0 for name in SCORES}
        state.log_history += [*({"loss": loss} for loss in losses), scores]
        EpochLog().on_log(None, state, None, logs=scores)
    assert [line.partition("  validation")[0] for line in said] == [
        "epoch 1",
        "epoch 2  loss 0.250",
        "epoch 3",
        "epoch 4  loss 0.125",
    ]
