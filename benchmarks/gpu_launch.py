"""`accelerate launch` on a GPU: loss curves of the plain run, FSDP2 and torch.compile, and quickstart's duration.

    python benchmarks/gpu_launch.py --meld $MERHAN_CORPORA/meld --write
    python benchmarks/gpu_launch.py --trial     on any machine, with tiny backbones, to show that it works

Every run fine-tunes wav2vec2-base and roberta-base (random weights) for some steps on the same batches, without
dropout, because compiled code draws other random numbers. "Plain, again" is the plain run a second time: its
difference is the noise of bf16. All runs share the GPU at the same time. Each result is printed, and appended to
`--results`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from common import REPOSITORY, command, hardware, publish
from full_width import full_width_backbones
from gpu_training import utterances
from omegaconf import OmegaConf

from merhan.reporting.markdown_tables import markdown_table


FSDP2 = ("--config_file", "configs/accelerate/fsdp2.yaml", "--num_processes", "1")
COLUMNS = ["run", "seconds", "first loss", "last loss", "largest difference from plain"]


def main():
    arguments = parse()
    if arguments.recorded:
        publish("gpu-launch", recorded_section(arguments.recorded), arguments.write)
        return
    if not torch.cuda.is_available() and not arguments.trial:
        sys.exit("no GPU here: nothing is measured. With --trial the benchmark runs in small, to show that it works.")
    about = f"""`{command(MERHAN_CORPORA=os.environ.get("MERHAN_CORPORA", "MERHAN_CORPORA"))}`

{arguments.steps} steps of 16 rows of MELD's durations, bf16, seed 0; {hardware()}. Seconds include the start of the
program; all ran at the same time."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["MERHAN_CACHE"] = str(folder / "cache")
        recipe = write_recipe(arguments, folder)
        say(arguments, {"about": about})
        compare(arguments, recipe, folder)
    text = recorded_section(arguments.results)
    if arguments.trial:
        print(text + "\ntrial: it runs; times are no measurements")
    else:
        publish("gpu-launch", text, arguments.write)


def recorded_section(results: Path) -> str:
    """The section of RESULTS.md from a file of results."""
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    about = [line["about"] for line in lines if "about" in line][-1]
    table = [[line[column] for column in COLUMNS] for line in lines if "run" in line]
    return f"{about}\n\n{markdown_table(COLUMNS, table)}\n"


def compare(arguments: argparse.Namespace, recipe: Path, folder: Path):
    """A result for every way to launch, and one for quickstart."""
    plain = ("--num_processes", "1", *(("--cpu",) if arguments.trial else ()))
    base, compiled = ["--config", str(recipe)], ["--set", "trainer.torch_compile=true"]
    quickstart = [f"output_dir={folder}/quickstart", "stages.0.epochs=1", "stages.1.epochs=1"]
    if arguments.trial:
        quickstart += ["data.options.scale=0.1", "trainer.use_cpu=true"]
    words = ["--config", "configs/quickstart.yaml", *(word for change in quickstart for word in ("--set", change))]
    ways: dict[str, tuple[tuple[str, ...], list[str]]] = {
        "plain": (plain, base),
        "plain, again": (plain, base),
        "quickstart, 1 + 1 epochs": (plain, words),
        "FSDP2": (FSDP2, base),
        "torch_compile": (plain, base + compiled),
        "FSDP2, torch_compile": (FSDP2, base + compiled),
    }
    if arguments.trial:  # neither FSDP2 nor quick compilation without a GPU
        ways = dict(list(ways.items())[:3])

    def run(number: int, name: str) -> tuple[float, str, list[float]]:
        options, words = ways[name]
        options = (*options, "--main_process_port", str(29_500 + number))
        seconds, problem = launch(options, [*words, "--run_name", f"run{number}"], arguments.timeout)
        return seconds, problem, losses(folder / "outputs" / f"run{number}" / "finetune")

    with ThreadPoolExecutor(1 if arguments.trial else len(ways)) as pool:
        results = dict(zip(ways, pool.map(run, range(len(ways)), ways), strict=True))
    for name, (seconds, problem, curve) in results.items():
        cells = line(name, seconds, curve, results["plain"][2], problem)
        say(arguments, dict(zip(COLUMNS, cells, strict=True)) | {"losses": curve})


