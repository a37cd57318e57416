"""Training on a GPU: seconds of sound per second in both stages, cold and warm, features, evaluation, memory.

    python benchmarks/gpu_training.py --meld $MERHAN_CORPORA/meld --write
    python benchmarks/gpu_training.py --trial     on any machine: batch shapes, padding, operators (tiny backbones)

wav2vec2-base and roberta-base in full width with random weights, bf16, noise of MELD's durations, and MELD's words with
three turns of context. Every measurement is printed and appended to `--results` as soon as it is there, and none starts
after `--seconds`. The first epoch is cold (no batch shape was seen before), the second one warm. The utilisation counts
the matrix products of forward and backward (PyTorch's own counter), over the GPU's dense peak.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch
from common import command, hardware, publish
from full_width import full_width_backbones
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback, set_seed
from transformers.utils.logging import disable_progress_bar

from merhan.data.collator import Collator
from merhan.data.corpora.demo_corpus import say
from merhan.data.dataset import EmotionDataset
from merhan.errors import InputError
from merhan.models.building import build_model, build_processor
from merhan.models.inference import as_in_training, predict_logits
from merhan.recipe.schema import DataRecipe, ModelRecipe, Recipe, SamplingRecipe, StageRecipe
from merhan.reporting.markdown_tables import markdown_table
from merhan.training.feature_cache import use_cached_features
from merhan.training.parameter_groups import set_trainable
from merhan.training.stage import train_stage
from processing_merhan import SAMPLING_RATE


PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40": 181e12}  # dense bf16 FLOP/s, from the data sheets
CONTEXT = DataRecipe(context_turns=3, use_speaker=True)  # of configs/meld.yaml
FEW, MORE = 2000, 4000  # utterances of the measurements with an ordinary batch size, and of a compiled or profiled run
Shape = tuple[int, ...]  # rows, samples, and lengths of the other inputs of a batch
STAGES = (
    StageRecipe("warmup", 2, {"head": 1e-3}),
    StageRecipe("finetune", 2, {"head": 1e-4, "audio": 2e-5, "text": 2e-5}),
)


COLUMNS = ["", "rows", "epoch", "audio s per s", "rows per s", "batch shapes", "padding", "peak GiB", "utilisation"]


def main():
    arguments = parse()
    if arguments.recorded:
        publish("gpu-training", recorded_section(arguments.recorded), arguments.write)
        return
    if not torch.cuda.is_available() and not arguments.trial:
        sys.exit("no GPU here: nothing is measured. With --trial the benchmark runs in small, to show that it works.")
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["MERHAN_CACHE"] = str(Path(temporary) / "cache")
        rows = utterances(arguments, Path(temporary))
        backbones = ("tiny", "tiny") if arguments.trial else full_width_backbones(rows["text"].tolist())
        run = Run(arguments, rows, backbones, Path(temporary))
        run.say({"about": about(rows, run.operators)})
        for name, measurement in measurements(arguments.trial):
            if not any(word in name for word in arguments.only):
                continue
            if time.perf_counter() - run.start > arguments.seconds:
                run.say(f"no time left for {name}")
                continue
            try:
                measurement(run, name)
            except (InputError, RuntimeError) as error:  # out of memory, or the compiler; the others go on
                run.say(f"{name} failed: {error}")
    if arguments.trial:
        print(f"{about(rows, run.operators)}\n\n{markdown_table(COLUMNS, run.table)}")
        print("\ntrial: it runs; times are no measurements")
    else:
        publish("gpu-training", recorded_section([arguments.results]), arguments.write)


def about(rows: pd.DataFrame, operators: int) -> str:
    """How it was measured."""
    few, in_all = (f"{part['duration'].sum() / 3600:.1f} h" for part in (rows.iloc[:FEW], rows))
    return f"""`{command(MERHAN_CORPORA=os.environ.get("MERHAN_CORPORA", "MERHAN_CORPORA"))}`

