"""The first convolution of wav2vec2-base with its group norm: ours, which leaves out padding, against transformers'.

    git worktree add ../before f6448ff
    python benchmarks/group_norm.py --before ../before --write

No other states of the model are as large. Forward of 8 rows of 3.4 s, two of them padded, without gradients.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import command, hardware, publish
from transformers import Wav2Vec2Config
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GroupNormConvLayer


PRECISIONS = {"float32": None, "bf16": torch.bfloat16}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each, in turn (default: 7)")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps({name: relative_time(precision, arguments.rounds) for name, precision in PRECISIONS.items()}))
        return
    from merhan.reporting.markdown_tables import markdown_table  # not where another checkout is on the path

    checkouts = {"now": Path(__file__).parent.parent}
    if arguments.before is not None:
        checkouts = {"before": arguments.before, **checkouts}
    table = [["transformers' own", "1.00", "1.00"]]
    for name, folder in checkouts.items():
        measured = measure(folder, arguments.rounds)
        table.append([f"ours, {name}", *(f"{measured[precision]:.2f}" for precision in PRECISIONS)])
    text = f"""`{command(BEFORE=str(arguments.before or "BEFORE"))}`

Time relative to transformers' own layer in the same process, median of {arguments.rounds} in turn; {hardware()}.
"Before" is the commit f6448ff.

{markdown_table(["first convolution", *PRECISIONS], table)}
"""
    publish("group-norm", text, arguments.write)


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """Precision -> relative time of the layer of a checkout."""
    environment = os.environ | {"PYTHONPATH": str(folder.resolve()), "OMP_WAIT_POLICY": "PASSIVE"}
    words = [sys.executable, __file__, "--measure", "--rounds", str(rounds)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"error: {folder}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def relative_time(precision: torch.dtype | None, rounds: int) -> float:
    """Time of the layer of the checkout that is on the path, over that of transformers' own."""
    from modeling_merhan import PADDING, MerhanGroupNormConvLayer

    torch.manual_seed(0)
    upstream = Wav2Vec2GroupNormConvLayer(Wav2Vec2Config())
    ours = MerhanGroupNormConvLayer(upstream)
    sound = torch.randn(8, 1, 54_080)
    marked = sound.clone()
    marked[:2, :, 48_000:] = PADDING
    times: tuple[list[float], list[float]] = [], []
    with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision is not None):
        for _ in range(rounds + 1):  # the first is left out
            times[0].append(seconds(lambda: upstream(sound)))
            times[1].append(seconds(lambda: ours(marked)))
    own, other = (statistics.median(measured[1:]) for measured in times)
    return other / own


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
