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

A tensor and its mask are passed together from backbone to pooling, so that padding does not change a result. A row
without audio or without text gets one learned token in its place. After Zhang et al. 2023, "Multimodal emotion
recognition based on audio and text by using hybrid attention networks", Biomed. Signal Process. Control 85:105052.

This file and `configuration_merhan.py` are copied beside every checkpoint and import nothing else of this project.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torchaudio.functional
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.audio_utils import mel_filter_bank
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput, can_return_tuple


try:
    from .configuration_merhan import MerhanAudioConfig, MerhanConfig, MerhanFeaturesConfig
except ImportError:  # in the repository the two files are top-level modules
    from configuration_merhan import MerhanAudioConfig, MerhanConfig, MerhanFeaturesConfig


class Modality(NamedTuple):
    """The sequence of one modality for a batch, with its mask."""

    states: Tensor  # (batch, length, width)
    mask: Tensor  # (batch, length) bool, False = padding
    present: Tensor | None = None  # (batch, 1) bool, False = a learned token replaces the modality; set by the fusion


Backbone = PreTrainedModel | None
Modalities = dict[str, Modality]


class Record(NamedTuple):
    """Intermediate results by name, to be filled; None where they are not requested."""

    attentions: dict[str, Tensor] | None = None
    hidden_states: dict[str, Any] | None = None


_NOTHING = Record()


@dataclass
class MerhanModelOutput(ModelOutput):
    """Output of [`MerhanModel`]. With `output_attentions=True`, attention weights by name, each `(batch, heads,
    queries, keys)` after softmax, 0 on padded keys; rows of padded queries have no meaning. Of the hybrid fusion:
    `audio_local`, `text_local`, `audio_to_text` (frames are the queries), `text_to_audio`, `global` (frames, then
    tokens)."""

    pooler_output: Tensor | None = None  # (batch, hidden_size), the fused representation
    # With `output_hidden_states=True`: `audio` and `text`, what enters the first layer of the backbone and what leaves
    # each, and one tensor `(batch, length, hidden_size)` per attention layer of the fusion, by its name.
    hidden_states: dict[str, Any] | None = None
    attentions: dict[str, Tensor] | None = None


@dataclass
class MerhanSequenceClassifierOutput(ModelOutput):
    """Output of [`MerhanForSequenceClassification`]; the last three fields are those of [`MerhanModelOutput`]."""

    loss: Tensor | None = None  # with `labels`: the plain mean over the rows
    logits: Tensor | None = None  # (batch, num_labels), before softmax and temperature
    dimensions: Tensor | None = None  # (batch, config.dimensions), on the scale of the training annotations
    pooler_output: Tensor | None = None
    hidden_states: dict[str, Any] | None = None
    attentions: dict[str, Tensor] | None = None


