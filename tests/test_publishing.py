"""Publishing: which files are published, and whether another machine loads the same model from the Hub."""

import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LABELS
from hub_server import running_hub
from huggingface_hub import ModelCard, RepoCard

from merhan.data.leaks import known_leaks
from merhan.data.loading import Data
from merhan.data.protocols import split
from merhan.errors import InputError
from merhan.evaluation.evaluate import evaluate_split
from merhan.hub.local_paths import public_recipe, without_paths
from merhan.hub.model_card import build_model_card
from merhan.hub.model_folder import export_model_folder
from merhan.hub.people import may_quote
from merhan.hub.publishing import ALLOWED
from merhan.recipe.loading import load_recipe
from merhan.recipe.schema import DataRecipe, ModelRecipe, Recipe, StageRecipe
from merhan.training.run_folder import open_run_folder
from modeling_merhan import MerhanForSequenceClassification


REPOSITORY = Path(__file__).parent.parent
# Another machine: the installed libraries without this package (with -S no .pth file adds this checkout to the path).
PROGRAM = (
    f"import sys; sys.path.append({sysconfig.get_paths()['purelib']!r})\n"
    + """
import importlib.util, json
import numpy as np, torch
ours = ("merhan", "configuration_merhan", "modeling_merhan", "processing_merhan")
assert not any(importlib.util.find_spec(name) for name in ours)
from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification, AutoModelForSequenceClassification
from transformers import AutoProcessor, pipeline
name = sys.argv[1]
trust = {"trust_remote_code": True}
processor = AutoProcessor.from_pretrained(name, **trust)
sound = {"array": 0.1 * np.random.default_rng(0).standard_normal(16000), "sampling_rate": 16000}
inputs = processor(audio=sound, text="the dinner was lovely")
results = {}
with torch.no_grad():
    for auto in (AutoModelForSequenceClassification, AutoModelForAudioClassification):
        model = auto.from_pretrained(name, **trust).eval()
        results[auto.__name__] = model(**inputs).logits.tolist()
    base = AutoModel.from_pretrained(name, **trust).eval()
    results["pooled"] = torch.equal(base(**inputs).pooler_output, model(**inputs).pooler_output)
config = AutoConfig.from_pretrained(name, **trust)
results["same config class"] = isinstance(model.config, type(config)) and type(model.config) is type(base.config)
recogniser = pipeline("emotion-recognition", model=name, device="cpu", **trust)
results["pipeline"] = recogniser(sound, text="the dinner was lovely")
print("RESULTS " + json.dumps(results))
"""
)


LEAK = "session: 12.5% of test (6 rows), session 'demo-7' is also in train"


@pytest.fixture
def run(tmp_path, demo, trained_like, processor):
    """The folder of a finished run, without the training."""
    stages = [StageRecipe(name="warmup", epochs=1, learning_rate={"head": 1e-3})]
    recipe = Recipe(
        run_name="demo",
        output_dir=str(tmp_path / "outputs"),
        data=DataRecipe(source=str(tmp_path)),
        model=ModelRecipe("tiny", "tiny"),
        stages=stages,
    )
    rows, protocol, _ = split(demo, None, 0)
    data = Data(rows, rows, protocol | {"leaks": [LEAK]}, [], [])
    folder = open_run_folder(recipe, data)
    torch.save({"hub_token": "hf_secret"}, folder / "training_args.bin")
    model = trained_like.eval()
    metrics = evaluate_split(model, processor, data, "test", folder / "evaluation")
    export_model_folder(folder, recipe, model, processor, {"test, audio+text": metrics})
    return folder