def line(name: str, seconds: float, curve: list[float], plain: list[float], problem: str) -> list[str]:
    """A line of the table."""
    if not curve:
        return [name, f"{seconds:.0f}", problem, "", ""]
    difference = "other number of steps"
    if len(curve) == len(plain):
        difference = f"{np.abs(np.subtract(curve, plain)).max():.4f}"
    return [name, f"{seconds:.0f}", f"{curve[0]:.4f}", f"{curve[-1]:.4f}", difference]


def launch(options: tuple[str, ...], words: list[str], timeout: float) -> tuple[float, str]:
    """Run the training program; its duration, and what went wrong."""
    program = [sys.executable, "-m", "accelerate.commands.launch", *options, "train_hf_e2e.py", *words, "--overwrite"]
    start = time.perf_counter()
    try:
        done = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return timeout, f"did not end in {timeout:.0f} s"
    lines = done.stderr.strip().splitlines()
    problem = "" if done.returncode == 0 else " ".join([line for line in lines if "rror" in line] or lines[-8:])[:400]
    return time.perf_counter() - start, problem


def losses(stage: Path) -> list[float]:
    """The loss of every step that a stage logged."""
    file = stage / "trainer_state.json"
    if not file.is_file():
        return []
    history = json.loads(file.read_text(encoding="utf-8"))["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def say(arguments: argparse.Namespace, content: dict):
    """Print and append at once: a run may be cut off."""
    print(json.dumps(content), flush=True)
    with arguments.results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(content) + "\n")


def write_recipe(arguments: argparse.Namespace, folder: Path) -> Path:
    """The recipe of all runs, with its manifest of noise."""
    rows = utterances(arguments, folder)
    splits = np.array(["train"] * 8 + ["validation", "test"])[np.arange(len(rows)) % 10]
    # Each split has dialogues of its own, as a corpus should.
    rows.assign(split=splits, dialogue=rows["dialogue"] + splits).to_parquet(folder / "manifest.parquet")
    backbones = ("tiny", "tiny") if arguments.trial else full_width_backbones(rows["text"].tolist())
    still = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop")
    recipe = {
        "run_name": "run",
        "output_dir": str(folder / "outputs"),
        "data": {
            "corpus": "manifest",
            "source": str(folder / "manifest.parquet"),
            "accept_leaks": ["speaker", "text"],
            "context_turns": 3,
            "use_speaker": True,
        },
        "model": {
            "audio_backbone": backbones[0],
            "text_backbone": backbones[1],
            "config": dict.fromkeys(("hidden_dropout", "attention_dropout", "classifier_dropout"), 0.0),
            "audio_config": {"apply_spec_augment": False, **dict.fromkeys(still, 0.0)},
            "text_config": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        },
        "stages": [{"name": "finetune", "epochs": 1, "learning_rate": {"head": 1e-4, "audio": 2e-5, "text": 2e-5}}],
        "trainer": {
            "max_steps": arguments.steps,
            "logging_steps": 1,
            "report_to": "none",
            "use_cpu": arguments.trial,
            "per_device_train_batch_size": 4 if arguments.trial else 16,
        },
    }
    OmegaConf.save(OmegaConf.create(recipe), folder / "recipe.yaml")
    return folder / "recipe.yaml"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meld", type=Path, help="folder of MELD's tables (default: durations and words like MELD's)")
    parser.add_argument("--utterances", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps of every run (default: 40)")
    parser.add_argument("--timeout", type=float, default=120, help="seconds after which a run is ended (default: 120)")
    parser.add_argument("--results", type=Path, default=Path("gpu-launch.jsonl"), help="file that results are added to")
    parser.add_argument("--recorded", type=Path, help="measure nothing, make the table from such a file")
    parser.add_argument("--trial", action="store_true", help="run in small on any machine, and measure nothing")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    if arguments.trial:
        arguments.steps, arguments.timeout = 3, 300
    return arguments


if __name__ == "__main__":
    main()