def eager_attention_forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **options
) -> tuple[Tensor, Tensor]:
    """Attention that returns its weights. The mask is additive, or boolean with True = attend, as for sdpa."""
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
            raise ValueError(f"hidden_size {config.hidden_size} must be a multiple of num_attention_heads.")
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        # transformers' sdpa attention is causal if there is neither a mask nor this attribute, unlike eager attention.
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None, keys: Tensor, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from `(batch, queries, hidden)` to `keys` `(batch, keys, hidden)`; weights only where requested."""
        interface: Callable = eager_attention_forward
        if not output_attentions:
            interface = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        query, key, value = self.q_proj(hidden_states), self.k_proj(keys), self.v_proj(keys)
        heads = (states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for states in (query, key, value))
        dropout = self.config.attention_dropout if self.training else 0.0
        output, weights = interface(self, *heads, attention_mask, scaling=self.scaling, dropout=dropout)
        return self.out_proj(output.flatten(2)), weights if output_attentions else None


class MerhanBlock(GradientCheckpointingLayer):
    """Pre-norm attention and feed-forward layer, each with a residual connection; self-attention without `keys`."""

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
    """Pools a sequence into one vector, ignoring padding: attention-weighted mean and standard deviation (`statistics`,
    Okabe et al. 2018, arXiv 1803.10963), the weighted mean alone (`attention`), the same with equal weights
    (`mean_std`, `mean`), the first position (`first`, RoBERTa's `<s>`), or the extreme of each feature (`min`,
    `max`)."""

    def __init__(self, config: MerhanConfig):
        super().__init__()
        self.kind = config.pooling
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # CODEPATH: equal weights need no parameters, and DDP fails on parameters without a gradient.
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
        scores = torch.zeros_like(mask).float()
        if self.kind in ("statistics", "attention"):
            scores = self.score(torch.tanh(self.query(states))).float()
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=1)
        pooled = mean = (weights * states).sum(dim=1)
        if self.kind in ("statistics", "mean_std"):
            variance = (weights * (states - mean[:, None]) ** 2).sum(dim=1)
            # The lower bound keeps the gradient of the square root finite for a sequence of one position.
            pooled = torch.cat([mean, variance.clamp(min=1e-5).sqrt()], dim=-1)
        return self.dense(pooled.to(self.dense.weight.dtype))


class MerhanFusion(nn.Module):
    """Base of all fusions: projection to one width, a learned token for a missing modality, record of attention maps.

    A subclass is listed in `FUSIONS` and implements `fuse`, which gets every modality of the model at one width, with
    at least one unmasked position in every row, and returns `(batch, hidden)`. It creates further modules in `extend`;
    its own raw parameters are initialised with small random values.
    """

    # Name -> factory of a module that each modality gets, as `audio_<name>`; and the factory of cross attention.
    own: dict[str, Callable[[MerhanConfig], nn.Module | nn.Parameter]] = {"pooling": MerhanPooling}
    crossing: Callable[[MerhanConfig], nn.Module] | None = None

    def __init__(self, config: MerhanConfig):
        super().__init__()
        self.config = config
        # CODEPATH: a single-modality checkpoint has neither the other modality's modules nor cross attention.
        for name in config.modalities:
            source = getattr(config, f"{name}_config")
            # CODEPATH: an adapter on top of a wav2vec2, as of facebook/wav2vec2-xls-r-300m-en-to-15, sets the width.
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
        """Create the modules and parameters of this fusion alone."""

    def forward(self, inputs: Modalities, record: Record = _NOTHING) -> Tensor:
        """Fuse backbone outputs (without a key: no row has that modality) into `(batch, hidden)`; fills `record`."""
        return self.norm(self.fuse({name: self._project(name, inputs) for name in self.config.modalities}, record))

    def fuse(self, inputs: Modalities, record: Record) -> Tensor:
        """Fuse projected modalities into `(batch, hidden)`."""
        raise NotImplementedError

    def attend(self, record: Record, name: str, block: nn.Module, query: Modality, key: Modality) -> Modality:
        """Attend from `query` to `key`; weights and states are recorded under `name`."""
        # Broadcast over the queries, as sdpa and eager attention take it: transformers' function would make a mask for
        # each query by a score of small kernels, and wait for a GPU.
        states, weights = block(query.states, key.mask[:, None, None], key.states, record.attentions is not None)
        if record.attentions is not None:
            record.attentions[name] = weights
        if record.hidden_states is not None:
            record.hidden_states[name] = states
        return query._replace(states=states)

    def cross(self, inputs: Modalities, record: Record) -> Modalities:
        """Attend from each modality to the other one; without cross attention the inputs are returned."""
        if not hasattr(self, "audio_to_text"):
            return inputs
        audio, text = inputs["audio"], inputs["text"]
        frames = self.attend(record, "audio_to_text", self.audio_to_text, audio, text)
        return {"audio": frames, "text": self.attend(record, "text_to_audio", self.text_to_audio, text, audio)}

    def pool(self, inputs: Modalities) -> list[Tensor]:
        """Pool each modality, `(batch, hidden)` each."""
        return [getattr(self, f"{name}_pooling")(modality) for name, modality in inputs.items()]

    def _project(self, name: str, inputs: Modalities) -> Modality:
        """Project one modality, and replace rows that are padding throughout by the learned token, unmasked.

        (For a fully masked row sdpa returns zeros and eager attention the mean of the padding.)
        """
        token = getattr(self, f"missing_{name}")
        if name not in inputs:
            absent = _learned(token[None], next(iter(inputs.values())))
            return absent._replace(present=~absent.mask)
        states, mask, _ = inputs[name]
        projection = getattr(self, f"{name}_projection")
        states = projection(states.to(projection.weight.dtype))
        present = mask.any(dim=1, keepdim=True)
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        states = torch.where(present[..., None], states, token.to(states.dtype))
        return Modality(states, mask | (first & ~present), present)


def _learned(tokens: Tensor, like: Modality) -> Modality:
    """Learned tokens `(length, hidden)`, repeated for every row of a batch."""
    tokens = tokens.expand(like.mask.shape[0], -1, -1)  # `len` would fix the batch size in an exported graph
    return Modality(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


def _joined(*parts: Modality) -> Modality:
    """Concatenate sequences over time."""
    return Modality(torch.cat([part.states for part in parts], dim=1), torch.cat([part.mask for part in parts], dim=1))


class MerhanHybridFusion(MerhanFusion):
    """Local attention within each modality, cross attention between them, global attention over both (Zhang et al.
    2023; melike1818/MultimodalEmotionRecognition)."""

    def __init__(self, config: MerhanConfig):
        self.parts = config.fusion_parts
        self.own = {"local": MerhanBlock, **self.own} if "local" in self.parts else self.own
        self.crossing = MerhanBlock if "cross" in self.parts else None
        super().__init__(config)

    def extend(self, config: MerhanConfig):
        if "global" in self.parts:
            self.global_attention = MerhanBlock(config)

    def fuse(self, inputs: Modalities, record: Record) -> Tensor:
        if "local" in self.parts:
            for name, modality in inputs.items():
                block = getattr(self, f"{name}_local")
                inputs[name] = self.attend(record, f"{name}_local", block, modality, modality)
        inputs = self.cross(inputs, record)
        if "global" in self.parts:
            joint = _joined(*inputs.values())
            joint = self.attend(record, "global", self.global_attention, joint, joint)
            parts = joint.states.split([modality.mask.shape[1] for modality in inputs.values()], dim=1)
            for (name, modality), states in zip(inputs.items(), parts, strict=True):
                inputs[name] = modality._replace(states=states)
        return torch.stack(self.pool(inputs)).sum(dim=0)


class MerhanConcatFusion(MerhanFusion):
    """Pooled modalities, concatenated and passed through an MLP (union-point/emotion_detection, `early_fusion`)."""

    def extend(self, config: MerhanConfig):
        self.intermediate = nn.Linear(len(config.modalities) * config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)

    def fuse(self, inputs: Modalities, record: Record) -> Tensor:
        hidden = self.activation(self.intermediate(torch.cat(self.pool(inputs), dim=-1)))
        return self.output(self.dropout(hidden))


class MerhanCrossFusion(MerhanConcatFusion):
    """Frames attend to tokens and tokens to frames, then `concat` (MulT, Tsai et al. 2019, arXiv 1906.00295;
    wasef-c/Emotion2VecBert, there with a single key)."""

    crossing = MerhanBlock

    def fuse(self, inputs: Modalities, record: Record) -> Tensor:
        return super().fuse(self.cross(inputs, record), record)


class MerhanFineGrainedFusion(MerhanConcatFusion):
    """Each frame x is compared with the text y that attention aligns with it, each token with its frames, then `concat`
    (union-point/emotion_detection; Xu et al. 2019, arXiv 1909.05645; `[x, y, x - y, x y]` of ESIM, arXiv
    1609.06038)."""

    own = MerhanFusion.own | {"comparison": lambda config: nn.Linear(4 * config.hidden_size, config.hidden_size)}
    crossing = MerhanAttention

    def fuse(self, inputs: Modalities, record: Record) -> Tensor:
        aligned = self.cross(inputs, record)
        for name, own in inputs.items():
            x, y = own.states, aligned[name].states
            compared = getattr(self, f"{name}_comparison")(torch.cat([x, y, x - y, x * y], dim=-1))
            aligned[name] = own._replace(states=x + self.activation(compared))
        return super().fuse(aligned, record)


class MerhanAttentionPoolingFusion(MerhanConcatFusion):
    """A learned query attends to each modality, then `concat`; `pooling` is not used (Lee et al. 2019, arXiv
    1810.00825; union-point/emotion_detection, there with one head and without a mask)."""

    own = {"reader": MerhanBlock, "query": lambda config: nn.Parameter(torch.empty(1, config.hidden_size))}

    def fuse(self, inputs: Modalities, record: Record) -> Tensor:
        for name, modality in inputs.items():
            query = _learned(getattr(self, f"{name}_query"), modality)
            inputs[name] = self.attend(record, f"{name}_pooling", getattr(self, f"{name}_reader"), query, modality)
        return super().fuse(inputs, record)

    def pool(self, inputs: Modalities) -> list[Tensor]:
        return [modality.states[:, 0] for modality in inputs.values()]


class MerhanGatedFusion(MerhanFusion):
    """A gate per feature and modality, computed from the pooled utterance (Arevalo et al. 2017, arXiv 1702.01992, whose
    sigmoid is a softmax over two; SMIL-SPCRAS/MER, with `pooling: mean_std`)."""

    def extend(self, config: MerhanConfig):
        width = len(config.modalities) * config.hidden_size
        self.gate = nn.Linear(width, width)

    def fuse(self, inputs: Modalities, record: Record) -> Tensor:
        pooled = torch.stack(self.pool(inputs), dim=1)
        gates = self.gate(pooled.flatten(1)).view_as(pooled).softmax(dim=1)
        return (gates * torch.tanh(pooled)).sum(dim=1)


class MerhanAdaptiveFusion(MerhanFusion):
    """Modalities weighted by their estimated reliability and by their presence (attention map `modalities`); the latter
    is learned through `modality_dropout` (wasef-c/Emotion2VecBert, there by a switch between branches)."""

    def extend(self, config: MerhanConfig):
        self.reliability = nn.Linear(config.hidden_size + 1, 1)

    def fuse(self, inputs: Modalities, record: Record) -> Tensor:
        pooled = torch.stack(self.pool(inputs), dim=1)
        present = torch.stack([cast(Tensor, modality.present) for modality in inputs.values()], dim=1).to(pooled.dtype)
        weights = self.reliability(torch.cat([pooled, present], dim=-1)).softmax(dim=1)
        if record.attentions is not None:
            record.attentions["modalities"] = weights.mT[:, None]
        return (weights * pooled).sum(dim=1)


class MerhanMemoCMTFusion(MerhanFusion):
    """Cross-modal transformer, then one pooling over tokens and frames together: `first` (the CLS token of the paper),
    `min` (its best result), `max` or `mean` (MemoCMT, Khan et al. 2025, doi 10.1038/s41598-025-89202-x)."""

    own = {}
    crossing = MerhanBlock

    def extend(self, config: MerhanConfig):
        self.pooling = MerhanPooling(config)

    def fuse(self, inputs: Modalities, record: Record) -> Tensor:
        return self.pooling(_joined(*reversed(self.cross(inputs, record).values())))  # text first, for its CLS token


class MerhanModalityTokensFusion(MerhanFusion):
    """A learned token per modality, which is also added to its frames or tokens (ViLT, arXiv 2102.03334), two joint
    layers, and the mean of the tokens; `pooling` is not used (Vally16768/MER, there over pooled vectors)."""

    own = {}

    def extend(self, config: MerhanConfig):
        self.tokens = nn.Parameter(torch.empty(len(config.modalities), config.hidden_size))
        self.layers = nn.ModuleList(MerhanBlock(config) for _ in range(2))

    def fuse(self, inputs: Modalities, record: Record) -> Tensor:
        marked = [x._replace(states=x.states + token) for token, x in zip(self.tokens, inputs.values(), strict=True)]
        joint = _joined(_learned(self.tokens, marked[0]), *marked)
        for number, layer in enumerate(self.layers):
            joint = self.attend(record, f"joint_{number}", layer, joint, joint)
        return joint.states[:, : len(inputs)].mean(dim=1)


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


class MerhanAudioModel(PreTrainedModel):
    """The light speech backbone: `input_values` (batch, samples) at 16 kHz -> `(batch, frames, hidden_size)`.

    It has the interface of the wav2vec2 family. Zeros behind the real samples that `attention_mask` marks as padding do
    not change any real frame.
    """

    config: MerhanAudioConfig
    base_model_prefix = "merhan_audio"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["MerhanBlock"]
    _keys_to_ignore_on_load_unexpected = [r"(window|filterbank|cosine)$"]  # buffers of the light backbone until 0.2

    def __init__(self, config: MerhanAudioConfig):
        super().__init__(config)
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

    def forward(
        self, input_values: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False, **kwargs
    ) -> BaseModelOutput:
        if attention_mask is None:
            attention_mask = torch.ones_like(input_values, dtype=torch.long)
        lengths = self._num_spectral_frames(attention_mask.sum(dim=1))
        # Spectral analysis runs in full precision under bf16 and fp16 autocast.
        with torch.autocast(input_values.device.type, enabled=False):
            hidden_states, mask = self._spectral_frames(input_values.float() * attention_mask, lengths)
        hidden_states = hidden_states.to(self.dtype)
        for convolution, norm, stride in zip(self.convolutions, self.conv_norms, self.config.conv_stride, strict=True):
            # Zeros behind the end equal the convolution's own padding, so a padded row gives the same as the row alone.
            hidden_states = convolution((hidden_states * mask[..., None]).transpose(1, 2)).transpose(1, 2)
            hidden_states = self.activation(norm(hidden_states))
            lengths = torch.div(lengths - 1, stride, rounding_mode="floor") + 1
            mask = _length_mask(lengths, hidden_states.shape[1])
        hidden_states = self.dropout(hidden_states + self._positions(hidden_states))
        layer_mask = create_bidirectional_mask(self.config, hidden_states, mask.long())
        layers = [hidden_states]
        for layer in self.layers:
            layers.append(layer(layers[-1], layer_mask)[0])
        layers[-1] = self.norm(layers[-1])
        return BaseModelOutput(layers[-1], hidden_states=tuple(layers) if output_hidden_states else None)

    def _spectral_frames(self, waveform: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel or MFCC frames `(batch, frames, feature_size)`, standardised over the real frames of each utterance,
        and their mask `(batch, frames)`.

        In two normalisations side by side: with one mean for all features, which keeps the spectral tilt, a cue for
        arousal; and without the mean of each feature, which removes the tilt of voice and microphone.
        """
        config, device = self.config, waveform.device
        half = config.fft_length // 2
        power = torchaudio.functional.spectrogram(
            nn.functional.pad(waveform, (half, half)),
            pad=0,
            window=torch.hann_window(config.frame_length, device=device),
            n_fft=config.fft_length,
            hop_length=config.frame_shift,
            win_length=config.frame_length,
            power=2.0,
            normalized=False,
            center=False,
        )
        # Computed here in full precision, because buffers would be rounded to that of the weights; by NumPy, because
        # torchaudio's function branches on values, which cannot be exported.
        rate = config.sampling_rate
        filterbank = mel_filter_bank(half + 1, config.num_mel_bins, 20.0, rate / 2, rate, mel_scale="htk")
        frames = torch.log(power.transpose(1, 2) @ torch.tensor(filterbank, dtype=power.dtype, device=device) + 1e-6)
        # CODEPATH: feature_type is an option of the recipe; the MER-HAN paper used MFCC.
        if config.feature_type == "mfcc":
            cosine = torchaudio.functional.create_dct(config.num_mfcc, config.num_mel_bins, "ortho")
            frames = frames @ cosine.to(device)
        mask = _length_mask(lengths, frames.shape[1])
        frames = _standardise(frames, mask)
        means = frames.sum(dim=1, keepdim=True) / mask.sum(dim=1)[:, None, None]
        frames = torch.cat([frames, (frames - means) * mask[..., None]], dim=-1)
        if self.training:
            frames = self._spec_augment(frames)
        return frames, mask

    def _spec_augment(self, frames: torch.Tensor) -> torch.Tensor:
        """SpecAugment: replace spans of time and of frequency by the mean of the utterance, which is 0 here."""
        for axis, widest in ((1, self.config.mask_time_length), (2, self.config.mask_feature_length)):
            masks = self.config.spec_augment_masks if widest else 0
            for _ in range(masks):
                frames = torchaudio.functional.mask_along_axis_iid(frames[:, None], widest, 0.0, axis + 1)[:, 0]
        return frames

    def _positions(self, states: Tensor) -> Tensor:
        """Sinusoidal positions (Vaswani et al. 2017) `(frames, hidden)`, computed for any length."""
        half = self.config.hidden_size // 2
        rate = torch.exp(torch.arange(half, device=states.device) * (-math.log(10_000.0) / half))
        angle = torch.arange(states.shape[1], device=states.device)[:, None] * rate
        return torch.cat([angle.sin(), angle.cos()], dim=-1).to(states.dtype)

    def _num_spectral_frames(self, num_samples: Tensor) -> Tensor:
        return torch.div(num_samples, self.config.frame_shift, rounding_mode="floor") + 1

    def _get_feature_vector_attention_mask(self, feature_vector_length: int, attention_mask: Tensor) -> Tensor:
        """Convert a mask over samples to one over output frames; the name is that of the wav2vec2 family."""
        lengths = self._num_spectral_frames(attention_mask.sum(dim=1))
        for stride in self.config.conv_stride:
            lengths = torch.div(lengths - 1, stride, rounding_mode="floor") + 1
        return _length_mask(lengths, feature_vector_length)


