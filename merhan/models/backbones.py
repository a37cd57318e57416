"""The backbones that a recipe names: where their weights, feature extractors and tokenizers come from."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoTokenizer,
    BatchFeature,
    PreTrainedConfig,
)

from merhan.data.stored_features import feature_width
from merhan.errors import InputError
from merhan.models.tiny_backbones import tiny_audio, tiny_text
from merhan.recipe.schema import ModelRecipe
from modeling_merhan import MerhanAudioConfig, MerhanConfig, MerhanFeaturesConfig, MerhanForSequenceClassification
from processing_merhan import SAMPLING_RATE, MerhanProcessor


def audio_source(recipe: ModelRecipe, train: pd.DataFrame) -> str | PreTrainedConfig | None:
    """Name or folder of a checkpoint, or the config of a backbone without one."""
    match recipe.audio_backbone:
        case "features":
            return _features_config(train, "audio_features")
        case "light":
            return MerhanAudioConfig(**recipe.audio_config)
        case "tiny":
            return str(tiny_audio())
    return recipe.audio_backbone


def text_source(recipe: ModelRecipe, train: pd.DataFrame) -> str | PreTrainedConfig | None:
    """Name or folder of a checkpoint, or the config of stored features."""
    match recipe.text_backbone:
        case "features":
            return _features_config(train, "text_features")
        case "tiny":
            return str(tiny_text(train["text"]))
    return recipe.text_backbone


def _features_config(train: pd.DataFrame, column: str) -> MerhanFeaturesConfig:
    width = feature_width(train, column)
    if width is None:
        raise InputError(f"model: `features` reads the column {column}, and no training row has any; fill that column.")
    return MerhanFeaturesConfig(hidden_size=width)


def _is_merhan(name: str) -> bool:
    return PreTrainedConfig.get_config_dict(name)[0].get("model_type") == MerhanConfig.model_type


def load_feature_extractor(name: str) -> Any:
    """The feature extractor of a speech checkpoint, which may be a MER-HAN model."""
    if _is_merhan(name):
        return MerhanProcessor.from_pretrained(name, trust_remote_code=False).feature_extractor
    return AutoFeatureExtractor.from_pretrained(name)


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a text checkpoint, limited to the tokens that its model has positions for.

    Raises:
        ValueError: the tokenizer has no padding token.
    """
    if _is_merhan(name):
        return MerhanProcessor.from_pretrained(name, trust_remote_code=False).tokenizer
    tokenizer = AutoTokenizer.from_pretrained(name)
    if tokenizer.pad_token_id is None:
        raise ValueError(f"the tokenizer of {name!r} has no padding token; choose a model whose tokenizer has one.")
    limit = position_limit(AutoConfig.from_pretrained(name))
    if limit is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, limit)
    return tokenizer


def position_limit(config: PreTrainedConfig) -> int | None:
    """The maximum number of tokens that a text model has positions for; None for relative positions (T5, XLNet)."""
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    for name, module in model.named_modules():
        # RoBERTa and its kind count positions from behind the padding id, so the first ones are never used.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return limit - module.padding_idx - 1
    return limit


def check_backbones(model: MerhanForSequenceClassification, processor: MerhanProcessor, recipe: ModelRecipe):
    """Run each backbone once on two rows of different lengths, so that one that cannot be used is found at once.

    Raises:
        InputError: names the recipe's key, the backbone and its family.
    """
    model.eval()
    for modality in recipe.backbones:
        values, mask = _two_rows(processor, modality).values()
        backbone = getattr(model.merhan, f"{modality}_backbone")
        try:
            with torch.no_grad():
                encoded = model.merhan.encode(modality, values, mask)
                model.merhan.fusion({modality: encoded})
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
            name, reason = getattr(recipe, f"{modality}_backbone"), " ".join(str(error).split())[:300]
            raise InputError(
                f"model.{modality}_backbone: {name!r} (family {backbone.config.model_type}) cannot encode {modality}: "
                f"{reason}; choose another backbone."
            ) from error


def _two_rows(processor: MerhanProcessor, modality: str) -> BatchFeature:
    """A batch of noise or of words, the second row shorter than the first."""
    if modality == "text":
        return processor.pad([None, None], [processor.encode_text(text) for text in ("one two three four", "one")])
    rng = np.random.default_rng(0)
    sounds = [rng.standard_normal(round(seconds * SAMPLING_RATE)).astype(np.float32) for seconds in (1.0, 0.6)]
    return processor.pad(sounds, [None, None])
