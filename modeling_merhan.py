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
"""MER-HAN: emotion from speech and its words, by hybrid attention over a speech and a text backbone.

    input_values (batch, samples)                input_ids (batch, tokens)
          |  audio backbone                            |  text backbone
    (batch, frames, audio_width) + mask          (batch, tokens, text_width) + mask
          |  project, local attention                  |  project, local attention
          |  cross attention  <---- each queries ----> |  cross attention
          +------------ global attention --------------+      over frames and tokens together
          |  pool over time                            |  pool over time
          +-- sum, norm -> logits (batch, num_labels) -+

A tensor and its mask travel together from backbone to pooling, so padding never reaches a result. A row without audio
or without words gets one learned token in its place. After Zhang et al. 2023, "Multimodal emotion recognition based on
audio and text by using hybrid attention networks", Biomed. Signal Process. Control 85:105052.

This file is copied beside every checkpoint and loads alone: it imports nothing of this project.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Literal, NamedTuple

import torch
import torchaudio.functional
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput


@strict
class MerhanAudioConfig(PreTrainedConfig):
    r"""
    The light audio backbone, for people without a pretrained one or without a GPU: log-mel or MFCC computed inside the
    model, strided convolutions over time, and a small transformer. It trains from scratch.
    """

    model_type = "merhan_audio"

    feature_type: Literal["log_mel", "mfcc"] = "log_mel"
    sampling_rate: int = 16_000  # samples per second of `input_values`
    frame_length: int = 400  # samples in one analysis window, 25 ms
    frame_shift: int = 160  # samples from one window to the next, 10 ms
    fft_length: int = 512
    num_mel_bins: int = 64  # bands between 20 Hz and half the sampling rate
    num_mfcc: int = 40  # cepstral coefficients kept, read for "mfcc" only
    conv_kernel: tuple[int, ...] | list[int] = (5, 5)  # of each convolution, in frames, odd
    conv_stride: tuple[int, ...] | list[int] = (2, 2)  # of each convolution, in frames
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
        """Each convolution has a kernel and a stride, and an odd kernel, which keeps frames in their places."""
        if len(self.conv_kernel) != len(self.conv_stride) or not all(kernel % 2 for kernel in self.conv_kernel):
            raise ValueError(
                f"conv_kernel {self.conv_kernel} and conv_stride {self.conv_stride} must be of one length, kernels odd."
            )

    @property
    def feature_size(self) -> int:
        """Width of one spectral frame: its features, seen in two ways."""
        return 2 * (self.num_mel_bins if self.feature_type == "log_mel" else self.num_mfcc)


@strict
class MerhanFeaturesConfig(PreTrainedConfig):
    """In a backbone's place: the model has none, and is given features of this width (emotion2vec, for one)."""

    model_type = "merhan_features"

    hidden_size: int = 768


for _config in (MerhanAudioConfig, MerhanFeaturesConfig):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)


@strict
class MerhanConfig(PreTrainedConfig):
    """Configuration of [`MerhanModel`] and [`MerhanForSequenceClassification`]."""

    model_type = "merhan"
    sub_configs = {"audio_config": AutoConfig, "text_config": AutoConfig}
    # Trainer.predict must return the logits alone, or logits and dimensions.
    keys_to_ignore_at_inference = ["pooler_output", "attentions"]

    # Backbones; None gives a model of the other modality alone. Speech: the wav2vec2 family (wav2vec2, HuBERT, WavLM,
    # ...) or `MerhanAudioConfig`. Text: RoBERTa, BERT, DistilBERT, ... Either: `MerhanFeaturesConfig`.
    audio_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    fusion: str = "hybrid"  # a key of `FUSIONS`
    fusion_parts: list[str] | tuple[str, ...] = ("local", "cross", "global")  # of the hybrid, to leave some out
    pooling: str = "statistics"  # how a sequence becomes a vector, see `MerhanPooling`
    layer_mixing: bool = False  # read a learned mixture of all of a backbone's layers in place of the last one
    hidden_size: int = 256  # width of the fusion
    num_attention_heads: int = 4
    intermediate_size: int = 512
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    classifier_dropout: float | int = 0.1
    # In training, the share of the rows with both modalities that lose one, so that one model serves either and both.
    modality_dropout: float | int = 0.0
    layer_norm_eps: float | int = 1e-5
    initializer_range: float | int = 0.02
    label_smoothing: float | int = 0.0  # share of the target spread evenly over all labels
    focal_gamma: float | int = 0.0  # focusing exponent, 0 = cross-entropy (arXiv 1708.02002)
    class_weights: list[float | int] | tuple[float | int, ...] | None = None  # a factor per label on its rows' loss
    dimensions: list[str] | tuple[str, ...] = ()  # what a second head estimates, as ["valence", "arousal", "dominance"]
    dimension_weight: float | int = 1.0  # of their loss, beside the labels'
    # What the pipeline divides logits by before the softmax, so that its scores are chances that can be trusted: for
    # "audio+text", "audio" and "text" each its own, 1 where there is none; fitted on validation after training (Guo et
    # al. 2017, arXiv 1706.04599). `logits` are as before it.
    temperature: dict[str, float | int] = field(default_factory=dict)

    def __post_init__(self, **kwargs):
        for name in self.sub_configs:
            if isinstance(values := getattr(self, name), dict):
                setattr(self, name, AutoConfig.for_model(**values))
        super().__post_init__(**kwargs)

    def validate_choices(self):
        """Fusion, its parts and pooling are among those that there are."""
        for name, known in CHOICES.items():
            given = getattr(self, name)
            if unknown := {given} - set(known) if isinstance(given, str) else set(given) - set(known):
                raise ValueError(f"{name}: there is no {', '.join(sorted(unknown))}, but {', '.join(known)}.")

    @property
    def modalities(self) -> list[str]:
        """What the model reads: `["audio", "text"]`, `["audio"]` or `["text"]`."""
        return [name for name in ("audio", "text") if getattr(self, f"{name}_config") is not None]