{len(rows):,} utterances ({in_all}) or the first of them ({few} in {FEW:,}); bf16, seed 0, {hardware()}.
A batch takes {operators:,} operators in forward and backward."""


def recorded_section(files: Sequence[Path]) -> str:
    """The section of RESULTS.md from files of results, of which a later one replaces lines of an earlier one."""
    lines: dict[tuple[str, str], list[str]] = {}
    text = ""
    for line in (line for file in files for line in file.read_text(encoding="utf-8").splitlines()):
        result = json.loads(line)["result"]
        if isinstance(result, dict) and "about" in result:
            text = result["about"]
        elif isinstance(result, dict) and list(result) == COLUMNS:
            lines[result[""], result["epoch"]] = list(result.values())
    return f"{text}\n\n{markdown_table(COLUMNS, list(lines.values()))}\n"


def measurements(trial: bool) -> list[tuple[str, Callable]]:
    """Name and function of every measurement, the most telling first."""
    warmup, finetune = STAGES
    cached = replace(finetune, cache_feature_encoder=True)
    small, large, seconds, most = (4, 8, 6, 12) if trial else (16, 64, 240, 600)
    plain = {"stage": finetune, "batch_size": small}
    best = {"stage": cached, "batch_seconds": most}
    listed: list[tuple[str, Callable]] = [
        (f"fine-tuning, batch {small}", partial(train, **plain)),
        ("features, cold", features),
        (f"fine-tuning, {most} s a batch, cached convolutions", partial(train, **best)),
        ("profile, cached convolutions", partial(profile, **best)),
    ]
    if not trial:  # compilation takes minutes without a GPU
        compiled = {"torch_compile": True, **best}
        listed += [
            (f"fine-tuning, {most} s a batch, cached convolutions, compiled", partial(train, count=MORE, **compiled)),
            ("profile, cached convolutions, compiled", partial(profile, **compiled)),
            (f"fine-tuning, batch {small}, compiled", partial(train, **plain, torch_compile=True)),
        ]
    return [
        *listed,
        (f"fine-tuning, {most} s a batch", partial(train, stage=finetune, batch_seconds=most)),
        (f"fine-tuning, {seconds} s a batch", partial(train, stage=finetune, batch_seconds=seconds)),
        (f"fine-tuning, batch {large}", partial(train, stage=finetune, batch_size=large)),
        (f"warm-up on features, batch {small}", partial(train, stage=warmup, batch_size=small)),
        (f"warm-up on features, batch {large}", partial(train, stage=warmup, batch_size=large)),
        ("evaluation", evaluate),
    ]


class Run:
    """What the measurements share, and what they found."""

    def __init__(self, arguments: argparse.Namespace, rows: pd.DataFrame, backbones: tuple, folder: Path):
        self.arguments, self.rows, self.backbones, self.folder = arguments, rows, backbones, folder
        self.start = time.perf_counter()
        self.table: list[list[str]] = []
        self.datasets: dict[int | None, EmotionDataset] = {}
        model, self.processor, data = self.build(FEW)
        self.flops, self.operators = work_of_a_batch(model, STAGES[1], data, self.processor)

    def build(self, count: int | None = None) -> tuple:
        """Model with fresh weights, processor and data set of the first `count` rows."""
        set_seed(0)
        recipe, rows = ModelRecipe(*self.backbones), self.rows.iloc[:count]
        processor = build_processor(recipe, CONTEXT, self.rows)
        model = build_model(recipe, sorted(self.rows["label"].unique()), self.rows)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if count not in self.datasets:
            self.datasets[count] = EmotionDataset(rows, processor, model.config.label2id, ["audio", "text"])
        data = self.datasets[count]
        data.features.clear()
        return model, processor, data

    def options(self, batch_size: int) -> dict[str, Any]:
        """The section `trainer` of the recipe."""
        options = {"per_device_train_batch_size": batch_size, "bf16": True, "report_to": "none", "logging_steps": 50}
        options |= {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
        return options | {"dataloader_num_workers": 0 if self.arguments.trial else self.arguments.workers}

    def recipe(self, batch_size: int, batch_seconds: float | None, **options) -> Recipe:
        """The recipe of a measurement."""
        sampling = SamplingRecipe(batch_seconds=batch_seconds)
        return Recipe(run_name="x", sampling=sampling, trainer=self.options(batch_size) | options)

    def record(
        self, name: str, epoch: str, seconds: float, data: EmotionDataset, shapes: Sequence[Shape] = (), trains=False
    ):
        """Add a line, print it, and append it to the file of results."""
        sound = data.rows["duration"].sum()
        speed, padding, utilisation = sound / seconds, "", ""
        if shapes:
            samples = sum(rows * length for rows, length, *_ in shapes)
            padding = f"{1 - sound * SAMPLING_RATE / samples:.1%}" if samples else ""
        if trains:
            peak = next((value for key, value in PEAK.items() if key in hardware()), float("nan"))
            utilisation = f"{speed * self.flops / peak:.1%}"
        memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else float("nan")
        distinct = str(len(set(shapes))) if shapes else ""
        cells = [f"{speed:.0f}", f"{len(data) / seconds:.0f}", distinct, padding, f"{memory:.1f}", utilisation]
        self.table.append([name, f"{len(data):,}", epoch, *cells])
        self.say(dict(zip(COLUMNS, self.table[-1], strict=True)))

    def say(self, content: Any):
        """Print and append at once: a run may be cut off."""
        line = json.dumps({"after_s": round(time.perf_counter() - self.start, 1), "result": content})
        print(line, flush=True)
        with self.arguments.results.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def train(
    run: Run,
    name: str,
    stage: StageRecipe,
    batch_size: int = 16,
    batch_seconds: float | None = None,
    count: int | None = None,
    **options,
):
    """Two epochs of a stage."""
    model, processor, data = run.build(FEW if batch_seconds is None else count)
    clock = Clock(model)
    recipe = run.recipe(batch_size, batch_seconds, **options)
    start = time.perf_counter()
    train_stage(recipe, stage, 0, model, processor, data, data, run.folder / name.replace(" ", "-"), [clock])
    run.say(f"{name}: first step after {clock.first - start:.1f} s, start-up and features included")
    trains = "audio" in stage.learning_rate
    for number, epoch in enumerate(("1, cold", "2, warm")):
        run.record(name, epoch, clock.seconds[number], data, clock.shapes[number], trains)


def profile(run: Run, name: str, stage: StageRecipe, batch_seconds: float, **options):
    """Where the time of warm steps goes: the operators with the most time of the GPU, and that of the CPU."""
    model, processor, data = run.build(MORE)
    profiler = Profiler(*((1, 2) if run.arguments.trial else (26, 6)))  # in the second epoch
    recipe = run.recipe(16, batch_seconds, **options)
    train_stage(recipe, stage, 0, model, processor, data, data, run.folder / name, [profiler])
    run.say({name: profiler.table()})


class Profiler(TrainerCallback):
    """PyTorch's profiler over some steps: on a GPU of its kernels alone, because the many operators of the CPU take
    it more than a minute to sum up.

    Args:
        skip: steps before.
        steps: that are profiled.
    """

    def __init__(self, skip: int, steps: int):
        self.skip, self.steps = skip, steps
        activity = torch.profiler.ProfilerActivity
        self.profiler = torch.profiler.profile(
            activities=[activity.CUDA if torch.cuda.is_available() else activity.CPU]
        )
        self.seconds = 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.skip:
            self.profiler.start()
            self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.skip + self.steps:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds = time.perf_counter() - self.start
            self.profiler.stop()
            control.should_training_stop = True

    def table(self) -> dict[str, Any]:
        """Milliseconds a step, of the step and of its largest parts on the GPU (on the CPU without one)."""
        if not self.seconds:
            return {"profile": f"fewer than {self.skip + self.steps} steps: nothing was profiled"}
        key = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        events = sorted(self.profiler.key_averages(), key=lambda event: -getattr(event, key))
        milliseconds = {event.key[:80]: getattr(event, key) / 1000 / self.steps for event in events}
        return {
            "ms a step": round(1000 * self.seconds / self.steps, 1),
            "ms in all parts": round(sum(milliseconds.values()), 1),
            "parts": {name: round(value, 2) for name, value in list(milliseconds.items())[:25]},
        }


def features(run: Run, name: str):
    """Features of both backbones, from an empty cache."""
    model, _, data = run.build()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = torch.bfloat16 if torch.cuda.is_available() else None
    workers = run.options(1)["dataloader_num_workers"]
    for modality in ("audio", "text"):
        start = time.perf_counter()
        use_cached_features(model.merhan, data, modality, device, precision, workers)
        run.record(f"{name}, {modality}", "", time.perf_counter() - start, data)


def evaluate(run: Run, name: str):
    """Logits of some rows, twice."""
    model, processor, data = run.build(FEW)
    with as_in_training(run.options(1)):
        for epoch in ("cold", "warm"):
            start = time.perf_counter()
            predict_logits(model.eval(), processor, data, 8 if run.arguments.trial else 64, quiet=True)
            run.record(name, epoch, time.perf_counter() - start, data)


class Clock(TrainerCallback):
    """How long each epoch took, and the shapes of its batches."""

    def __init__(self, model: torch.nn.Module):
        self.seconds: list[float] = []
        self.shapes: list[list[Shape]] = []
        self.first = 0.0
        model.register_forward_pre_hook(self._note_shape, with_kwargs=True)

    def _note_shape(self, module: torch.nn.Module, args: tuple, inputs: dict[str, torch.Tensor]):
        if self.shapes:
            lengths = [values.shape[1] for name, values in sorted(inputs.items()) if name.endswith(("features", "ids"))]
            samples = inputs["input_values"].shape[1] if "input_values" in inputs else 0
            self.shapes[-1].append((len(inputs["labels"]), samples, *lengths))

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()
        self.shapes.append([])

    def on_step_end(self, args, state, control, **kwargs):
        self.first = self.first or time.perf_counter()

    def on_epoch_end(self, args, state, control, **kwargs):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.start)


class OperatorCounter(TorchDispatchMode):
    """Counts the operators that are dispatched, each of which launches a kernel or more."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def work_of_a_batch(model, stage: StageRecipe, data: EmotionDataset, processor) -> tuple[float, int]:
    """FLOP per second of sound, and the number of operators, in forward and backward of a batch.

    Its rows are of like length, as in the batches of training: padding is work that nobody asked for.
    """
    set_trainable(model, stage.learning_rate, stage.freeze_feature_encoder)
    middle = len(data) // 2
    rows = data.rows["duration"].argsort().tolist()[middle - 4 : middle + 4]
    batch = Collator(processor)([data[row] for row in rows])
    with FlopCounterMode(display=False) as flops:
        model.train()(**batch).loss.backward()
    model.zero_grad()
    with OperatorCounter() as operators:
        model(**batch).loss.backward()
    model.zero_grad()
    return flops.get_total_flops() / data.rows["duration"].iloc[rows].sum(), operators.count


