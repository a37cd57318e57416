"""Serving a model folder: `handler.py` in a process without this package, and the FastAPI example of the docs."""

import base64
import json
import runpy
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from documents import PROJECT, blocks_of

from merhan.files import resource


WORDS = "the dinner was lovely"
# Another machine: the installed libraries without this package.
PROGRAM = (
    f"import sys; sys.path.append({sysconfig.get_paths()['purelib']!r})\n"
    + """
import base64, importlib.util, json
assert not any(importlib.util.find_spec(name) for name in ("merhan", "hub_card"))
sys.path.insert(0, ".")
from handler import MOST_BYTES, MOST_CHARACTERS, EndpointHandler
handler = EndpointHandler(sys.argv[1])
sound = open(sys.argv[2], "rb").read()
encoded = base64.b64encode(sound).decode()
text = "the dinner was lovely"
answers = {
    "bytes": handler({"inputs": sound}),
    "words": handler({"inputs": text, "parameters": {"top_k": 2}}),
    "both": handler({"inputs": {"audio": encoded, "text": text}}),
    "many": handler({"inputs": [{"audio": encoded, "text": text}, text, {"audio": encoded, "text": None}] * 4}),
}
refused = {}
for name, request in {
    "nothing": {},
    "no dictionary": [1],
    "empty": {"inputs": []},
    "33": {"inputs": ["no"] * 33},
    "a path": {"inputs": {"audio": sys.argv[2]}},
    "a path of bytes": {"inputs": {"audio": {"path": sys.argv[2]}}},
    "an address": {"inputs": {"audio": "https://example.org/a.wav"}},
    "no sound": {"inputs": {"audio": base64.b64encode(b"not a recording").decode()}},
    "no sound, bytes": {"inputs": b""},
    "too long": {"inputs": open(sys.argv[3], "rb").read()},
    "too large": {"inputs": bytes(MOST_BYTES + 1)},
    "too large, base64": {"inputs": {"audio": "A" * (2 * MOST_BYTES + 1)}},
    "too many words": {"inputs": "no " * MOST_CHARACTERS},
    "too many tokens": {"inputs": "no " * 1000},
    "unknown key": {"inputs": {"sound": encoded}},
    "no utterance": {"inputs": 3},
    "blank": {"inputs": " "},
    "no text": {"inputs": {"text": 3}},
    "context": {"inputs": {"text": "no", "context": "a turn"}},
    "a turn": {"inputs": {"text": "no", "context": [3]}},
    "words of a turn": {"inputs": {"text": "no", "context": [{"text": 3}]}},
    "speaker": {"inputs": {"text": "no", "speaker": ["Ross"]}},
    "parameters": {"inputs": "no", "parameters": {"explain": True}},
    "top_k": {"inputs": "no", "parameters": {"top_k": "all"}},
}.items():
    try:
        refused[name] = [handler(request)]
    except ValueError as error:
        refused[name] = str(error)
print("RESULTS " + json.dumps([answers, refused]))
"""
)


@pytest.fixture
def folder(trained_like, processor, tmp_path) -> Path:
    """What a model folder has for its users."""
    trained_like.config.temperature = {"audio+text": 0.5, "audio": 2.0, "text": 3.0}
    for part in (trained_like, processor):
        part.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "handler.py").write_bytes(resource("hub_card/handler.py").read_bytes())
    return tmp_path / "model"


def scores(answer: list[dict]) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in answer}


def test_the_handler_answers_as_the_pipeline_and_refuses_in_words(folder, recogniser, tone, tmp_path):
    short, long = tone("short.wav"), tone("long.wav", seconds=3.5)
    command = [sys.executable, "-S", "-c", PROGRAM, ".", str(short), str(long)]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=clean_environment(tmp_path)
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULTS ")), None)
    assert line, done.stderr[-3000:]
    answers, refused = json.loads(line.removeprefix("RESULTS "))
    expected = {
        "bytes": scores(recogniser(str(short))),
        "words": scores(recogniser(text=WORDS, top_k=2)),
        "both": scores(recogniser(str(short), text=WORDS)),
    }
    for name, result in expected.items():
        assert scores(answers[name]) == pytest.approx(result, abs=1e-5), name
    for answer, name in zip(answers["many"], ("both", "words", "bytes") * 4, strict=True):
        reference = expected[name] if name != "words" else scores(recogniser(text=WORDS))
        assert scores(answer) == pytest.approx(reference, abs=1e-5)
    for name, sentence in refused.items():
        assert isinstance(sentence, str) and sentence.endswith(".") and len(sentence) < 250, (name, sentence)
    assert "lasts 3.5 s, and the model reads 3 s" in refused["too long"]
    assert "paths and addresses are not read" in refused["a path"] and "not base64" in refused["an address"]


def clean_environment(folder: Path) -> dict[str, str]:
    return {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HOME": str(folder)}


def test_the_fastapi_example_of_the_docs(folder, recogniser, tone, tmp_path, monkeypatch):
    client_module = pytest.importorskip("fastapi.testclient", reason="fastapi is not installed")
    page = PROJECT / "docs" / "how-to" / "export-and-serve.md"
    (code,) = [block.text for block in blocks_of(page) if "FastAPI(" in block.text]
    run = tmp_path / "outputs" / "quickstart"
    run.mkdir(parents=True)
    folder.rename(run / "model")
    (tmp_path / "serve.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    client = client_module.TestClient(runpy.run_path("serve.py")["app"])
    path = tone()
    sound = base64.b64encode(path.read_bytes()).decode()
    answer = client.post("/emotions", json={"inputs": [{"audio": sound, "text": WORDS}]})
    assert answer.status_code == 200, answer.text
    assert scores(answer.json()[0]) == pytest.approx(scores(recogniser(str(path), text=WORDS)), abs=1e-5)
    refused = client.post("/emotions", json={"inputs": [{"audio": "/etc/hostname"}]})
    assert refused.status_code == 422 and "not base64" in refused.json()["detail"]
    assert client.post("/emotions", json={"inputs": ["no"] * 33}).status_code == 422
    monkeypatch.delitem(sys.modules, "handler")
    large = client.post("/emotions", content=b"x", headers={"Content-Length": str(2**40)})
    assert large.status_code == 413
