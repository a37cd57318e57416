"""Training: what must not depend on how the work is cut, interrupted or cached."""

import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import LABEL2ID, LABELS
from safetensors.torch import load_file
from scipy.special import softmax
from torch import nn
from transformers import RobertaTokenizer, TrainingArguments, Wav2Vec2FeatureExtractor

import evaluate_hf_e2e
import merhan
import train_hf_e2e
from merhan.data.collator import Collator
from merhan.data.dataset import EmotionDataset, dialogue_context, grid_cells
from merhan.data.loading import Data
from merhan.errors import InputError
from merhan.models import inference
from merhan.models.building import build_model
from merhan.models.inference import as_in_training, load_stage_model, longest_first, predict_logits
from merhan.models.tiny_backbones import tiny_audio
from merhan.recipe.loading import load_recipe
from merhan.recipe.schema import DataRecipe, Recipe, StageRecipe
from merhan.training import feature_cache
from merhan.training.arguments import training_arguments
from merhan.training.checkpoints import last_checkpoint
from merhan.training.feature_cache import feature_cache_key, use_cached_features
from merhan.training.parameter_groups import frozen_modalities, parameter_group, set_trainable
from merhan.training.run_folder import check_run_folder, open_run_folder
from merhan.training.sampling import LengthBucketSampler, SecondsBatchSampler, batch_shapes
from merhan.training.stage import train_stage
from merhan.training.trainer import MerhanTrainer
from processing_merhan import MerhanProcessor


REPOSITORY = Path(__file__).parent.parent
ALL = {"head": 1e-3, "audio": 1e-3, "text": 1e-3}


def part(demo, processor, split: str, size: int | None = None, **options) -> EmotionDataset:
    rows = demo[demo["split"] == split]
    return EmotionDataset(rows.head(size or len(rows)), processor, LABEL2ID, ["audio", "text"], **options)


def without_dropout(model):
    """No dropout, no SpecAugment: two runs can then be compared number by number."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "hidden_dropout", "activation_dropout"):
            if hasattr(getattr(module, "config", None), name):
                setattr(module.config, name, 0.0)
        if getattr(module, "dropout", None) and isinstance(module.dropout, float):
            module.dropout = 0.0
    model.merhan.audio_backbone.config.apply_spec_augment = False
    return model


# --- batches ---


def test_batches_cover_every_row_once_and_depend_on_the_epoch_alone():
    cells = torch.randint(0, 20, (203,))
    sampler = LengthBucketSampler(cells, batch_size=8, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(203)) and first == list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    again = LengthBucketSampler(cells, batch_size=8, seed=3)
    again.set_epoch(1)
    assert list(again) == list(sampler)
    whole_batches = LengthBucketSampler(cells[:200], batch_size=8)
    assert cells[:200].max() in cells[list(whole_batches)[:8]], "the longest comes first"
    assert sorted(LengthBucketSampler(cells[:5], batch_size=8)) == list(range(5)), "fewer rows than a batch"


def utterances(seconds: np.ndarray, tokens: np.ndarray, processor) -> SimpleNamespace:
    """Shapes and cells of a data set of such lengths."""
    limit = round(processor.max_seconds * 16_000)
    samples = np.clip(np.ceil(seconds * 16_000), 8_000, limit).astype(int)
    shapes = np.array([processor.shape(*pair) for pair in zip(samples.tolist(), tokens.tolist(), strict=True)])
    return SimpleNamespace(samples=samples, tokens=tokens, shapes=shapes, cells=grid_cells(shapes))


def shapes_of_epochs(data: SimpleNamespace, processor, batch_size: int, epochs: int) -> tuple[int, int, float]:
    """The number of batch shapes of the epoch with the most, that of all epochs, and the padding of the sound."""
    sampler = LengthBucketSampler(data.cells, batch_size)
    every: list[list[tuple[int, int, int]]] = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        every.append(batch_shapes(processor, data.shapes, list(sampler), batch_size))
    # The last batch of an epoch is filled up, see `fill_rows`.
    distinct = [{shape[1:] for shape in shapes} for shapes in every]
    padded = sum(batch_size * samples for shapes in every for _, samples, _ in shapes)
    return max(map(len, distinct)), len(set.union(*distinct)), 1 - epochs * data.samples.sum() / padded


def meld_like(processor, size: int = 10_000) -> SimpleNamespace:
    """Durations and token counts distributed as MELD's, with three turns of context."""
    rng = np.random.default_rng(0)
    seconds, tokens = rng.lognormal(0.9, 0.7, size), np.clip(rng.normal(50, 21, size), 5, 128)
    return utterances(seconds, tokens.astype(int), processor)


