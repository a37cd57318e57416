"""`merhan export`: the whole model as one ONNX graph, and its runner, which needs neither torch nor transformers."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor
from transformers_harness import PAIRS, TEXTS, pair_config, tiny_config

from configuration_merhan import MerhanConfig
from merhan.cli.main import main
from merhan.content_hashes import damage
from merhan.errors import InputError
from merhan.files import PROJECT
from merhan.models import export as exporting
from merhan.models.tiny_backbones import tiny_text
from modeling_merhan import FUSIONS, MerhanForSequenceClassification
from processing_merhan import EmotionRecognitionPipeline, MerhanProcessor


onnxruntime = pytest.importorskip("onnxruntime")

FIRST = next(iter(PAIRS))
CASES = dict.fromkeys([(pair, "hybrid") for pair in PAIRS] + [(FIRST, fusion) for fusion in FUSIONS])
# Of the default suite: a graph takes about ten seconds, however small the model.
SHORT_CONVOLUTIONS = {"conv_dim": (16, 16, 16), "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2)}
QUICK = [(None, {}, "roberta"), ("wav2vec2", SHORT_CONVOLUTIONS, "bert"), ("wavlm", SHORT_CONVOLUTIONS, "distilbert")]
WORDS = "the dinner was lovely"


def make_folder(folder: Path, config: MerhanConfig) -> Path:
    """A model folder with weights that make every path matter to the logits."""
    torch.manual_seed(0)
    config.temperature = {"audio+text": 0.5, "audio": 2.0, "text": 3.0}
    model = MerhanForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.merhan.fusion.parameters():
            parameter.mul_(5)
    tokenizer = AutoTokenizer.from_pretrained(tiny_text(TEXTS, config.text_config.model_type))
    model.save_pretrained(folder)
    MerhanProcessor(Wav2Vec2FeatureExtractor(do_normalize=True), tokenizer, max_seconds=3.0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory, cache) -> tuple[Path, Path]:
    """A model folder, and what `merhan export` writes for it."""
    folder, graph = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("graph") / "onnx"
    make_folder(folder, tiny_config(*QUICK[0], "hybrid", layers=1))
    main(["export", str(folder), "--to", "onnx", "--out", str(graph)])
    return folder, graph


def batch(rows: int, samples: int, tokens: int, missing: str | None = None) -> dict[str, torch.Tensor]:
    """Rows of different lengths; the last of several has no sound, and none has the missing modality."""
    generator = torch.Generator().manual_seed(rows)
    audio_mask, text_mask = torch.ones(rows, samples).long(), torch.ones(rows, tokens).long()
    if rows > 1:
        audio_mask[0, samples // 2 :] = 0
        audio_mask[-1] = 0
        text_mask[0, max(tokens - 2, 1) :] = 0
    if missing == "audio":
        audio_mask[:] = 0
    if missing == "text":
        text_mask[:] = 0
    ids = torch.randint(5, 20, (rows, tokens), generator=generator)
    return {
        "input_values": torch.randn(rows, samples, generator=generator) * audio_mask,
        "audio_attention_mask": audio_mask,
        "input_ids": torch.where(text_mask.bool(), ids, 1),
        "attention_mask": text_mask,
    }


def require_parity(folder: Path, graph: Path):
    model = MerhanForSequenceClassification.from_pretrained(folder).eval()
    session = onnxruntime.InferenceSession(graph / "model.onnx", providers=["CPUExecutionProvider"])
    sizes = [(3, 8000, 9), (1, 5000, 5), (4, 12345, 20), (2, 8000, 3, "audio"), (2, 8000, 1, "text"), (1, 8000, 1)]
    for size in sizes:
        tensors = batch(*size)
        with torch.no_grad():
            expected = model(**tensors).logits.numpy()
        (logits,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in tensors.items()})
        np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0, err_msg=str(size))
        assert np.ptp(expected, axis=1).min() > 1e-3


def test_the_graph_gives_the_logits_of_torch(exported):
    require_parity(*exported)


@pytest.mark.parametrize("pair", QUICK[1:], ids=["wav2vec2 + bert", "wavlm + distilbert"])
def test_pretrained_backbones_give_the_logits_of_torch(pair, cache, tmp_path):
    folder = make_folder(tmp_path / "model", tiny_config(*pair, "hybrid", layers=1))
    require_parity(folder, exporting.export(folder, tmp_path / "onnx"))


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "fusion"), CASES)
def test_every_pair_and_fusion_gives_the_logits_of_torch(pair, fusion, cache, tmp_path):
    folder = make_folder(tmp_path / "model", pair_config(pair, fusion))
    require_parity(folder, exporting.export(folder, tmp_path / "onnx"))


def test_the_folder_is_complete_and_hashed(exported):
    _, graph = exported
    names = {path.name for path in graph.iterdir()}
    assert names == {"model.onnx", "tokenizer.json", "settings.json", "run_onnx.py", "hashes.json"}
    assert damage(graph) is None
    assert len((graph / "run_onnx.py").read_text(encoding="utf-8").splitlines()) <= 60
    settings = json.loads((graph / "settings.json").read_text(encoding="utf-8"))
    assert settings["largest_difference"] < 1e-4 and settings["longest"]["samples"] == 48_000


def test_no_file_of_the_exported_folder_names_a_path_of_this_machine(exported):
    """The exporter of torch notes with each node which lines of which files made it."""
    folder, graph = exported
    places = [str(PROJECT), str(Path(torch.__file__).parent), str(Path.home()), str(folder)]
    for file in graph.iterdir():
        content = file.read_bytes()
        assert not [place for place in places if place.encode() in content], file


# A process in which neither exists, as on a machine without them.
RUN = """
import json, sys
blocked = dict.fromkeys(("torch", "transformers", "merhan", "modeling_merhan"))
sys.modules.update(blocked)
import numpy as np
from run_onnx import Recogniser
sounds = np.load("sounds.npz")
rows = json.load(open("rows.json"))
utterances = [{key: sounds[value] if key == "audio" else value for key, value in row.items()} for row in rows]
recogniser = Recogniser()
answers = [recogniser(utterances), *([answer] for row in utterances for answer in recogniser([row]))]
problems = []
for row in ({}, {"text": " "}, {"audio": np.zeros(48001)}, {"text": "no " * 200}):
    try:
        recogniser([row])
    except ValueError as error:
        problems.append(str(error))
