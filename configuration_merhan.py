# Copyright 2026 The MER-HAN Authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Configuration of MER-HAN: of the whole model, of its light speech backbone, and of stored features.

This file is copied beside every checkpoint, as `modeling_merhan.py` is, and imports nothing of this project.
"""

from dataclasses import field
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig


# What the fields of these names may hold; `FUSIONS` in modeling_merhan.py has a class for each fusion.
CHOICES = {
    "fusion": (
        "hybrid",
        "cross",
        "concat",
        "gated",
        "adaptive",
        "attention_pooling",
        "fine_grained",
        "memocmt",
        "modality_tokens",
    ),
    "fusion_parts": ("local", "cross", "global"),
    "pooling": ("statistics", "mean", "mean_std", "attention", "first", "min", "max"),
}


@strict
class MerhanAudioConfig(PreTrainedConfig):
    r"""
    Configuration of [`MerhanAudioModel`], a light speech backbone that trains from scratch: log-mel or MFCC
    features that are computed inside the model, strided convolutions over time, and a small transformer.
    """

    model_type = "merhan_audio"

    feature_type: Literal["log_mel", "mfcc"] = "log_mel"
    sampling_rate: int = 16_000  # samples per second of `input_values`
    frame_length: int = 400  # samples in one analysis window, 25 ms
    frame_shift: int = 160  # samples from one window to the next, 10 ms
    fft_length: int = 512
    num_mel_bins: int = 64  # bands between 20 Hz and half the sampling rate
    num_mfcc: int = 40  # number of cepstral coefficients, for "mfcc" only
    conv_kernel: tuple[int, ...] | list[int] = (5, 5)  # size of each convolution in frames, odd
    conv_stride: tuple[int, ...] | list[int] = (2, 2)  # stride of each convolution in frames
    hidden_size: int = 128
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    intermediate_size: int = 512
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    layer_norm_eps: float | int = 1e-5
    initializer_range: float | int = 0.02
    spec_augment_masks: int = 2  # per axis and utterance, in training only (SpecAugment, Park et al. 2019, 1904.08779)
    mask_time_length: int = 25  # widest time mask, in frames of `frame_shift`
    mask_feature_length: int = 12  # widest frequency mask, in bands

    def validate_convolutions(self):
        """Kernels and strides must be equally many, and kernels odd, because those do not shift frames."""
        if len(self.conv_kernel) != len(self.conv_stride) or not all(kernel % 2 for kernel in self.conv_kernel):
            raise ValueError(
                f"conv_kernel {self.conv_kernel} and conv_stride {self.conv_stride} must have equal lengths, and "
                f"kernels must be odd."
            )

    @property
    def feature_size(self) -> int:
        """Width of one spectral frame, which holds its features in two normalisations."""
        width = self.num_mel_bins if self.feature_type == "log_mel" else self.num_mfcc
        return 2 * width


@strict
class MerhanFeaturesConfig(PreTrainedConfig):
    """Takes the place of a backbone's config where the model reads stored features, as those of emotion2vec."""

    model_type = "merhan_features"

    hidden_size: int = 768


for _config in (MerhanAudioConfig, MerhanFeaturesConfig):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)


def _backbone_config(model_type: str, **values: Any) -> PreTrainedConfig:
    """The config of a backbone; of our own ones from this file, because another copy of it may be registered."""
    for own in (MerhanAudioConfig, MerhanFeaturesConfig):
        if own.model_type == model_type:
            return own(**values)
    return AutoConfig.for_model(model_type, **values)


