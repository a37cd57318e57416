"""Reading recipes: YAML, the recipes that it is based on, and `--set key=value` changes.

A recipe may begin with `base: other.yaml`, a path relative to its own, or a list of them of which a later one wins. Its
own keys then change those of the base in the same way as `--set` does: a value, a list (`stages`) or a free mapping
(`learning_rate`, `trainer`, `model.config`) replaces that of the base. A dotted key changes one entry:
`model.config.hidden_size: 64`, `stages.1.epochs: 3`. `merhan:quickstart` is the recipe of this package of that name.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

from merhan.errors import InputError, did_you_mean
from merhan.files import resource
from merhan.recipe.checks import check_recipe
from merhan.recipe.schema import DataRecipe, Recipe


RESOLVERS = ("oc.env",)

PACKAGED = "merhan"  # before a colon, in place of a folder


def load_recipe(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe and its bases, apply `key=value` changes, and check the result.

    Raises:
        InputError: no such file, not YAML, a recipe that is based on itself, an unknown key (the error suggests the
            nearest one), a wrong type, a value out of its range, an unset environment variable.
    """
    config = OmegaConf.structured(Recipe)
    for file, content in _with_bases(named_file(path)).items():
        with recipe_errors(file):
            for key, value in content.items():
                _set_key(config, str(key), value)
    with recipe_errors(path):
        _apply_changes(config, changes)
        written = dict(_interpolations(OmegaConf.to_container(config, resolve=False)))
        _check_resolvers(written, path)
        recipe = check_recipe(cast(Recipe, OmegaConf.to_object(config)), str(path))
    recipe.written = written
    return recipe


def _interpolations(content: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Keys and text of every value that refers to another one or to the environment, as `${oc.env:DATA}/meld`."""
    if isinstance(content, dict):
        children: Any = content.items()
    elif isinstance(content, list):
        children = enumerate(content)
    elif isinstance(content, str) and "${" in content:
        yield keys, content
        return
    else:
        return
    for key, child in children:
        yield from _interpolations(child, (*keys, key))


def _check_resolvers(written: Mapping[tuple[Any, ...], str], path: str | Path):
    """Only the environment and other keys are read: other resolvers may be registered by any package, and run code."""
    for keys, text in written.items():
        for resolver in re.findall(r"\$\{\s*([\w.]+)\s*:", text):
            if resolver not in RESOLVERS:
                raise InputError(
                    f"{path}: {'.'.join(map(str, keys))}: {resolver!r} is not resolved; write a value, another key as "
                    f"${{data.fold}}, or ${{oc.env:NAME}}."
                )


def named_file(path: str | Path, kind: str = "recipe") -> str:
    """The path of a file, of one of this package's too: `merhan:quickstart`, `merhan:experiments/fusions`.

    Args:
        kind: what the file is, for the error message.

    Raises:
        InputError: the package has no file of this name.
    """
    prefix, _, name = str(path).partition(":")
    if prefix != PACKAGED:
        return os.path.normpath(path)
    folder = resource("configs").resolve()
    file = folder / f"{name.removesuffix('.yaml')}.yaml"
    if not file.is_file() or folder not in file.resolve().parents:
        names = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
        raise InputError(f"{path}: the package has no {kind} of this name{did_you_mean(name, names)}")
    return os.path.normpath(file)


def override_data(data: DataRecipe, changes: Sequence[str]) -> DataRecipe:
    """Apply `data.key=value` changes to the data part of a recipe, where there is no recipe file."""
    with recipe_errors("--set"):
        config = OmegaConf.structured(Recipe(run_name="", data=data))
        _apply_changes(config, changes)
        return cast(DataRecipe, OmegaConf.to_object(config.data))


def save_recipe(recipe: Recipe, path: str | Path):
    """Write a resolved recipe, with every default spelled out."""
    OmegaConf.save(OmegaConf.structured(recipe), path)


def _with_bases(path: str, heirs: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """File -> its own keys, bases first; a base that several files share is listed once.

    Args:
        heirs: the files whose bases are being read, to find circles.
    """
    if path in heirs:
        raise InputError(f"{path}: is based on itself ({' -> '.join([*heirs, path])}); remove one `base`.")
    if heirs and not os.path.isfile(path):  # not of a Path, which raises for a name that is too long
        raise InputError(f"{heirs[-1]}: base: there is no file {path}; write the path relative to {heirs[-1]}.")
    content = _read_yaml(path)
    bases = _base_paths(content.pop("base", None) or [], path)
    layers: dict[str, dict[str, Any]] = {}
    for base in bases:
        if not base.startswith(f"{PACKAGED}:"):
            base = str(Path(path).parent / base)
        layers |= _with_bases(named_file(base), [*heirs, path])
    return layers | {path: content}


def _read_yaml(path: str) -> dict[str, Any]:
    with recipe_errors(path):
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; a recipe holds keys with values.")
    return cast(dict[str, Any], content)


def _base_paths(base: Any, path: str) -> list[str]:
    paths = base if isinstance(base, list) else [base]
    if not all(isinstance(name, str) for name in paths):
        raise InputError(f"{path}: base: {base!r} is neither the path of a recipe nor a list of paths.")
    return paths


def _apply_changes(config: Any, changes: Sequence[str]):
    """Apply `key=value` changes in place; values are parsed as YAML."""
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise InputError(f"--set {change}: write key=value, as data.fold=1.")
        parsed = OmegaConf.to_container(OmegaConf.create(f"value: {text}"), resolve=False)
        _set_key(config, key, cast(dict[str, Any], parsed)["value"])


def _set_key(config: Any, key: str, value: Any):
    """Change one key in place: a section with a schema field by field, anything else as a whole."""
    try:
        node = OmegaConf.select(config, key)
    except InterpolationResolutionError:  # a value that is replaced need not resolve, as an unset environment variable
        node = None
    is_free_mapping = OmegaConf.is_dict(node) and OmegaConf.get_type(node) is dict
    if OmegaConf.is_dict(node) and not is_free_mapping and isinstance(value, Mapping):
        for name, nested_value in value.items():
            _set_key(config, f"{key}.{name}", nested_value)
    else:
        OmegaConf.update(config, key, value, merge=not is_free_mapping)


@contextmanager
def recipe_errors(path: str | Path, kind: type = Recipe) -> Iterator[None]:
    """Turn errors of OmegaConf and YAML into one sentence that names file and key.

    Args:
        path: the file that is read.
        kind: the dataclass that it fills.
    """
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such {kind.__name__.lower()}; recipes are in configs/.") from None
    except (ConfigKeyError, ConfigAttributeError) as error:
        raise InputError(f"{path}: unknown key {error.full_key!r}{_suggest_key(error, kind)}") from None
    except InterpolationResolutionError as error:
        raise InputError(f"{path}: {error.full_key}: {_first_line(error)}; set it, or give the key a value.") from error
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {getattr(error, 'full_key', None) or 'recipe'}: {_first_line(error)}.") from None
    except (TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: a --set key does not exist ({_first_line(error)}).") from None
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({_first_line(error)}).") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _suggest_key(error: ConfigKeyError | ConfigAttributeError, kind: type) -> str:
    """The nearest key of the section in which an unknown one was found."""
    parent, _, key = (error.full_key or str(error.key)).rpartition(".")
    section = kind
    if isinstance(error.object_type, type) and hasattr(error.object_type, "__dataclass_fields__"):
        section = error.object_type
    known = [item.name for item in fields(section)]
    if section is Recipe:
        known.append("base")
    prefix = f"{parent}." if parent else ""
    return did_you_mean(prefix + key, [prefix + name for name in known])
