"""From a recipe to a model and its processor."""

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoTokenizer,
    ByT5Tokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaTokenizer,
    Wav2Vec2FeatureExtractor,
)

from merhan.dataset import feature_width
from merhan.errors import InputError
from merhan.feature_cache import cache_folder
from merhan.recipe import DataRecipe, ModelRecipe
from modeling_merhan import MerhanAudioConfig, MerhanConfig, MerhanFeaturesConfig, MerhanForSequenceClassification
from processing_merhan import SAMPLING_RATE, MerhanProcessor


def build_model(recipe: ModelRecipe, labels: Sequence[str], train: pd.DataFrame) -> MerhanForSequenceClassification:
    """Fetch the backbones and put a new fusion and head on them.

    Args:
        recipe: which backbones, and what differs from the defaults.
        labels: of the classes, in their order.
        train: the training rows: class weights are counted, and a tiny tokenizer is trained, on them alone.
    """
    config = dict(recipe.config)
    if config.get("class_weights") == "balanced":
        config["class_weights"] = balanced_weights(train["label"], labels)
    if isinstance(weights := config.get("class_weights"), list) and len(weights) != len(labels):
        raise InputError(f"model.config.class_weights: {len(weights)} for {len(labels)} labels ({', '.join(labels)}).")
    with _explained(recipe):
        audio, text = _audio(recipe, train), _text(recipe, train)
        model = MerhanForSequenceClassification.from_backbones(
            audio,
            text,
            audio_config=recipe.audio_config if isinstance(audio, str) else None,
            text_config=recipe.text_config if isinstance(text, str) else None,
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
            **config,
        )
        model.set_attn_implementation(recipe.attn_implementation)
        if model.regressor is not None:
            # The head begins at the mean of what it is to estimate: far from it, agreement hardly has a slope.
            model.regressor.bias.data = torch.tensor(train[list(config["dimensions"])].mean().to_numpy(np.float32))
        if recipe.checkpoint:
            _begin_with(model, recipe.checkpoint)
        return model


def _begin_with(model: MerhanForSequenceClassification, checkpoint: str):
    """All but the backbones, which are as the recipe names them, and each head where it has the same labels or
    dimensions."""
    known = MerhanForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32)
    theirs = {name: tensor for name, tensor in known.merhan.state_dict().items() if not _in_backbone(name)}
    ours = {name: tensor for name, tensor in model.merhan.state_dict().items() if _in_backbone(name)}
    try:
        model.merhan.load_state_dict(ours | theirs)
    except RuntimeError as error:
        raise ValueError(f"model.checkpoint: the fusion of {checkpoint} is another one ({error})") from None
    if known.config.label2id == model.config.label2id:
        model.classifier.load_state_dict(known.classifier.state_dict())
    if known.regressor is not None and list(known.config.dimensions) == list(model.config.dimensions):
        model.regressor.load_state_dict(known.regressor.state_dict())


def _in_backbone(name: str) -> bool:
    return name.startswith(("audio_backbone.", "text_backbone."))


def build_processor(recipe: ModelRecipe, data: DataRecipe, train: pd.DataFrame) -> MerhanProcessor:
    """The processor that belongs to the backbones, with the recipe's bounds and text template."""
    with _explained(recipe):
        audio, text = _audio(recipe, train), _text(recipe, train)
        feature_extractor = (
            _feature_extractor(audio) if isinstance(audio, str) else Wav2Vec2FeatureExtractor(do_normalize=False)
        )
        tokenizer = _tokenizer(text) if isinstance(text, str) else ByT5Tokenizer(extra_ids=0)
    if feature_extractor.sampling_rate != SAMPLING_RATE:
        raise InputError(f"model.audio_backbone: {audio!r} reads {feature_extractor.sampling_rate} Hz, not 16000.")
    return MerhanProcessor(
        feature_extractor,
        tokenizer,
        modalities=recipe.backbones,
        min_seconds=data.min_seconds,
        max_seconds=data.max_seconds,
        trim_silence=data.trim_silence,
        max_tokens=data.max_tokens,
        context_turns=data.context_turns,
        use_speaker=data.use_speaker,
    )


