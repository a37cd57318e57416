"""The least time that a training step can take on an H100: what its operators read, write and multiply, counted.

    python benchmarks/gpu_floor.py --write

wav2vec2-base and roberta-base in full width on tensors without values, so that no GPU is needed: 177 utterances of
3.38 s, which are 600 s, with 128 tokens each, the frozen convolutions cached, bf16 autocast. An operator takes as long
as its bytes at 3.0 TB/s or its products at 780 TFLOP/s, both measured on an H100. A real kernel takes longer.
"""

import argparse
import collections
from typing import Any

import torch
from common import command, publish
from operators import VIEWS
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import RobertaConfig, Wav2Vec2Config

from merhan.reporting.markdown_tables import markdown_table
from merhan.training.feature_cache import read_convolutions
from merhan.training.parameter_groups import set_trainable
from merhan.training.single_cast import cast_states_once
from modeling_merhan import MerhanConfig, MerhanForSequenceClassification


BYTES, PRODUCTS = 3.0e12, 780e12  # per second
ROWS, FRAMES, TOKENS = 177, 168, 128
SECONDS = 3.38
KINDS = {
    "matrix products": ("mm", "convolution"),
    "attention": ("attention",),
    "casts": ("_to_copy",),
    "norms": ("layer_norm",),
    "activations": ("gelu", "tanh"),
    "dropout": ("dropout",),
    "sums of residuals and gradients": ("aten.add", "aten.sum"),
    "clipping, optimizer": ("_foreach", "_fused"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    counter = count_step()
    milliseconds, gigabytes, operators = counter.milliseconds, counter.gigabytes, counter.operators
    order = sorted(milliseconds, key=lambda kind: -milliseconds[kind])
    table = [[kind, f"{milliseconds[kind]:.1f}", f"{gigabytes[kind]:.1f}", f"{operators[kind]:,}"] for kind in order]
    least, moved = milliseconds.total(), gigabytes.total()
    table.append(["in all", f"{least:.1f}", f"{moved:.1f}", f"{operators.total():,}"])
    sound = ROWS * SECONDS
    text = f"""`{command()}`

{ROWS} utterances of {SECONDS} s with {TOKENS} tokens each, convolutions cached, bf16 autocast, fused AdamW. At least
{least:.0f} ms, so at most {1000 * sound / least:,.0f} seconds of sound per second, with every kernel at the limit.

{markdown_table(["operators", "ms at least", "GB read and written", "number"], table)}
"""
    publish("gpu-floor", text, arguments.write)


def count_step() -> "Counter":
    """Forward, backward, clipping and optimizer of one step."""
    # As on a GPU, whose autocast also computes norms in float32.
    functional.dropout, functional.scaled_dot_product_attention, functional.layer_norm = dropout, attention, layer_norm
    with FakeTensorMode():
        model = build()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, fused=True)
        inputs = batch()
        for _ in range(2):  # the second one is counted, because the first makes the optimizer's state
            optimizer.zero_grad()
            with Counter() as counter:
                with torch.autocast("cpu", torch.bfloat16):
                    loss = model(**inputs).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
                optimizer.step()
    return counter


def build() -> MerhanForSequenceClassification:
    """The model, without what depends on values: LayerDrop and SpecAugment."""
    audio = Wav2Vec2Config(layerdrop=0.0, apply_spec_augment=False)
    text = RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1)
    model = MerhanForSequenceClassification(MerhanConfig(audio_config=audio, text_config=text, num_labels=7)).train()
    set_trainable(model, {"head": 1e-4, "audio": 1e-5, "text": 1e-5}, freeze_feature_encoder=True)
    read_convolutions(model.merhan)
    cast_states_once(model)
    return model


def batch() -> dict[str, torch.Tensor]:
    return {
        "audio_features": torch.empty(ROWS, FRAMES, 512, dtype=torch.float16),
        "audio_features_mask": torch.ones(ROWS, FRAMES, dtype=torch.long),
        "input_ids": torch.ones(ROWS, TOKENS, dtype=torch.long),
        "attention_mask": torch.ones(ROWS, TOKENS, dtype=torch.long),
        "labels": torch.zeros(ROWS, dtype=torch.long),
    }


def dropout(states: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """Dropout in one kernel, as on a GPU."""
    return torch.native_dropout(states, p, training)[0] if training and p > 0 else states


def layer_norm(states: torch.Tensor, shape, weight=None, bias=None, eps: float = 1e-5) -> torch.Tensor:
    """Layer norm in float32."""
    return torch.layer_norm(states.float(), shape, weight, bias, eps)


def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **options):
    """PyTorch's memory-efficient attention, which a GPU uses where there is a mask; it needs one of numbers."""
    query, key, value = (states.to(torch.bfloat16) for states in (query, key, value))
    zero, hidden = (torch.full((), number, dtype=query.dtype) for number in (0.0, -torch.inf))
    bias = torch.where(attn_mask, zero, hidden).expand(*query.shape[:3], key.shape[2])
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    return efficient(query, key, value, bias, True, dropout_p, is_causal, scale=scale)[0]


class Counter(TorchDispatchMode):
    """Milliseconds, gigabytes and number of the operators, by kind."""

    def __init__(self):
        super().__init__()
        self.milliseconds: collections.Counter[str] = collections.Counter()
        self.gigabytes: collections.Counter[str] = collections.Counter()
        self.operators: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        name = str(function)
        if not any(view in name for view in VIEWS):
            kind = next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "others")
            moved = size_of((args, kwargs)) + size_of(outputs)
            formula = flop_registry.get(function._overloadpacket)
            products = formula(*args, **(kwargs or {}), out_val=outputs) if formula else 0
            self.milliseconds[kind] += 1000 * max(moved / BYTES, products / PRODUCTS)
            self.gigabytes[kind] += moved / 1e9
            self.operators[kind] += 1
        return outputs


def size_of(values: Any) -> int:
    """Bytes of all tensors; of one that is expanded, those that exist."""
    tensors = [leaf for leaf in torch.utils._pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor)]
    return sum(
        tensor.element_size()
        * int(torch.Size([size for size, step in zip(tensor.shape, tensor.stride(), strict=True) if step]).numel())
        for tensor in tensors
    )


if __name__ == "__main__":
    main()
