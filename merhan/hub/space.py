"""The page to try a model, a Gradio Space: run on this machine, or as files of a repository on the Hub."""

import runpy
import shutil
from pathlib import Path

from merhan.files import PROJECT, resource, write_text
from merhan.models.inference import load_checkpoint
from merhan.prediction.transcription import Transcriber
from processing_merhan import EmotionRecognitionPipeline


MODEL = "<this model>"  # stands for the model's name in the files of the Space
_FILES = "hub_card/space"
_MODULES = ("configuration_merhan", "modeling_merhan", "processing_merhan")


def run_space(checkpoint: str | Path, port: int | None = None, transcriber: Transcriber | None = None):
    """Serve the page of a model on this machine until the process is interrupted.

    Args:
        checkpoint: a run's folder, a model folder, or a Hub id.
        port: by default the first free one from 7860 on.
        transcriber: finds the words of recordings that are given without.

    Raises:
        InputError: there is no such model.
    """
    app = runpy.run_path(str(resource(_FILES) / "app.py"), run_name="merhan_space")
    model, processor = load_checkpoint(checkpoint)
    recogniser = EmotionRecognitionPipeline(model=model, processor=processor)
    app["launch"](app["make_page"](recogniser, transcriber), server_name="127.0.0.1", server_port=port)


def write_space(folder: Path, repo_id: str):
    """Write the files of a Space that loads a model from the Hub, with this package, of which a Space has no other
    source in the same version."""
    folder.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "resources", "*.pyc")
    shutil.copytree(PROJECT / "merhan", folder / "merhan", ignore=ignored)
    for module in _MODULES:
        shutil.copy(PROJECT / f"{module}.py", folder)
    shutil.copytree(resource(_FILES) / "examples", folder / "examples")
    for file in resource(_FILES).iterdir():
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            write_text(folder / file.name, text.replace(MODEL, repo_id))