def utterances(arguments, folder: Path) -> pd.DataFrame:
    """Noise of the durations and with the words of MELD's training and development split, shuffled by dialogue."""
    count = 20 if arguments.trial else arguments.utterances
    rows = made_up_rows(count) if arguments.meld is None else meld_rows(arguments.meld)
    rows = rows.iloc[:count].reset_index(drop=True)
    if arguments.trial:
        rows["duration"] = rows["duration"].clip(0.5, 2)
    rng = np.random.default_rng(0)
    noise = (3000 * rng.standard_normal(SAMPLING_RATE * 600)).astype(np.int16)  # each row has a piece of it
    rows["audio"] = [str(folder / f"{number}.wav") for number in range(len(rows))]
    for path, seconds in zip(rows["audio"], rows["duration"], strict=True):
        samples = round(seconds * SAMPLING_RATE)
        start = rng.integers(len(noise) - samples)
        soundfile.write(path, noise[start : start + samples], SAMPLING_RATE)
    return rows.assign(utterance_id=[f"u{number}" for number in range(len(rows))], corpus="noise")


def meld_rows(folder: Path) -> pd.DataFrame:
    """Duration, words, speaker, dialogue and turn of MELD's utterances, 0.5 to 12 s as the recipe has them."""
    words = pd.concat(
        pd.read_csv(folder / f"{split}_sent_emo.csv", keep_default_na=False).assign(split=split)
        for split in ("train", "dev")
    )
    durations = pd.read_csv(folder / "media_durations.csv").rename(columns={"duration_s": "duration"})
    keys = {"Dialogue_ID": "dialogue_id", "Utterance_ID": "utterance_id"}
    rows = words.rename(columns=keys).merge(durations, on=["split", *keys.values()])
    rows["dialogue"] = rows["split"] + rows["dialogue_id"].astype(str)
    order = rows["dialogue"].drop_duplicates().sample(frac=1, random_state=0)
    rows = rows.set_index("dialogue").loc[order].reset_index()
    return pd.DataFrame(
        {
            "text": rows["Utterance"].str.strip(),
            "label": rows["Emotion"],
            "speaker": rows["Speaker"],
            "dialogue": rows["dialogue"],
            "turn": rows["utterance_id"],
            "duration": rows["duration"].clip(0.5, 12),
        }
    )


