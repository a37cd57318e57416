"""Names of models and data sets on the Hub, which may pin a revision: `me/model@v1.0`, a branch, a tag or a commit."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

from merhan.errors import InputError


HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]  # of httpx or httpx2, whichever huggingface_hub uses


class HubId(NamedTuple):
    """A repository, and the revision of it that was asked for; None = its main branch, or a local folder."""

    name: str
    revision: str | None


def split_revision(name: str | Path) -> HubId:
    """`me/model@v1.0` as `me/model` and `v1.0`. What is on this machine keeps its name whole.

    Raises:
        InputError: nothing stands before or behind the @.
    """
    repository, at, revision = str(name).partition("@")
    if not at or Path(name).exists():
        return HubId(str(name), None)
    if not repository or not revision:
        raise InputError(f"{str(name)!r}: write a revision as me/model@v1.0, with a branch, a tag or a commit.")
    return HubId(repository, revision)


def checkpoint_source(name: str | Path) -> dict[str, Any]:
    """A checkpoint as arguments of every `from_pretrained`, of the commit that [`pinned`] names.

    Raises:
        OSError: the Hub has no such revision.
    """
    repository, revision = split_revision(pinned(str(name)))
    if revision is None:
        return {"pretrained_model_name_or_path": repository}
    return {"pretrained_model_name_or_path": repository, "revision": revision}


def pinned(name: str) -> str:
    """A checkpoint of the Hub with the commit that its revision stands for, as `me/model@<40 digits>`, the same one as
    long as the process runs; a local folder as it is.

    Raises:
        OSError: the Hub has no such checkpoint or revision.
    """
    if Path(name).exists():
        return name
    return _pinned(name)


@cache
def data_set_commit(name: str) -> str | None:
    """The commit that the name of a data set on the Hub stands for, the same one as long as the process runs; None for
    what is on this machine, and without a revision where the Hub cannot be reached.

    Raises:
        OSError, HTTP_ERROR: the Hub has no such revision, or cannot be reached and the revision is not in its cache.
    """
    repository, revision = split_revision(name)
    if Path(name).exists():
        return None
    if revision is not None:
        offline = False
        try:
            HfApi().dataset_info(repository, revision=revision)
        except HfHubHTTPError:  # the Hub answers, and refuses
            raise
        except (OSError, HTTP_ERROR):
            offline = True
        # Unlike `dataset_info`, this notes the commit in the cache, where it is found again without the Hub.
        folder = snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            allow_patterns="README.md",
            local_files_only=offline,
        )
        return Path(folder).name
    try:
        return HfApi().dataset_info(repository).sha
    except (OSError, HTTP_ERROR):
        return None  # `datasets` reads its cache, or says what is wrong


@cache
def _pinned(name: str) -> str:
    repository, revision = split_revision(name)
    commit = extract_commit_hash(cached_file(repository, "config.json", revision=revision), None)
    return f"{repository}@{commit}" if commit else name
