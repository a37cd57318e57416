"""The page to try a model, a Gradio Space: run on this machine, or as files of a repository on the Hub."""

import runpy
from pathlib import Path

from merhan.files import resource, write_text
from merhan.models.inference import load_checkpoint
from processing_merhan import EmotionRecognitionPipeline


MODEL = "<this model>"  # stands for the model's name in the files of the Space
_FILES = "hub_card/space"


def run_space(checkpoint: str | Path, port: int | None = None):
    """Serve the page of a model on this machine until the process is interrupted.

    Args:
        checkpoint: a run's folder, a model folder, or a Hub id.
        port: by default the first free one from 7860 on.

    Raises:
        InputError: there is no such model.
    """
    app = runpy.run_path(str(resource(_FILES) / "app.py"), run_name="merhan_space")
    model, processor = load_checkpoint(checkpoint)
    recogniser = EmotionRecognitionPipeline(model=model, processor=processor)
    app["launch"](app["make_page"](recogniser), server_name="127.0.0.1", server_port=port)


def write_space(folder: Path, repo_id: str):
    """Write the files of a Space that loads a model from the Hub."""
    folder.mkdir(parents=True)
    for file in resource(_FILES).iterdir():
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            write_text(folder / file.name, text.replace(MODEL, repo_id))