def made_up_rows(count: int) -> pd.DataFrame:
    """Durations near MELD's (median 2.5 s), with words of the demo corpus."""
    rng = np.random.default_rng(0)
    valences = [("negative", "positive")[number % 2] for number in range(count)]
    return pd.DataFrame(
        {
            "text": [say(rng, valence) for valence in valences],
            "label": ["anger" if valence == "negative" else "joy" for valence in valences],
            "speaker": "A",
            "dialogue": [f"d{number // 10}" for number in range(count)],
            "turn": [number % 10 for number in range(count)],
            "duration": np.clip(rng.lognormal(0.9, 0.7, count), 0.5, 12),
        }
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meld", type=Path, help="folder of MELD's tables (default: durations and words like MELD's)")
    parser.add_argument("--utterances", type=int, default=11_098, help="how many at most (default: 11098)")
    parser.add_argument("--seconds", type=float, default=240, help="start nothing after this time (default: 240)")
    parser.add_argument(
        "--results", type=Path, default=Path("gpu-training.jsonl"), help="file that results are added to"
    )
    parser.add_argument("--recorded", type=Path, nargs="+", help="measure nothing, make the table from such files")
    parser.add_argument("--only", nargs="+", default=[""], help="words of the names of what is measured (default: all)")
    parser.add_argument("--workers", type=int, default=8, help="processes that load audio (default: 8)")
    parser.add_argument("--trial", action="store_true", help="run in small on any machine, and measure nothing")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
