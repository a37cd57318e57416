"""Training steps of quickstart's speech backbone on a CPU: threads that wait actively, or asleep, or a single one.

    python benchmarks/threads.py --write

Alone, and beside as many busy processes as there are cores. Times are ratios to one thread alone.
"""

import argparse
import os
import subprocess
import sys
import time

from common import command, hardware, publish


WAYS = {"one thread": ("1", {}), "waiting actively": ("0", {}), "asleep": ("0", {"OMP_WAIT_POLICY": "PASSIVE"})}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, in turn (default: 3)")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    if arguments.step is not None:
        print(seconds_of_a_step(int(arguments.step), arguments.seconds))
        return
    from merhan.reporting.markdown_tables import markdown_table

    measured: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in WAYS}
    for beside in (0, 1):
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(beside * os.cpu_count())]
        try:
            for _ in range(arguments.rounds):
                for name, (threads, environment) in WAYS.items():
                    measured[name][beside].append(measure(threads, environment, arguments.seconds))
        finally:
            for process in busy:
                process.kill()
    unit = sorted(measured["one thread"][0])[arguments.rounds // 2]
    table = [
        [name, *(f"{sorted(times)[len(times) // 2] / unit:.2f}" for times in both)] for name, both in measured.items()
    ]
    text = f"""`{command()}`

Time of a step relative to one thread alone, median of {arguments.rounds}; {hardware()}. The programs set
`OMP_WAIT_POLICY=PASSIVE` ("asleep") unless it is set.

{markdown_table(["threads", "alone", "beside busy processes"], table)}
"""
    publish("threads", text, arguments.write)


def measure(threads: str, environment: dict[str, str], seconds: float) -> float:
    """Seconds of a step, in a process of its own, because PyTorch reads the environment once."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    words = [sys.executable, __file__, "--step", threads, "--seconds", str(seconds)]
    done = subprocess.run(words, env=clean | environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def seconds_of_a_step(threads: int, seconds: float) -> float:
    """Forward and backward of 16 rows of 2 s."""
    import torch
    from transformers import AutoModel

    from merhan.models.tiny_backbones import tiny_audio

    torch.set_num_threads(threads or os.cpu_count())
    model = AutoModel.from_pretrained(tiny_audio()).train()
    samples = torch.randn(16, 32_000)
    steps, start = -1, 0.0
    while steps < 0 or time.perf_counter() - start < seconds:
        model(samples).last_hidden_state.pow(2).mean().backward()
        steps += 1
        if steps == 0:
            start = time.perf_counter()
    return (time.perf_counter() - start) / steps


if __name__ == "__main__":
    main()