@pytest.mark.parametrize("batch_size", [16, 32, 64])
def test_ten_epochs_have_few_shapes_and_little_padding(batch_size, processor_of_meld):
    most, every, padding = shapes_of_epochs(meld_like(processor_of_meld), processor_of_meld, batch_size, 10)
    assert most <= 32 and every <= 32 and padding <= 0.085


def test_ten_epochs_of_meld_have_few_shapes_and_little_padding(corpora, processor_of_meld):
    """Its real durations, and its real words with three turns of context and the speaker."""
    rows = meld_rows(corpora)
    contexts = dialogue_context(rows, 3)
    turns = zip(rows["text"], rows["speaker"], rows["utterance_id"], strict=True)
    tokens = [len(processor_of_meld.encode_text(text, who, contexts.get(name))) for text, who, name in turns]
    data = utterances(rows["duration_s"].to_numpy(), np.array(tokens), processor_of_meld)
    most, every, padding = shapes_of_epochs(data, processor_of_meld, 16, 10)
    assert len(rows) == 9988 and most <= 32 and every <= 32 and padding <= 0.08


def test_batches_of_constant_seconds_have_few_shapes_and_little_padding(processor_of_meld):
    """64 s a batch, from 5 rows of 12 s to 128 of half a second."""
    data = meld_like(processor_of_meld)
    sampler = SecondsBatchSampler(data.cells, data.shapes[:, 0], 64 * 16_000, 1)
    shapes, padded = set(), []
    for epoch in range(10):
        sampler.set_epoch(epoch)
        for batch in sampler:
            samples, tokens = processor_of_meld.shape(*data.shapes[batch].max(axis=0).tolist())
            shapes.add((len(batch), samples, tokens))
            padded.append(len(batch) * samples)
    assert len(shapes) <= 64
    assert 1 - 10 * data.samples.sum() / sum(padded) <= 0.085
    assert np.quantile(padded, 0.05) > 0.75 * 64 * 16_000


def test_batches_of_a_small_corpus_are_as_tight_and_differ_between_epochs(processor_of_meld):
    """640 rows in batches of 64 were two batches to a bucket, and 55 % padding."""
    data = meld_like(processor_of_meld, 640)
    padding = {size: shapes_of_epochs(data, processor_of_meld, size, 3)[2] for size in (16, 64)}
    assert padding[16] < 0.13 and padding[64] < 0.26, "in order of length it is 0.04 and 0.17"
    sampler = LengthBucketSampler(data.cells, 16)
    pairs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        batches = np.array(list(sampler)).reshape(-1, 16)
        pairs.append({pair for batch in batches.tolist() for pair in itertools.combinations(sorted(batch), 2)})
    assert len(pairs[0] & pairs[1]) < 0.6 * len(pairs[0]), "who meets whom is drawn anew"


@pytest.fixture(scope="module")
def processor_of_meld():
    """With the lengths of `configs/meld.yaml`, and a tokenizer trained on MELD's words where they are here."""
    folder = os.environ.get("MERHAN_CORPORA")
    texts = meld_rows(Path(folder))["text"].tolist() if folder else ["what is it", "oh my god"]
    specials = {token: number for number, token in enumerate(("<s>", "<pad>", "</s>", "<unk>", "<mask>"))}
    tokenizer = RobertaTokenizer(vocab=specials, merges=[], model_max_length=512)
    tokenizer = tokenizer.train_new_from_iterator([texts], vocab_size=8000, show_progress=False)
    return MerhanProcessor(Wav2Vec2FeatureExtractor(), tokenizer, context_turns=3, use_speaker=True)


def meld_rows(corpora: Path) -> pd.DataFrame:
    """MELD's training rows as far as lengths depend on them."""
    words = pd.read_csv(corpora / "meld" / "train_sent_emo.csv", keep_default_na=False)
    durations = pd.read_csv(corpora / "meld" / "media_durations.csv")
    durations = durations[durations["split"] == "train"].drop(columns="split")
    keys = {"Dialogue_ID": "dialogue_id", "Utterance_ID": "utterance_id"}
    rows = words.rename(columns=keys).merge(durations, on=list(keys.values()))
    names = {"Utterance": "text", "Speaker": "speaker", "dialogue_id": "dialogue", "utterance_id": "turn"}
    rows = rows.rename(columns=names).astype({"dialogue": str})
    return rows.assign(utterance_id=rows["dialogue"] + " " + rows["turn"].astype(str))