AutoModel.register(MerhanAudioConfig, MerhanAudioModel, exist_ok=True)


def _length_mask(lengths: Tensor, size: int) -> Tensor:
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def _standardise(frames: Tensor, mask: Tensor) -> Tensor:
    """Standardise each utterance over its real frames and all features together; padding becomes 0.

    One mean for all features removes the gain of the microphone and keeps the spectral tilt.
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
    input_modalities = ["audio", "text"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["MerhanBlock"]
    _keys_to_ignore_on_load_unexpected = [r"(window|filterbank|cosine)$"]  # buffers of the light backbone until 0.2

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
        """Save as usual, with every auto class and pipeline that can load the folder named in the config.

        (`register_for_auto_class` alone names one auto class per model class, and no pipeline.)
        """
        classifier = "AutoModelForSequenceClassification"
        ours = "modeling_merhan.MerhanForSequenceClassification"
        self.config.auto_map = {"AutoConfig": "configuration_merhan.MerhanConfig"}
        self.config.auto_map |= {"AutoModel": "modeling_merhan.MerhanModel"}
        self.config.auto_map |= {"AutoModelForAudioClassification": ours, classifier: ours}
        # Also under the task that the Hub names, whose stock pipeline would drop text, mask and temperature.
        # CODEPATH: the Hub has another task for checkpoints of text alone.
        task = "audio-classification" if "audio" in self.config.modalities else "text-classification"
        pipeline = {"impl": "processing_merhan.EmotionRecognitionPipeline", "pt": [classifier]}
        self.config.custom_pipelines = dict.fromkeys(("emotion-recognition", task), pipeline)
        super().save_pretrained(save_directory, *args, **kwargs)


# Marks padded samples for `MerhanGroupNormConvLayer`; no decoded sound has it.
PADDING = -math.inf


class MerhanGroupNormConvLayer(GradientCheckpointingLayer):
    """First convolution of an encoder with group norm (wav2vec2-base, HuBERT-base, WavLM-base), which normalises each
    channel over time. Upstream the statistics include padding, so that a row depends on the length of its batch; here
    they are those of the real frames. Without padding the result is the same up to rounding."""

    def __init__(self, layer: Any):
        super().__init__()
        self.conv, self.layer_norm, self.activation = layer.conv, layer.layer_norm, layer.activation

    def forward(self, samples: Tensor) -> Tensor:
        """`(batch, 1, samples)`, padding marked by `PADDING` -> `(batch, channels, frames)`."""
        states = self.conv(samples.masked_fill(samples == PADDING, 0.0))
        # A frame is real if the last sample of its window is. In float32, and so are all that follow.
        real = (samples[..., self.conv.kernel_size[0] - 1 :: self.conv.stride[0]] != PADDING).float()
        count = real.sum(dim=-1, keepdim=True).clamp(min=1)
        # Few passes, because no other states of the model are as large.
        states = states * real
        centred = torch.addcmul(states, states.sum(dim=-1, keepdim=True) / count, real, value=-1)
        variance = torch.linalg.vector_norm(centred, dim=-1, keepdim=True) ** 2 / count
        scale = torch.rsqrt(variance + self.layer_norm.eps) * self.layer_norm.weight[:, None]
        states = torch.addcmul(self.layer_norm.bias[:, None], centred, scale)
        return self.activation(states.to(self.layer_norm.weight.dtype))


class MerhanModel(MerhanPreTrainedModel):
    """Two backbones and their fusion, without a head.

    Args:
        audio_backbone, text_backbone: used as they are; without them, backbones are built from their configs with
            random weights, as `from_pretrained` needs it.
    """

    def __init__(self, config: MerhanConfig, audio_backbone: Backbone = None, text_backbone: Backbone = None):
        super().__init__(config)
        if not config.modalities:
            raise ValueError("MerhanConfig needs audio_config, text_config or both, and has neither.")
        self.audio_backbone = audio_backbone or build_backbone(config.audio_config)
        self.text_backbone = text_backbone or build_backbone(config.text_config)
        layers: Any = getattr(getattr(self.audio_backbone, "feature_extractor", None), "conv_layers", None)
        # CODEPATH: encoders with layer norm do not normalise over time.
        self.marks_padding = bool(layers) and isinstance(getattr(layers[0], "layer_norm", None), nn.GroupNorm)
        if self.marks_padding:
            layers[0] = MerhanGroupNormConvLayer(layers[0])
        # CODEPATH: layer mixing is an option of the recipe. The softmax of these parameters weights the inputs of all
        # layers of a backbone and the output of the last one (SUPERB, Yang et al. 2021, arXiv 2105.01051).
        if config.layer_mixing:
            for name in config.modalities:
                backbone = getattr(self, f"{name}_backbone")
                if backbone is not None:
                    setattr(self, f"{name}_mixing", nn.Parameter(torch.empty(backbone.config.num_hidden_layers + 1)))
        self.fusion = FUSIONS[config.fusion](config)
        self.post_init()

    def train(self, mode: bool = True) -> "MerhanModel":
        """Set the mode, but keep backbones, or parts of them, without trainable parameters in eval mode: otherwise
        their dropout, LayerDrop and SpecAugment would change the input of the head."""
        super().train(mode)
        for backbone in (self.audio_backbone, self.text_backbone):
            if backbone is not None:
                _eval_where_frozen(backbone)
        return self

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor | None = None,  # (batch, samples) float, mono, 16 kHz
        audio_attention_mask: Tensor | None = None,  # (batch, samples), or (batch, frames) of input_features
        input_ids: Tensor | None = None,  # (batch, tokens)
        attention_mask: Tensor | None = None,  # (batch, tokens)
        audio_features: Tensor | None = None,  # (batch, frames, audio_width), in place of the backbone's output
        audio_features_mask: Tensor | None = None,  # (batch, frames)
        text_features: Tensor | None = None,  # (batch, tokens, text_width), as audio_features
        text_features_mask: Tensor | None = None,  # (batch, tokens)
        input_features: Tensor | None = None,  # in place of input_values: the spectrogram of Whisper, w2v-BERT 2.0, ...
        inputs_embeds: None = None,  # not supported; peft passes None
        output_attentions: bool | None = None,  # return attention maps by name, under any attention implementation
        output_hidden_states: bool | None = None,  # return hidden states by name
    ) -> MerhanModelOutput:
        """Every tensor is optional, but at least one modality is needed. Masks: 1 = real, 0 = padding; a row of zeros
        lacks the modality. Without a mask nothing is padding.

        Raises:
            ValueError: no modality, one that the model does not read, a mask without its tensor, raw input beside
                features, or `inputs_embeds`.
        """
        if inputs_embeds is not None:
            raise ValueError("inputs_embeds is not supported; give input_ids, or text_features.")
        attentions = self.config.output_attentions if output_attentions is None else output_attentions
        hidden_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        record = Record({} if attentions else None, {} if hidden_states else None)
        sound = {"input_values": input_values, "input_features": input_features}
        audio = self._modality("audio", sound, audio_attention_mask, audio_features, audio_features_mask, record)
        tokens = {"input_ids": input_ids}
        text = self._modality("text", tokens, attention_mask, text_features, text_features_mask, record)
        inputs = {name: value for name, value in (("audio", audio), ("text", text)) if value is not None}
        if not inputs:
            raise ValueError(f"This model reads {' and '.join(self.config.modalities)}; give at least one modality.")
        # CODEPATH: modality dropout is an option of the recipe, and off outside of training.
        if self.training and self.config.modality_dropout > 0 and len(inputs) == 2:
            inputs = self._drop_modalities(**inputs)
        return MerhanModelOutput(self.fusion(inputs, record), record.hidden_states, record.attentions)

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings of the text backbone."""
        if self.text_backbone is None:
            raise NotImplementedError("This model has no text backbone, and so no token embeddings.")
        return self.text_backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        """Replace the token embeddings of the text backbone."""
        if self.text_backbone is None:
            raise NotImplementedError("This model has no text backbone, and so no token embeddings.")
        self.text_backbone.set_input_embeddings(value)

    def encode(self, name: str, values: Tensor, mask: Tensor | None = None, record: Record = _NOTHING) -> Modality:
        """Run the backbone of a modality over `(batch, samples)`, spectrogram frames (`input_features`, which need a
        mask), or `(batch, tokens)`."""
        backbone, mixing = getattr(self, f"{name}_backbone"), getattr(self, f"{name}_mixing", None)
        if mask is None:
            if values.dim() > 2:
                raise ValueError("input_features need audio_attention_mask, which tells frames from padding.")
            mask = torch.ones_like(values, dtype=torch.long)
        # Backbones never get a fully masked row; the fusion replaces their output for it.
        present = mask.any(dim=1, keepdim=True)
        seen = torch.where(present, mask, 1)
        # Sound is cast to the precision of the weights, but for the light backbone, which first computes its spectrum.
        if name == "audio" and not isinstance(backbone, MerhanAudioModel):
            values = values.to(backbone.dtype)
        if name == "audio" and self.marks_padding:
            values = values.masked_fill(seen == 0, PADDING)
        wants_layers = mixing is not None or record.hidden_states is not None
        outputs = backbone(values, attention_mask=seen, output_hidden_states=wants_layers)
        states = outputs.last_hidden_state
        if record.hidden_states is not None:
            record.hidden_states[name] = outputs.hidden_states
        if mixing is not None:  # the last hidden state of wav2vec2 lacks its final norm, `last_hidden_state` has it
            states = torch.stack([*outputs.hidden_states[:-1], states], dim=-1) @ mixing.softmax(dim=0)
        if name == "audio":
            seen = _frame_mask(backbone, states.shape[1], seen)
        return Modality(states, seen.bool() & present)

    def _drop_modalities(self, audio: Modality, text: Modality) -> Modalities:
        """Mask one modality in a random share of the rows that have both."""
        share = self.config.modality_dropout / 2
        draw = torch.rand(audio.mask.shape[0], 1, device=audio.mask.device)
        has_both = audio.mask.any(dim=1, keepdim=True) & text.mask.any(dim=1, keepdim=True)
        audio_mask, text_mask = audio.mask & ~(has_both & (draw < share)), text.mask & ~(has_both & (draw >= 1 - share))
        return {"audio": audio._replace(mask=audio_mask), "text": text._replace(mask=text_mask)}

    def _modality(
        self,
        name: str,
        raw: dict[str, Tensor | None],
        mask: Tensor | None,
        features: Tensor | None,
        features_mask: Tensor | None,
        record: Record,
    ) -> Modality | None:
        """The features if there are any, else the output of the backbone for the raw input."""
        alternatives = {**raw, f"{name}_features": features}
        inputs = {key: value for key, value in alternatives.items() if value is not None}
        if len(inputs) > 1:
            raise ValueError(f"{' and '.join(inputs)} are alternatives; give one of them.")
        is_raw = bool(inputs) and features is None
        if (mask is not None and not is_raw) or (features_mask is not None and features is None):
            raise ValueError(f"A mask of {name} was given without its values; give both or neither.")
        if not inputs:
            return None
        if name not in self.config.modalities:
            raise ValueError(f"This model reads {' and '.join(self.config.modalities)} only; leave out {name}.")
        if features is None:
            if getattr(self, f"{name}_backbone") is None:
                raise ValueError(f"This model has no {name} backbone; give {name}_features like those of its training.")
            (value,) = inputs.values()
            return self.encode(name, value, mask, record)
        if hasattr(self, f"{name}_mixing"):
            raise ValueError(f"layer_mixing reads all layers of a backbone; {name}_features hold only the last.")
        real = torch.ones(features.shape[:2], device=features.device) if features_mask is None else features_mask
        return Modality(features, real.bool())


