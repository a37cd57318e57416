"""Publishing: what leaves the machine, and whether a stranger's machine gets the same model."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LABELS
from hub_server import running_hub
from huggingface_hub import ModelCard

from merhan.dataset import Data
from merhan.errors import InputError
from merhan.evaluation import evaluate_split
from merhan.protocols import split
from merhan.publishing import ALLOWED, card, export, without_paths
from merhan.recipe import DataRecipe, ModelRecipe, Recipe, StageRecipe, load_recipe
from merhan.run import open_run, require_same_data
from modeling_merhan import MerhanForSequenceClassification


REPOSITORY = Path(__file__).parent.parent
# A stranger's machine: the installed libraries, and nothing of ours (-S: no .pth file puts this checkout on the path).
STRANGER = (
    f"import sys; sys.path.append({sysconfig.get_paths()['purelib']!r})\n"
    + """
import importlib.util, json
import numpy as np, torch
assert not any(importlib.util.find_spec(name) for name in ("merhan", "modeling_merhan", "processing_merhan"))
from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification, AutoModelForSequenceClassification
from transformers import AutoProcessor, pipeline
name = sys.argv[1]
trust = {"trust_remote_code": True}
processor = AutoProcessor.from_pretrained(name, **trust)
sound = {"array": 0.1 * np.random.default_rng(0).standard_normal(16000), "sampling_rate": 16000}
inputs = processor(audio=sound, text="the dinner was lovely")
found = {}
with torch.no_grad():
    for auto in (AutoModelForSequenceClassification, AutoModelForAudioClassification):
        model = auto.from_pretrained(name, **trust).eval()
        found[auto.__name__] = model(**inputs).logits.tolist()
    base = AutoModel.from_pretrained(name, **trust).eval()
    found["pooled"] = torch.equal(base(**inputs).pooler_output, model(**inputs).pooler_output)
config = AutoConfig.from_pretrained(name, **trust)
found["one config class"] = isinstance(model.config, type(config)) and type(model.config) is type(base.config)
recogniser = pipeline("emotion-recognition", model=name, device="cpu", **trust)
found["pipeline"] = recogniser(sound, text="the dinner was lovely")
print("FOUND " + json.dumps(found))
"""
)


LEAK = "session: 12.5% of test (6 rows), session 'demo-7' is also in train"


@pytest.fixture
def run(tmp_path, demo, trained_like, processor):
    """A finished run's folder, as train_hf_e2e.py leaves it, without the training."""
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
    folder = open_run(recipe, data)
    torch.save({"hub_token": "hf_secret"}, folder / "training_args.bin")
    model = trained_like.eval()
    metrics = evaluate_split(model, processor, data, "test", folder / "evaluation")
    export(folder, recipe, model, processor, {"test, audio+text": metrics})
    return folder


