"""What `configs/meld-large.yaml` takes of a GPU's memory, counted without one.

    python benchmarks/memory_of_large.py --write

Two optimizer steps of wav2vec2-large and roberta-large over the longest batch are run on tensors without content, and
PyTorch's tracker adds up what lives at the same time. What a GPU's libraries take themselves is not in it.
"""

import argparse
from typing import Any

import torch
from common import command, hardware, publish
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import RobertaConfig, Wav2Vec2Config

from merhan.recipe.loading import load_recipe
from merhan.reporting.markdown_tables import markdown_table
from modeling_merhan import MerhanConfig, MerhanForSequenceClassification
from processing_merhan import SAMPLING_RATE


LARGE: dict[str, Any] = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
LARGE |= {"intermediate_size": 4096}


NAMES = {"Parameter": "weights", "Gradient": "gradients", "Activation": "activations", "Temp": "others"}
NAMES |= {"Optstate": "optimizer", "Total": "in all"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    recipe = load_recipe("configs/meld-large.yaml", [])
    rows = recipe.trainer["per_device_train_batch_size"]
    peak = count(rows, recipe.data.max_seconds, recipe.data.max_tokens)
    text = f"""`{command()}`

Peak of an optimizer step of {rows} rows of {recipe.data.max_seconds:g} s and {recipe.data.max_tokens} tokens, bf16,
activations recomputed; counted on {hardware()}.

{markdown_table(["", "GiB"], [[name, f"{size / 2**30:.1f}"] for name, size in peak.items()])}
"""
    publish("memory-of-large", text, arguments.write)


def count(rows: int, seconds: Any, tokens: int) -> dict[str, int]:
    """Bytes at the peak, by kind and in all."""
    with FakeTensorMode():
        model = build()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained)
        tracker = MemTracker()
        tracker.track_external(model, optimizer)
        with tracker:
            for _ in range(2):  # the optimizer's state is there from the second step on
                step(model, optimizer, rows, round(seconds * SAMPLING_RATE), tokens)
                tracker.reset_mod_stats()
        sizes = next(iter(tracker.get_tracker_snapshot("peak").values()))
    return {NAMES[getattr(kind, "value", kind)]: size for kind, size in sizes.items() if size >= 2**20}


def build() -> MerhanForSequenceClassification:
    """The model of the recipe, with its convolutions trained too: the tracker does not know frozen weights."""
    audio = Wav2Vec2Config(**LARGE, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, layerdrop=0.0)
    text = RobertaConfig(**LARGE, vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1)
    audio.apply_spec_augment = False  # it draws numbers, which tensors without content do not have
    model = MerhanForSequenceClassification(MerhanConfig(audio_config=audio, text_config=text, num_labels=7)).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def step(model, optimizer, rows: int, samples: int, tokens: int):
    """An optimizer step."""
    batch = {
        "input_values": torch.randn(rows, samples),
        "audio_attention_mask": torch.ones(rows, samples, dtype=torch.long),
        "input_ids": torch.ones(rows, tokens, dtype=torch.long),
        "attention_mask": torch.ones(rows, tokens, dtype=torch.long),
        "labels": torch.zeros(rows, dtype=torch.long),
    }
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


if __name__ == "__main__":
    main()