@contextmanager
def _explained(recipe: ModelRecipe):
    """Turn what transformers says of a backbone into a sentence that names the recipe's key."""
    try:
        yield
    except (OSError, ValueError, TypeError, ImportError, StrictDataclassError) as error:
        raise InputError(
            f"model: cannot be built from audio_backbone {recipe.audio_backbone!r} and text_backbone "
            f"{recipe.text_backbone!r}: {' '.join(str(error).split())}"
        ) from error


def balanced_weights(labels: pd.Series, order: Sequence[str]) -> list[float]:
    """Rows over (classes x rows of the class), as scikit-learn's `balanced`: their mean over the rows is 1."""
    counts = labels.value_counts()
    return [len(labels) / (len(order) * counts[label]) for label in order]


def _audio(recipe: ModelRecipe, train: pd.DataFrame) -> str | PreTrainedConfig | None:
    if recipe.audio_backbone == "features":
        return _features(train, "audio_features")
    if recipe.audio_backbone == "light":
        return MerhanAudioConfig(**recipe.audio_config)
    return str(tiny_audio()) if recipe.audio_backbone == "tiny" else recipe.audio_backbone


def _text(recipe: ModelRecipe, train: pd.DataFrame) -> str | PreTrainedConfig | None:
    if recipe.text_backbone == "features":
        return _features(train, "text_features")
    return str(tiny_text(train["text"])) if recipe.text_backbone == "tiny" else recipe.text_backbone


def _features(train: pd.DataFrame, column: str) -> MerhanFeaturesConfig:
    """As wide as the vectors are."""
    if width := feature_width(train, column):
        return MerhanFeaturesConfig(hidden_size=width)
    raise InputError(f"model: `features` reads the column {column}, and no row of train has any.")


def _is_ours(name: str) -> bool:
    return PreTrainedConfig.get_config_dict(name)[0].get("model_type") == MerhanConfig.model_type


def _feature_extractor(name: str):
    if _is_ours(name):
        return MerhanProcessor.from_pretrained(name, trust_remote_code=False).feature_extractor
    return AutoFeatureExtractor.from_pretrained(name)


def _tokenizer(name: str):
    if _is_ours(name):
        return MerhanProcessor.from_pretrained(name, trust_remote_code=False).tokenizer
    tokenizer = AutoTokenizer.from_pretrained(name)
    limit = AutoConfig.from_pretrained(name).max_position_embeddings
    # RoBERTa counts positions from behind its padding id: two of its places are never reached.
    tokenizer.model_max_length = min(tokenizer.model_max_length, limit - 2)
    return tokenizer


# --- tiny backbones, random, for a trial without a download -----------------------------------------------------------


def tiny_audio(family: str = "wav2vec2") -> Path:
    """A folder with a random backbone of the wav2vec2 family that two cores train in minutes, loaded as a pretrained
    one would be."""
    config = AutoConfig.for_model(
        family,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        conv_dim=(32, 32, 64, 64, 64),
        conv_kernel=(10, 8, 4, 4, 4),
        conv_stride=(5, 4, 2, 4, 2),
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=4,
        mask_time_length=4,
        layerdrop=0.0,
    )

    def save(folder: Path):
        _seeded(config).save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)

    return _made(cache_folder() / "tiny" / f"{family}-{_digest(config.to_json_string())}", save)


def tiny_text(texts: Sequence[str], family: str = "roberta") -> Path:
    """A folder with a random backbone of words and a tokenizer trained on the spot, on the training words alone."""

    def save(folder: Path):
        specials = {token: number for number, token in enumerate(("<s>", "<pad>", "</s>", "<unk>", "<mask>"))}
        untrained = RobertaTokenizer(vocab=specials, merges=[], model_max_length=126)
        tokenizer = untrained.train_new_from_iterator([list(texts)], vocab_size=600, show_progress=False)
        config = AutoConfig.for_model(
            family,
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=128,
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        _seeded(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return _made(cache_folder() / "tiny" / f"{family}-{_digest(*texts)}", save)


def _made(folder: Path, save: Callable[[Path], None]) -> Path:
    """A folder that is there whole or not at all: several runs may begin at once."""
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        save(part)
        try:
            part.rename(folder)
        except OSError:  # another run was faster, and made the same
            shutil.rmtree(part)
    return folder


def _seeded(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModel.from_config(config)


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
