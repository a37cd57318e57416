"""Bad values of every key and option, generated from the schema of recipes and from the parsers of commands."""

import argparse
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import combinations
from typing import Any, get_args, get_type_hints

from transformers import TrainingArguments

from configuration_merhan import CHOICES, MerhanAudioConfig, MerhanConfig
from merhan.cli.main import build_parser
from merhan.recipe.ranges import TRAINER, is_within
from merhan.recipe.schema import Recipe


# A recipe in which every optional section is there, so that each of its keys can be set.
COMPLETE = """
run_name: complete
data:
  corpus: demo
  source: {folder}/demo
  protocol: grouped:speaker
  augmentation: {{room: {{}}, noise: {{}}}}
  transcript_noise: {{}}
model:
  audio_backbone: light
  text_backbone: tiny
  adapters: {{text: {{r: 4, target_modules: [query]}}}}
stages:
  - {{name: warmup, epochs: 1, learning_rate: {{head: 1.0e-3, text: 1.0e-4}}}}
sampling: {{curriculum: {{order: prototypes}}}}
adversary: {{}}
"""
NO_NUMBERS = ["many", "[1, 2, 3]", "{a: 1}", "true"]
NOT_FINITE = [".nan", ".inf", "-.inf"]
EXTREMES = ["-1", "0", "1.0e+30", "-1.0e+30", "1000000000000000000000000000000"]
FREE = {"learning_rate": "head", "layer_decay": "text", "unfreeze_layers": "text"}  # mapping -> one of its keys
# A large number of these is odd but has a meaning.
UNBOUNDED = ("max_steps", "save_total_limit", "max_grad_norm", "ddp_timeout", "local_rank")


def recipe_changes() -> list[str]:
    """`key=value` changes of a complete recipe, each of which must be refused."""
    changes = [f"{key}={value}" for key, values in _recipe_keys() for value in values]
    changes += [f"trainer.{key}={value}" for key, values in _trainer_keys() for value in values]
    for section, config in (("config", MerhanConfig), ("audio_config", MerhanAudioConfig)):
        for name, hint in config.__annotations__.items():
            changes += [f"model.{section}.{name}={value}" for value in _config_values(name, hint)]
    changes += ["data.label_map={joy: [a]}", "data.label_map={joy: {a: b}}", "data.label_map=[a]", "data.label_map=3"]
    adapters = ("r", "lora_alpha", "lora_dropout")
    changes += [f"model.adapters.text.{name}={value}" for name in adapters for value in [*NOT_FINITE, "-1", "many"]]
    changes += [f"model.config.{name}=no-such-word" for name in CHOICES]
    return changes


