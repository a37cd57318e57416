"""Signals save a checkpoint and say how to continue; a full disk or missing rights are one sentence."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from test_damage import RECIPE
from transformers import TrainerCallback

from merhan import api
from merhan.cli import console
from merhan.content_hashes import damage
from merhan.errors import ENDING_SIGNALS, Interrupted
from merhan.training import stage
from merhan.training.interruption import signals_noted


CHANGES = [
    "trainer={per_device_train_batch_size: 4, report_to: none, logging_steps: 3}",
    "data.augmentation.gain=[-6, 6]",
]
CHANGES += ["stages.1.trainer={}", "sampling.curriculum=null"]


def run(folder, **options):
    """Train the recipe; returns weights and logged losses of the second stage."""
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(folder=folder).replace(f"{folder}/demo", f"{folder.parent}/demo"), encoding="utf-8")
    small = api.train(path, CHANGES, **options)
    state = json.loads((small / "full" / "trainer_state.json").read_text())
    losses = [(entry["step"], entry["loss"]) for entry in state["log_history"] if "loss" in entry]
    return load_file(small / "model" / "model.safetensors"), losses


class Signalled(TrainerCallback):
    """Sends a signal at the end of a step of the second stage."""

    def __init__(self, number: int, step: int):
        self.number = number
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step and args.output_dir.endswith("full"):
            signal.raise_signal(self.number)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals") / "whole"
    folder.mkdir()
    return run(folder)


@pytest.mark.parametrize(("number", "step"), [(signal.SIGINT, 1), (signal.SIGTERM, 5), (ENDING_SIGNALS[-1], None)])
def test_a_signal_saves_a_checkpoint_from_which_the_run_resumes_to_the_same(
    number, step, uninterrupted, tmp_path, monkeypatch
):
    """Amid an epoch, and at its last step (None); the losses logged after the resumption are the same too."""
    weights, losses = uninterrupted
    steps = losses[-1][0] // 2
    monkeypatch.setattr(stage, "_stage_callbacks", lambda *_: [Signalled(number, step or steps)])
    handler = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"ended by SIG\w+ at .*checkpoint-\d+; continue with --resume") as ended:
        run(tmp_path)
    assert ended.value.number == number and signal.getsignal(number) == handler
    (newest,) = (tmp_path / "outputs/small/full").glob(f"checkpoint-{step or steps}")
    assert damage(newest) is None
    monkeypatch.undo()
    again, logged = run(tmp_path, resume=True)
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())
    assert logged == losses


def test_a_second_signal_ends_at_once():
    code = "import signal, time\nfrom merhan.training import interruption\ninterruption._SAME_SIGNAL = -1\n"
    code += "with interruption.signals_noted() as noted:\n    signal.raise_signal(15)\n    print(noted.number)\n"
    code += "    signal.raise_signal(2)\n    print('still here')\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT and done.stdout.endswith("15\n") and "Traceback" not in done.stderr


def test_the_same_signal_of_terminal_and_launcher_counts_once():
    with signals_noted() as noted:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert noted.number == signal.SIGINT


def ended(error: BaseException, capsys) -> tuple[int, str]:
    """Exit code and sentence of a program that raises an error."""

    def main():
        raise error

    previous = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    with pytest.raises(SystemExit) as end:
        console.exits_cleanly(main)()
    for number, handler in previous.items():
        signal.signal(number, handler)
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("number", sorted(console._REMEDIES))
def test_no_room_and_no_rights_are_one_sentence_with_path_and_remedy(number, capsys):
    code, said = ended(OSError(number, os.strerror(number), "/data/a.bin"), capsys)
    assert code == 2 and said.count("\n") == 1
    assert said.startswith("error: /data/a.bin: ") and console._REMEDIES[number] in said and "--resume" in said


def test_a_full_disk_that_safetensors_or_torch_report_is_one_sentence(capsys):
    for message in (
        "No space left on device (os error 28)",
        "[enforce fail at inline_container.cc:858] . PytorchStreamWriter",
    ):
        code, said = ended(RuntimeError(message), capsys)
        assert code == 2 and said.count("\n") == 1 and "make room on the disk" in said


def test_no_memory_is_one_sentence(capsys):
    code, said = ended(MemoryError(), capsys)
    assert code == 2 and "memory of this machine is full" in said and said.count("\n") == 1


def test_signals_are_one_sentence_with_their_exit_code(capsys):
    assert ended(KeyboardInterrupt(), capsys) == (130, "error: ended by SIGINT; a training continues with --resume\n")
    assert ended(Interrupted("ended by SIGTERM at x", 15), capsys) == (143, "error: ended by SIGTERM at x\n")


def test_faults_of_the_program_are_not_hidden():
    for error in (ValueError("x"), RuntimeError("x"), FileNotFoundError(errno.ENOENT, "x")):
        with pytest.raises(type(error)):
            console.exits_cleanly(lambda error=error: (_ for _ in ()).throw(error))()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_a_program_ends_by_a_signal_in_one_sentence():
    code = "import signal\nfrom merhan.cli.console import exits_cleanly\n"
    code += "exits_cleanly(lambda: signal.raise_signal(signal.SIGHUP))()\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGHUP
    assert done.stderr == "error: ended by SIGHUP; a training continues with --resume\n"


FAILS = """
import os, sys
import train_hf_e2e
from merhan.errors import InputError
from merhan.training.trainer import MerhanTrainer
step = MerhanTrainer.training_step
def training_step(self, *args, **kwargs):
    if self.state.global_step == 1 and os.environ["RANK"] in {ranks}:
        raise {error}
    return step(self, *args, **kwargs)
MerhanTrainer.training_step = training_step
train_hf_e2e.main()
"""


@pytest.mark.parametrize(
    ("ranks", "error"),
    [
        (("0", "1"), 'InputError("row u3: is bad; fix it.")'),
        pytest.param(("1",), 'OSError(28, "No space left", "/data/x")', marks=pytest.mark.slow),
        pytest.param(("0",), 'InputError("row u3: is bad; fix it.")', marks=pytest.mark.slow),
    ],
)
def test_an_error_under_two_processes_is_one_sentence_of_one_of_them(ranks, error, tmp_path):
    recipe = RECIPE.format(folder=tmp_path).replace("report_to: none", "report_to: none, use_cpu: true")
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    (tmp_path / "fails.py").write_text(FAILS.format(ranks=ranks, error=error), encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *launcher, str(tmp_path / "fails.py"), "--config", str(tmp_path / "recipe.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.count("Traceback") <= 1, "that of the launcher alone"