def _frame_mask(backbone: Any, frames: int, mask: Tensor) -> Tensor:
    """Convert a mask over samples or spectrogram frames to one over the `frames` of the backbone's output."""
    if hasattr(backbone, "_get_feature_vector_attention_mask"):
        return backbone._get_feature_vector_attention_mask(frames, mask)
    return mask[:, :: mask.shape[1] // frames][:, :frames]  # Whisper's encoder has a convolution of stride 2


def _eval_where_frozen(module: nn.Module):
    """Set the largest submodules that have parameters, but no trainable ones, to eval mode."""
    trainable = [parameter.requires_grad for parameter in module.parameters()]
    if trainable and not any(trainable):
        module.eval()
    elif not all(trainable):
        for child in module.children():
            _eval_where_frozen(child)


class MerhanForSequenceClassification(MerhanPreTrainedModel):
    """[`MerhanModel`] with a linear head that classifies the emotion of each utterance."""

    # The loss is a mean over rows, so Trainer must divide it by the accumulation steps; otherwise loss and gradient
    # would grow with their number (huggingface/transformers#47688).
    accepts_loss_kwargs = False

    def __init__(self, config: MerhanConfig, audio_backbone: Backbone = None, text_backbone: Backbone = None):
        super().__init__(config)
        self.merhan = MerhanModel(config, audio_backbone, text_backbone)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, cast(int, config.num_labels))
        # CODEPATH: dimensions are an option of the recipe; a checkpoint without them has no such head.
        self.regressor = nn.Linear(config.hidden_size, len(config.dimensions)) if config.dimensions else None
        self.post_init()

    @can_return_tuple
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
        labels: Tensor | None = None,  # class ids (batch,), -100 = none; or (batch, num_labels) distributions
        dimension_targets: Tensor | None = None,  # (batch, config.dimensions) float, NaN = not annotated
        input_features: Tensor | None = None,
        inputs_embeds: None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> MerhanSequenceClassifierOutput:
        """Inputs as in [`MerhanModel.forward`]."""
        outputs = self.merhan(
            input_values=input_values,
            audio_attention_mask=audio_attention_mask,
            input_ids=input_ids,
            attention_mask=attention_mask,
            audio_features=audio_features,
            audio_features_mask=audio_features_mask,
            text_features=text_features,
            text_features_mask=text_features_mask,
            input_features=input_features,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        pooled = self.dropout(outputs.pooler_output)
        logits = self.classifier(pooled)
        dimensions = None if self.regressor is None else self.regressor(pooled)
        loss = None if labels is None else emotion_loss(logits, labels, self.config)
        if loss is not None and dimensions is not None and dimension_targets is not None:
            loss = loss + self.config.dimension_weight * concordance_loss(dimensions, dimension_targets)
        recorded = outputs.hidden_states, outputs.attentions
        return MerhanSequenceClassifierOutput(loss, logits, dimensions, outputs.pooler_output, *recorded)


def emotion_loss(logits: Tensor, labels: Tensor, config: MerhanConfig, row_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits `(batch, num_labels)` and class ids `(batch,)` or distributions `(batch, num_labels)`.

    The plain mean over rows, also with class weights (PyTorch would divide by the weights of the batch): so the
    gradient does not depend on how a batch is cut into accumulation steps or processes.

    Args:
        labels: class ids, `(batch,)` or `(batch, 1)`, -100 for rows without a label, which do not count; or
            distributions `(batch, num_labels)` that sum to 1.
        row_weights: a factor on the loss of each row, `(batch,)`.
    """
    log_probabilities = logits.float().log_softmax(dim=-1)
    targets, known = _targets(labels, logits.shape[-1])
    targets = targets.to(log_probabilities.dtype)
    targets = (1 - config.label_smoothing) * targets + config.label_smoothing / logits.shape[-1]
    # CODEPATH: class weights and focal loss are options of the recipe, for training alone.
    if config.class_weights is not None:
        targets = targets * torch.tensor(config.class_weights).to(targets.device, non_blocking=True)
    if config.focal_gamma > 0:  # CODEPATH: as above
        targets = targets * (1 - log_probabilities.exp()) ** config.focal_gamma
    losses = -(targets * log_probabilities).sum(dim=-1)
    if row_weights is not None:
        losses = row_weights * losses
    if known is None:
        return losses.mean()
    return (losses * known).sum() / known.sum().clamp(min=1)


def _targets(labels: Tensor, num_labels: int) -> tuple[Tensor, Tensor | None]:
    """Targets `(batch, num_labels)`, and which rows have one, `(batch,)`; None for distributions, which all do."""
    is_ids = not labels.is_floating_point()
    if is_ids and labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if is_ids and labels.dim() == 1:
        known = labels != -100
        return nn.functional.one_hot(labels.where(known, 0), num_labels), known
    if labels.dim() != 2 or labels.shape[1] != num_labels:
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} are neither class ids (batch,) nor distributions "
            f"(batch, {num_labels})."
        )
    return labels, None


def concordance_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean of 1 - CCC (concordance, Lin 1989) over the dimensions with at least two annotated rows; 0 without any.

    The CCC belongs to a batch and not to a row: unlike the loss of the labels, the mean over accumulation steps or
    processes differs from the value of the whole batch. This is accepted because the CCC is the metric that is
    reported; a larger `per_device_train_batch_size` reduces the difference.

    Args:
        predictions: `(batch, dimensions)`.
        targets: `(batch, dimensions)`, NaN where a row is not annotated.
    """
    known = ~targets.isnan()
    count = known.sum(dim=0).clamp(min=1)
    x, y = (torch.where(known, values.float(), 0.0) for values in (predictions, targets))
    gap = (x.sum(dim=0) - y.sum(dim=0)) / count
    x, y = ((values - values.sum(dim=0) / count) * known for values in (x, y))
    agreement = 2 * (x * y).sum(dim=0) / ((x**2 + y**2).sum(dim=0) + count * gap**2 + 1e-8)
    usable = known.sum(dim=0) > 1
    return ((1 - agreement) * usable).sum() / usable.sum().clamp(min=1)


def backbone_options(config: Any) -> dict:
    """Build BERT-like models without their pooler: it would not be used, and DDP fails on unused parameters."""
    backbone_class: Any = AutoModel._model_mapping[type(config)]
    accepted = inspect.signature(backbone_class).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in accepted else {}


def build_backbone(config: dict | PreTrainedConfig | None) -> Backbone:
    """A backbone with random weights; None where features are stored or the modality is not read."""
    # By name: `transformers` may have loaded the classes of the config from another copy of its file.
    kind = getattr(config, "model_type", None)
    if config is None or kind == MerhanFeaturesConfig.model_type:
        return None
    if kind == MerhanAudioConfig.model_type:
        return MerhanAudioModel._from_config(config)
    return encoder_of(AutoModel.from_config(config, **backbone_options(config)))


def encoder_of(model: Any) -> Backbone:
    """The encoder of an encoder-decoder (Whisper, BART, T5); any other model as it is."""
    return model.get_encoder() if hasattr(model, "encoder") and hasattr(model, "decoder") else model


MerhanModel.register_for_auto_class("AutoModel")
MerhanForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

__all__ = ["MerhanAudioModel", "MerhanForSequenceClassification", "MerhanModel", "MerhanPreTrainedModel"]
