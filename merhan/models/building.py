"""From a recipe to a model and its processor."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    ByT5Tokenizer,
    Wav2Vec2FeatureExtractor,
)

from merhan.content_hashes import require_intact
from merhan.errors import InputError
from merhan.hub_ids import checkpoint_source
from merhan.models.backbones import audio_source, from_backbones, load_feature_extractor, load_tokenizer, text_source
from merhan.recipe.schema import DataRecipe, ModelRecipe
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import SAMPLING_RATE, MerhanProcessor


def build_model(recipe: ModelRecipe, labels: Sequence[str], train: pd.DataFrame) -> MerhanForSequenceClassification:
    """Load the backbones and put a new fusion and new heads on them.

    Args:
        recipe: the backbones, and the config fields that differ from the defaults.
        labels: the classes, in their order.
        train: the training rows; class weights, the mean of dimensions and a tiny tokenizer come from them alone.

    Raises:
        InputError: the model cannot be built; names the recipe's key.
    """
    fields = {
        **_model_fields(recipe, labels, train),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    with _named_errors(recipe):
        audio, text = audio_source(recipe, train), text_source(recipe, train)
        model = from_backbones(
            MerhanForSequenceClassification,
            audio,
            text,
            audio_config=recipe.audio_config if isinstance(audio, str) else None,
            text_config=recipe.text_config if isinstance(text, str) else None,
            **fields,
        )
        model.set_attn_implementation(recipe.attn_implementation)
        if model.regressor is not None:
            # The head starts at the mean of its targets: far from it, the concordance loss has hardly any gradient.
            means = train[list(fields["dimensions"])].mean().to_numpy(np.float32)
            model.regressor.bias.data = torch.tensor(means)
        if recipe.checkpoint:
            _initialise_from(model, recipe.checkpoint)
        return model


def build_processor(recipe: ModelRecipe, data: DataRecipe, train: pd.DataFrame) -> MerhanProcessor:
    """The processor of the backbones, with the recipe's limits and text template.

    A modality that no backbone encodes gets a placeholder that is never called, because a processor of transformers 5
    needs both parts.

    Raises:
        InputError: a part cannot be loaded, or the speech backbone does not read 16 kHz.
    """
    feature_extractor: Any = Wav2Vec2FeatureExtractor(do_normalize=False)
    tokenizer: Any = ByT5Tokenizer(extra_ids=0)
    with _named_errors(recipe):
        audio, text = audio_source(recipe, train), text_source(recipe, train)
        if isinstance(audio, str):
            feature_extractor = load_feature_extractor(audio)
        if isinstance(text, str):
            tokenizer = load_tokenizer(text)
    _check_length(feature_extractor, recipe, data)
    if feature_extractor.sampling_rate != SAMPLING_RATE:
        raise InputError(
            f"model.audio_backbone: {audio!r} reads {feature_extractor.sampling_rate} Hz; choose one that reads 16000."
        )
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


def _check_length(feature_extractor: Any, recipe: ModelRecipe, data: DataRecipe):
    """Whisper reads a fixed length, and silently cuts what is longer."""
    longest = getattr(feature_extractor, "chunk_length", None)
    if isinstance(longest, int) and (data.max_seconds is None or data.max_seconds > longest):
        raise InputError(
            f"data.max_seconds is {data.max_seconds}, and {recipe.audio_backbone!r} reads at most {longest} s; set it "
            f"to {longest} or less."
        )


def balanced_weights(labels: pd.Series, order: Sequence[str]) -> list[float]:
    """Class weights in the order of the classes: rows / (classes * rows of the class), as scikit-learn's `balanced`."""
    counts = labels.value_counts()
    return [len(labels) / (len(order) * counts[label]) for label in order]


def _model_fields(recipe: ModelRecipe, labels: Sequence[str], train: pd.DataFrame) -> dict[str, Any]:
    """The recipe's fields of MerhanConfig, with class weights as numbers."""
    fields = dict(recipe.config)
    weights = fields.get("class_weights")
    if weights == "balanced":
        fields["class_weights"] = balanced_weights(train["label"], labels)
    elif isinstance(weights, list) and len(weights) != len(labels):
        raise InputError(
            f"model.config.class_weights: {len(weights)} weights for {len(labels)} labels ({', '.join(labels)})."
        )
    return fields


def _initialise_from(model: MerhanForSequenceClassification, checkpoint: str):
    """Copy the fusion of a checkpoint, and each head if its labels or dimensions are the same. Backbones stay."""
    require_intact(checkpoint, "restore it, or delete hashes.json there if the change is meant")
    source = MerhanForSequenceClassification.from_pretrained(**checkpoint_source(checkpoint), dtype=torch.float32)
    new = {name: tensor for name, tensor in source.merhan.state_dict().items() if not _is_in_backbone(name)}
    own = {name: tensor for name, tensor in model.merhan.state_dict().items() if _is_in_backbone(name)}
    try:
        model.merhan.load_state_dict(own | new)
    except RuntimeError as error:
        raise ValueError(
            f"model.checkpoint: the fusion of {checkpoint} is another one than the recipe's ({error})"
        ) from None
    if source.config.label2id == model.config.label2id:
        model.classifier.load_state_dict(source.classifier.state_dict())
    same_dimensions = list(source.config.dimensions) == list(model.config.dimensions)
    if source.regressor is not None and model.regressor is not None and same_dimensions:
        model.regressor.load_state_dict(source.regressor.state_dict())


def _is_in_backbone(name: str) -> bool:
    return name.startswith(("audio_backbone.", "text_backbone."))


@contextmanager
def _named_errors(recipe: ModelRecipe) -> Iterator[None]:
    """Turn errors of transformers about a backbone into one sentence that names the recipe's keys."""
    try:
        yield
    except (OSError, ValueError, TypeError, ImportError, StrictDataclassError) as error:
        raise InputError(
            f"model: cannot be built from audio_backbone {recipe.audio_backbone!r} and text_backbone "
            f"{recipe.text_backbone!r}: {' '.join(str(error).split())}"
        ) from error