@pytest.mark.parametrize("kind", ["layer", "group"])
def test_a_batch_on_the_grid_has_the_loss_and_gradient_of_one_that_is_not(kind, make_model, demo, processor):
    data = part(demo, processor, "train", 5)
    examples = [data[row] for row in range(5)]
    batches = [Collator(processor)(examples)]
    exact = processor.pad([example["audio"] for example in examples], [example["text"] for example in examples])
    batches.append({"labels": batches[0]["labels"], **exact})
    assert all(batches[0][name].shape[1] > exact[name].shape[1] for name in ("input_values", "input_ids"))
    model = make_model(kind).train()
    without_dropout(model)
    results = []
    for batch in batches:
        model.zero_grad()
        ids = batch["input_ids"].clamp(max=63)
        loss = model(**{**batch, "input_ids": ids}).loss
        loss.backward()
        gradients = {
            name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
        }
        results.append((loss, gradients))
    (loss, gradients), (expected, others) = results
    torch.testing.assert_close(loss, expected)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], atol=1e-5, rtol=1e-3, msg=name)


def test_the_grid_is_monotonous_and_never_too_short(processor_of_meld):
    """No length is cut, no limit is exceeded that the row itself respects, and longer rows never get shorter ones."""
    for samples in [*range(1, 200_000, 331), 8_000, 48_000, 48_001, 191_999, 192_000, 192_016]:
        for tokens in (1, 2, 63, 64, 65, 128, 129, 300, 512):
            shape = processor_of_meld.shape(samples, tokens)
            assert shape[0] >= samples and shape[1] >= tokens
            assert shape[0] <= max(samples, 192_000) and shape[1] <= 512
            assert processor_of_meld.shape(*shape)[0] == shape[0], "a length of the grid stays"
    lengths = [processor_of_meld.shape(samples, 0)[0] for samples in range(1, 192_000, 97)]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize("strategy", ["group_by_length", "random"])
def test_the_sampling_strategy_is_the_recipes(strategy, demo, trained_like, processor, tmp_path):
    options = TrainingArguments(tmp_path, report_to="none", train_sampling_strategy=strategy)
    train = part(demo, processor, "train")
    trainer = MerhanTrainer(trained_like, options, learning_rates=ALL, num_labels=4, train_dataset=train)
    order = list(trainer._get_train_sampler())
    assert sorted(order) == list(range(len(train)))

    def padded(rows: list[int]) -> int:
        return sum(samples for _, samples, _ in batch_shapes(processor, train.shapes, rows, 8))

    assert (padded(order) < 0.9 * padded(torch.randperm(len(train)).tolist())) == (strategy == "group_by_length")


# --- stages ---


def test_a_stage_moves_what_it_says_and_nothing_else(demo, trained_like, processor, tmp_path):
    train, validation = part(demo, processor, "train", 16), part(demo, processor, "validation", 8)
    last_epoch = {"load_best_model_at_end": False, "eval_strategy": "no", "save_strategy": "no"}
    recipe = Recipe(run_name="x", trainer={"report_to": "none", "warmup_steps": 0, **last_epoch})
    state = {name: tensor.clone() for name, tensor in trained_like.state_dict().items()}
    model = trained_like
    for rates, moving, keep_encoder in (
        ({"head": 1e-2}, {"head"}, True),
        (ALL, {"head", "audio", "text"}, True),
        (ALL, {"head", "audio", "text"}, False),
    ):
        stage = StageRecipe("s", 2, rates, freeze_feature_encoder=keep_encoder)
        shutil.rmtree(tmp_path, ignore_errors=True)
        model = train_stage(recipe, stage, 0, model, processor, train, validation, tmp_path / "s")
        after = model.state_dict()
        moved = {name for name in after if not torch.equal(after[name], state[name])}
        encoder = {name for name in state if "feature_extractor" in name}
        assert {parameter_group(name) for name in moved} == moving
        assert bool(moved & encoder) != keep_encoder if "audio" in moving else not moved & encoder
        # What these few rows give no gradient: buffers, absent words, biases of keys, tokens of what is not missing.
        still = (
            {name for name in after if parameter_group(name) in moving} - moved - (encoder if keep_encoder else set())
        )
        assert all(
            ("embed" in name) or ("k_proj.bias" in name) or ("key.bias" in name) or ("missing" in name)
            for name in still
        )
        state = {name: tensor.clone() for name, tensor in after.items()}


