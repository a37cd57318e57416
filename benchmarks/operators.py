"""Operators that an optimizer step launches: on a GPU each costs about 10 us of the CPU, which small batches wait for.

    git worktree add ../before ed1061e
    python benchmarks/operators.py --before ../before --write

wav2vec2 and RoBERTa in their full depth and a small width, which does not change the number of operators; the
convolutional encoder is frozen, and LayerDrop is off, because it skips layers at random. Views and other operators that
launch nothing are not counted.
"""

import argparse
import collections
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import command, hardware, publish
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import RobertaConfig, Wav2Vec2Config


PARTS = ("forward", "backward", "clipping", "optimizer")
# Operators of these names give another view of a tensor, memory, or a property.
VIEWS = (
    "view",
    "transpose",
    "aten.t.",
    "expand",
    "unsqueeze",
    "squeeze",
    "detach",
    "slice",
    "permute",
    "select",
    "alias",
)
VIEWS += ("split", "as_strided", "lift_fresh", "profiler", "empty", "prim.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    if arguments.count:
        print(json.dumps(count_all()))
        return
    from merhan.reporting.markdown_tables import markdown_table  # not where another checkout is on the path

    checkouts = {"now": Path(__file__).parent.parent}
    if arguments.before is not None:
        checkouts = {"before": arguments.before, **checkouts}
    table = []
    for name, folder in checkouts.items():
        for precision, counts in counts_of(folder).items():
            table.append([name, precision, *(f"{counts[part]:,}" for part in PARTS), f"{sum(counts.values()):,}"])
    text = f"""`{command(BEFORE=str(arguments.before or "BEFORE"))}`

An optimizer step of 4 rows with padding, dropout on; {hardware()}. "Before" is the commit ed1061e.

{markdown_table(["", "precision", *PARTS, "in all"], table)}
"""
    publish("operators", text, arguments.write)


def counts_of(folder: Path) -> dict[str, dict[str, int]]:
    """Precision -> part of a step -> number of operators, of the model file in a checkout."""
    environment = os.environ | {"PYTHONPATH": str(folder.resolve())}
    done = subprocess.run(
        [sys.executable, __file__, "--count"], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"error: {folder}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def count_all() -> dict[str, dict[str, int]]:
    """The counts in float32 and under autocast to bf16."""
    torch.manual_seed(0)
    return {"float32": count_step(build(), None), "bf16": count_step(build(), torch.bfloat16)}


def build() -> torch.nn.Module:
    """The model of the checkout that is on the path."""
    import modeling_merhan

    small: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    audio = Wav2Vec2Config(
        **small, conv_dim=[32] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, layerdrop=0.0
    )
    text = RobertaConfig(**small, vocab_size=100)
    config = modeling_merhan.MerhanConfig(audio_config=audio, text_config=text, **small, num_labels=7)
    model = modeling_merhan.MerhanForSequenceClassification(config).train()
    model.merhan.audio_backbone.feature_extractor.requires_grad_(False)
    if Path(modeling_merhan.__file__).with_name("merhan").joinpath("training", "single_cast.py").is_file():
        from merhan.training.single_cast import cast_states_once  # not in an earlier commit

        cast_states_once(model)
    return model


def count_step(model: torch.nn.Module, precision: torch.dtype | None) -> dict[str, int]:
    """Part of the second optimizer step -> number of operators."""
    batch = {
        "input_values": torch.randn(4, 16_000),
        "audio_attention_mask": torch.ones(4, 16_000, dtype=torch.long),
        "input_ids": torch.randint(5, 90, (4, 20)),
        "attention_mask": torch.ones(4, 20, dtype=torch.long),
        "labels": torch.tensor([0, 1, 2, 3]),
    }
    batch["audio_attention_mask"][0, 12_000:] = 0
    batch["attention_mask"][1, 12:] = 0
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    losses: list[torch.Tensor] = []

    def forward():
        with torch.autocast("cpu", precision, enabled=precision is not None):
            losses.append(model(**batch).loss)

    steps: dict[str, Callable[[], Any]] = {
        "forward": forward,
        "backward": lambda: losses[-1].backward(),
        "clipping": lambda: torch.nn.utils.clip_grad_norm_(trained, 1.0),
        "optimizer": optimizer.step,
    }
    for step in steps.values():
        step()
    optimizer.zero_grad()
    return {part: count(steps[part]) for part in PARTS}


class Counter(TorchDispatchMode):
    """Counts the operators by name."""

    def __init__(self):
        super().__init__()
        self.numbers: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.numbers[str(function)] += 1
        return function(*args, **(kwargs or {}))


def count(step: Callable[[], Any]) -> int:
    """The operators that a function launches."""
    with Counter() as counter:
        step()
    return sum(number for name, number in counter.numbers.items() if not any(view in name for view in VIEWS))


if __name__ == "__main__":
    main()
