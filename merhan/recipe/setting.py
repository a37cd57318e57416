"""One field of a recipe: its default, its documentation, and the values that it may have.

The metadata of a field is the single source of its range: [`check_settings`] enforces it, and the reference page of the
documentation prints it.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from merhan.errors import InputError, did_you_mean
from merhan.recipe.ranges import describe_bounds, is_within


def setting(
    default: Any = MISSING,
    *,
    help: str,
    choices: Sequence[str] | None = None,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    pair: bool = False,
    required: bool = False,
) -> Any:
    """A dataclass field with documentation and a range.

    Args:
        default: without one, the recipe must give a value. A list or mapping is copied for each instance.
        help: what the value means, with its unit.
        choices: the allowed words; of a list, for each element.
        minimum, above, maximum, below: bounds of a number; of a list or mapping, for each element or value.
        pair: a list is `[low, high]`, with low at most high.
        required: a list must not be empty.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "minimum": minimum,
        "above": above,
        "maximum": maximum,
        "below": below,
        "pair": pair,
        "required": required,
    }
    if isinstance(default, list | dict):
        return field(default_factory=lambda: deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def nested(schema: type, *, help: str) -> Any:
    """A dataclass field that holds another dataclass of settings, by default with its defaults."""
    return field(default_factory=schema, metadata={"help": help})


def check_settings(values: Any, where: str, prefix: str = ""):
    """Check every setting of a dataclass, and of those within it, against its range.

    Args:
        values: an instance of a dataclass whose fields are made by [`setting`].
        where: the file that errors name.
        prefix: the key of `values` within the recipe, with a trailing dot.

    Raises:
        InputError: names file, key, value and the allowed range.
    """
    for item in fields(values):
        key, value = prefix + item.name, getattr(values, item.name)
        for nested_key, nested_values in _dataclasses_in(key, value):
            check_settings(nested_values, where, f"{nested_key}.")
        _check_value(key, value, item.metadata, where)


def describe_range(metadata: Mapping[str, Any]) -> str:
    """The allowed range in words, as `above 0, at most 1`; empty where anything goes."""
    described = describe_bounds(metadata)
    if metadata.get("choices"):
        described = f"one of {', '.join(metadata['choices'])}"
    if metadata.get("pair"):
        described = f"[low, high], {described}"
    return described


def _dataclasses_in(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(value):
        yield key, value
    elif isinstance(value, list):
        for number, element in enumerate(value):
            if is_dataclass(element):
                yield f"{key}[{number}]", element


def _check_value(key: str, value: Any, metadata: Mapping[str, Any], where: str):
    if metadata.get("required") and not value:
        raise InputError(f"{where}: {key} is empty; give at least one value.")
    elements = _elements(value)
    if metadata.get("choices"):
        for word in elements:
            check_word(word, metadata["choices"], f"{where}: {key}")
    if any(isinstance(element, list | Mapping) for element in elements) and not isinstance(value, Mapping):
        raise InputError(f"{where}: {key} is {value}; its elements must be single values.")
    numbers = [element for element in elements if isinstance(element, int | float)]
    in_range = all(is_within(number, metadata) for number in numbers)
    if not in_range or not _is_ordered(numbers, metadata):
        wanted = describe_range(metadata) or "a finite number"
        raise InputError(f"{where}: {key} is {value}, out of its range; it must be {wanted}.")


def _elements(value: Any) -> list[Any]:
    """What the bounds apply to: the elements of a list, the values of a mapping, or the value itself."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def _is_ordered(numbers: Sequence[float], metadata: Mapping[str, Any]) -> bool:
    """Whether a pair has two numbers, the lower first; an empty list is left to `required`."""
    if not metadata.get("pair") or not numbers:
        return True
    return len(numbers) == 2 and numbers[0] <= numbers[1]


def check_word(word: str, known: Sequence[str], where: str):
    """Raise InputError unless `word` is one of the known ones; the error suggests the nearest."""
    if word not in known:
        raise InputError(f"{where}: unknown {word!r}{did_you_mean(word, known)}")
