"""Bad input ends with one sentence and exit code 2, and nothing is written."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import evaluate_hf_e2e
import train_hf_e2e
from merhan import api
from merhan.cli import main as cli
from merhan.errors import InputError


RECIPE = """
run_name: bad
output_dir: {folder}/outputs
data: {{corpus: manifest, source: {folder}/manifest.csv}}
model: {{audio_backbone: light, text_backbone: tiny}}
stages: [{{name: warmup, epochs: 1, learning_rate: {{head: 1.0e-3}}}}]
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small manifest that is right, with its recordings, and a recipe."""
    rows = []
    for number, (split, label) in enumerate((s, e) for s in ("train", "validation", "test") for e in ("joy", "anger")):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * np.random.randn(8000), 16_000)
        rows.append(
            {
                "utterance_id": f"u{number}",
                "corpus": "own",
                "audio": f"{number}.wav",
                "text": f"word {number}",
                "label": label,
                "split": split,
                "speaker": f"s{number}",
            }
        )
    pd.DataFrame(rows).to_csv(tmp_path / "manifest.csv", index=False)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))
    return tmp_path


def refused(program, monkeypatch, capsys, folder: Path, *words) -> str:
    """Run a program that must refuse; returns its sentence."""
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["program", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        program.main()
    said = capsys.readouterr().err.replace("\x1b[A", "\n")  # a progress bar that closes moves the cursor up
    assert ended.value.code == 2, said
    assert "Traceback" not in said and said.strip().splitlines()[-1].startswith("error: ")
    assert sorted(folder.rglob("*")) == before, "nothing may be written"
    return said


@pytest.fixture
def train(monkeypatch, capsys, folder):
    def run(*changes) -> str:
        words = [word for change in changes for word in ("--set", change)]
        return refused(train_hf_e2e, monkeypatch, capsys, folder, "--config", folder / "recipe.yaml", *words)

    return run


@pytest.fixture
def edit(folder):
    """Change cells of the manifest: `edit(row, column, value)`; row None changes the whole column."""

    def change(row: int | None, column: str, value: str):
        rows = pd.read_csv(folder / "manifest.csv", dtype=str)
        rows.loc[rows.index if row is None else row, column] = value
        rows.to_csv(folder / "manifest.csv", index=False)

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("data.corpsu=demo", "'data.corpsu'; did you mean 'data.corpus'?"),
        ("seeed=1", "'seeed'; did you mean 'seed'?"),
        ("trainer.per_device_train_batchsize=8", "did you mean 'per_device_train_batch_size'?"),
        ("stages.0.learning_rate.haed=1", "unknown key 'haed'; did you mean 'head'?"),
        ("model.config.hiden_size=8", "unknown key 'hiden_size'; did you mean 'hidden_size'?"),
        ("model.config.fusion=hybird", "model.config.fusion: unknown 'hybird'; did you mean 'hybrid'?"),
        (
            "model.config.fusion_parts=[local, glbal]",
            "model.config.fusion_parts: unknown 'glbal'; did you mean 'global'?",
        ),
        ("model.config.dimensions=[valance]", "model.config.dimensions: unknown 'valance'; did you mean 'valence'?"),
        ("model.config.dimensions=[valence]", "no training row is annotated with valence"),
        ("model.config.layer_mixing=true", "stages[0].cache_features: the cache holds the last layer of a backbone"),
        ("model.audio_config.num_mel_bnis=8", "did you mean 'num_mel_bins'?"),
        ("trainer.learning_rate=1", "cannot be set here; use stages[].learning_rate"),
        ("trainer.label_smoothing_factor=0.1", "cannot be set here; use model.config.label_smoothing"),
        ("data.fold=two", "data.fold"),
        ("data.label_map={no: anger}", "data.label_map: a key was read as False"),
        ("data.label_map={maybe: joy}", "no row has the label 'maybe'"),
        ("data.label_map={joy: joi}", "'joi' is not in the vocabulary; did you mean 'joy'?"),
        ("data.shares.test=0.3", "data.shares is for the protocols `grouped:<column>` and `random`"),
        ("data.shares.test=0.6", "data.shares.test is 0.6, out of its range; it must be above 0, below 0.5"),
        ("data.protocol=random", "accept that with data.accept_leaks: [speaker]"),
        ("data.protocol=grouped:session", "grouped:session needs a session in every row, 6 of 6 have none"),
        ("data.protocol=grouped", "unknown protocol 'grouped'; did you mean 'grouped:speaker'?"),
        ("data.source=[a.csv, 3]", "data.source: ['a.csv', 3] is neither a path or name nor a list of them"),
        ("data.source={a: b}", "is neither a path or name nor a list of them"),
        ("data.source=[a.csv, b.csv]", "a.csv: no such manifest"),
        ("data.corpus=emodbb", "unknown corpus 'emodbb'; did you mean 'emodb'?"),
        ("data.protocol=emodb7-speakr5", "unknown protocol 'emodb7-speakr5'; did you mean 'emodb7-speaker5'?"),
        ("data.protocol=emodb7-speaker5", "is for emodb, the rows are of own"),
        ("data.options.rooot=x", "does not take"),
        ("data.source=${oc.env:NO_SUCH_VARIABLE}", "NO_SUCH_VARIABLE"),
        ("model.text_backbone=/nowhere/roberta", "/nowhere/roberta"),
        ("stages.0.learning_rate={audio: 1, head: 1}\nx", "recipe"),
        ("nothing", "write key=value"),
        ("stages.x.epochs=1", "stages.x.epochs: Index 'x'"),
        ("metric=uarr", "metric: unknown 'uarr'; did you mean 'uar'?"),
        ("run_name=../x", "run_name is '../x'; it must be the name of one folder"),
        ("data.max_seconds=0", "data.max_seconds is 0.0, out of its range; it must be above 0"),
        (
            "data.max_seconds=0.2",
            "data.max_seconds is 0.2, out of its range; it must be at least data.min_s",
        ),
        ("stages.0.epochs=-1", "stages[0].epochs is -1.0, out of its range; it must be above 0"),
        ("trainer.per_device_train_batch_size=0", "must be a whole number, at least 1"),
        ("trainer.lr_scheduler_type=cosin", "trainer, in stage warmup: cosin is not a valid SchedulerType"),
        ("data.fold=1", "has no folds; leave data.fold at 0"),
        ("model.audio_config.num_mel_bins=abc", "num_mel_bins"),
        ("model.audio_config.conv_kernel=[5, 5, 5]", "must have equal lengths"),
        ("model.attn_implementation=spda", "spda"),
        ("evaluation.conditions=[adio]", "unknown 'adio'; did you mean 'audio'"),
        ("evaluation.splits=[test-meld]", "the test-meld split is empty; did you mean 'test'?"),
    ],
)
def test_recipe(change, expected, train):
    assert expected in train(change)


def test_recipe_file(monkeypatch, capsys, folder):
    assert "no such recipe" in refused(train_hf_e2e, monkeypatch, capsys, folder, "--config", folder / "gone.yaml")
    (folder / "recipe.yaml").write_text("run_name: [")
    assert "recipe.yaml" in refused(train_hf_e2e, monkeypatch, capsys, folder, "--config", folder / "recipe.yaml")
    (folder / "recipe.yaml").write_text("run_name: x\nmodel: {text_backbone: tiny}\n")
    assert "stages is empty" in refused(train_hf_e2e, monkeypatch, capsys, folder, "--config", folder / "recipe.yaml")


def test_patience_without_a_best_epoch(train):
    patience = "stages.0.early_stopping_patience=2"
    for change in ("trainer.load_best_model_at_end=false", "stages.0.trainer={load_best_model_at_end: false}"):
        assert "stages[0].early_stopping_patience needs the best epoch" in train(patience, change)


def test_missing_manifest(train, folder):
    assert f"{folder}/gone.csv: no such manifest" in train(f"data.source={folder}/gone.csv")


def test_manifest_without_a_required_column(train, folder):
    rows = pd.read_csv(folder / "manifest.csv").drop(columns="label")
    rows.to_csv(folder / "manifest.csv", index=False)
    assert "manifest.csv: lacks the column 'label'" in train()


def test_duplicate_id(train, edit):
    edit(3, "utterance_id", "u1")
    assert "manifest.csv, row 4 ('u1'): utterance_id is not unique" in train()


def test_unknown_label(train, edit):
    edit(2, "label", "angry")
    said = train()
    assert "row 3 ('u2'): label 'angry' (1 rows) is not in the vocabulary" in said and "{angry: anger}" in said


@pytest.mark.parametrize("votes", ['{"joy": 2', "joy", '["joy"]', '{"joy": "two"}', '{"joy": true}', '{"joy": -1}'])
def test_votes_that_are_no_counts(votes, train, edit):
    edit(2, "votes", votes)
    assert "manifest.csv, row 3 ('u2'): votes is no JSON object of numbers" in train("data.label_map={joy: calm}")


def test_label_of_the_test_split_absent_from_train(train, edit):
    edit(4, "label", "fear")
    assert "label 'fear' of the test split ('u4', 1 rows in all) is absent from train" in train()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_empty_split(split, train, folder):
    rows = pd.read_csv(folder / "manifest.csv")
    rows[rows["split"] != split].to_csv(folder / "manifest.csv", index=False)
    assert f"the {split} split is empty" in train()


def test_unknown_or_missing_split(train, edit):
    edit(0, "split", "trian")
    assert "row 1 ('u0'): unknown split" in train()
    edit(0, "split", "")
    assert "some rows have no split" in train()


def test_neither_audio_nor_text(train, edit):
    edit(5, "audio", "")
    edit(5, "text", "")
    assert "row 6 ('u5'): neither audio nor text" in train()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"this is not sound at all" * 9, "cannot be decoded"),
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "Git LFS pointer"),
        (None, "no such file"),
        (np.zeros(0), "0 samples"),
        (np.array([0.0, np.nan, 0.0]), "NaN"),
        (np.array([0.0, np.inf, 0.0]), "NaN or infinite"),
    ],
)
def test_unusable_recording_is_named_with_its_row(content, expected, train, folder):
    path = folder / "3.wav"
    path.unlink()
    if isinstance(content, np.ndarray):
        soundfile.write(path, content, 16_000, subtype="FLOAT")
    elif content is not None:
        path.write_bytes(content)
    said = train()
    assert "manifest.csv, row 4 ('u3')" in said and str(path) in said and expected in said


def test_a_text_only_model_given_audio_alone(train, edit):
    edit(None, "text", "")
    assert "no row has text, which is all that this model is to read" in train("model.audio_backbone=null")


def test_a_rate_for_a_backbone_that_is_not_there(train):
    said = train("model.text_backbone=null", "stages.0.learning_rate={head: 1.0e-3, text: 1.0e-5}")
    assert "the model has no text backbone to train" in said


def test_words_that_are_longer_than_the_backbone_reads(train, edit):
    edit(2, "text", "word " * 500)
    assert "'u2': The turn 'word word" in train()


def test_a_folder_that_is_not_of_a_run_is_not_changed(monkeypatch, capsys, folder):
    (folder / "outputs" / "bad").mkdir(parents=True)
    (folder / "outputs" / "bad" / "thesis.txt").write_text("years of work")
    words = ("--config", folder / "recipe.yaml", "--overwrite")
    assert "exists and is not the folder of a run" in refused(train_hf_e2e, monkeypatch, capsys, folder, *words)


def test_a_class_weight_that_is_no_number(train):
    assert "class_weights" in train("model.config.class_weights=balance")


def test_evaluation(monkeypatch, capsys, folder):
    def evaluate(*words) -> str:
        return refused(evaluate_hf_e2e, monkeypatch, capsys, folder, *words)

    assert "give --manifest or --recipe" in evaluate("--checkpoint", folder / "gone")
    manifest = ("--manifest", folder / "manifest.csv")
    assert "neither a run's folder, nor a model folder" in evaluate("--checkpoint", folder / "gone", *manifest)
    (folder / "odd").mkdir()
    (folder / "odd" / "config.json").write_text('{"model_type": "merhan", "temperature": 1.5}')
    said = evaluate("--checkpoint", folder / "odd", *manifest)
    assert "odd/config.json is not valid for this version" in said and "'temperature'" in said
    said = evaluate("--checkpoint", folder / "gone", *manifest, "--set", "data.corpsu=x")
    assert "did you mean 'data.corpus'?" in said


def test_commands(monkeypatch, capsys, folder):
    assert "no finished model" in refused(cli, monkeypatch, capsys, folder, "publish", folder, "me/x")
    words = ("prepare", "emodb", folder, folder / "out")
    assert "no EMO-DB recording" in refused(cli, monkeypatch, capsys, folder, *words)
    words = ("prepare", "manifest", folder / "gone.csv", folder / "out")
    assert "no such manifest" in refused(cli, monkeypatch, capsys, folder, *words)


def test_options_of_a_training_that_exclude_each_other_are_refused(folder, capsys):
    """None of them is ignored."""
    config = ["--config", str(folder / "recipe.yaml")]
    pairs = [["--resume", "--overwrite"], ["--resume", "--dry_run"], ["--overwrite", "--dry_run"]]
    for options in [*pairs, ["--dry_run", "--source", str(folder)]]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["train", *config, *options])
        said = capsys.readouterr()
        assert ended.value.code == 2 and said.err.count("\n") == 1 and not said.out
        assert said.err.startswith("error: ") and any(option in said.err for option in options)
    with pytest.raises(InputError, match="--resume and --overwrite"):
        api.train(folder / "recipe.yaml", resume=True, overwrite=True)