def _recipe_keys(schema: type = Recipe, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Key -> bad values, of every setting of the schema."""
    hints = get_type_hints(schema)
    for item in fields(schema):
        key, types = prefix + item.name, set(get_args(hints[item.name])) or {hints[item.name]}
        nested = [kind for kind in types if is_dataclass(kind)]
        if nested and "list" not in str(hints[item.name]):
            yield from _recipe_keys(nested[0], f"{key}.")
        elif nested:
            yield key, ["[]", "3", "word", "[3]", "{a: b}"]
            yield from _recipe_keys(nested[0], f"{key}.0.")
        else:
            yield key, _setting_values(hints[item.name], item.metadata)


def _setting_values(hint: Any, metadata: Any) -> list[str]:
    text = str(hint)
    values = []
    if "int" in text or "float" in text:
        bad = [*NOT_FINITE, *(value for value in EXTREMES if not is_within(float(value), metadata)), *NO_NUMBERS]
        if "dict" in text:
            keys = ("head", "text") if metadata["help"].startswith("parameter") else ("text",)
            return [f"{{{keys[0]}: {value}}}" for value in bad] + ["3", "[1]"]
        if "list" in text:
            both = ", ".join
            values = [f"[{both([value, value])}]" for value in bad] + ["[2, 1]"] * bool(metadata["pair"])
            return [*values, "word", "{a: 1}"]
        return bad
    if hint is bool:
        return ["3.5", "word", "[true]", "{a: true}"]
    if hint in (str, str | None) and not metadata.get("choices"):
        return ["[a]", "{a: b}"]
    if text == "list[str]" and not metadata.get("choices"):
        return ["[[a]]", "[{a: b}]", "{a: b}", "word"]
    if metadata.get("choices"):
        words = ["no-such-word", "[[a]]", "{a: b}"]
        return [f"[{word}]" for word in words] if "list" in text else words
    return []


def _trainer_keys() -> Iterator[tuple[str, list[str]]]:
    """Key -> bad values, of every number and switch among TrainingArguments."""
    for item in fields(TrainingArguments):
        text = str(item.type)
        if item.type is bool:
            yield item.name, ["word", "3", "[true]"]
        elif ("int" in text or "float" in text) and "str" not in text and "Union" not in text:
            bounds = TRAINER.get(item.name, {"minimum": 0})
            out_of_range = [value for value in EXTREMES if not is_within(float(value), bounds)]
            yield item.name, [*NOT_FINITE, *out_of_range, *NO_NUMBERS]
    yield "report_to", ["no_such_reporter", "[tensorboard, no_such_reporter]", "3"]


def _config_values(name: str, hint: Any) -> list[str]:
    text = str(hint)
    if name.endswith("_config") or "dict" in text or "list" in text or "tuple" in text:
        return []
    if hint is bool:
        return ["word", "3"]
    if "int" in text or "float" in text:
        return [*NOT_FINITE, "-1", *NO_NUMBERS]
    return []


# Words that make each command complete, but for the option under test.
COMMANDS = {
    "init": ["."],
    "prepare": ["demo", ".", "out"],
    "doctor": ["."],
    "audit": ["--config", "a.yaml"],
    "train": ["--config", "a.yaml"],
    "evaluate": ["--checkpoint", "."],
    "compare": ["a", "b"],
    "predict": [".", "."],
    "timeline": [".", "a.wav"],
    "experiment": ["a.yaml"],
    "explain": ["."],
    "robustness": ["."],
    "publish": [".", "me/x"],
    "export": ["."],
    "space": ["."],
}


def command_lines(folder: str, file: str) -> list[list[str]]:
    """Command lines with one option that must be refused.

    Args:
        folder, file: paths of a folder and of a file that exist.
    """
    lines = []
    for name, words in COMMANDS.items():
        for action in _options(name):
            option = action.option_strings[-1]
            lines += [[name, *words, option, value] for value in _option_values(action, folder, file)]
        lines += [[name, *words, *options] for options in _contradictions(name)]
        lines += [[name, *words, "--no_such_option"], [name]]
    return [*lines, [], ["no-such-command"], ["prepare", "demo", ".", file], ["prepare", "no-such-corpus", ".", "out"]]


def _parser(name: str) -> argparse.ArgumentParser:
    (commands,) = [action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return commands.choices[name]


def _options(name: str) -> list[argparse.Action]:
    return [action for action in _parser(name)._actions if action.option_strings and action.nargs != 0]


def _contradictions(name: str) -> list[list[str]]:
    """Each two options of a command that exclude each other."""
    lines = []
    for group in _parser(name)._mutually_exclusive_groups:
        for first, second in combinations(group._group_actions, 2):
            lines.append([*_complete_option(first), *_complete_option(second)])
    return lines


def _complete_option(action: argparse.Action) -> list[str]:
    if action.nargs == 0:
        return [action.option_strings[-1]]
    return [action.option_strings[-1], "x"]


def _option_values(action: argparse.Action, folder: str, file: str) -> list[str]:
    if action.choices:
        return ["no-such-word", ""]
    kind = getattr(action.type, "kind", None)
    if kind == "number":
        out_of_range = [value for value in ("0", "2") if not is_within(float(value), action.type.bounds)]
        return ["nan", "inf", "-inf", "-1", "1e30", "many", "", "[1]", "true", *out_of_range]
    if kind == "file":
        return [folder, f"{file}/below", ""]
    if kind == "folder":
        return [file, f"{file}/below", ""]
    return []
