"""Publishing a model folder on the Hub, and checking what is loaded back from there."""

import hashlib
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from transformers import AutoModelForSequenceClassification, AutoProcessor

from merhan.content_hashes import listed_files
from merhan.errors import InputError
from merhan.files import write_text
from merhan.hub.hub_calls import bounded_waits, lacks_rights, reason, repeated_once
from merhan.hub.model_card import UNPUBLISHED
from merhan.hub.space import write_space
from merhan.logs import get_logger
from merhan.models.inference import load_checkpoint
from processing_merhan import SAMPLING_RATE, MerhanProcessor


logger = get_logger(__name__)

GIT_ATTRIBUTES = ".gitattributes"

# Optimizer state, training_args.bin (a pickle that may contain a token), logs and predictions are never published.
ALLOWED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "configuration_merhan.py",
    "modeling_merhan.py",
    "processing_merhan.py",
    "handler.py",
    "README.md",
    "recipe.yaml",
    "provenance.json",
    "hashes.json",
    "evaluation/*/metrics.json",
    "evaluation/*/*.png",
)

# Written by some tokenizers besides their `vocab_files_names`.
TOKENIZER_FILES = ("added_tokens.json", "special_tokens_map.json", "chat_template.jinja")


class Target(NamedTuple):
    """A repository, and the command that publishes the run there."""

    repo_id: str
    command: str
    kind: str = "model"  # or "space"


def publish(run: str | Path, repo_id: str, private: bool = True, space: bool = False) -> str:
    """Push a run's model in one commit, and check what comes back from the Hub; returns the commit's URL.

    Only files of `ALLOWED` and of the tokenizer are copied to a fresh folder and pushed. They are downloaded again,
    compared by hash before any of them is imported, and then by the logits of the model.

    Args:
        run: folder of a finished run.
        repo_id: repository on the Hub, created if it does not exist.
        private: whether a new repository is private.
        space: also push a Space, a page to try the model, as `<repo_id>-space`.

    Raises:
        InputError: the run is not finished, the Hub fails or refuses, or something else comes back; says what is on
            the Hub then, and which command goes on.
    """
    run = Path(run)
    source = run / "model"
    if not (source / "README.md").is_file():
        raise InputError(f"{run}: has no finished model; finish the run with --resume.")
    options = {"--public": not private, "--space": space}
    words = ["merhan", "publish", str(run), repo_id, *(option for option, is_set in options.items() if is_set)]
    target = Target(repo_id, shlex.join(words))
    with tempfile.TemporaryDirectory() as temporary, bounded_waits():
        upload, returned = Path(temporary) / "upload", Path(temporary) / "returned"
        model, processor = load_checkpoint(source)
        _copy_allowed(source, upload, _tokenizer_files(processor))
        _set_repo_id(upload / "README.md", repo_id)
        expected = _local_logits(source, model, processor)
        commit = _push(upload, target, private, f"MER-HAN: {run.name}")
        _download(target, commit, returned)
        _compare_files(upload, returned, target)
        _compare_logits(expected, returned, target)
        if space:
            _publish_space(target, private, Path(temporary))
    logger.info(f"published and loaded back with equal files and equal logits: {commit.commit_url}")
    return commit.commit_url


def _tokenizer_files(processor: MerhanProcessor) -> list[str]:
    """The names of the files that the tokenizer of a model reads, besides those of `ALLOWED`."""
    return [*type(processor.tokenizer).vocab_files_names.values(), *TOKENIZER_FILES]


def _publish_space(model: Target, private: bool, folder: Path):
    """Push the page to try a published model, and compare what comes back."""
    target = Target(f"{model.repo_id}-space", model.command, "space")
    write_space(folder / "space", model.repo_id)
    commit = _push(folder / "space", target, private, f"A page to try {model.repo_id}")
    _download(target, commit, folder / "returned-space")
    _compare_files(folder / "space", folder / "returned-space", target)
    logger.info(f"published a Space: {commit.commit_url}")


def _copy_allowed(source: Path, target: Path, tokenizer_files: Sequence[str]):
    """Copy what may be published.

    Raises:
        InputError: the model was exported with a file that may not be, so that it would not be complete.
    """
    files = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    allowed = list(filter_repo_objects(files, allow_patterns=[*ALLOWED, *tokenizer_files]))
    lacking = sorted({*listed_files(source)} & {*files} - {*allowed})
    if lacking:
        raise InputError(
            f"{source / lacking[0]}: is a part of the model and no kind of file that is published, so nothing was; "
            f"take a backbone whose tokenizer does without it."
        )
    for name in sorted({*files} - {*allowed}):
        logger.warning(f"note: {source / name}: is not published, because it is no part of the model")
    for name in allowed:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, target / name)


def _set_repo_id(card: Path, repo_id: str):
    write_text(card, card.read_text(encoding="utf-8").replace(UNPUBLISHED, repo_id))


