"""Numbers out of range, words of no choice and paths of the wrong kind: one sentence, before anything is read."""

import subprocess
import sys

import pytest
from bad_inputs import COMMANDS as COMPLETE_COMMANDS
from bad_inputs import COMPLETE, EXTREMES, command_lines, recipe_changes

from merhan.cli.main import COMMANDS, build_parser
from merhan.data.corpora.base import require_options
from merhan.errors import InputError
from merhan.recipe.loading import load_recipe
from merhan.recipe.ranges import TRAINER, is_within
from merhan.training.run_folder import check_run_folder


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(COMPLETE.format(folder=tmp_path), encoding="utf-8")
    return path


def answer(recipe, change: str) -> str:
    """What is said to a change of the recipe; empty if it is accepted."""
    try:
        load_recipe(recipe, [change])
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_bad_values_of_every_key_are_refused_in_one_sentence(step, recipe):
    changes = recipe_changes()[::step]
    assert len(changes) * step > 1000, "the schema was walked"
    answers = {change: answer(recipe, change) for change in changes}
    assert [change for change, said in answers.items() if not said] == []
    assert [change for change, said in answers.items() if "\n" in said or len(said) > 1500] == []
    assert all(said.startswith(str(recipe)) for said in answers.values())


@pytest.mark.parametrize(
    "change",
    [
        "trainer={max_steps: -1, save_total_limit: null, max_grad_norm: 0, warmup_steps: 0.1, logging_steps: 0.05}",
        "trainer={report_to: null, bf16: false, tf32: null, weight_decay: 0, dataloader_num_workers: 0}",
        "trainer={report_to: none, per_device_train_batch_size: 1, dataloader_prefetch_factor: null}",
        "stages.0.learning_rate={head: 0, text: 1}",
        "stages.0.epochs=0.25",
        "seed=4294966295",
        "data.max_seconds=null",
        "data.max_seconds=3600",
        "data.label_map={unsure: null, 3: joy}",
        "model.config={focal_gamma: 2, class_weights: balanced, label_smoothing: 0, modality_dropout: 1}",
        "model.audio_config={spec_augment_masks: 0, hidden_size: 8, conv_kernel: [3], conv_stride: [1]}",
        "model.adapters.text={r: 8, lora_alpha: 16, lora_dropout: 0.0}",
    ],
)
def test_sensible_values_are_accepted(change, recipe):
    assert answer(recipe, change) == ""


def test_every_bound_of_a_training_argument_is_within_its_own_range():
    for bounds in TRAINER.values():
        edges = [bounds[name] for name in ("minimum", "maximum") if name in bounds]
        assert edges and all(is_within(edge, bounds) for edge in edges) or "below" in bounds
        assert not all(is_within(float(value), bounds) for value in EXTREMES)


def test_bad_options_of_every_command_are_refused_in_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    lines = command_lines(str(tmp_path), str(tmp_path / "file"))
    assert len(lines) > 100 and set(COMPLETE_COMMANDS) == set(COMMANDS), "the parsers were walked"
    for words in lines:
        with pytest.raises(SystemExit) as ended:
            build_parser().parse_args(words)
        said = capsys.readouterr().err
        assert ended.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1, (words, said)
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "nothing is written"


def test_an_output_folder_that_cannot_be_written_is_named_before_any_data_is_read(recipe, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"output_dir and run_name, .*file.*; choose another path"):
            check_run_folder(load_recipe(recipe, [f"output_dir={folder}"]), resume=False, overwrite=False)


@pytest.mark.parametrize("options", [{"scale": "x"}, {"scale": -1.0}, {"scale": float("nan")}, {"seed": 1.5}])
def test_options_of_a_reader_have_ranges_too(options):
    with pytest.raises(InputError, match=r"data.options.\w+ \(`--option`\) is .*; it must be a"):
        require_options("demo", options)


def test_processes_that_would_not_see_each_other_are_refused(recipe, monkeypatch):
    """On a machine without a GPU and without `use_cpu`, each would train alone and wait for the others' folder."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="2 processes were launched on a machine without a GPU; set trainer.use_cpu"):
        check_run_folder(load_recipe(recipe), resume=False, overwrite=False)


def test_the_program_ends_with_code_2(recipe):
    command = [sys.executable, "-m", "merhan", "train", "--config", str(recipe), "--set", "stages.0.epochs=.inf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "epochs" in done.stderr
