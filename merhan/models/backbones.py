"""The backbones that a recipe names: where their weights, feature extractors and tokenizers come from."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoTokenizer,
    BatchFeature,
    PreTrainedConfig,
)

from configuration_merhan import MerhanAudioConfig, MerhanConfig, MerhanFeaturesConfig
from merhan.data.stored_features import feature_width
from merhan.errors import InputError
from merhan.hub_ids import checkpoint_source
from merhan.models.tiny_backbones import tiny_audio, tiny_text
from merhan.recipe.schema import ModelRecipe
from modeling_merhan import (
    Backbone,
    MerhanForSequenceClassification,
    MerhanModel,
    MerhanPreTrainedModel,
    backbone_options,
    build_backbone,
    encoder_of,
)
from processing_merhan import SAMPLING_RATE, MerhanProcessor


Model = TypeVar("Model", bound=MerhanPreTrainedModel)


def from_backbones(
    model_class: type[Model],
    audio: str | PreTrainedConfig | None = None,
    text: str | PreTrainedConfig | None = None,
    audio_config: dict | None = None,
    text_config: dict | None = None,
    **config_fields,
) -> Model:
    """Build a model over pretrained backbones, with a randomly initialised fusion and head.

    Args:
        model_class: `MerhanForSequenceClassification` or `MerhanModel`.
        audio: Hub id or local folder of a speech checkpoint. The head of one that has a head (`Wav2Vec2ForCTC`) is left
            out; of a MER-HAN checkpoint the speech backbone is taken. A config gives a random backbone, `None` a model
            of text alone.
        text: the same for text.
        audio_config, text_config: fields of the backbone's own config to change.
        config_fields: any field of [`MerhanConfig`], as `id2label`.

    Raises:
        ValueError: names weights that the checkpoint lacks or that have no place in the backbone, or an unknown field.
    """
    # A config accepts unknown fields, to read those of other versions; here they are typing errors.
    unknown = set(config_fields) - {field.name for field in fields(MerhanConfig)} - {"num_labels"}
    if unknown:
        raise ValueError(f"MerhanConfig has no field {', '.join(sorted(unknown))}.")
    audio_backbone, own_audio_config = _load_backbone(audio, audio_config, "audio")
    text_backbone, own_text_config = _load_backbone(text, text_config, "text")
    backbones = [backbone for backbone in (audio_backbone, text_backbone) if backbone is not None]
    attention = [backbone.config._attn_implementation for backbone in backbones]
    config = MerhanConfig(audio_config=own_audio_config, text_config=own_text_config, **config_fields)
    model = model_class(config, audio_backbone, text_backbone)
    # A config that becomes part of another one loses its attention implementation, and without one, backbones that
    # exist already would silently attend to padding. Those without sdpa (MPNet) keep the one that they had.
    for backbone, implementation in zip(backbones, attention, strict=True):
        backbone.config._attn_implementation_internal = implementation
    model.set_attn_implementation(model.config._attn_implementation)
    return model


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
    return PreTrainedConfig.get_config_dict(**checkpoint_source(name))[0].get("model_type") == MerhanConfig.model_type


def load_feature_extractor(name: str) -> Any:
    """The feature extractor of a speech checkpoint, which may be a MER-HAN model."""
    if _is_merhan(name):
        return MerhanProcessor.from_pretrained(**checkpoint_source(name), trust_remote_code=False).feature_extractor
    return AutoFeatureExtractor.from_pretrained(**checkpoint_source(name))


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a text checkpoint, limited to the tokens that its model has positions for.

    Raises:
        ValueError: the tokenizer has no padding token.
    """
    if _is_merhan(name):
        return MerhanProcessor.from_pretrained(**checkpoint_source(name), trust_remote_code=False).tokenizer
    tokenizer = AutoTokenizer.from_pretrained(**checkpoint_source(name))
    if tokenizer.pad_token_id is None:
        raise ValueError(f"the tokenizer of {name!r} has no padding token; choose a model whose tokenizer has one.")
    limit = position_limit(AutoConfig.from_pretrained(**checkpoint_source(name)))
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