class Modality(NamedTuple):
    """What one modality gives for a batch, and where it is real."""

    states: Tensor  # (batch, length, width)
    mask: Tensor  # (batch, length) bool, True = real
    present: Tensor | None = None  # (batch, 1) bool, False = a learned token stands in; known to the fusion alone


Backbone = PreTrainedModel | None
Modalities = dict[str, Modality]
Maps = dict[str, Tensor] | None  # attention weights by name, None where nobody asks for them


@dataclass
class MerhanModelOutput(ModelOutput):
    """What [`MerhanModel`] gives. With `output_attentions=True`, attention weights by name, each `(batch, heads,
    queries, keys)` after softmax, 0 on padded keys; what a padded query attends to means nothing. Of the hybrid:
    `audio_local`, `text_local`, `audio_to_text` (frames query tokens), `text_to_audio`, `global` (frames, tokens)."""

    pooler_output: torch.FloatTensor | None = None  # (batch, hidden_size), the fused utterance
    attentions: dict[str, torch.FloatTensor] | None = None


@dataclass
class MerhanSequenceClassifierOutput(ModelOutput):
    """What [`MerhanForSequenceClassification`] gives, [`MerhanModelOutput`] included."""

    loss: torch.FloatTensor | None = None  # with `labels`: the plain mean over the rows
    logits: torch.FloatTensor | None = None  # (batch, num_labels), before softmax
    dimensions: torch.FloatTensor | None = None  # (batch, config.dimensions), on the scale they were given on
    pooler_output: torch.FloatTensor | None = None
    attentions: dict[str, torch.FloatTensor] | None = None


def eager_attention_forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **options
) -> tuple[Tensor, Tensor]:
    """Attention that shows its weights. The mask is additive, or boolean (True = attend) as sdpa wants it."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if mask is not None:
        hidden = ~mask if mask.dtype == torch.bool else mask < 0
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, options.get("dropout", 0.0), module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class MerhanAttention(nn.Module):
    """Multi-head attention of one sequence over itself or over another one."""

    def __init__(self, config: MerhanConfig | MerhanAudioConfig):
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(f"hidden_size {config.hidden_size} is no multiple of num_attention_heads.")
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        # The interface is causal unless told otherwise (hf_v5 F9: sdpa and eager would differ without an error).
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None, keys: Tensor, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, queries, hidden)` over `(batch, keys, hidden)`; weights come back only when asked for."""
        interface: Callable = eager_attention_forward
        if not output_attentions:
            interface = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        query, key, value = self.q_proj(hidden_states), self.k_proj(keys), self.v_proj(keys)
        heads = (states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for states in (query, key, value))
        dropout = self.config.attention_dropout if self.training else 0.0
        output, weights = interface(self, *heads, attention_mask, scaling=self.scaling, dropout=dropout)
        return self.out_proj(output.flatten(2)), weights if output_attentions else None


