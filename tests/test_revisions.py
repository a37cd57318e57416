# ruff: noqa: F811 (the fixture `run` is imported)
"""`me/model@revision` wherever a Hub id is taken: the commit is loaded, and recorded."""

import shutil
from pathlib import Path
from unittest.mock import Mock

import datasets
import pytest
import torch
from hub_server import hub_of_this_process
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from test_publishing import run  # noqa: F401 (a fixture)
from transformers import RobertaModel, Wav2Vec2Model

from merhan import hub_ids
from merhan.data.corpora.datasets_corpus import load_splits
from merhan.data.provenance import provenance
from merhan.errors import InputError
from merhan.evaluation.model_and_data import default_folder, open_evaluation
from merhan.evaluation.run_description import describe_model, model_source
from merhan.hub.model_folder import _public_provenance
from merhan.hub_ids import HubId, data_set_commit, pinned, split_revision
from merhan.models.building import build_model, build_processor
from merhan.models.inference import load_checkpoint
from merhan.models.tiny_backbones import tiny_audio, tiny_text
from merhan.recipe.schema import DataRecipe, ModelRecipe, Recipe, StageRecipe
from merhan.training.dry_run_stand_ins import stand_in_model
from modeling_merhan import MerhanForSequenceClassification


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub for this process, with an empty cache."""
    with hub_of_this_process(monkeypatch) as server:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        hub_ids._pinned.cache_clear()
        hub_ids.data_set_commit.cache_clear()
        yield server
    hub_ids._pinned.cache_clear()
    hub_ids.data_set_commit.cache_clear()


def push(hub, repository: str, *folders: Path) -> list[str]:
    """Put folders on the Hub, a commit each; returns the commits."""
    hub.commits[repository] = []
    for folder in folders:
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        hub.commit(repository, files)
    return [commit for commit, _ in hub.commits[repository]]


def changed_copy(folder: Path, copy: Path, build) -> Path:
    """The same checkpoint with all weights zero."""
    shutil.copytree(folder, copy)
    model = build.from_pretrained(copy)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.save_pretrained(copy)
    (copy / "hashes.json").unlink(missing_ok=True)
    return copy


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("me/model", ("me/model", None)),
        ("me/model@v1.0", ("me/model", "v1.0")),
        ("me/model@refs/pr/1", ("me/model", "refs/pr/1")),
        ("model@a@b", ("model", "a@b")),
    ],
)
def test_a_name_is_split_at_its_first_at(name, parts):
    assert split_revision(name) == HubId(*parts)


@pytest.mark.parametrize("name", ["me/model@", "@v1", "@"])
def test_half_a_name_is_refused(name):
    with pytest.raises(InputError, match="me/model@v1.0"):
        split_revision(name)


def test_a_folder_of_that_name_stays_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("me/model@v1").mkdir(parents=True)
    assert split_revision("me/model@v1") == HubId("me/model@v1", None)
    assert pinned("me/model@v1") == "me/model@v1"


@pytest.mark.parametrize("revision", ["v1", "commit"])
def test_backbones_of_a_revision(hub, demo, tmp_path, revision):
    audio, text = tiny_audio(), tiny_text(demo["text"])
    audio_commits = push(hub, "me/audio", audio, changed_copy(audio, tmp_path / "audio", Wav2Vec2Model))
    text_commits = push(hub, "me/text", text, changed_copy(text, tmp_path / "text", RobertaModel))
    hub.tags["v1"] = 0
    names = {"v1": ("me/audio@v1", "me/text@v1")}
    names["commit"] = (f"me/audio@{audio_commits[0]}", f"me/text@{text_commits[0]}")
    recipe = ModelRecipe(*names[revision], config={"hidden_size": 32, "intermediate_size": 32})
    model = build_model(recipe, ["anger", "joy"], demo)
    assert any(parameter.any() for parameter in model.merhan.audio_backbone.encoder.parameters())
    assert any(parameter.any() for parameter in model.merhan.text_backbone.encoder.parameters())
    newest = build_model(ModelRecipe("me/audio", "me/text", config=recipe.config), ["anger", "joy"], demo)
    assert not any(parameter.any() for parameter in newest.merhan.audio_backbone.encoder.parameters())
    processor = build_processor(recipe, DataRecipe(), demo)
    assert processor.encode_text("lovely dinner") is not None

    whole = Recipe("demo", model=recipe, stages=[StageRecipe("warmup", 1, {"head": 1e-3})])
    record = provenance(whole, demo.assign(split="train"), {"name": "x", "version": 1})
    pinned_names = [f"me/audio@{audio_commits[0]}", f"me/text@{text_commits[0]}"]
    assert list(record["initial_weights"].values()) == [*pinned_names, None]
    assert _public_provenance(whole, record, quotes=True)["initial_weights"]["audio"] == pinned_names[0]


def test_a_model_of_a_revision(hub, run, demo, tmp_path):
    zero = changed_copy(run / "model", tmp_path / "zero", MerhanForSequenceClassification)
    first, second = push(hub, "me/emotions", run / "model", zero)
    hub.tags["v1"] = 0
    model, _ = load_checkpoint("me/emotions@v1")
    assert any(parameter.any() for parameter in model.parameters())
    newest, _ = load_checkpoint("me/emotions")
    assert not any(parameter.any() for parameter in newest.parameters())
    assert describe_model(model, {})["checkpoint"] == f"me/emotions@{first}"
    assert describe_model(newest, {})["checkpoint"] == f"me/emotions@{second}"
    source = model_source(model, tmp_path)
    assert source.name == f"me/emotions@{first}" and source.provenance["data"]["splits"]
    assert describe_model(load_checkpoint(run)[0], {})["checkpoint"] is None


def test_an_evaluation_of_a_revision(hub, run, demo, tmp_path):
    first, _ = push(hub, "me/emotions", run / "model", run / "model")
    hub.tags["v1"] = 0
    demo.assign(split="test").to_parquet(tmp_path / "rows.parquet")
    model, _, data, folder = open_evaluation("me/emotions@v1", manifest=tmp_path / "rows.parquet")
    assert model.name_or_path == f"me/emotions@{first}"
    assert any("train" in leak for leak in data.protocol["leaks"]), "its record says what it was trained on"
    assert folder.name.startswith("emotions-v1-")


def test_a_fusion_of_a_revision(hub, run, demo, tmp_path):
    zero = changed_copy(run / "model", tmp_path / "zero", MerhanForSequenceClassification)
    first, _ = push(hub, "me/emotions", run / "model", zero)
    hub.tags["v1"] = 0
    config = {"hidden_size": 32, "intermediate_size": 32}
    recipe = ModelRecipe("tiny", "tiny", checkpoint="me/emotions@v1", config=config)
    fusion = build_model(recipe, ["anger", "joy"], demo).merhan.fusion
    assert any(parameter.any() for parameter in fusion.parameters())
    whole = Recipe("demo", model=recipe, stages=[StageRecipe("warmup", 1, {"head": 1e-3})])
    record = provenance(whole, demo.assign(split="train"), {"name": "x", "version": 1})
    assert record["initial_weights"]["fusion"]["checkpoint"] == f"me/emotions@{first}"


@pytest.mark.parametrize("name", ["me/emotions@v2", "me/nothing@v1"])
def test_a_revision_that_is_not_there_is_named(hub, run, name):
    push(hub, "me/emotions", run / "model")
    with pytest.raises(InputError) as caught:
        load_checkpoint(name)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match=name):
        build_model(ModelRecipe(text_backbone=name), ["anger", "joy"], None)


def test_two_revisions_are_evaluated_into_two_folders():
    folders = {
        default_folder(f"me/emotions{end}", "rows.csv") for end in ("", "@v1", "@v2", "@refs/pr/1", "@refs/pr/2")
    }
    assert len(folders) == 5
    assert all(folder.parent == Path("outputs/evaluation") for folder in folders)


def test_a_dry_run_reads_the_family_of_a_name_with_a_revision(demo):
    recipe = stand_in_model(ModelRecipe("facebook/hubert-base@v1", None), demo["text"])
    assert "hubert" in recipe.audio_backbone


def test_the_commit_of_a_data_set_is_recorded(hub, demo, tmp_path):
    hub.commits["me/data"] = []
    commits = [hub.commit("me/data", {"README.md": content}) for content in (b"first", b"second")]
    hub.tags["v1"] = 0
    for source, commit in {
        "me/data": commits[1],
        "me/data@v1": commits[0],
        f"me/data@{commits[0]}": commits[0],
    }.items():
        assert data_set_commit(source) == commit
        recipe = Recipe(run_name="x", data=DataRecipe("datasets", source))
        assert provenance(recipe, demo, {})["data"]["data_set"] == f"me/data@{commit}"
    hub.commit("me/data", {"README.md": b"third"})
    assert data_set_commit("me/data") == commits[1], "the one that was read"
    for data in (DataRecipe("datasets", str(tmp_path)), DataRecipe("table", "a.csv")):
        assert "data_set" not in provenance(Recipe(run_name="x", data=data), demo, {})["data"]


def test_a_revision_of_a_data_set_is_never_another_one(hub, monkeypatch):
    """Where the Hub lacks it, `datasets` would read whichever revision is in its cache."""
    monkeypatch.setattr(datasets, "load_dataset_builder", None)
    hub.commits["me/data"] = []
    hub.commit("me/data", {"README.md": b"first"})
    for source in ("me/data@none", "me/none@v1"):
        with pytest.raises(InputError, match=f"data.source: '{source}' cannot be loaded"):
            load_splits(source)


@pytest.mark.parametrize("files", [("data/train-00000-of-00001.parquet",), ("train.parquet", "README.md")])
def test_a_revision_of_a_data_set_is_read_from_the_cache_without_the_hub(hub, monkeypatch, tmp_path, files):
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    hub.commits["me/MySet"] = []
    for words in ("first", "second"):
        datasets.Dataset.from_dict({"text": [words]}).to_parquet(tmp_path / "rows.parquet")
        content = (tmp_path / "rows.parquet").read_bytes()
        hub.commit("me/MySet", dict(zip(files, (content, b"words"), strict=False)))
    hub.tags |= {"v1": 0, "v2": 1}
    first = f"me/MySet@{hub.commits['me/MySet'][0][0]}"
    for source in ("me/MySet@v1", "me/MySet@v2", first):
        load_splits(source)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    data_set_commit.cache_clear()
    requests = len(hub.log)
    texts = [load_splits(source)["train"]["text"][0] for source in ("me/MySet@v1", "me/MySet@v2", first)]
    assert texts == ["first", "second", "first"]
    assert f"me/MySet@{data_set_commit('me/MySet@v1')}" == first, "recorded"
    for source in ("me/MySet@v3", "me/MySet@" + "0" * 40):
        with pytest.raises(InputError, match=f"data.source: '{source}' cannot be loaded"):
            load_splits(source)
    assert len(hub.log) == requests


def test_a_local_data_set_is_read_without_a_request(monkeypatch, tmp_path):
    """`datasets` counts every load, also that of a file, by a request to a server of its own."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    counted = []
    monkeypatch.setattr("datasets.load.get_session", lambda: counted.append("a load"))
    datasets.Dataset.from_dict({"text": ["words"]}).to_parquet(tmp_path / "rows.parquet")
    for source in (tmp_path / "rows.parquet", tmp_path):
        assert load_splits(str(source))["train"]["text"][0] == "words"
    assert not counted


@pytest.mark.parametrize("refused", [False, True])
def test_a_pinned_data_set_is_read_from_the_cache_only_where_the_hub_does_not_answer(hub, monkeypatch, refused):
    hub.commits["me/data"] = []
    commit = hub.commit("me/data", {"README.md": b"first"})
    assert data_set_commit("me/data@main") == commit
    data_set_commit.cache_clear()
    error = HfHubHTTPError("403", response=Mock()) if refused else ConnectionError("gone")
    monkeypatch.setattr(HfApi, "dataset_info", Mock(side_effect=error))
    if refused:
        with pytest.raises(HfHubHTTPError):
            data_set_commit("me/data@main")
    else:
        assert data_set_commit("me/data@main") == commit
