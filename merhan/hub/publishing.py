"""Publishing a model folder on the Hub, and checking what is loaded back from there."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import filter_repo_objects
from transformers import AutoModelForSequenceClassification, AutoProcessor

from merhan.errors import InputError
from merhan.files import write_text
from merhan.hub.model_card import UNPUBLISHED
from merhan.logs import get_logger
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import SAMPLING_RATE, MerhanProcessor


logger = get_logger(__name__)

# Optimizer state, training_args.bin (a pickle that may contain a token), logs and predictions are never published.
ALLOWED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "modeling_merhan.py",
    "processing_merhan.py",
    "README.md",
    "recipe.yaml",
    "provenance.json",
    "evaluation/*/metrics.json",
    "evaluation/*/*.png",
)


def publish(run: str | Path, repo_id: str, private: bool = True) -> str:
    """Push a run's model in one commit, load it back from the Hub, and compare logits; returns the commit's URL.

    Only files of `ALLOWED` are copied to a fresh folder and pushed.

    Args:
        run: folder of a finished run.
        repo_id: repository on the Hub, created if it does not exist.
        private: whether a new repository is private.

    Raises:
        InputError: the run is not finished, the Hub refuses, or the logits differ.
    """
    run = Path(run)
    source = run / "model"
    if not (source / "README.md").is_file():
        raise InputError(f"{run}: has no finished model; finish the run with --resume.")
    with tempfile.TemporaryDirectory() as temporary:
        upload = Path(temporary) / "upload"
        _copy_allowed(source, upload)
        _set_repo_id(upload / "README.md", repo_id)
        commit = _push(upload, repo_id, private, f"MER-HAN: {run.name}")
        _compare_logits(source, repo_id, commit.oid, Path(temporary) / "cache")
    logger.info(f"published and loaded back with equal logits: {commit.commit_url}")
    return commit.commit_url


def _copy_allowed(source: Path, target: Path):
    files = [str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()]
    for name in filter_repo_objects(files, allow_patterns=list(ALLOWED)):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, target / name)


def _set_repo_id(card: Path, repo_id: str):
    write_text(card, card.read_text(encoding="utf-8").replace(UNPUBLISHED, repo_id))


def _push(folder: Path, repo_id: str, private: bool, message: str) -> CommitInfo:
    try:
        HfApi().create_repo(repo_id, private=private, exist_ok=True)
        return HfApi().upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message, delete_patterns="*")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"hub.repo_id: the Hub refused {repo_id!r} ({str(error).strip()}); log in with `hf auth login` and check "
            f"that you may write there."
        ) from None


def _compare_logits(folder: Path, repo_id: str, revision: str, cache: Path):
    """Load what was pushed into an empty cache, and compare its logits with those of the local model."""
    options: dict[str, Any] = {"revision": revision, "cache_dir": cache, "trust_remote_code": True}
    remote = AutoModelForSequenceClassification.from_pretrained(repo_id, **options).eval()
    inputs = _test_inputs(AutoProcessor.from_pretrained(repo_id, **options))
    local = MerhanForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        difference = (remote(**inputs).logits - local(**inputs).logits).abs().max().item()
    if difference > 1e-5:  # the last bits may differ between processes, although weights and machine are the same
        raise InputError(
            f"{repo_id}: was pushed, but its logits differ by {difference:.3g} from {folder}; do not use it."
        )


def _test_inputs(processor: MerhanProcessor) -> dict[str, torch.Tensor]:
    """One utterance of noise and text, of the modalities that the model reads."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLING_RATE)
    inputs: dict[str, Any] = {
        "audio": {"array": noise, "sampling_rate": SAMPLING_RATE},
        "text": "I cannot believe it!",
    }
    return dict(processor(**{name: inputs[name] for name in processor.modalities}))
