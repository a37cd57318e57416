"""Tiny random backbones, tokenizers trained on the spot, a small demo corpus. No test needs the network."""

import os
import tempfile


# Before transformers and huggingface_hub are imported, because they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # the tests run in as many processes as there are cores
# Of its own for each process that runs tests: transformers copies the code of checkpoints there.
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="merhan-modules-")

import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from transformers import RobertaConfig, Wav2Vec2Config, Wav2Vec2FeatureExtractor
from transformers.utils.logging import disable_progress_bar

from configuration_merhan import MerhanAudioConfig, MerhanConfig
from merhan.data.corpora.base import read_corpus
from merhan.models.building import build_model, build_processor
from merhan.recipe.schema import DataRecipe, ModelRecipe
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import EmotionRecognitionPipeline, MerhanProcessor


torch.set_num_threads(1)
disable_progress_bar()
# Loading a backbone without its head reports the head's weights as unused, every time.
logging.getLogger("transformers.modeling_utils").addFilter(lambda record: "LOAD REPORT" not in record.getMessage())

LABELS = ["anger", "calm", "joy", "sadness"]
LABEL2ID = {label: number for number, label in enumerate(LABELS)}


def pytest_sessionfinish():
    shutil.rmtree(os.environ["HF_MODULES_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """No test reads or writes the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["MERHAN_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real corpora; a clone without it skips the tests that read them."""
    if not os.environ.get("MERHAN_CORPORA"):
        pytest.skip("MERHAN_CORPORA is not set: real corpora are not here")
    return Path(os.environ["MERHAN_CORPORA"])


def audio_config(kind: str):
    if kind == "light":
        return MerhanAudioConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    return Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16, 16, 16),
        conv_kernel=(10, 3, 3),
        conv_stride=(5, 2, 2),
        feat_extract_norm=kind,
        do_stable_layer_norm=kind == "layer",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        layerdrop=0.0,
    )


def text_config():
    return RobertaConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )


def tiny_config(kind: str | None = "layer", text: bool = True, **fields) -> MerhanConfig:
    return MerhanConfig(
        audio_config=audio_config(kind) if kind else None,
        text_config=text_config() if text else None,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        id2label=dict(enumerate(LABELS)),
        label2id=LABEL2ID,
        **fields,
    )


@pytest.fixture
def make_model():
    """Make a tiny model in eval mode, its weights scaled up so that every path matters to the logits."""

    def make(kind: str | None = "layer", text: bool = True, seed: int = 0, **fields) -> MerhanForSequenceClassification:
        torch.manual_seed(seed)
        model = MerhanForSequenceClassification(tiny_config(kind, text, **fields)).eval()
        with torch.no_grad():
            for parameter in model.merhan.fusion.parameters():
                parameter.mul_(5)
        return model

    return make


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Three utterances: short with few words, long with many, and one without sound."""
    generator = torch.Generator().manual_seed(1)
    audio_mask = torch.ones(3, 8000, dtype=torch.long)
    audio_mask[0, 5000:] = 0
    audio_mask[2] = 0
    text_mask = torch.ones(3, 12, dtype=torch.long)
    text_mask[0, 7:] = 0
    ids = torch.randint(5, 60, (3, 12), generator=generator)
    return {
        "input_values": torch.randn(3, 8000, generator=generator) * audio_mask,
        "audio_attention_mask": audio_mask,
        "input_ids": torch.where(text_mask.bool(), ids, 1),
        "attention_mask": text_mask,
    }


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> pd.DataFrame:
    """A small built-in corpus with durations."""
    return read_corpus("demo", tmp_path_factory.mktemp("demo"), scale=0.1).rows


@pytest.fixture(scope="session")
def tiny_recipe() -> ModelRecipe:
    return ModelRecipe(audio_backbone="tiny", text_backbone="tiny", config={"hidden_size": 32, "intermediate_size": 32})


@pytest.fixture(scope="session")
def processor(demo, tiny_recipe) -> MerhanProcessor:
    return build_processor(tiny_recipe, DataRecipe(max_seconds=3.0), demo)


@pytest.fixture
def trained_like(demo, tiny_recipe):
    """A model over tiny backbones that were saved and loaded, as real ones are."""
    torch.manual_seed(0)
    return build_model(tiny_recipe, LABELS, demo)


@pytest.fixture
def recogniser(trained_like, processor):
    return EmotionRecognitionPipeline(model=trained_like.eval(), processor=processor, device="cpu")


@pytest.fixture
def tone(tmp_path):
    """Write a second of a tone and return its path."""

    def write(name: str = "tone.wav", seconds: float = 1.0, rate: int = 16_000, channels: int = 1, **options) -> Path:
        time = np.arange(round(seconds * rate)) / rate
        wave = 0.5 * np.sin(2 * np.pi * 440 * time)
        soundfile.write(tmp_path / name, np.stack([wave] * channels, axis=1), rate, **options)
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def feature_extractor() -> Wav2Vec2FeatureExtractor:
    return Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