def environment(tmp_path, hub) -> dict[str, str]:
    """As little as a process needs, with empty caches and our Hub in place of the public one."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    caches = {"HF_HOME": "hf", "HF_MODULES_CACHE": "modules", "MERHAN_CACHE": "merhan"}
    own = {name: str(tmp_path / folder) for name, folder in caches.items()}
    own |= {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_test", "OMP_NUM_THREADS": "1"}
    return kept | own


def ask_stranger(name: str, env: dict[str, str], folder: Path) -> dict:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-S", "-c", STRANGER, name], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("FOUND ")), None)
    assert line, done.stderr[-3000:]
    return json.loads(line.removeprefix("FOUND "))


def check(found: dict, model, processor):
    sound = {"array": 0.1 * np.random.default_rng(0).standard_normal(16000), "sampling_rate": 16000}
    with torch.no_grad():
        expected = model(**processor(audio=sound, text="the dinner was lovely")).logits
    for name in ("AutoModelForSequenceClassification", "AutoModelForAudioClassification"):
        torch.testing.assert_close(torch.tensor(found[name]), expected, atol=1e-6, rtol=1e-5)
    assert found["pooled"] and found["one config class"]
    assert {entry["label"] for entry in found["pipeline"]} == set(LABELS)


def test_a_local_folder_loads_without_our_code(run, trained_like, processor, tmp_path):
    with running_hub() as hub:  # unused: a local folder must not need it
        found = ask_stranger(str(run / "model"), environment(tmp_path, hub), tmp_path / "elsewhere")
        assert not hub.log
    check(found, trained_like.eval(), processor)


def test_push_from_one_process_and_load_in_another(run, trained_like, processor, tmp_path):
    with running_hub() as hub:
        env = environment(tmp_path, hub)
        command = [sys.executable, "-m", "merhan.cli", "publish", str(run), "me/merhan-demo"]
        pushed = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)
        assert pushed.returncode == 0, pushed.stderr[-3000:]
        assert "loaded back with equal logits" in pushed.stdout
        assert hub.private["me/merhan-demo"], "private unless asked otherwise"
        assert len(hub.commits["me/merhan-demo"]) == 2, "the Hub's own first commit and one of ours"
        published = hub.files("me/merhan-demo")[1]
        found = ask_stranger("me/merhan-demo", env | {"HF_HOME": str(tmp_path / "hf2")}, tmp_path / "elsewhere")
    check(found, trained_like.eval(), processor)
    assert "me/merhan-demo" in published["README.md"].decode()
    assert not any(b"hf_secret" in content or b"hf_test" in content for content in published.values())


def test_the_model_folder_holds_the_allow_list_and_no_path(run, tmp_path):
    folder = run / "model"
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == [
        "README.md",
        "config.json",
        "evaluation/test/confusion.png",
        "evaluation/test/metrics.json",
        "evaluation/test/reliability.png",
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


def test_the_card_is_made_of_the_figures(run):
    card = ModelCard.load(run / "model" / "README.md")
    figures = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    results = {result.metric_type: result for result in card.data.eval_results}
    assert results["uar"].metric_value == figures["uar"]
    assert results["uar"].dataset_config == "given audio+text"
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "audio-classification"
    low, high = figures["intervals"]["uar"]
    assert f"{figures['uar']:.3f} [{low:.3f}, {high:.3f}]" in card.text


def test_the_whole_card_is_as_expected(run):
    """Any change of the card shows: it is matched from end to end, figures and versions aside."""
    expected = (Path(__file__).parent / "expected_card.md").read_text()
    pattern = re.escape(expected).replace("<number>", r"-?[\d.]+(?:e-\d+)?").replace("<hash>", "[0-9a-f]{16}")
    pattern = pattern.replace("<name>", r"[\w -]+")
    card = (run / "model" / "README.md").read_text()
    assert re.fullmatch(pattern.replace("<hardware>", "[^\n]+"), card), card


def test_weights_of_non_commercial_data_say_so(run):
    recipe = load_recipe(run / "recipe.yaml")
    figures = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    provenance = json.loads((run / "provenance.json").read_text())
    model = MerhanForSequenceClassification.from_pretrained(run / "model")
    licences = {}
    for corpus in ("demo", "ravdess", "emodb", "iemocap"):
        provenance["data"]["corpora"] = ["demo", corpus]
        data = card(recipe, provenance, model, {"test": figures}).data
        licences[corpus] = data.to_dict().get("license_name")
    forbidden = "non-commercial-as-its-training-data"
    assert licences == {"demo": None, "ravdess": forbidden, "emodb": None, "iemocap": forbidden}


def test_no_folder_of_this_machine_leaves_it(tmp_path):
    manifests = [tmp_path / name / "manifest.parquet" for name in ("one", "other")]
    for path in manifests:
        path.parent.mkdir()
        path.touch()
    recipe = Recipe(run_name="demo", output_dir=str(tmp_path), data=DataRecipe("manifest", [*map(str, manifests)]))
    recipe.stages = [StageRecipe(name="warmup", epochs=1, learning_rate={"head": 1e-3})]
    public = without_paths(recipe)
    assert public.data.source == ["manifest.parquet"] * 2 and str(tmp_path) not in str(public)


def test_a_run_goes_on_with_its_own_data_alone(run, demo):
    rows, protocol, _ = split(demo, None, 0)
    data = Data(rows, rows, protocol, [], [])
    require_same_data(run, data)
    swapped = rows.assign(label=rows["label"].map({"joy": "anger", "anger": "joy"}).fillna(rows["label"]))
    with pytest.raises(InputError, match="--resume: the data differs"):
        require_same_data(run, data._replace(rows=swapped))