def _load_backbone(
    name: str | PreTrainedConfig | None, changes: dict | None, modality: str
) -> tuple[Backbone, PreTrainedConfig | None]:
    """The backbone of a checkpoint, or a random one of a config; and the config to build it again from."""
    if name is None or isinstance(name, PreTrainedConfig):
        return build_backbone(name), name
    if _is_merhan(name):
        return _backbone_of_merhan(name, changes, modality)
    source = checkpoint_source(name)
    config, unknown = AutoConfig.from_pretrained(**source, return_unused_kwargs=True, **(changes or {}))
    if unknown:
        raise ValueError(f"The config of {name!r} has no field {', '.join(unknown)}.")
    for field_name in ("layerdrop", "encoder_layerdrop"):
        if hasattr(config, field_name):
            # LayerDrop leaves parameters without a gradient, on which DDP fails (speechbrain/speechbrain#701, #2340).
            setattr(config, field_name, 0.0)
    model, info = AutoModel.from_pretrained(
        **source, config=config, dtype=torch.float32, output_loading_info=True, **backbone_options(config)
    )
    # Some keys may differ: the SpecAugment vector, used in training only (facebook/wav2vec2-base-960h lacks it),
    # position ids, which are recomputed, and a head on top of the backbone.
    missing = [key for key in info["missing_keys"] if not key.endswith("masked_spec_embed")]
    own = {name for name, _ in model.named_children()} | {model.base_model_prefix}
    unexpected = [key for key in info["unexpected_keys"] if key.split(".")[0] in own and "position_ids" not in key]
    _require_matching_weights(name, missing, unexpected)
    return encoder_of(model), model.config


def _backbone_of_merhan(name: str, changes: dict | None, modality: str) -> tuple[Backbone, PreTrainedConfig | None]:
    """The backbone of a MER-HAN checkpoint, with the weights that it was trained to, and its config."""
    if changes:
        raise ValueError(f"The config of a backbone of {name!r} cannot be changed; leave out {', '.join(changes)}.")
    model = MerhanModel.from_pretrained(**checkpoint_source(name), dtype=torch.float32)
    backbone = getattr(model, f"{modality}_backbone")
    if backbone is None:
        raise ValueError(f"The model {name!r} has no {modality} backbone.")
    return backbone, getattr(model.config, f"{modality}_config")


def _require_matching_weights(name: str, missing: list[str], unexpected: list[str]):
    """Raise ValueError if a checkpoint lacks weights of the backbone or has others."""
    keys = sorted(missing or unexpected)
    if keys:
        problem = "has weights without a place in the backbone"
        if missing:
            problem = "lacks weights, which would stay random"
        more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
        raise ValueError(
            f"Checkpoint {name!r} {problem}: {', '.join(keys[:5])}{more}. Check that config.json and weights belong "
            f"together."
        )


def check_backbones(
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    recipe: ModelRecipe,
    precisions: Mapping[str, torch.dtype] | None = None,
):
    """Run each backbone on two rows of different lengths, so that one that cannot be used is found at once.

    Args:
        precisions: half precisions of autocast in which they will run too, by their name in a recipe's `trainer`.

    Raises:
        InputError: names the recipe's key, the backbone and its family.
    """
    model.eval()
    for modality in recipe.backbones:
        rows = _two_rows(processor, modality)
        _require_encoding(model, rows, recipe, modality)
        device = PartialState().device  # autocast of a CPU is not that of a GPU
        for name, precision in (precisions or {}).items():
            with torch.autocast(device.type, precision):
                _require_encoding(model.to(device), rows.to(device), recipe, modality, name)
    model.cpu()  # where it was


def _require_encoding(
    model: MerhanForSequenceClassification,
    rows: BatchFeature,
    recipe: ModelRecipe,
    modality: str,
    precision: str | None = None,
):
    """Raise InputError where the backbone of a modality cannot encode rows; `precision` is that of autocast."""
    try:
        with torch.no_grad():
            encoded = model.merhan.encode(modality, *rows.values())
            model.merhan.fusion({modality: encoded})
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        name, family = getattr(recipe, f"{modality}_backbone"), getattr(model.config, f"{modality}_config").model_type
        fault, remedy = f"cannot encode {modality}", "choose another backbone"
        if precision is not None:
            fault, remedy = f"cannot compute in {precision}", f"set trainer.{precision}: false"
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"model.{modality}_backbone: {name!r} (family {family}) {fault}: {reason}; {remedy}."
        ) from error


def _two_rows(processor: MerhanProcessor, modality: str) -> BatchFeature:
    """A batch of noise or of words, the second row shorter than the first."""
    if modality == "text":
        return processor.pad([None, None], [processor.encode_text(text) for text in ("one two three four", "one")])
    rng = np.random.default_rng(0)
    sounds = [rng.standard_normal(round(seconds * SAMPLING_RATE)).astype(np.float32) for seconds in (1.0, 0.6)]
    return processor.pad(sounds, [None, None])
