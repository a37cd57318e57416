"""What transformers' test suites need to know about our model and processor; see transformers_suites.py."""

import os
import unittest
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, MODEL_MAPPING_NAMES

from configuration_merhan import MerhanAudioConfig, MerhanConfig
from merhan.models.tiny_backbones import tiny_audio, tiny_text
from modeling_merhan import MerhanForSequenceClassification, MerhanModel
from processing_merhan import MerhanProcessor


GROUP_NORM = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
# Name -> family and fields of the speech backbone, None for the light one; and the family of the text backbone.
PAIRS: dict[str, tuple[str | None, dict[str, Any], str]] = {
    "wav2vec2 + roberta": ("wav2vec2", {}, "roberta"),
    "hubert (group norm) + bert": ("hubert", GROUP_NORM, "bert"),
    "wavlm + distilbert": ("wavlm", {}, "distilbert"),
    "light + electra": (None, {}, "electra"),
}
TEXTS = ["the dinner was lovely", "no", "his answer is ghastly"]
BY_NAME = "hidden states and attention maps come as dictionaries by name, of backbones and fusion, not as one tuple"
REMOTE_CODE = "saving adds `auto_map`, which names the code in the folder; processors inside of transformers have none"
NO_EMBEDDINGS = "`inputs_embeds` is refused by name: stored features are given as `text_features`"
CHECKPOINTING = ("", "_use_reentrant_false", "_use_reentrant_true")
COUNTED_CALLS = "calls of `forward` of a layer are counted, inside of which later versions of transformers checkpoint"
# Test -> why it does not apply. tests/test_contract.py holds what is left of each for this model.
NOT_APPLICABLE = {
    "test_attention_outputs": BY_NAME,
    "test_hidden_states_output": BY_NAME,
    "test_retain_grad_hidden_states_attentions": BY_NAME,
    "test_inputs_embeds": NO_EMBEDDINGS,
    "test_inputs_embeds_matches_input_ids": NO_EMBEDDINGS,
    "test_problem_types": "emotions are single labels; another `problem_type` is refused by name",
    "test_load_with_mismatched_shapes": "token ids are given as the first argument, which here is the waveform",
    **dict.fromkeys((f"test_training_gradient_checkpointing{kind}" for kind in CHECKPOINTING), COUNTED_CALLS),
}
UPSTREAM_INITIALISATION = (
    "of a speech backbone of transformers: its own initialisation differs, and the suite skips models from before 2023"
)
NOT_APPLICABLE_TO_UPSTREAM = {"test_can_init_all_missing_weights": UPSTREAM_INITIALISATION}
NOT_APPLICABLE_TO_PROCESSOR = {
    "test_processor_from_and_save_pretrained": REMOTE_CODE,
    "test_processor_from_and_save_pretrained_as_nested_dict": REMOTE_CODE,
    "test_feature_extractor_defaults": "our processor centres sound before the feature extractor",
}

# What a model inside of transformers is listed in.
MODEL_MAPPING_NAMES["merhan"] = "MerhanModel"
MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES["merhan"] = "MerhanForSequenceClassification"
MerhanConfig.has_no_defaults_at_init = False


def not_applicable(reason: str) -> Callable[[unittest.TestCase], None]:
    """A test that is reported as not applicable."""

    def test(self: unittest.TestCase):
        self.skipTest(f"not applicable: {reason}")

    return test


def pair_config(pair: str, fusion: str) -> MerhanConfig:
    """A tiny model of a pair of `PAIRS` and a fusion."""
    return tiny_config(*PAIRS[pair], fusion)