def test_each_group_has_its_own_rate(demo, trained_like, processor, tmp_path):
    rates = {"head": 1e-2, "audio": 1e-4, "text": 1e-5}
    set_trainable(trained_like, rates, freeze_feature_encoder=True)
    trainer = MerhanTrainer(
        trained_like, TrainingArguments(tmp_path, weight_decay=0.1), learning_rates=rates, num_labels=4
    )
    found = {}
    names = {id(parameter): name for name, parameter in trained_like.named_parameters()}
    for group in trainer.create_optimizer().param_groups:
        for parameter in group["params"]:
            found[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    trainable = {name for name, parameter in trained_like.named_parameters() if parameter.requires_grad}
    assert set(found) == trainable
    assert not any("feature_extractor" in name for name in found)
    for name, (rate, decay) in found.items():
        assert rate == rates[parameter_group(name)]
        undecayed = name.endswith("bias") or "norm" in name.lower() or "missing_" in name
        assert decay == (0.0 if undecayed else 0.1), name


def test_accumulation_changes_neither_loss_nor_gradient(demo, trained_like, processor, tmp_path):
    def losses(batch_size: int, steps: int, name: str) -> list[tuple[float, float]]:
        model = without_dropout(trained_like)
        model.load_state_dict(start)
        set_trainable(model, ALL, True)
        arguments = TrainingArguments(
            tmp_path / name,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            max_steps=3,
            logging_steps=1,
            save_strategy="no",
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        trainer = MerhanTrainer(
            model,
            arguments,
            learning_rates=ALL,
            num_labels=4,
            train_dataset=part(demo, processor, "train", 48),
            data_collator=Collator(processor),
        )
        trainer.train()
        return [(log["loss"], log["grad_norm"]) for log in trainer.state.log_history if "loss" in log]

    start = {name: tensor.clone() for name, tensor in trained_like.state_dict().items()}
    whole, halves, quarters = losses(8, 1, "a"), losses(4, 2, "b"), losses(2, 4, "c")
    assert len(whole) == 3
    np.testing.assert_allclose(halves, whole, rtol=2e-3)
    np.testing.assert_allclose(quarters, whole, rtol=2e-3)


@pytest.mark.parametrize("switch", [{"activation_checkpointing": True}, {"bf16": True}])
def test_switches_of_the_recipe_train_alike(switch, demo, trained_like, processor, tmp_path):
    """Recomputed activations change nothing, half precision little."""

    def losses(name: str, **options) -> list[float]:
        model = without_dropout(trained_like)
        model.load_state_dict(start)
        set_trainable(model, ALL, True)
        options |= {"max_steps": 3, "logging_steps": 1, "save_strategy": "no", "use_cpu": True, "report_to": "none"}
        arguments = TrainingArguments(tmp_path / name, remove_unused_columns=False, disable_tqdm=True, **options)
        data = part(demo, processor, "train", 24)
        given = {"learning_rates": ALL, "num_labels": 4, "train_dataset": data, "data_collator": Collator(processor)}
        trainer = MerhanTrainer(model, arguments, **given)
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    start = {name: tensor.clone() for name, tensor in trained_like.state_dict().items()}
    plain, switched = losses("plain"), losses("switched", **switch)
    np.testing.assert_allclose(switched, plain, rtol=2e-2 if "bf16" in switch else 1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_stage_over_wavlm_is_read_back(attention, demo, tiny_recipe, processor, tmp_path):
    """Its attention is its own, whatever the other backbone's is."""
    recipe = replace(tiny_recipe, audio_backbone=str(tiny_audio("wavlm")), attn_implementation=attention)
    model = build_model(recipe, LABELS, demo)
    model.save_pretrained(tmp_path / "model")
    again = load_stage_model(tmp_path / "model", model.config._attn_implementation)
    assert again.config._attn_implementation == again.merhan.text_backbone.config._attn_implementation == attention
    data = part(demo, processor, "validation", 4)
    batch = Collator(processor)([data[row] for row in range(4)])
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(**batch).logits, model.eval()(**batch).logits)


# --- features ---


def test_frozen_backbones_run_once_per_utterance(demo, trained_like, processor, monkeypatch, cache):
    rows = {"audio": 0, "text": 0}

    def counted(backbone, name):
        original = backbone.forward

        def forward(values, *args, **kwargs):
            rows[name] += len(values)
            return original(values, *args, **kwargs)

        monkeypatch.setattr(backbone, "forward", forward)

    with torch.no_grad():  # weights of their own, so that no other test has filled the cache
        for backbone in (trained_like.merhan.audio_backbone, trained_like.merhan.text_backbone):
            next(backbone.parameters()).add_(0.01)
    set_trainable(trained_like, {"head": 1e-3}, True)
    assert frozen_modalities(trained_like) == ["audio", "text"]
    expected, _ = predict_logits(trained_like.eval(), processor, part(demo, processor, "validation", 10), 4)
    counted(trained_like.merhan.audio_backbone, "audio")
    counted(trained_like.merhan.text_backbone, "text")
    for _ in range(3):
        dataset = part(demo, processor, "validation", 10)
        for name in ("audio", "text"):
            use_cached_features(trained_like.merhan, dataset, name, torch.device("cpu"))
        found, _ = predict_logits(trained_like, processor, dataset, 4)
    np.testing.assert_allclose(found, expected, atol=2e-3)  # features are kept in half precision
    assert rows["audio"] == 10
    assert rows["text"] == len({json.dumps(ids) for ids in dataset.tokens}), "equal words are read once"


def test_features_after_a_kill_are_those_of_an_uninterrupted_run(demo, trained_like, processor, tmp_path, monkeypatch):
    """Killed in the middle of a batch: what is missing is computed in the batches in which it would have been."""
    monkeypatch.setattr(feature_cache, "_MOST_ROWS", 4)

    def compute(cache: str):
        monkeypatch.setenv("MERHAN_CACHE", str(tmp_path / cache))
        use_cached_features(trained_like.merhan, part(demo, processor, "train", 14), "audio", torch.device("cpu"))

    def killed_after_six():
        numbers, saved = itertools.count(), threading.Semaphore(0)
        save = feature_cache._save

        def save_or_die(*args):
            number = next(numbers)
            if number > 6:
                threading.Event().wait()  # until the process is killed
            if number == 6:
                for _ in range(6):
                    saved.acquire()
                os.kill(os.getpid(), signal.SIGKILL)
            save(*args)
            saved.release()

        feature_cache._save = save_or_die
        compute("cut")

    compute("whole")
    process = multiprocessing.get_context("fork").Process(target=killed_after_six)
    process.start()
    process.join()
    files = sorted((tmp_path / "whole").rglob("*.npy"))
    names = [file.relative_to(tmp_path / "whole") for file in files]
    there = [(tmp_path / "cut" / name).is_file() for name in names]
    assert process.exitcode == -signal.SIGKILL and len(files) == 14 and sum(there) == 6
    sizes = []
    encode = type(trained_like.merhan).encode

    def counted(model, name, values, mask):
        sizes.append(len(values))
        return encode(model, name, values, mask)

    monkeypatch.setattr(type(trained_like.merhan), "encode", counted)
    compute("cut")
    assert sizes == [4, 4, 2], "batches that are not complete, as a whole"
    assert all(
        file.read_bytes() == (tmp_path / "cut" / name).read_bytes() for file, name in zip(files, names, strict=True)
    )


def test_features_are_made_again_when_anything_changes(demo, trained_like, processor, tmp_path):
    backbone = trained_like.merhan.audio_backbone
    before = feature_cache_key(backbone, backbone.config, processor)
    assert feature_cache_key(backbone, backbone.config, processor) == before
    with torch.no_grad():
        next(backbone.parameters()).view(-1)[0] += 1e-3
    assert feature_cache_key(backbone, backbone.config, processor) != before
    rows = demo[demo["split"] == "test"].head(2).copy()
    for row, audio in enumerate(rows["audio"]):
        shutil.copy(audio, tmp_path / f"{row}.wav")
    rows["audio"] = [str(tmp_path / f"{row}.wav") for row in range(2)]

    def files(rows) -> dict[str, list[Path]]:
        dataset = EmotionDataset(rows, processor, LABEL2ID, ["audio", "text"])
        for name in ("audio", "text"):
            use_cached_features(trained_like.merhan, dataset, name, torch.device("cpu"))
        return dataset.features

    first = files(rows)
    content = (tmp_path / "0.wav").read_bytes()
    (tmp_path / "0.wav").write_bytes(content[:-2] + b"\x01\x01")
    second = files(rows)
    assert second["audio"][0] != first["audio"][0] and second["audio"][1] == first["audio"][1]
    assert second["text"] == first["text"]
    rows.loc[rows.index[1], "text"] = "their answer is new"
    third = files(rows)
    assert third["audio"] == second["audio"]
    assert third["text"][0] == first["text"][0] and third["text"][1] != first["text"][1]


# --- evaluation ---


def test_predictions_keep_the_order_of_the_data(demo, trained_like, processor):
    dataset = part(demo, processor, "test", 20)
    assert longest_first(dataset).tolist() != list(range(20)), "the rows are not in order of length"
    together, _ = predict_logits(trained_like.eval(), processor, dataset, 6)
    assert together.shape == (20, 4)
    for row in (0, 7, 19):
        alone, _ = predict_logits(
            trained_like,
            processor,
            part(demo, processor, "test").__class__(
                dataset.rows.iloc[row : row + 1], processor, LABEL2ID, ["audio", "text"]
            ),
            1,
        )
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


@pytest.mark.parametrize("enter", [lambda: training_arguments(Path("x"), {}, 1, "uar", 0), lambda: as_in_training({})])
def test_attention_does_without_cudnn(enter, monkeypatch):
    torch.backends.cuda.enable_cudnn_sdp(True)
    entered = enter()
    if hasattr(entered, "__enter__"):
        with entered:
            pass
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_evaluation_has_the_precision_and_workers_of_training(demo, trained_like, processor, monkeypatch):
    recipe = {"bf16": True, "dataloader_num_workers": 1}
    with inference.as_in_training(recipe) as speed:
        assert speed == (None, 1), "no half precision without a GPU"
    monkeypatch.setattr(inference, "PartialState", lambda: SimpleNamespace(device=torch.device("cuda")))
    with inference.as_in_training(recipe) as speed:
        monkeypatch.undo()
        assert speed == (torch.bfloat16, 1)
        half, _ = predict_logits(trained_like.eval(), processor, part(demo, processor, "test", 6), 4)
    full, _ = predict_logits(trained_like, processor, part(demo, processor, "test", 6), 4)
    assert 0 < np.abs(half - full).max() < 0.1 * np.abs(full).max(), "and afterwards it is over"


def test_predict_names_its_scores_by_the_ids_of_the_labels(demo, trained_like, processor, tmp_path):
    """A saved config has its labels in alphabetical order, whatever their ids are."""
    names = ["sadness", "anger", "joy", "calm"]
    trained_like.config.id2label = dict(enumerate(names))
    trained_like.config.label2id = {name: number for number, name in enumerate(names)}
    trained_like.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    rows = demo[demo["split"] == "test"].head(6)
    logits, _ = predict_logits(trained_like.eval(), processor, part(demo, processor, "test", 6), 2)
    scores = merhan.predict(tmp_path, rows[["utterance_id", "audio", "text"]])
    np.testing.assert_allclose(scores[[f"score_{name}" for name in names]], softmax(logits, axis=1), atol=1e-5)
    assert scores["prediction"].tolist() == [names[number] for number in logits.argmax(axis=1)]
    assert scores["prediction"].nunique() > 1


def test_outputs_beside_the_logits_stay_out_of_predictions(demo, trained_like, processor, tmp_path):
    trainer = MerhanTrainer(
        trained_like,
        TrainingArguments(tmp_path, remove_unused_columns=False, report_to="none"),
        learning_rates=ALL,
        num_labels=4,
        data_collator=Collator(processor),
    )
    found = trainer.predict(part(demo, processor, "test", 5))
    assert isinstance(found.predictions, np.ndarray) and found.predictions.shape == (5, 4)


# --- whole runs ---


RECIPE = """
run_name: tiny
output_dir: {output}
data: {{corpus: demo, source: {source}, options: {{scale: 0.1}}, max_seconds: 2.0, accept_leaks: [text]}}
model:
  audio_backbone: tiny
  text_backbone: tiny
  config: {{hidden_size: 32, intermediate_size: 32, modality_dropout: 0.3}}
stages:
  - {{name: warmup, epochs: 2, learning_rate: {{head: 1.0e-3}}}}
  - {{name: finetune, epochs: 2, learning_rate: {{head: 1.0e-3, audio: 1.0e-3, text: 1.0e-3}}}}
trainer: {{report_to: none, use_cpu: true}}
evaluation: {{conditions: [audio]}}
"""


@pytest.fixture
def recipe_file(tmp_path, demo):
    source = Path(demo["audio"].iloc[0]).parent.parent
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(output=tmp_path / "outputs", source=source))
    return path


def call(program, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["program", *map(str, words)])
    program.main()


def test_train_then_evaluate(recipe_file, monkeypatch, tmp_path, capsys):
    call(train_hf_e2e, monkeypatch, "--config", recipe_file)
    run = tmp_path / "outputs" / "tiny"
    printed = capsys.readouterr().out
    for expected in (
        "| test, audio+text |",
        "| test, audio |",
        str(run / "model"),
        "report.html",
        "recogniser = pipeline(",
    ):
        assert expected in printed
    for name in (
        "recipe.yaml",
        "manifest.parquet",
        "provenance.json",
        "model/model.safetensors",
        "model/README.md",
        "warmup/model",
        "finetune/model",
        "evaluation/test/predictions.parquet",
        "evaluation/test/confusion.png",
        "evaluation/test--audio/metrics.json",
    ):
        assert (run / name).exists(), name
    assert load_recipe(run / "recipe.yaml") == load_recipe(recipe_file), "the resolved recipe runs again"
    figures = without_date(run / "evaluation/test/metrics.json")
    page = (run / "evaluation/test/report.html").read_text()
    assert f"{figures['uar']:.3f}" in page and figures["protocol"]["hash"] in page
    assert "Scores by speaker" in page
    assert "http" not in page and "src=" not in page.replace('src="data:', ""), (
        "a page asks no other host, and needs no other file"
    )
    shutil.rmtree(run / "evaluation")
    call(evaluate_hf_e2e, monkeypatch, "--checkpoint", run, "--modalities", "both", "text")
    assert without_date(run / "evaluation/test/metrics.json") == figures
    assert (run / "evaluation/test--text/report.md").is_file()
    manifest = run / "manifest.parquet"
    call(
        evaluate_hf_e2e,
        monkeypatch,
        "--checkpoint",
        run / "model",
        "--manifest",
        manifest,
        "--output_dir",
        tmp_path / "e",
    )
    elsewhere = json.loads((tmp_path / "e/test/metrics.json").read_text())
    assert elsewhere["uar"] == figures["uar"]

    with pytest.raises(SystemExit) as ended:
        call(train_hf_e2e, monkeypatch, "--config", recipe_file)
    assert ended.value.code == 2 and "--resume" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call(train_hf_e2e, monkeypatch, "--config", recipe_file, "--set", "seed=1", "--resume")
    assert "differs" in (said := capsys.readouterr().err) and "seed" in said
    weights = (run / "model/model.safetensors").read_bytes()
    call(train_hf_e2e, monkeypatch, "--config", recipe_file, "--resume")
    assert "already finished" in capsys.readouterr().out
    assert (run / "model/model.safetensors").read_bytes() == weights


def test_weights_that_were_trained_on_the_test_speakers_are_refused(recipe_file, monkeypatch, tmp_path, capsys):
    """A MER-HAN checkpoint is a backbone for the next run; its provenance names its training speakers."""
    stages = ["--set", "stages=[{name: warmup, epochs: 1, learning_rate: {head: 1.0e-3}}]"]
    call(train_hf_e2e, monkeypatch, "--config", recipe_file, *stages)
    first = tmp_path / "outputs" / "tiny"
    known = load_file(first / "model/model.safetensors")
    weights = ["--set", f"model.audio_backbone={first / 'model'}"]
    call(train_hf_e2e, monkeypatch, "--config", recipe_file, *stages, *weights, "--run_name", "second")
    found = load_file(tmp_path / "outputs/second/model/model.safetensors")
    heard = [name for name in known if name.startswith("merhan.audio_backbone")]
    assert heard and all(torch.equal(known[name], found[name]) for name in heard)

    rows = pd.read_parquet(first / "manifest.parquet")
    rows["split"] = rows["split"].map({"train": "test", "test": "train", "validation": "validation"})
    rows.to_parquet(first / "swapped.parquet")
    swapped = ["--set", "data.corpus=manifest", "--set", f"data.source={first / 'swapped.parquet'}"]
    swapped += ["--set", "data.options={}", "--run_name", "third"]
    with pytest.raises(SystemExit) as ended:
        call(train_hf_e2e, monkeypatch, "--config", recipe_file, *stages, *weights, *swapped)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "weights: 100.0% of test" in said and "model.audio_backbone" in said
    assert not (tmp_path / "outputs" / "third").exists()


def test_a_run_that_is_killed_while_its_folder_is_made_leaves_none(monkeypatch, tmp_path, demo):
    stages = [StageRecipe(name="warmup", epochs=1, learning_rate={"head": 1e-3})]
    recipe = Recipe(run_name="x", output_dir=str(tmp_path / "outputs"), data=DataRecipe(source="demo"), stages=stages)
    data = Data(demo, demo, {"name": "p"}, [], [])
    for overwrite in (False, True):
        with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
            killed.setattr("merhan.training.run_folder.write_json", Mock(side_effect=KeyboardInterrupt))
            open_run_folder(recipe, data, overwrite=overwrite)
        assert not (tmp_path / "outputs" / "x").exists()
        with pytest.raises(InputError, match="--resume: there is no run in"):
            check_run_folder(recipe, resume=True, overwrite=False)
        folder = open_run_folder(recipe, data)
        assert (folder / "recipe.yaml").is_file() and list(folder.parent.iterdir()) == [folder]


def without_date(file: Path) -> dict:
    """The content of a metrics.json, except for the time of the evaluation."""
    metrics = json.loads(file.read_text())
    assert metrics.pop("date")
    return metrics


def require_clean_log(output: str):
    """Without a terminal there are no progress bars, and no message of a library that means nothing to a user."""
    for debris in ("\r", "it/s", "%|", "Loading weights", "Writing model shards", "Warning", "'grad_norm'"):
        assert debris not in output, output[max(output.index(debris) - 300, 0) :][:600]


KILLED = """
import os, signal, sys
stage, step, where = sys.argv[1], int(sys.argv[2]), sys.argv[3]
del sys.argv[1:4]
import train_hf_e2e
from merhan.cli.console import configure_output
configure_output()
from merhan.training.trainer import MerhanTrainer

def guarded(original):
    def method(self, *args, **kwargs):
        if self.args.output_dir.endswith(stage) and self.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args, **kwargs)
    return method

setattr(MerhanTrainer, where, guarded(getattr(MerhanTrainer, where)))
train_hf_e2e.main()
"""


def test_a_killed_run_resumes_to_the_very_same_weights(recipe_file, tmp_path):
    """kill -9 amid an epoch of stage 1, then while stage 2 writes a checkpoint; each time --resume.

    Sound and words are others in every epoch: a resumed epoch must draw what it would have drawn.
    """
    noisy = ["--set", "data.augmentation={speed: [0.9, 1.1], noise: {}}", "--set", "data.transcript_noise={}"]

    def run(name: str, *kill: str, resume: bool = False) -> int:
        words = ["--config", str(recipe_file), "--run_name", name, *noisy] + ["--resume"] * resume
        command = [sys.executable, "-c", KILLED, *(kill or ("never", "0", "training_step")), *words]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
        require_clean_log(done.stdout + done.stderr)
        return done.returncode

    outputs = tmp_path / "outputs"
    assert run("whole") == 0
    steps = json.loads(max((outputs / "whole/warmup").glob("checkpoint-*/trainer_state.json")).read_text())["max_steps"]
    assert run("cut", "warmup", str(steps - 2), "training_step") == -signal.SIGKILL
    assert last_checkpoint(outputs / "cut/warmup") and not (outputs / "cut/warmup/model").exists()
    assert run("cut", "finetune", str(steps // 2), "_save_rng_state", resume=True) == -signal.SIGKILL
    half_written = outputs / f"cut/finetune/checkpoint-{steps // 2}"
    assert (half_written / "model.safetensors").exists() and not (half_written / "trainer_state.json").exists()
    assert run("cut", resume=True) == 0
    one, other = (load_file(outputs / name / "model/model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    reports = [without_date(outputs / name / "evaluation/test/metrics.json") for name in ("whole", "cut")]
    assert reports[0] == reports[1]


def test_two_processes_equal_one_with_the_double_batch(recipe_file, tmp_path):
    """DDP over gloo: the loss of every step, and the weights at the end."""
    still = [f"model.config.{name}=0" for name in ("hidden_dropout", "attention_dropout", "classifier_dropout")]
    still += ["model.config.modality_dropout=0", "model.audio_config.apply_spec_augment=false"]
    still += [
        f"model.audio_config.{name}=0.0"
        for name in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
    ]
    still += [f"model.text_config.{name}=0.0" for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")]
    still += ["trainer.logging_steps=1", "stages.0.epochs=1", "stages.1.epochs=1"]

    def run(name: str, processes: int, batch_size: int) -> list[float]:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        changes = [*still, f"trainer.per_device_train_batch_size={batch_size}"]
        words = ["--config", str(recipe_file), "--run_name", name, *(w for c in changes for w in ("--set", c))]
        command = [sys.executable, *launcher, "train_hf_e2e.py", *words]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("| test, audio+text |") == 1, "one process reports"
        folder = tmp_path / "outputs" / name
        logs = []
        for stage in ("warmup", "finetune"):
            state = json.loads(next((folder / stage).glob("checkpoint-*/trainer_state.json")).read_text())
            logs += [entry["loss"] for entry in state["log_history"] if "loss" in entry]
        return logs

    one, two = run("one", 1, 8), run("two", 2, 4)
    assert len(one) == len(two) > 4
    np.testing.assert_allclose(two, one, rtol=1e-4)
    weights = [load_file(tmp_path / "outputs" / name / "model/model.safetensors") for name in ("one", "two")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=2e-4, rtol=1e-3)