assert all(module is None for name, module in sys.modules.items() if name.split(".")[0] in blocked)
print(json.dumps([answers, problems]))
"""


def test_the_runner_gives_the_scores_of_the_pipeline_without_torch(exported):
    folder, graph = exported
    model = MerhanForSequenceClassification.from_pretrained(folder).eval()
    recogniser = EmotionRecognitionPipeline(model=model, processor=MerhanProcessor.from_pretrained(folder))
    generator = np.random.default_rng(0)
    sounds = {f"clip{size}": generator.standard_normal(size).astype(np.float32) for size in (3000, 16000, 48000)}
    rows = [{"audio": "clip16000", "text": WORDS}, {"audio": "clip3000"}, {"text": "no"}, {"audio": "clip48000"}]
    rows += [{"audio": "clip3000", "text": "his answer is ghastly, he says, and no dinner was ever lovely"}]
    np.savez(graph.parent / "sounds.npz", **sounds)
    (graph.parent / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, 'onnx')\n{RUN}"]
    done = subprocess.run(command, cwd=graph.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (together, *alone), problems = json.loads(done.stdout)
    for row, *answers in zip(rows, together, [answer for (answer,) in alone], strict=True):
        sound = {"array": sounds[row["audio"]], "sampling_rate": 16_000} if "audio" in row else None
        expected = {entry["label"]: entry["score"] for entry in recogniser({**row, "audio": sound})}
        for answer in answers:
            assert answer == pytest.approx(expected, abs=1e-4), row
    for problem, words in zip(
        problems, ("must have one of: audio+text",) * 2 + ("48001 samples", "tokens"), strict=True
    ):
        assert words in problem and problem.endswith(".")


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["audio", "text"])
def test_a_model_of_a_single_modality(exported, tmp_path, modality, monkeypatch):
    folder, _ = exported
    config = MerhanConfig.from_pretrained(folder)
    setattr(config, {"audio": "text", "text": "audio"}[modality] + "_config", None)
    model = MerhanForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "model")
    processor = MerhanProcessor.from_pretrained(folder)
    processor.modalities = [modality]
    processor.save_pretrained(tmp_path / "model")
    graph = exporting.export(tmp_path / "model", tmp_path / "onnx")
    monkeypatch.syspath_prepend(graph)
    sound = np.random.default_rng(0).standard_normal(9000).astype(np.float32)
    row = {"audio": sound} if modality == "audio" else {"text": WORDS}
    (answer,) = import_module("run_onnx").Recogniser(graph)([row])
    recogniser = EmotionRecognitionPipeline(model=model, processor=processor)
    whole = {"array": sound, "sampling_rate": 16_000} if modality == "audio" else None
    expected = recogniser({"audio": whole, "text": row.get("text")})
    assert answer == pytest.approx({entry["label"]: entry["score"] for entry in expected}, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_smaller_graph_gives_nearly_the_same(exported, tmp_path, precision):
    folder, whole = exported
    small = exporting.export(folder, tmp_path / "small", precision)
    assert (small / "model.onnx").stat().st_size < (whole / "model.onnx").stat().st_size
    settings = json.loads((small / "settings.json").read_text(encoding="utf-8"))
    assert 0 < settings["largest_difference"] < 0.3


def refused(folder: Path, out: Path, **options) -> str:
    with pytest.raises(InputError) as error:
        exporting.export(folder, out, **options)
    assert not out.exists() or out == folder
    return str(error.value)


def test_what_cannot_be_exported_is_refused_in_a_sentence(exported, tmp_path):
    folder, _ = exported
    assert "exists already" in refused(folder, folder)
    assert "choose fp32" in refused(folder, tmp_path / "onnx", precision="fp8")
    model = MerhanForSequenceClassification.from_pretrained(folder)
    processor = MerhanProcessor.from_pretrained(folder)
    processor.trim_silence = 40.0
    processor.save_pretrained(tmp_path / "trims")
    model.save_pretrained(tmp_path / "trims")
    assert "does not cut" in refused(tmp_path / "trims", tmp_path / "onnx")
    processor.trim_silence, processor.modalities = None, ["text"]
    processor.save_pretrained(tmp_path / "stored")
    model.save_pretrained(tmp_path / "stored")
    assert "stored features of audio" in refused(tmp_path / "stored", tmp_path / "onnx")
    MerhanProcessor(WhisperFeatureExtractor(), processor.tokenizer).save_pretrained(tmp_path / "whisper")
    model.save_pretrained(tmp_path / "whisper")
    assert "spectrogram of WhisperFeatureExtractor" in refused(tmp_path / "whisper", tmp_path / "onnx")


def test_a_graph_that_differs_is_refused(exported, tmp_path, monkeypatch):
    folder, _ = exported
    monkeypatch.setattr(exporting, "_write_graph", lambda model, processor, path, name: path.touch())
    for difference, words in ((2e-4, "differ by 2.0e-04"), (np.inf, "differ by inf")):
        monkeypatch.setattr(exporting, "largest_difference", lambda *_, size=difference: size)
        assert words in refused(folder, tmp_path / "onnx")