def tiny_config(audio: str | None, fields: dict[str, Any], text: str, fusion: str, layers: int = 2) -> MerhanConfig:
    """A tiny model of a pair as in `PAIRS`, and a fusion, with so many layers in each backbone."""
    if audio is None:
        audio_config = MerhanAudioConfig(
            hidden_size=16, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=20, spec_augment_masks=0
        )
    else:
        audio_config = AutoConfig.from_pretrained(tiny_audio(audio, mask_time_prob=0.0, **fields))
        audio_config.num_hidden_layers = layers
    text_config = AutoConfig.from_pretrained(tiny_text(TEXTS, text))
    text_config.num_hidden_layers = layers
    return MerhanConfig(
        audio_config=audio_config,
        text_config=text_config,
        fusion=fusion,
        num_labels=3,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=20,
    )


class Inputs:
    """The suite's model tester: a config and a batch of seven rows, of which two are padded.

    Seven, because the suite would fill up fewer rows with random numbers, in masks too.
    """

    batch_size, seq_length, num_labels, is_training = 7, 9, 3, True
    hidden_size, num_hidden_layers, num_attention_heads = 16, 2, 2

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent

    def get_config(self) -> MerhanConfig:
        return pair_config(os.environ["MERHAN_PAIR"], os.environ["MERHAN_FUSION"])

    def prepare_config_and_inputs_for_common(self) -> tuple[MerhanConfig, dict[str, torch.Tensor]]:
        audio_mask, text_mask = torch.ones(7, 4000).long(), torch.ones(7, 9).long()
        audio_mask[1, 2400:] = 0
        text_mask[0, 6:] = 0
        ids = torch.randint(5, 20, (7, 9))
        return self.get_config(), {
            "input_values": torch.randn(7, 4000) * audio_mask,
            "audio_attention_mask": audio_mask,
            "input_ids": torch.where(text_mask.bool(), ids, 1),
            "attention_mask": text_mask,
        }


class ModelTests:
    """Attributes that `ModelTesterMixin` reads."""

    additional_model_inputs = ["audio_attention_mask", "input_ids"]
    is_encoder_decoder = False
    _is_composite = True
    config_tester_class: Any
    _testMethodName: str

    @property
    def all_model_classes(self) -> tuple[type, ...]:
        """Eager and sdpa attention are compared by logits, because hidden states come by name."""
        if "eager_matches_sdpa" in self._testMethodName:
            return (MerhanForSequenceClassification,)
        return MerhanModel, MerhanForSequenceClassification

    def setUp(self):
        self.model_tester = Inputs(self)
        self.config_tester = self.config_tester_class(
            self, config_class=MerhanConfig, has_text_modality=False, common_properties=["hidden_size"]
        )

    def test_config(self):
        self.config_tester.run_common_tests()


class ProcessorTests:
    """Attributes that `ProcessorTesterMixin` reads."""

    processor_class = MerhanProcessor

    @classmethod
    def _setup_feature_extractor(cls):
        return AutoFeatureExtractor.from_pretrained(tiny_audio("wav2vec2"))

    @classmethod
    def _setup_tokenizer(cls):
        return AutoTokenizer.from_pretrained(tiny_text(TEXTS))

    def prepare_text_inputs(self, batch_size: int | None = None, modalities: Any = None) -> list[str]:
        """A list also for one row: the suite gives a string beside a list of one sound, which our processor refuses."""
        return TEXTS[:1] * (batch_size or 1)

    def prepare_audio_inputs(self, batch_size: int | None = None) -> list[dict[str, Any]]:
        """Sound with its sampling rate, without which our processor refuses an array."""
        return [{"array": np.zeros(8000), "sampling_rate": 16_000}] * (batch_size or 1)


_model_reasons = dict(NOT_APPLICABLE)
if "light" not in os.environ.get("MERHAN_PAIR", ""):
    _model_reasons |= NOT_APPLICABLE_TO_UPSTREAM
for _tests, _reasons in ((ModelTests, _model_reasons), (ProcessorTests, NOT_APPLICABLE_TO_PROCESSOR)):
    for _name, _reason in _reasons.items():
        setattr(_tests, _name, not_applicable(_reason))