class MerhanBlock(GradientCheckpointingLayer):
    """Pre-norm attention and feed-forward, each with a residual. Without `keys` it attends to itself."""

    def __init__(self, config: MerhanConfig | MerhanAudioConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = MerhanAttention(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self, states: Tensor, mask: Tensor | None = None, keys: Tensor | None = None, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        queries = self.attention_norm(states)
        keys = queries if keys is None else self.attention_norm(keys)
        attended, weights = self.attention(queries, mask, keys, output_attentions)
        states = states + self.dropout(attended)
        expanded = self.activation(self.intermediate(self.feed_forward_norm(states)))
        return states + self.dropout(self.output(expanded)), weights


class MerhanPooling(nn.Module):
    """A sequence as one vector, padding aside: attentive mean and deviation (`statistics`, Okabe et al. 2018, arXiv
    1803.10963), the attentive mean alone (`attention`), the same with equal weights (`mean_std`, `mean`), the first
    position (`first`, RoBERTa's `<s>`), or each feature's extreme (`min`, `max`)."""

    def __init__(self, config: MerhanConfig):
        super().__init__()
        self.kind = config.pooling
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # CODEPATH: equal weights need no parameters, and one that no loss reaches is what DDP does not forgive.
        if self.kind in ("statistics", "attention"):
            self.query = nn.Linear(config.hidden_size, config.hidden_size)
            self.score = nn.Linear(config.hidden_size, 1)
        parts = 2 if self.kind in ("statistics", "mean_std") else 1
        self.dense = nn.Linear(parts * config.hidden_size, config.hidden_size)

    def forward(self, modality: Modality) -> Tensor:
        """`(batch, length, hidden)` and its mask -> `(batch, hidden)`."""
        states, mask = self.norm(modality.states), modality.mask[..., None]
        if self.kind in ("min", "max"):
            sign = 1 if self.kind == "max" else -1
            return self.dense(sign * (sign * states).masked_fill(~mask, torch.finfo(states.dtype).min).amax(dim=1))
        if self.kind == "first":
            mask = mask & (mask.cumsum(dim=1) == 1)
        learned = self.kind in ("statistics", "attention")
        scores = self.score(torch.tanh(self.query(states))).float() if learned else torch.zeros_like(mask).float()
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=1)
        pooled = mean = (weights * states).sum(dim=1)
        if self.kind in ("statistics", "mean_std"):
            variance = (weights * (states - mean[:, None]) ** 2).sum(dim=1)
            # The floor keeps the square root's slope finite where a sequence has one position.
            pooled = torch.cat([mean, variance.clamp(min=1e-5).sqrt()], dim=-1)
        return self.dense(pooled.to(self.dense.weight.dtype))


# --- fusions ----------------------------------------------------------------------------------------------------------


class MerhanFusion(nn.Module):
    """What all fusions share: one width, a learned token in place of a missing modality, attention that is recorded.

    A fusion is a subclass with a line in `FUSIONS` and `fuse`: all of the model's modalities at one width, each with a
    real position in every row -> `(batch, hidden)`. What else it has, it makes in `extend`; raw parameters of its own
    start as small noise.
    """

    # Part -> what makes it of the config: each modality has its own, as `audio_<part>`. And what makes cross attention.
    own: dict[str, Callable[[MerhanConfig], nn.Module]] = {"pooling": MerhanPooling}
    crossing: Callable[[MerhanConfig], nn.Module] | None = None

    def __init__(self, config: MerhanConfig):
        super().__init__()
        self.config = config
        # CODEPATH: a single-modality checkpoint has neither the other modality's modules nor cross attention.
        for name in config.modalities:
            source = getattr(config, f"{name}_config")
            # CODEPATH: a wav2vec2 with an adapter on top (facebook/wav2vec2-xls-r-300m-en-to-15) has another width.
            width = source.output_hidden_size if getattr(source, "add_adapter", False) else source.hidden_size
            setattr(self, f"{name}_projection", nn.Linear(width, config.hidden_size))
            setattr(self, f"missing_{name}", nn.Parameter(torch.empty(config.hidden_size)))
            for part, make in self.own.items():
                setattr(self, f"{name}_{part}", make(config))
        if self.crossing and len(config.modalities) == 2:  # CODEPATH: as above
            self.audio_to_text, self.text_to_audio = self.crossing(config), self.crossing(config)
        self.extend(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def extend(self, config: MerhanConfig):
        """Modules and parameters of this fusion alone."""

    def forward(self, inputs: Modalities, maps: Maps = None) -> Tensor:
        """Backbone outputs (an absent key: every row lacks that modality) -> `(batch, hidden)`; `maps` is filled."""
        return self.norm(self.fuse({name: self._project(name, inputs) for name in self.config.modalities}, maps))

    def attend(self, maps: Maps, name: str, block: nn.Module, query: Modality, key: Modality) -> Modality:
        """`query` over `key`; the weights go into `maps` under a name."""
        mask = create_bidirectional_mask(self.config, query.states, key.mask.long(), encoder_hidden_states=key.states)
        states, weights = block(query.states, mask, key.states, maps is not None)
        if maps is not None:
            maps[name] = weights
        return query._replace(states=states)

    def cross(self, inputs: Modalities, maps: Maps) -> Modalities:
        """Each modality over the other one, where there is cross attention; else they stay as they are."""
        if not hasattr(self, "audio_to_text"):
            return inputs
        audio, text = inputs["audio"], inputs["text"]
        frames = self.attend(maps, "audio_to_text", self.audio_to_text, audio, text)
        return {"audio": frames, "text": self.attend(maps, "text_to_audio", self.text_to_audio, text, audio)}

    def pool(self, inputs: Modalities) -> list[Tensor]:
        """Each modality by its own pooling, `(batch, hidden)` each."""
        return [getattr(self, f"{name}_pooling")(modality) for name, modality in inputs.items()]

    def _project(self, name: str, inputs: Modalities) -> Modality:
        """Project one modality; a row of it without any real position becomes the learned token, with a live mask.

        (A fully masked row would be zeros under sdpa and the mean of its padding under eager: hf_v5 F10.)
        """
        token = getattr(self, f"missing_{name}")
        if name not in inputs:
            absent = _learned(token[None], next(iter(inputs.values())))
            return absent._replace(present=~absent.mask)
        states, mask, _ = inputs[name]
        states = getattr(self, f"{name}_projection")(states)
        present = mask.any(dim=1, keepdim=True)
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        states = torch.where(present[..., None], states, token.to(states.dtype))
        return Modality(states, torch.where(present, mask, first), present)


def _learned(tokens: Tensor, like: Modality) -> Modality:
    """Learned `(length, hidden)` as a sequence for every row of a batch."""
    tokens = tokens.expand(len(like.mask), -1, -1)
    return Modality(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


def _joined(*parts: Modality) -> Modality:
    """Sequences one after another."""
    return Modality(torch.cat([part.states for part in parts], dim=1), torch.cat([part.mask for part in parts], dim=1))


class MerhanHybridFusion(MerhanFusion):
    """Local attention within each modality, cross attention between them, global attention over both: the MER-HAN paper
    (Zhang et al. 2023), melike1818/MultimodalEmotionRecognition."""

    def __init__(self, config: MerhanConfig):
        self.parts = config.fusion_parts
        self.own = {"local": MerhanBlock, **self.own} if "local" in self.parts else self.own
        self.crossing = MerhanBlock if "cross" in self.parts else None
        super().__init__(config)

    def extend(self, config: MerhanConfig):
        if "global" in self.parts:
            self.global_attention = MerhanBlock(config)

    def fuse(self, inputs: Modalities, maps: Maps) -> Tensor:
        for name, one in inputs.items() if "local" in self.parts else ():
            inputs[name] = self.attend(maps, f"{name}_local", getattr(self, f"{name}_local"), one, one)
        inputs = self.cross(inputs, maps)
        if "global" in self.parts:
            both = _joined(*inputs.values())
            both = self.attend(maps, "global", self.global_attention, both, both)
            parts = both.states.split([modality.mask.shape[1] for modality in inputs.values()], dim=1)
            inputs = {name: one._replace(states=part) for (name, one), part in zip(inputs.items(), parts, strict=True)}
        return sum(self.pool(inputs))


class MerhanConcatFusion(MerhanFusion):
    """Early fusion: pooled modalities side by side, through an MLP. union-point/emotion_detection, `early_fusion`."""

    def extend(self, config: MerhanConfig):
        self.intermediate = nn.Linear(len(config.modalities) * config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)

    def fuse(self, inputs: Modalities, maps: Maps) -> Tensor:
        hidden = self.activation(self.intermediate(torch.cat(self.pool(inputs), dim=-1)))
        return self.output(self.dropout(hidden))


class MerhanCrossFusion(MerhanConcatFusion):
    """Frames attend to tokens and tokens to frames, then as `concat`. wasef-c/Emotion2VecBert (there over one key,
    which is no attention); MulT, Tsai et al. 2019, arXiv 1906.00295."""

    crossing = MerhanBlock

    def fuse(self, inputs: Modalities, maps: Maps) -> Tensor:
        return super().fuse(self.cross(inputs, maps), maps)


class MerhanFineGrainedFusion(MerhanConcatFusion):
    """Each frame x beside the words y that attention aligns with it, each token beside its frames, then as `concat`.
    union-point/emotion_detection; Xu et al. 2019, arXiv 1909.05645; `[x, y, x - y, x y]` of ESIM, arXiv 1609.06038."""

    own = MerhanFusion.own | {"comparison": lambda config: nn.Linear(4 * config.hidden_size, config.hidden_size)}
    crossing = MerhanAttention

    def fuse(self, inputs: Modalities, maps: Maps) -> Tensor:
        aligned = self.cross(inputs, maps)
        for name, own in inputs.items():
            x, y = own.states, aligned[name].states
            compared = getattr(self, f"{name}_comparison")(torch.cat([x, y, x - y, x * y], dim=-1))
            aligned[name] = own._replace(states=x + self.activation(compared))
        return super().fuse(aligned, maps)


class MerhanAttentionPoolingFusion(MerhanConcatFusion):
    """A learned query reads each modality, then as `concat`; `pooling` plays no part. union-point/emotion_detection,
    there with one head and no mask; Lee et al. 2019, arXiv 1810.00825."""

    own = {"reader": MerhanBlock, "query": lambda config: nn.Parameter(torch.empty(1, config.hidden_size))}

    def fuse(self, inputs: Modalities, maps: Maps) -> Tensor:
        for name, one in inputs.items():
            query = _learned(getattr(self, f"{name}_query"), one)
            inputs[name] = self.attend(maps, f"{name}_pooling", getattr(self, f"{name}_reader"), query, one)
        return super().fuse(inputs, maps)

    def pool(self, inputs: Modalities) -> list[Tensor]:
        return [modality.states[:, 0] for modality in inputs.values()]


class MerhanGatedFusion(MerhanFusion):
    """A gate per feature and modality, read from the utterance's statistics, without context. SMIL-SPCRAS/MER (with
    `pooling: mean_std`); Arevalo et al. 2017, arXiv 1702.01992, whose sigmoid is a softmax over two."""

    def extend(self, config: MerhanConfig):
        self.gate = nn.Linear(*[len(config.modalities) * config.hidden_size] * 2)

    def fuse(self, inputs: Modalities, maps: Maps) -> Tensor:
        pooled = torch.stack(self.pool(inputs), dim=1)
        gates = self.gate(pooled.flatten(1)).view_as(pooled).softmax(dim=1)
        return (gates * torch.tanh(pooled)).sum(dim=1)


class MerhanAdaptiveFusion(MerhanFusion):
    """Modalities weighted by how reliable each is in this utterance and by whether it is there (the map `modalities`).
    Both are learned, the latter from `modality_dropout`. wasef-c/Emotion2VecBert, there a switch between branches."""

    def extend(self, config: MerhanConfig):
        self.reliability = nn.Linear(config.hidden_size + 1, 1)

    def fuse(self, inputs: Modalities, maps: Maps) -> Tensor:
        pooled = torch.stack(self.pool(inputs), dim=1)
        present = torch.stack([one.present for one in inputs.values()], dim=1).to(pooled.dtype)
        weights = self.reliability(torch.cat([pooled, present], dim=-1)).softmax(dim=1)
        if maps is not None:
            maps["modalities"] = weights.mT[:, None]
        return (weights * pooled).sum(dim=1)


class MerhanMemoCMTFusion(MerhanFusion):
    """Cross-modal transformer, then one pooling over frames and tokens together: `first` (its CLS), `min` (its best),
    `max` or `mean`. MemoCMT, Khan et al. 2025, doi 10.1038/s41598-025-89202-x."""

    own = {}
    crossing = MerhanBlock

    def extend(self, config: MerhanConfig):
        self.pooling = MerhanPooling(config)

    def fuse(self, inputs: Modalities, maps: Maps) -> Tensor:
        return self.pooling(_joined(*reversed(self.cross(inputs, maps).values())))  # words first, for their CLS


class MerhanModalityTokensFusion(MerhanFusion):
    """A learned token per modality, which also marks its frames or words (ViLT, arXiv 2102.03334), two joint layers,
    the mean of the tokens; `pooling` plays no part. Vally16768/MER, there over pooled vectors."""

    own = {}

    def extend(self, config: MerhanConfig):
        self.tokens = nn.Parameter(torch.empty(len(config.modalities), config.hidden_size))
        self.layers = nn.ModuleList(MerhanBlock(config) for _ in range(2))

    def fuse(self, inputs: Modalities, maps: Maps) -> Tensor:
        marked = [x._replace(states=x.states + token) for token, x in zip(self.tokens, inputs.values(), strict=True)]
        both = _joined(_learned(self.tokens, marked[0]), *marked)
        for number, layer in enumerate(self.layers):
            both = self.attend(maps, f"joint_{number}", layer, both, both)
        return both.states[:, : len(inputs)].mean(dim=1)


FUSIONS = {
    "hybrid": MerhanHybridFusion,
    "cross": MerhanCrossFusion,
    "concat": MerhanConcatFusion,
    "gated": MerhanGatedFusion,
    "adaptive": MerhanAdaptiveFusion,
    "attention_pooling": MerhanAttentionPoolingFusion,
    "fine_grained": MerhanFineGrainedFusion,
    "memocmt": MerhanMemoCMTFusion,
    "modality_tokens": MerhanModalityTokensFusion,
}
POOLINGS = ("statistics", "mean", "mean_std", "attention", "first", "min", "max")
CHOICES = {"fusion": FUSIONS, "fusion_parts": ("local", "cross", "global"), "pooling": POOLINGS}


class MerhanAudioModel(PreTrainedModel):
    """The light audio backbone: `input_values` (batch, samples) at 16 kHz -> `(batch, frames, hidden_size)`.

    Speaks the wav2vec2 family's language, so that the fusion treats both alike. Padding of zeros behind the real
    samples, told by `attention_mask`, changes no real frame.
    """

    config: MerhanAudioConfig
    base_model_prefix = "merhan_audio"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["MerhanBlock"]

    def __init__(self, config: MerhanAudioConfig):
        super().__init__(config)
        # Filled in _init_weights: from_pretrained builds on the meta device, where nothing has a value (hf_v5 F11).
        self.window = nn.Buffer(torch.empty(config.frame_length))
        self.filterbank = nn.Buffer(torch.empty(config.fft_length // 2 + 1, config.num_mel_bins))
        self.cosine = nn.Buffer(torch.empty(config.num_mel_bins, config.num_mfcc))
        widths = [config.feature_size] + [config.hidden_size] * len(config.conv_kernel)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, config.hidden_size, kernel, stride, padding=kernel // 2)
            for width, kernel, stride in zip(widths, config.conv_kernel, config.conv_stride, strict=False)
        )
        self.conv_norms = nn.ModuleList(
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) for _ in config.conv_kernel
        )
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(MerhanBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, nn.Conv1d):
            init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, MerhanAudioModel):
            config = module.config
            filterbank = torchaudio.functional.melscale_fbanks(
                config.fft_length // 2 + 1, 20.0, config.sampling_rate / 2, config.num_mel_bins, config.sampling_rate
            )
            init.copy_(module.window, torch.hann_window(config.frame_length))
            init.copy_(module.filterbank, filterbank)
            init.copy_(module.cosine, torchaudio.functional.create_dct(config.num_mfcc, config.num_mel_bins, "ortho"))

    def forward(
        self, input_values: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False, **kwargs
    ) -> BaseModelOutput:
        if attention_mask is None:
            attention_mask = torch.ones_like(input_values, dtype=torch.long)
        lengths = self._num_spectral_frames(attention_mask.sum(dim=1))
        # Spectral analysis keeps full precision under bf16 and fp16 autocast.
        with torch.autocast(input_values.device.type, enabled=False):
            hidden_states, mask = self._spectral_frames(input_values.float() * attention_mask, lengths)
        hidden_states = hidden_states.to(self.dtype)
        for convolution, norm, stride in zip(self.convolutions, self.conv_norms, self.config.conv_stride, strict=True):
            # Zeros behind the end are what the convolution's own padding is, so a row alone sees the same.
            hidden_states = convolution((hidden_states * mask[..., None]).transpose(1, 2)).transpose(1, 2)
            hidden_states = self.activation(norm(hidden_states))
            lengths = torch.div(lengths - 1, stride, rounding_mode="floor") + 1
            mask = _length_mask(lengths, hidden_states.shape[1])
        hidden_states = self.dropout(hidden_states + self._positions(hidden_states))
        attention_mask = create_bidirectional_mask(self.config, hidden_states, mask.long())
        layers = [hidden_states]
        for layer in self.layers:
            layers.append(layer(layers[-1], attention_mask)[0])
        layers[-1] = self.norm(layers[-1])
        return BaseModelOutput(layers[-1], hidden_states=tuple(layers) if output_hidden_states else None)

    def _spectral_frames(self, waveform: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel or MFCC frames -> `(batch, frames, feature_size)`, standardised over the real part of each utterance.

        Twice side by side: as they are, where the tilt of the spectrum tells arousal; and without each feature's own
        mean, where voices and microphones of another tilt look alike. One learns from both, and hangs on neither.
        """
        config = self.config
        half = config.fft_length // 2
        power = torchaudio.functional.spectrogram(
            nn.functional.pad(waveform, (half, half)),
            pad=0,
            window=self.window.float(),
            n_fft=config.fft_length,
            hop_length=config.frame_shift,
            win_length=config.frame_length,
            power=2.0,
            normalized=False,
            center=False,
        )
        frames = torch.log(power.transpose(1, 2) @ self.filterbank.float() + 1e-6)
        # CODEPATH: feature_type is the user's choice per recipe; MFCC is what the MER-HAN paper used.
        if config.feature_type == "mfcc":
            frames = frames @ self.cosine.float()
        mask = _length_mask(lengths, frames.shape[1])
        frames = _standardise(frames, mask)
        means = frames.sum(dim=1, keepdim=True) / mask.sum(dim=1)[:, None, None]
        frames = torch.cat([frames, (frames - means) * mask[..., None]], dim=-1)
        if self.training:
            frames = self._spec_augment(frames)
        return frames, mask

    def _spec_augment(self, frames: torch.Tensor) -> torch.Tensor:
        """SpecAugment: stretches of time and of frequency become the utterance's mean, which is 0 here."""
        for axis, widest in ((1, self.config.mask_time_length), (2, self.config.mask_feature_length)):
            for _ in range(self.config.spec_augment_masks if widest else 0):
                frames = torchaudio.functional.mask_along_axis_iid(frames[:, None], widest, 0.0, axis + 1)[:, 0]
        return frames

    def _positions(self, states: Tensor) -> Tensor:
        """Sinusoidal positions (Vaswani et al. 2017), computed on the fly: no longest length, no buffer."""
        half = self.config.hidden_size // 2
        rate = torch.exp(torch.arange(half, device=states.device) * (-math.log(10_000.0) / half))
        angle = torch.arange(states.shape[1], device=states.device)[:, None] * rate
        return torch.cat([angle.sin(), angle.cos()], dim=-1).to(states.dtype)

    def _num_spectral_frames(self, num_samples: Tensor) -> Tensor:
        return torch.div(num_samples, self.config.frame_shift, rounding_mode="floor") + 1

    def _get_feature_vector_attention_mask(self, feature_vector_length: int, attention_mask: Tensor) -> Tensor:
        """Mask over samples -> mask over output frames, under the name that the wav2vec2 family gives it."""
        lengths = self._num_spectral_frames(attention_mask.sum(dim=1))
        for stride in self.config.conv_stride:
            lengths = torch.div(lengths - 1, stride, rounding_mode="floor") + 1
        return _length_mask(lengths, feature_vector_length)


AutoModel.register(MerhanAudioConfig, MerhanAudioModel, exist_ok=True)


def _length_mask(lengths: Tensor, size: int) -> Tensor:
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def _standardise(frames: Tensor, mask: Tensor) -> Tensor:
    """Zero mean and unit deviation of each utterance over its real frames and all features together; 0 on padding.

    One mean for all features takes away the microphone's gain and leaves the tilt of the spectrum.
    """
    mask = mask[..., None]
    count = mask.sum(dim=(1, 2), keepdim=True) * frames.shape[2]
    frames = (frames - (frames * mask).sum(dim=(1, 2), keepdim=True) / count) * mask
    deviation = ((frames**2).sum(dim=(1, 2), keepdim=True) / count).sqrt()
    return frames / (deviation + 1e-5)


class MerhanPreTrainedModel(PreTrainedModel):
    config: MerhanConfig
    base_model_prefix = "merhan"
    main_input_name = "input_values"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["MerhanBlock"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, MerhanFusion):
            for token in module.parameters(recurse=False):
                init.normal_(token, std=self.config.initializer_range)
        elif isinstance(module, MerhanModel):
            for mixing in module.parameters(recurse=False):
                init.zeros_(mixing)

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Also names every auto class and the pipeline that can load the folder (hf_v5 C2, C10)."""
        classifier = "AutoModelForSequenceClassification"
        names = {"AutoConfig": "MerhanConfig", "AutoModel": "MerhanModel"}
        names |= dict.fromkeys(("AutoModelForAudioClassification", classifier), "MerhanForSequenceClassification")
        self.config.auto_map = {auto: f"modeling_merhan.{name}" for auto, name in names.items()}
        pipeline = {"impl": "processing_merhan.EmotionRecognitionPipeline", "pt": [classifier]}
        self.config.custom_pipelines = {"emotion-recognition": pipeline}
        super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def from_backbones(
        cls,
        audio: str | PreTrainedConfig | None = None,
        text: str | PreTrainedConfig | None = None,
        audio_config: dict | None = None,
        text_config: dict | None = None,
        **config_fields,
    ) -> "MerhanPreTrainedModel":
        """Build a model over pretrained backbones; fusion and head start at random.

        Args:
            audio: Hub id or local folder of a speech checkpoint; one with a head (`Wav2Vec2ForCTC`) serves too, without
                it, and so does a MER-HAN checkpoint, for its speech backbone. A config gives a backbone at random.
                `None` gives a model of words alone.
            text: the same for words.
            audio_config, text_config: fields of the backbone's own config to change.
            config_fields: any field of [`MerhanConfig`], `id2label` for one.

        Raises:
            ValueError: names backbone weights that are missing or have no place, or a config field that is none.
        """
        # A config takes any field without a word, to read what other versions wrote; here a typo would cost a training.
        if unknown := set(config_fields) - {field.name for field in fields(MerhanConfig)} - {"num_labels"}:
            raise ValueError(f"MerhanConfig has no field {', '.join(sorted(unknown))}.")
        backbones = _load_backbone(audio, audio_config, "audio"), _load_backbone(text, text_config, "text")
        configs = [getattr(one, "config", source) for one, source in zip(backbones, (audio, text), strict=True)]
        model = cls(MerhanConfig(audio_config=configs[0], text_config=configs[1], **config_fields), *backbones)
        # A config that takes in another one erases its attention implementation; without one, backbones that are built
        # already would attend to padding without a word.
        model.set_attn_implementation(model.config._attn_implementation)
        return model


class MerhanModel(MerhanPreTrainedModel):
    """Two backbones and their fusion, without a head. Backbones given to `__init__` are used as they are; otherwise
    they are built from their configs, at random, for `from_pretrained` to fill."""

    def __init__(self, config: MerhanConfig, audio_backbone: Backbone = None, text_backbone: Backbone = None):
        super().__init__(config)
        if not config.modalities:
            raise ValueError("MerhanConfig needs audio_config, text_config or both; it has neither.")
        self.audio_backbone = audio_backbone or _build_backbone(config.audio_config)
        self.text_backbone = text_backbone or _build_backbone(config.text_config)
        # CODEPATH: layer mixing is the recipe's choice. A softmax of these weighs what enters a backbone's layers and
        # what leaves the last one (SUPERB, Yang et al. 2021, arXiv 2105.01051).
        for name in config.modalities if config.layer_mixing else ():
            if backbone := getattr(self, f"{name}_backbone"):
                setattr(self, f"{name}_mixing", nn.Parameter(torch.empty(backbone.config.num_hidden_layers + 1)))
        self.fusion = FUSIONS[config.fusion](config)
        self.post_init()

    def train(self, mode: bool = True) -> "MerhanModel":
        """As usual, but a backbone or a part of one without a trainable parameter stays in eval mode: frozen is not
        enough, dropout, LayerDrop and SpecAugment would go on changing what the head learns from."""
        super().train(mode)
        for backbone in (self.audio_backbone, self.text_backbone):
            if backbone is not None:
                _rest_where_frozen(backbone)
        return self

    def forward(
        self,
        input_values: Tensor | None = None,  # (batch, samples) float, mono, 16 kHz
        audio_attention_mask: Tensor | None = None,  # (batch, samples)
        input_ids: Tensor | None = None,  # (batch, tokens)
        attention_mask: Tensor | None = None,  # (batch, tokens)
        audio_features: Tensor | None = None,  # (batch, frames, audio_width), the backbone's output, given as it is
        audio_features_mask: Tensor | None = None,  # (batch, frames)
        text_features: Tensor | None = None,  # (batch, tokens, text_width), as audio_features
        text_features_mask: Tensor | None = None,  # (batch, tokens)
        output_attentions: bool = False,  # return attention maps by name, under any attention implementation
    ) -> MerhanModelOutput:
        """Every tensor is optional, at least one modality is needed. Masks: 1 = real; a row of zeros = this row lacks
        the modality. Without a mask everything is real."""
        audio = self._given("audio", input_values, audio_attention_mask, audio_features, audio_features_mask)
        text = self._given("text", input_ids, attention_mask, text_features, text_features_mask)
        given = {name: one for name, one in (("audio", audio), ("text", text)) if one is not None}
        if not given:
            raise ValueError(f"This model reads {' and '.join(self.config.modalities)}, but was given neither.")
        # CODEPATH: modality dropout is the recipe's choice; a released checkpoint is not in training mode.
        if self.training and self.config.modality_dropout > 0 and len(given) == 2:
            given = self._drop_modalities(**given)
        maps = {} if output_attentions else None
        return MerhanModelOutput(pooler_output=self.fusion(given, maps), attentions=maps)

    def encode(self, name: str, values: Tensor, mask: Tensor | None = None) -> Modality:
        """`(batch, samples)` or `(batch, tokens)` -> what the backbone makes of it, and which positions are real."""
        backbone, mixing = getattr(self, f"{name}_backbone"), getattr(self, f"{name}_mixing", None)
        mask = torch.ones_like(values, dtype=torch.long) if mask is None else mask
        # The backbone never sees a fully masked row; the fusion replaces what it makes of it.
        present = mask.any(dim=1, keepdim=True)
        seen = torch.where(present, mask, 1)
        # Under bf16 or fp16 weights, sound comes in their precision; the light backbone makes its spectrum before.
        if name == "audio" and not isinstance(backbone, MerhanAudioModel):
            values = values.to(backbone.dtype)
        outputs = backbone(values, attention_mask=seen, output_hidden_states=mixing is not None)
        states = outputs.last_hidden_state
        if mixing is not None:  # of the last layer the output: wav2vec2's hidden states do not have its final norm
            states = torch.stack([*outputs.hidden_states[:-1], states], dim=-1) @ mixing.softmax(dim=0)
        if name == "audio":
            seen = backbone._get_feature_vector_attention_mask(states.shape[1], seen)
        return Modality(states, seen.bool() & present)

    def _drop_modalities(self, audio: Modality, text: Modality) -> Modalities:
        """Take one modality away from a share of the rows that have both."""
        share = self.config.modality_dropout / 2
        draw = torch.rand(audio.mask.shape[0], 1, device=audio.mask.device)
        has_both = audio.mask.any(dim=1, keepdim=True) & text.mask.any(dim=1, keepdim=True)
        audio_mask, text_mask = audio.mask & ~(has_both & (draw < share)), text.mask & ~(has_both & (draw >= 1 - share))
        return {"audio": audio._replace(mask=audio_mask), "text": text._replace(mask=text_mask)}

    def _given(
        self, name: str, raw: Tensor | None, mask: Tensor | None, features: Tensor | None, features_mask: Tensor | None
    ) -> Modality | None:
        """Features as they came, with everything real where no mask says otherwise; else the backbone's own."""
        if raw is None and features is None:
            return None
        if name not in self.config.modalities:
            raise ValueError(f"This model reads {' and '.join(self.config.modalities)}, but was given {name}.")
        if features is None and getattr(self, f"{name}_backbone") is None:
            raise ValueError(f"This model has no {name} backbone; give {name}_features as it was trained on.")
        if features is None:
            return self.encode(name, raw, mask)
        if hasattr(self, f"{name}_mixing"):
            raise ValueError(f"layer_mixing reads all layers of the {name} backbone, {name}_features are its last.")
        real = torch.ones(features.shape[:2], device=features.device) if features_mask is None else features_mask
        return Modality(features, real.bool())


def _rest_where_frozen(module: nn.Module):
    """Eval mode for the largest parts that have parameters, none of them trainable."""
    trainable = [parameter.requires_grad for parameter in module.parameters()]
    if trainable and not any(trainable):
        module.eval()
    elif trainable:
        for child in module.children():
            _rest_where_frozen(child)


class MerhanForSequenceClassification(MerhanPreTrainedModel):
    """An emotion for each utterance: [`MerhanModel`] and a linear head."""

    # Our loss is the mean over rows: Trainer itself must divide it by the accumulation steps (hf_v5 F1).
    accepts_loss_kwargs = False

    def __init__(self, config: MerhanConfig, audio_backbone: Backbone = None, text_backbone: Backbone = None):
        super().__init__(config)
        self.merhan = MerhanModel(config, audio_backbone, text_backbone)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        # CODEPATH: dimensions are the recipe's choice; a checkpoint of labels alone has no such head.
        self.regressor = nn.Linear(config.hidden_size, len(config.dimensions)) if config.dimensions else None
        self.post_init()

    def forward(
        self,
        input_values: Tensor | None = None,
        audio_attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        audio_features: Tensor | None = None,
        audio_features_mask: Tensor | None = None,
        text_features: Tensor | None = None,
        text_features_mask: Tensor | None = None,
        labels: Tensor | None = None,  # class ids (batch,), or (batch, num_labels) distributions that sum to 1
        dimension_targets: Tensor | None = None,  # (batch, config.dimensions) float, NaN = not annotated
        output_attentions: bool = False,
    ) -> MerhanSequenceClassifierOutput:
        """Inputs as in [`MerhanModel.forward`]."""
        audio, text = (audio_features, audio_features_mask), (text_features, text_features_mask)
        raw = input_values, audio_attention_mask, input_ids, attention_mask
        outputs = self.merhan(*raw, *audio, *text, output_attentions)
        pooled = self.dropout(outputs.pooler_output)
        logits, dimensions = self.classifier(pooled), self.regressor(pooled) if self.regressor else None
        loss = None if labels is None else emotion_loss(logits, labels, self.config)
        if loss is not None and dimensions is not None and dimension_targets is not None:
            loss = loss + self.config.dimension_weight * concordance_loss(dimensions, dimension_targets)
        return MerhanSequenceClassifierOutput(loss, logits, dimensions, outputs.pooler_output, outputs.attentions)


def emotion_loss(logits: Tensor, labels: Tensor, config: MerhanConfig, row_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of `(batch, num_labels)` with class ids `(batch,)` or distributions `(batch, num_labels)`, each row
    times its `row_weights` `(batch,)`.

    The plain mean over rows, also with class weights (PyTorch would divide by the weights of the batch at hand): so the
    gradient does not depend on how a batch is cut into accumulation steps or processes.
    """
    log_probabilities = logits.float().log_softmax(dim=-1)
    if labels.dim() == 1:
        labels = nn.functional.one_hot(labels, config.num_labels)
    targets = labels.to(log_probabilities.dtype)
    targets = (1 - config.label_smoothing) * targets + config.label_smoothing / config.num_labels
    # CODEPATH: the next two are the recipe's choice; they shape training and leave no trace in a checkpoint's weights.
    if config.class_weights is not None:
        targets = targets * torch.tensor(config.class_weights, device=targets.device)
    if config.focal_gamma > 0:  # CODEPATH: as above
        targets = targets * (1 - log_probabilities.exp()) ** config.focal_gamma
    losses = -(targets * log_probabilities).sum(dim=-1)
    return (losses if row_weights is None else row_weights * losses).mean()


def concordance_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean of 1 - CCC (Lin 1989) of `(batch, dimensions)` over the dimensions of which two rows or more are annotated
    (NaN = not), 0 without any.

    Agreement is of a batch, not of a row: unlike the labels' loss, the mean over accumulation steps or processes is not
    that of the whole batch. It is accepted, because only agreement over rows tells scale and offset from error, and it
    is what is reported; a larger `per_device_train_batch_size` brings both nearer.
    """
    known = ~targets.isnan()
    count = known.sum(dim=0).clamp(min=1)
    x, y = (torch.where(known, values.float(), 0.0) for values in (predictions, targets))
    gap = (x.sum(dim=0) - y.sum(dim=0)) / count
    x, y = ((values - values.sum(dim=0) / count) * known for values in (x, y))
    agreement = 2 * (x * y).sum(dim=0) / ((x**2 + y**2).sum(dim=0) + count * gap**2 + 1e-8)
    usable = known.sum(dim=0) > 1
    return ((1 - agreement) * usable).sum() / usable.sum().clamp(min=1)


def _backbone_options(config: PreTrainedConfig) -> dict:
    """BERT-like models come without their pooler: ours replaces it, and an unused one is noise under DDP."""
    accepted = inspect.signature(AutoModel._model_mapping[type(config)].__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in accepted else {}


def _build_backbone(config: PreTrainedConfig | None) -> Backbone:
    if config is None or isinstance(config, MerhanFeaturesConfig):
        return None
    return AutoModel.from_config(config, **_backbone_options(config))


def _load_backbone(name: str | PreTrainedConfig | None, changes: dict | None, modality: str) -> Backbone:
    if name is None or isinstance(name, PreTrainedConfig):
        return _build_backbone(name)
    if PreTrainedConfig.get_config_dict(name)[0].get("model_type") == MerhanConfig.model_type:
        # The backbone within a MER-HAN checkpoint, as it was trained there.
        if changes:
            raise ValueError(f"The backbones of {name!r} stay as they were trained; leave out {', '.join(changes)}.")
        if backbone := getattr(MerhanModel.from_pretrained(name, dtype=torch.float32), f"{modality}_backbone"):
            return backbone
        raise ValueError(f"The model {name!r} has no {modality} backbone.")
    config, unknown = AutoConfig.from_pretrained(name, return_unused_kwargs=True, **(changes or {}))
    if unknown:
        raise ValueError(f"The config of {name!r} has no field {', '.join(unknown)}.")
    if hasattr(config, "layerdrop"):
        # LayerDrop leaves parameters without a gradient, which DDP does not forgive (speechbrain#701, #2340).
        config.layerdrop = 0.0
    model, info = AutoModel.from_pretrained(
        name, config=config, dtype=torch.float32, output_loading_info=True, **_backbone_options(config)
    )
    # Nothing is lost with the SpecAugment vector, read in training only (facebook/wav2vec2-base-960h lacks it), with
    # position ids, which are recomputed, nor with a head on top of the backbone.
    missing = [key for key in info["missing_keys"] if not key.endswith("masked_spec_embed")]
    own = {name for name, _ in model.named_children()} | {model.base_model_prefix}
    unexpected = [key for key in info["unexpected_keys"] if key.split(".")[0] in own and "position_ids" not in key]
    if keys := sorted(missing or unexpected):
        what = "lacks weights, which would stay random" if missing else "has weights without a place in the backbone"
        listed = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
        raise ValueError(f"Checkpoint {name!r} {what}: {listed}. Check that config.json and weights belong together.")
    return model


MerhanConfig.register_for_auto_class()
MerhanModel.register_for_auto_class("AutoModel")
MerhanForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

__all__ = ["MerhanAudioConfig", "MerhanAudioModel", "MerhanConfig", "MerhanFeaturesConfig", "MerhanModel"]
__all__ += ["MerhanForSequenceClassification", "MerhanPreTrainedModel"]
