"""What must not be published: paths of this machine, and values that came from its environment."""

import re
from collections.abc import Callable
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from omegaconf import OmegaConf

from merhan.recipe.schema import Recipe


# A path within a sentence: absolute, of a home, of a drive or share of Windows, or relative by dots.
_PATH = re.compile(r"(?<![\w:/\\.~}>])(?:file://)?(?:[A-Za-z]:[\\/]|\\\\|~\w*/|/|\.{1,2}[\\/])[^\s'\"`,;:()\[\]{}<>|]+")


def public_recipe(recipe: Recipe) -> dict[str, Any]:
    """The content of a published `recipe.yaml`, a copy of the recipe.

    Each path of this machine is reduced to its last component, and a value that was interpolated, as
    `${oc.env:LICENCE}`, stays as it was written.
    """
    content: Any = OmegaConf.to_container(OmegaConf.structured(recipe))
    content["output_dir"] = Path(recipe.output_dir).name
    content = map_strings(content, without_paths)
    for keys, text in recipe.written.items():
        _put(content, keys, without_paths(text))
    return content


def map_strings(content: Any, change: Callable[[str], str]) -> Any:
    """A copy of nested lists and mappings in which every string is changed, keys excepted."""
    if isinstance(content, dict):
        return {key: map_strings(value, change) for key, value in content.items()}
    if isinstance(content, list):
        return [map_strings(element, change) for element in content]
    return change(content) if isinstance(content, str) else content


def without_paths(text: str) -> str:
    """A text in which each path of this machine, whether it exists or not, is reduced to its last component."""
    if _is_path(text):
        return _last(text)
    return _PATH.sub(lambda match: _last(match.group()), text)


def _is_path(text: str) -> bool:
    """Whether a text as a whole is a path; it may contain blanks then."""
    if "\n" in text or len(text) > 4096:
        return False
    absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
    return absolute or text.startswith(("~", "./", "../")) or (PurePath(text).name != text and Path(text).exists())


def _last(path: str) -> str:
    """The last component, whichever separators the path has."""
    return PureWindowsPath(path.rstrip("/\\")).name or "path"


def _put(content: Any, keys: tuple[Any, ...], value: str):
    """Replace one value of nested lists and mappings in place."""
    *parents, last = keys
    for key in parents:
        content = content[key]
    content[last] = value