@strict
class MerhanConfig(PreTrainedConfig):
    """Configuration of [`MerhanModel`] and [`MerhanForSequenceClassification`]."""

    model_type = "merhan"
    sub_configs = {"audio_config": AutoConfig, "text_config": AutoConfig}
    # So that Trainer.predict returns the logits alone, or logits and dimensions.
    keys_to_ignore_at_inference = ["pooler_output", "hidden_states", "attentions"]

    # Configs of the backbones; without one, the model reads the other modality alone. Speech: the wav2vec2 family
    # (wav2vec2, HuBERT, WavLM, ...) or `MerhanAudioConfig`. Text: RoBERTa, BERT, DistilBERT, ... Either:
    # `MerhanFeaturesConfig`.
    audio_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    fusion: str = "hybrid"  # how the modalities are fused, by a class in `FUSIONS` of the model file
    fusion_parts: list[str] | tuple[str, ...] = ("local", "cross", "global")  # attention layers of the hybrid fusion
    pooling: str = "statistics"  # how a sequence becomes a vector, see `MerhanPooling`
    layer_mixing: bool = False  # read a learned weighted sum of all layers of a backbone in place of the last one
    hidden_size: int = 256  # width of the fusion
    num_attention_heads: int = 4
    intermediate_size: int = 512
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    classifier_dropout: float | int = 0.1
    # In training, the share of the rows with both modalities that lose one, so that the model also reads either alone.
    modality_dropout: float | int = 0.0
    layer_norm_eps: float | int = 1e-5
    initializer_range: float | int = 0.02
    label_smoothing: float | int = 0.0  # share of the target that is spread uniformly over all labels
    focal_gamma: float | int = 0.0  # focusing exponent, 0 = cross-entropy (arXiv 1708.02002)
    class_weights: list[float | int] | tuple[float | int, ...] | None = None  # factor per label on the loss of its rows
    dimensions: list[str] | tuple[str, ...] = ()  # outputs of a second head, as ["valence", "arousal", "dominance"]
    dimension_weight: float | int = 1.0  # factor on the loss of the dimensions
    # Temperatures by which the pipeline divides the logits before the softmax, so that its scores are calibrated: one
    # each for "audio+text", "audio" and "text", 1 by default; fitted on validation rows after training (Guo et al.
    # 2017, arXiv 1706.04599). The model's `logits` are not divided.
    temperature: dict[str, float | int] = field(default_factory=dict)
    # The same names -> number of validation rows, where none of them was wrong, so that they bound the temperature.
    temperature_rows: dict[str, int] = field(default_factory=dict)

    def __post_init__(self, **kwargs):
        for name in self.sub_configs:
            values = getattr(self, name)
            if isinstance(values, dict):
                setattr(self, name, _backbone_config(**values))
        super().__post_init__(**kwargs)

    def validate_choices(self):
        """Fusion, its parts and pooling must be known ones."""
        for name, known in CHOICES.items():
            value = getattr(self, name)
            chosen = {value} if isinstance(value, str) else set(value)
            if not chosen <= set(known):
                unknown = ", ".join(sorted(chosen - set(known)))
                raise ValueError(f"{name}: unknown {unknown}; known are {', '.join(known)}.")

    def validate_ranges(self):
        """Shares must be in [0, 1], class weights one per label, and the problem single-label classification."""
        for name in (
            "modality_dropout",
            "label_smoothing",
            "hidden_dropout",
            "attention_dropout",
            "classifier_dropout",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a share from 0 to 1.")
        if self.class_weights is not None and len(self.class_weights) != self.num_labels:
            raise ValueError(f"class_weights has {len(self.class_weights)} weights for {self.num_labels} labels.")
        if self.problem_type not in (None, "single_label_classification"):
            raise ValueError(f"problem_type {self.problem_type!r} is not supported; emotions are single labels.")

    def to_dict(self) -> dict[str, Any]:
        """As usual, but without the paths that the backbones were loaded from."""
        output = super().to_dict()
        for name in self.sub_configs:
            if output.get(name) is not None:
                output[name].pop("_name_or_path", None)
        return output

    @property
    def modalities(self) -> list[str]:
        """The modalities that the model reads: `["audio", "text"]`, `["audio"]` or `["text"]`."""
        return [name for name in ("audio", "text") if getattr(self, f"{name}_config") is not None]


MerhanConfig.register_for_auto_class()

__all__ = ["MerhanAudioConfig", "MerhanConfig", "MerhanFeaturesConfig"]