def _push(folder: Path, target: Target, private: bool, message: str) -> CommitInfo:
    """Create the repository if there is none, and make its content that of a folder, in one commit."""
    api = HfApi()
    try:
        before = repeated_once(lambda: _head(api, target))
    except Exception as error:  # whatever huggingface_hub makes of an answer that it does not expect
        raise _failure(target, "was not published", error, "nothing was changed there") from error
    try:
        repeated_once(lambda: _create(api, target, private))
        return repeated_once(
            lambda: api.upload_folder(
                repo_id=target.repo_id,
                repo_type=target.kind,
                folder_path=folder,
                commit_message=message,
                delete_patterns="*",
            )
        )
    except Exception as error:
        raise _failure(target, "was not published", error, _what_is_there(api, target, before)) from error


def _create(api: HfApi, target: Target, private: bool):
    sdk = "gradio" if target.kind == "space" else None
    api.create_repo(target.repo_id, repo_type=target.kind, space_sdk=sdk, private=private, exist_ok=True)


def _head(api: HfApi, target: Target) -> str | None:
    """The newest commit of a repository; None if there is none, or none that may be seen."""
    try:
        return api.repo_info(target.repo_id, repo_type=target.kind).sha
    except RepositoryNotFoundError:
        return None


def _what_is_there(api: HfApi, target: Target, before: str | None) -> str:
    """What is on the Hub after a push that failed, which may have arrived none the less.

    Args:
        before: the newest commit before the push.
    """
    try:
        now = _head(api, target)
        if now == before:
            return "nothing was changed there"
        if before is None and set(api.list_repo_files(target.repo_id, repo_type=target.kind)) <= {GIT_ATTRIBUTES}:
            return "the repository was created and is empty"
        return "a commit has arrived there that was not checked"
    except Exception:
        return "what is there now is not known, because the Hub does not say"


def _failure(target: Target, what: str, error: Exception, state: str) -> InputError:
    """One sentence: what failed and why, what is on the Hub, and how to go on."""
    remedy = f"go on with `{target.command}`"
    if lacks_rights(error):
        remedy = f"log in with `hf auth login` as someone who may write there, then {remedy}"
    return InputError(f"{target.repo_id}: {what}: {reason(error)}; {state}; {remedy}")


def _download(target: Target, commit: CommitInfo, folder: Path):
    """Everything that a commit holds, from the Hub itself and not from a cache."""
    state = f"the {target.kind} is on the Hub ({commit.commit_url}) and was not checked"
    try:
        api = HfApi()
        repeated_once(
            lambda: api.snapshot_download(target.repo_id, repo_type=target.kind, revision=commit.oid, local_dir=folder)
        )
    except Exception as error:
        raise _failure(target, "was pushed, and cannot be downloaded", error, state) from error


def _compare_files(pushed: Path, returned: Path, target: Target):
    """Require that the same files came back as were pushed, before any of them is read or imported."""
    expected, actual = _hashes(pushed), _hashes(returned)
    actual.pop(GIT_ATTRIBUTES, None)  # of the Hub: which files it stores outside of git
    names = sorted(name for name in {*expected, *actual} if expected.get(name) != actual.get(name))
    if names:
        raise InputError(
            f"{target.repo_id}: was pushed, but comes back from the Hub with other files than were pushed "
            f"({', '.join(names)}); do not use what is there, and push it again with `{target.command}`"
        )


def _hashes(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of every file, except for the notes that `huggingface_hub` keeps on a download."""
    hashes = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and name.parts[:2] != (".cache", "huggingface"):
            with path.open("rb") as file:
                hashes[name.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _local_logits(source: Path, model: Any, processor: MerhanProcessor) -> torch.Tensor:
    """Logits `(1, num_labels)` of the model that is to be published, for one utterance."""
    logits = _logits(model, processor)
    if not logits.isfinite().all():
        raise InputError(f"{source}: its logits are not finite, so it was not published; train it again.")
    return logits


def _compare_logits(expected: torch.Tensor, returned: Path, target: Target):
    """Load what came back as anyone would, and compare its logits with those of the local model."""
    state = "its files are on the Hub, equal to those that were pushed"
    try:
        model = AutoModelForSequenceClassification.from_pretrained(returned, trust_remote_code=True).eval()
        processor = AutoProcessor.from_pretrained(returned, trust_remote_code=True)
        difference = (_logits(model, processor) - expected).abs().max().item()
    except Exception as error:  # of any package that the code of the model imports
        raise _failure(target, "was pushed, and cannot be loaded", error, state) from error
    # The last bits may differ between processes, although weights and machine are the same. NaN is not equal.
    if not difference <= 1e-5:
        raise InputError(
            f"{target.repo_id}: was pushed, but its logits differ by {difference:.3g} from those of the local model, "
            f"although {state}; check the versions of torch and transformers, then go on with `{target.command}`"
        )


def _logits(model: Any, processor: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**_test_inputs(processor)).logits


def _test_inputs(processor: MerhanProcessor) -> dict[str, torch.Tensor]:
    """One utterance of noise and text, of the modalities that the model reads."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLING_RATE)
    inputs: dict[str, Any] = {
        "audio": {"array": noise, "sampling_rate": SAMPLING_RATE},
        "text": "I cannot believe it!",
    }
    return dict(processor(**{name: inputs[name] for name in processor.modalities}))
