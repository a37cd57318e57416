"""The backbones that a recipe names: where their weights, feature extractors and tokenizers come from."""

from typing import Any

import pandas as pd
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer, PreTrainedConfig

from merhan.data.stored_features import feature_width
from merhan.errors import InputError
from merhan.models.tiny_backbones import tiny_audio, tiny_text
from merhan.recipe.schema import ModelRecipe
from modeling_merhan import MerhanAudioConfig, MerhanConfig, MerhanFeaturesConfig
from processing_merhan import MerhanProcessor


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
    """The tokenizer of a text checkpoint, limited to the tokens that its model has positions for."""
    if _is_merhan(name):
        return MerhanProcessor.from_pretrained(name, trust_remote_code=False).tokenizer
    tokenizer = AutoTokenizer.from_pretrained(name)
    limit = AutoConfig.from_pretrained(name).max_position_embeddings
    # RoBERTa counts positions from its padding id on, so that two of its position embeddings are never used.
    tokenizer.model_max_length = min(tokenizer.model_max_length, limit - 2)
    return tokenizer