def environment(tmp_path, hub) -> dict[str, str]:
    """A minimal environment with empty caches and the local server in place of the public Hub."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    caches = {"HF_HOME": "hf", "HF_MODULES_CACHE": "modules", "MERHAN_CACHE": "merhan"}
    own = {name: str(tmp_path / folder) for name, folder in caches.items()}
    own |= {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_test", "OMP_NUM_THREADS": "1"}
    return inherited | own


def load_elsewhere(name: str, env: dict[str, str], folder: Path) -> dict:
    """Load a model in a process without this package; returns its outputs for one utterance."""
    folder.mkdir()
    command = [sys.executable, "-S", "-c", PROGRAM, name]
    process = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    line = next((line for line in process.stdout.splitlines() if line.startswith("RESULTS ")), None)
    assert line, process.stderr[-3000:]
    return json.loads(line.removeprefix("RESULTS "))


def check(results: dict, model, processor):
    """Compare with the outputs of the local model."""
    sound = {"array": 0.1 * np.random.default_rng(0).standard_normal(16000), "sampling_rate": 16000}
    with torch.no_grad():
        expected = model(**processor(audio=sound, text="the dinner was lovely")).logits
    for name in ("AutoModelForSequenceClassification", "AutoModelForAudioClassification"):
        torch.testing.assert_close(torch.tensor(results[name]), expected, atol=1e-6, rtol=1e-5)
    assert results["pooled"] and results["same config class"]
    assert {entry["label"] for entry in results["pipeline"]} == set(LABELS)


def test_a_local_folder_loads_without_the_package(run, trained_like, processor, tmp_path):
    with running_hub() as hub:  # a local folder must load without any request
        results = load_elsewhere(str(run / "model"), environment(tmp_path, hub), tmp_path / "elsewhere")
        assert not hub.log
    check(results, trained_like.eval(), processor)


def test_push_from_one_process_and_load_in_another(run, trained_like, processor, tmp_path):
    with running_hub() as hub:
        env = environment(tmp_path, hub)
        command = [sys.executable, "-m", "merhan", "publish", str(run), "me/merhan-demo"]
        pushed = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)
        assert pushed.returncode == 0, pushed.stderr[-3000:]
        assert "loaded back with equal files and equal logits" in pushed.stdout
        assert hub.private["me/merhan-demo"], "private by default"
        assert len(hub.commits["me/merhan-demo"]) == 2, "the initial commit and one push"
        published = hub.files("me/merhan-demo")[1]
        results = load_elsewhere("me/merhan-demo", env | {"HF_HOME": str(tmp_path / "hf2")}, tmp_path / "elsewhere")
    check(results, trained_like.eval(), processor)
    assert "me/merhan-demo" in published["README.md"].decode()
    assert not any(b"hf_secret" in content or b"hf_test" in content for content in published.values())


def test_a_space_is_pushed_beside_its_model(run, tmp_path):
    with running_hub() as hub:
        command = [sys.executable, "-m", "merhan", "publish", str(run), "me/merhan-demo", "--space"]
        env = environment(tmp_path, hub)
        pushed = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)
        assert pushed.returncode == 0, pushed.stderr[-3000:]
        assert "published a Space: " in pushed.stdout and hub.private["me/merhan-demo-space"]
        files = hub.files("me/merhan-demo-space")[1]
    own = {".gitattributes", "README.md", "app.py", "requirements.txt", "examples/a-call.mp3", "processing_merhan.py"}
    assert own <= set(files) and "merhan/prediction/timeline.py" in files
    assert b'MODEL = "me/merhan-demo"' in files["app.py"]
    assert b"<this model>" not in files["app.py"] + files["README.md"]
    metadata = RepoCard(files["README.md"].decode(), ignore_metadata_errors=False).data
    assert metadata.sdk == "gradio" and metadata.models == ["me/merhan-demo"] and metadata.app_file == "app.py"
    assert metadata.python_version in ("3.11", "3.12", "3.13"), "a Space has 3.10 where nothing is said"


def test_the_model_folder_contains_only_allowed_files_and_no_local_path(run, tmp_path):
    folder = run / "model"
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == [
        "README.md",
        "config.json",
        "configuration_merhan.py",
        "evaluation/test/confusion.png",
        "evaluation/test/metrics.json",
        "evaluation/test/reliability.png",
        "handler.py",
        "hashes.json",
        "model.safetensors",
        "modeling_merhan.py",
        "processing_merhan.py",
        "processor_config.json",
        "provenance.json",
        "recipe.yaml",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert all(any(Path(name).match(pattern) for pattern in ALLOWED) for name in files)
    for name in files:
        if not name.endswith((".png", ".safetensors")):
            content = (folder / name).read_text()
            assert str(tmp_path) not in content and str(Path.home()) + "/" not in content, name


def test_the_card_contains_the_metrics(run):
    card = ModelCard.load(run / "model" / "README.md")
    figures = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    results = {result.metric_type: result for result in card.data.eval_results}
    assert results["uar"].metric_value == figures["uar"]
    assert results["uar"].dataset_config == "given audio+text"
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "audio-classification"
    low, high = figures["intervals"]["uar"]
    assert f"{figures['uar']:.3f} [{low:.3f}, {high:.3f}]" in card.text


def test_the_whole_card_is_as_expected(run):
    """The whole card is compared, except for numbers and versions."""
    expected = (Path(__file__).parent / "expected_card.md").read_text()
    pattern = re.escape(expected).replace("<number>", r"-?[\d.]+(?:e-\d+)?").replace("<hash>", "[0-9a-f]{16}")
    pattern = pattern.replace("<name>", r"[\w -]+")
    card = (run / "model" / "README.md").read_text()
    assert re.fullmatch(pattern.replace("<hardware>", "[^\n]+"), card), card


def test_the_licence_names_non_commercial_training_data(run):
    recipe = load_recipe(run / "recipe.yaml")
    figures = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    provenance = json.loads((run / "provenance.json").read_text())
    model = MerhanForSequenceClassification.from_pretrained(run / "model")
    licences = {}
    for corpus in ("demo", "ravdess", "emodb", "iemocap"):
        provenance["data"]["corpora"] = ["demo", corpus]
        data = build_model_card(recipe, provenance, model, {"test": figures}).data
        licences[corpus] = data.to_dict().get("license_name")
    forbidden = "non-commercial-as-its-training-data"
    assert licences == {"demo": None, "ravdess": forbidden, "emodb": None, "iemocap": forbidden}


def test_local_paths_are_removed_from_the_recipe(tmp_path):
    manifests = [tmp_path / name / "manifest.parquet" for name in ("first", "second")]
    for path in manifests:
        path.parent.mkdir()
        path.touch()
    recipe = Recipe(run_name="demo", output_dir=str(tmp_path), data=DataRecipe("manifest", [*map(str, manifests)]))
    recipe.stages = [StageRecipe(name="warmup", epochs=1, learning_rate={"head": 1e-3})]
    public = public_recipe(recipe)
    assert public["data"]["source"] == ["manifest.parquet"] * 2 and str(tmp_path) not in str(public)


def test_a_run_is_resumed_only_with_its_own_data(run, demo):
    rows, protocol, _ = split(demo, None, 0)
    data = Data(rows, rows, protocol, [], [])
    recipe = load_recipe(run / "recipe.yaml")
    assert open_run_folder(recipe, data, resume=True) == run
    swapped = rows.assign(label=rows["label"].map({"joy": "anger", "anger": "joy"}).fillna(rows["label"]))
    with pytest.raises(InputError, match="--resume: the data differs"):
        open_run_folder(recipe, data._replace(rows=swapped), resume=True)


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere/else/name",
        "~/else/name",
        "../else/name",
        r"C:\else\name",
        r"\\server\else\name",
        "/with a blank/name",
        "/name/",
    ],
)
def test_a_path_is_reduced_to_its_name_wherever_it_is_and_whether_it_exists_or_not(path):
    recipe = Recipe(run_name="demo", data=DataRecipe(options={"columns": {"audio": [path]}}))
    recipe.stages = [StageRecipe(name="warmup", epochs=1, learning_rate={"head": 1e-3}, trainer={"deepspeed": path})]
    public = public_recipe(recipe)
    assert public["data"]["options"] == {"columns": {"audio": ["name"]}}
    assert public["stages"][0]["trainer"] == {"deepspeed": "name"}
    if " " not in path:
        assert without_paths(f"2 rows of {path} left out") == "2 rows of name left out"


@pytest.mark.parametrize(
    "text", ["me/my-model", "n/a", "and/or", "https://example.org/a/b", "1/2", "grouped:speaker", "a: b"]
)
def test_what_is_no_path_stays(text):
    assert without_paths(text) == text and without_paths(f"see {text} there") == f"see {text} there"


SECRETS = ("SECRET_LABEL", "SECRET_LICENCE", "SECRET_SOURCE", "SECRET_OPTION", "SECRET_ENTRY")


def test_nothing_of_the_environment_is_in_the_exported_folder(run, tmp_path, monkeypatch, trained_like, processor):
    """Byte by byte: no value of a variable, host, user, home or temporary folder."""
    secrets = {name: f"{name.lower()}-hf_0123456789" for name in SECRETS}
    for name, secret in secrets.items():
        monkeypatch.setenv(name, secret)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "run_name: demo\n"
        "data: {source: '/srv/x/${oc.env:SECRET_SOURCE}', options: {nested: [{key: '${oc.env:SECRET_OPTION}'}]},\n"
        "       label_map: {happy: '${oc.env:SECRET_LABEL}'}, own_labels: ['${data.label_map.happy}']}\n"
        "model: {text_backbone: tiny, text_config: {entry: '${oc.env:SECRET_ENTRY}'}}\n"
        "stages: [{name: warmup, epochs: 1, learning_rate: {head: 1.0e-3}}]\n"
        "hub: {license: '${oc.env:SECRET_LICENCE}'}\n"
    )
    recipe = load_recipe(path)
    assert recipe.hub.license == secrets["SECRET_LICENCE"]
    results = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    results["notes"] = [f"3 rows of {tmp_path / 'table.csv'} left out"]
    (run / "evaluation" / "test" / "metrics.json").write_text(json.dumps(results))
    export_model_folder(run, recipe, trained_like.eval(), processor, {"test": results})
    words = [*secrets.values(), platform.node(), str(Path.home()) + "/", str(tmp_path), tempfile.gettempdir() + "/"]
    for file in (run / "model").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            # In compressed or binary content a short word may occur by chance.
            likely = [word for word in words if len(word) > 8 or file.suffix not in (".png", ".safetensors")]
            assert not [word for word in likely if word.encode() in content], file
    published = (run / "model" / "recipe.yaml").read_text()
    assert all(f"${{oc.env:{name}}}" in published for name in secrets), published


def test_only_the_environment_is_resolved(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("run_name: demo\nhub: {license: '${oc.create:x}'}\n")
    with pytest.raises(InputError, match="hub.license: 'oc.create' is not resolved"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("choice", "corpora", "quoted"),
    [
        (None, ["demo"], True),
        (None, ["table"], False),
        (None, ["ravdess"], True),
        (None, ["ravdess", "iemocap"], False),
        (True, ["iemocap"], True),
        (False, ["ravdess"], False),
    ],
)
def test_people_are_quoted_only_where_it_is_permitted(choice, corpora, quoted):
    assert may_quote(choice, corpora) == quoted


def test_speakers_and_quotes_are_left_out(run, demo, trained_like, processor):
    recipe = load_recipe(run / "recipe.yaml", ["hub.quote_people=false"])
    results = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    export_model_folder(run, recipe, trained_like.eval(), processor, {"test": results})
    folder = run / "model"
    local = json.loads((run / "provenance.json").read_text())
    speakers = {name for part in local["data"]["speakers"].values() for name in part}
    published = json.loads((folder / "provenance.json").read_text())
    assert speakers and not speakers & {name for part in published["data"]["speakers"].values() for name in part}
    assert (
        "demo-7"
        not in "".join(path.read_text() for path in folder.rglob("*.json")) + (folder / "README.md").read_text()
    )
    assert "speaker" not in json.loads((folder / "evaluation" / "test" / "metrics.json").read_text())["groups"]
    tested = demo.assign(split="test", corpus="other", text="other words")
    assert "the model was trained on" in known_leaks(published, tested)[0]
