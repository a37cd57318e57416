"""Break a small run in every way that we know of, and count what it answers.

python benchmarks/faults.py --instants 40

Bad inputs are generated from the schema of recipes and the parsers of commands. Every file of an interrupted run is
truncated, emptied and has one bit flipped, then the run is resumed. Training, evaluation, export and publishing are
ended by SIGKILL at random instants, and training by SIGTERM, then done again: a resumed run must have the weights of
one that was never interrupted, an evaluation its metrics, an export and a repository their files. Runs are started
twice at once, fail in two processes, and are published while the Hub fails. The table is written anew after each row.
"""

import argparse
import contextlib
import io
import logging
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from bad_inputs import COMPLETE, command_lines, recipe_changes
from common import command, hardware, publish
from kills import (
    ANSWERS,
    ended_trainings,
    hub_fault_answers,
    killed_evaluations,
    killed_exports,
    killed_publications,
    rank_answers,
    two_at_once,
)
from safetensors.torch import load_file

from merhan import api
from merhan.cli.main import build_parser
from merhan.errors import InputError
from merhan.recipe.loading import load_recipe
from merhan.reporting.markdown_tables import markdown_table
from merhan.training import stage
from merhan.training.stage_history import save_history


RECIPE = """
run_name: small
output_dir: {folder}/outputs
data: {{corpus: demo, source: {data}, options: {{scale: 0.1}}, accept_leaks: [text], max_seconds: 2}}
model: {{text_backbone: tiny, config: {{hidden_size: 8, num_attention_heads: 1, intermediate_size: 8}}}}
stages:
  - {{name: warmup, epochs: 1, learning_rate: {{head: 1.0e-3}}}}
  - {{name: full, epochs: 4, learning_rate: {{head: 1.0e-3, text: 1.0e-4}}, trainer: {{save_total_limit: 3}}}}
ema_decay: 0.9
trainer: {{per_device_train_batch_size: 4, report_to: none, use_cpu: true}}
"""
RANK_CHANGES = (
    "data.options.scale=-1",
    "data.corpus=nowhere",
    "trainer.learning_rate=1",
    "evaluation.splits=[nothing]",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instants", type=int, default=40, help="instants at which SIGKILL is sent, in all")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as name:
        for label, count in answers_by_fault(Path(name), arguments.instants):
            rows.append([label, str(sum(count.values())), *(str(count[answer]) for answer in ANSWERS)])
            text = f"`{command()}`, {hardware()}.\n\n{markdown_table(['fault', 'cases', *ANSWERS], rows)}\n"
            publish("faults", text, arguments.write)


def answers_by_fault(folder: Path, instants: int) -> Iterator[tuple[str, Counter]]:
    """Fault -> how many cases of it had which of the `ANSWERS`."""
    yield "bad values of recipe keys", recipe_answers(folder)
    yield "bad options of commands", option_answers(folder)
    whole, data = train(folder / "whole", folder / "demo"), folder / "demo"
    run = folder / "whole" / "outputs" / "small"

    def start(name: str) -> Path:
        return write_recipe(folder / name, data)

    def resumed(recipe: Path) -> str:
        begun = (recipe.parent / "outputs" / "small" / "recipe.yaml").is_file()
        return answer(lambda: train(recipe.parent, data, resume=begun), whole)

    part = instants // 5
    killed = "SIGKILL at a random instant of"
    count = ended_trainings(start, resumed, signal.SIGKILL, instants - 3 * part)
    yield f"{killed} a training (two stages, model folder), then --resume", count
    yield f"{killed} an evaluation, then again", killed_evaluations(run, folder / "killed", part)
    yield f"{killed} an export to ONNX, then again", killed_exports(run, folder / "exported", part)
    yield f"{killed} publishing, then again", killed_publications(run, part)
    count = ended_trainings(start, resumed, signal.SIGTERM, part)
    yield "SIGTERM at a random instant of a training, then --resume", count
    yield "two at once: the second", two_at_once(start, lambda other: same(whole, weights(other)))
    yield "an error in two processes", rank_answers(start("ranks"), RANK_CHANGES)
    yield "publishing while a request of the Hub fails", hub_fault_answers(run)
    yield from artefact_answers(folder, whole)


def recipe_answers(folder: Path) -> Counter:
    path = folder / "complete.yaml"
    path.write_text(COMPLETE.format(folder=folder), encoding="utf-8")
    return Counter(answer(lambda change=change: load_recipe(path, [change])) for change in recipe_changes())


def option_answers(folder: Path) -> Counter:
    (folder / "file").touch()
    lines = command_lines(str(folder), str(folder / "file"))
    return Counter(answer(lambda words=words: build_parser().parse_args(words)) for words in lines)


def answer(work: Callable[[], object], weights: dict | None = None) -> str:
    """What came of some work: one of `ANSWERS`.

    Args:
        work: returns weights, where `weights` are those that it should return.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            result = work()
    except InputError as error:
        return ANSWERS[0] if "\n" not in str(error) else ANSWERS[3]
    except SystemExit as ended:
        return ANSWERS[0] if ended.code == 2 and errors.getvalue().count("\n") == 1 else ANSWERS[3]
    except Exception:
        return ANSWERS[3]
    return ANSWERS[1] if weights is not None and same(weights, result) else ANSWERS[2]


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def train(folder: Path, data: Path, resume: bool = False) -> dict:
    """Train, or resume, the small run; returns its weights."""
    return weights(api.train(write_recipe(folder, data), resume=resume))


def write_recipe(folder: Path, data: Path) -> Path:
    """The recipe of a run that writes into a folder."""
    folder.mkdir(exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(folder=folder, data=data), encoding="utf-8")
    return path


def weights(run: Path) -> dict:
    return load_file(run / "model" / "model.safetensors")


# --- damaged files ---


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path):
    path.write_bytes(b"")


def flip(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def artefact_answers(folder: Path, whole: dict) -> Iterator[tuple[str, Counter]]:
    """Damage each file that a resumed or an evaluated run reads."""
    interrupted, finished = folder / "cut", folder / "whole"
    save = stage.save_history
    stage.save_history = _interrupt_second_stage
    with contextlib.suppress(KeyboardInterrupt):
        train(interrupted, folder / "demo")
    stage.save_history = save
    run = interrupted / "outputs" / "small"
    newest = max(run.glob("full/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    read = [run / "recipe.yaml", run / "provenance.json", *sorted((run / "warmup" / "model").iterdir())]
    read += [path for path in sorted(newest.iterdir()) if path.suffix != ".md"]
    for fault in (truncate, empty, flip):
        answers = Counter(_resumed(interrupted, path, fault, folder / "demo", whole) for path in read)
        yield f"{fault.__name__} a file of an interrupted run, then --resume", answers
        run = finished / "outputs" / "small"
        results = [path for path in sorted((run / "model").iterdir()) if path.suffix in (".safetensors", ".json")]
        answers = Counter(_evaluated(run, path, fault) for path in [*results, run / "recipe.yaml"])
        yield f"{fault.__name__} a file of a finished run, then evaluate", answers


def _interrupt_second_stage(trainer):
    save_history(trainer)
    if Path(trainer.args.output_dir).name == "full":
        raise KeyboardInterrupt


def _resumed(interrupted: Path, path: Path, fault: Callable[[Path], None], data: Path, whole: dict) -> str:
    """Damage a file of the run, resume it, and restore the run."""
    backup = interrupted.with_name("backup")
    shutil.copytree(interrupted, backup)
    fault(path)
    result = answer(lambda: train(interrupted, data, resume=True), whole)
    shutil.rmtree(interrupted)
    backup.rename(interrupted)
    return result


def _evaluated(run: Path, path: Path, fault: Callable[[Path], None]) -> str:
    content = path.read_bytes()
    fault(path)
    result = answer(lambda: api.evaluate(run))
    path.write_bytes(content)
    return result


if __name__ == "__main__":
    main()
