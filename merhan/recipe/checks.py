"""Checks of a recipe that need neither data nor weights: ranges first, then what depends on several keys.

Every check raises `InputError` with the file, the key and the remedy.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import torch
from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers import TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from configuration_merhan import CHOICES, MerhanAudioConfig, MerhanConfig
from merhan.errors import InputError, did_you_mean
from merhan.names import DIMENSIONS
from merhan.recipe.ranges import ADAPTERS, MODEL, TRAINER, check_typed
from merhan.recipe.schema import (
    ADAPTER_KINDS,
    PARAMETER_GROUPS,
    DataRecipe,
    ModelRecipe,
    Recipe,
    SharesRecipe,
    StageRecipe,
    frozen_backbones,
    selects_best_epoch,
)
from merhan.recipe.setting import check_settings, check_word


# TrainingArguments that a recipe must not set -> what to do instead.
_RESERVED = {
    "output_dir": "use output_dir and run_name",
    "num_train_epochs": "use stages[].epochs",
    "learning_rate": "use stages[].learning_rate",
    "seed": "use the top-level seed",
    "label_smoothing_factor": "use model.config.label_smoothing",
    "metric_for_best_model": "use metric",
    "push_to_hub": "use hub.repo_id",
    "hub_token": "use the environment variable HF_TOKEN",
    "hub_model_id": "use hub.repo_id",
    "resume_from_checkpoint": "use --resume",
    "remove_unused_columns": "the model reads every column of a batch",
}
_TRAINING_ARGUMENTS = {item.name: item.type for item in fields(TrainingArguments)}
_FOLDER_NAME = re.compile(r"[\w.+=@,() -]{1,100}")
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))}
# What the folder of a run holds besides the folders of its stages.
_RUN_FILES = (
    "model",
    "evaluation",
    "tensorboard",
    "recipe.yaml",
    "manifest.parquet",
    "provenance.json",
    "hashes.json",
    "robustness",
)


def check_recipe(recipe: Recipe, where: str) -> Recipe:
    """Return the recipe if it is consistent.

    Args:
        where: the file that errors name.

    Raises:
        InputError: a value out of its range, an unknown key, or keys that contradict each other.
    """
    check_settings(recipe, where)
    require_folder_name(recipe.run_name, f"{where}: run_name")
    _check_data(recipe.data, where)
    _check_trainer(recipe.trainer, f"{where}: trainer")
    _check_model(recipe.model, where)
    _check_stage_names(recipe, where)
    for number, stage in enumerate(recipe.stages):
        _check_stage(recipe, stage, f"{where}: stages[{number}]")
    _check_adapters(recipe, where)
    _check_sampling(recipe, f"{where}: sampling")
    _check_strategies(recipe, where)
    return recipe


def adapter_fields(kind: str) -> set[str]:
    """The keys that a recipe may set for adapters of a kind: the fields of peft's config, and `peft_type`."""
    return set(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)].__dataclass_fields__)


def require_folder_name(name: Any, where: str, reserved: Collection[str] = ()):
    """Check that a name is that of one plain folder, on every system, because it becomes a path.

    Args:
        where: file and key, for the error message.
        reserved: names of files and folders beside it.

    Raises:
        InputError: names the key and the rule.
    """
    if not isinstance(name, str) or not _FOLDER_NAME.fullmatch(name) or name.rstrip(". ") != name:
        raise InputError(
            f"{where} is {name!r}; it must be the name of one folder: letters, digits, blanks and . _ + = @ , ( ) -, "
            f"without / and not only dots."
        )
    if name.split(".")[0].upper() in _DEVICES:
        raise InputError(f"{where} is {name!r}, which is a device on Windows; choose another name.")
    if name.lower() in reserved:
        raise InputError(f"{where} is {name!r}, which a run's folder holds already; choose another name.")


def _check_data(data: DataRecipe, where: str):
    if data.max_seconds is not None and data.max_seconds < data.min_seconds:
        raise InputError(
            f"{where}: data.max_seconds is {data.max_seconds:g}, out of its range; it must be at least "
            f"data.min_seconds ({data.min_seconds:g})."
        )
    quoted = [word for word in data.label_map if isinstance(word, bool)]
    if quoted:
        raise InputError(
            f"{where}: data.label_map: a key was read as {quoted[0]}, as YAML reads yes, no, on and off; put quotation "
            f"marks around it."
        )
    nested = [word for word, label in data.label_map.items() if isinstance(label, list | dict)]
    if nested:
        raise InputError(f"{where}: data.label_map: {nested[0]!r} is mapped to several values; name a single label.")
    divides = data.protocol == "random" or (data.protocol or "").startswith("grouped:")
    if data.shares != SharesRecipe() and not divides:
        raise InputError(
            f"{where}: data.shares is for the protocols `grouped:<column>` and `random`; remove it, or set "
            f"data.protocol."
        )
    sources = data.source if isinstance(data.source, list) and data.source else [data.source]
    if data.source is not None and not all(isinstance(source, str) for source in sources):
        raise InputError(
            f"{where}: data.source: {data.source!r} is neither a path or name nor a list of them; quote it."
        )


def _check_trainer(options: Mapping[str, Any], where: str):
    for key in options:
        if key in _RESERVED:
            raise InputError(f"{where}.{key}: cannot be set here; {_RESERVED[key]}.")
    _check_keys(options, _TRAINING_ARGUMENTS, where)
    for key, value in options.items():
        check_typed(value, _TRAINING_ARGUMENTS[key], TRAINER.get(key, {"minimum": 0}), f"{where}.{key}")
    _check_reporters(options.get("report_to"), f"{where}.report_to")
    if options.get("torch_compile_backend") is not None:
        check_word(
            options["torch_compile_backend"], torch._dynamo.list_backends(None), f"{where}.torch_compile_backend"
        )
    if options.get("torch_compile_mode") is not None:
        check_word(options["torch_compile_mode"], [*torch._inductor.list_mode_options()], f"{where}.torch_compile_mode")


def _check_reporters(reporters: Any, where: str):
    """Check that the reporters of TrainingArguments are known and installed."""
    for name in reporters if isinstance(reporters, list) else [reporters]:
        if name in (None, "none", "all"):
            continue
        check_word(name, [*INTEGRATION_TO_CALLBACK], where)
        if name not in get_available_reporting_integrations():
            raise InputError(f"{where}: {name} is not installed; install it, or choose another reporter.")


def _check_numbers(options: Mapping[str, Any], config_class: type, where: str):
    """Check the numbers that a recipe sets in a config of the model's own."""
    hints = config_class.__annotations__
    usual = {int: {"minimum": 1, "maximum": 1e6}}
    for key, value in options.items():
        bounds = MODEL.get(key) or usual.get(hints[key], {"minimum": 0})
        check_typed(value, hints[key], bounds, f"{where}.{key}")


def _check_model(model: ModelRecipe, where: str):
    if not model.modalities:
        raise InputError(f"{where}: model has neither audio_backbone nor text_backbone; name one or both.")
    _check_keys(model.config, _own_fields(MerhanConfig), f"{where}: model.config")
    _check_numbers(model.config, MerhanConfig, f"{where}: model.config")
    if model.audio_backbone == "light":
        _check_keys(model.audio_config, _own_fields(MerhanAudioConfig), f"{where}: model.audio_config")
        _check_numbers(model.audio_config, MerhanAudioConfig, f"{where}: model.audio_config")
    for key, known in {**CHOICES, "dimensions": DIMENSIONS}.items():
        chosen = model.config.get(key, [])
        words = chosen if isinstance(chosen, list) else [chosen]
        for word in words:
            check_word(word, list(known), f"{where}: model.config.{key}")


def _check_stage_names(recipe: Recipe, where: str):
    for number, stage in enumerate(recipe.stages):
        require_folder_name(stage.name, f"{where}: stages[{number}].name", _RUN_FILES)
    names = [stage.name.lower() for stage in recipe.stages]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"{where}: stages: {repeated[0]!r} is the name of several stages; names must be unique.")


def _check_stage(recipe: Recipe, stage: StageRecipe, where: str):
    _check_trainer(stage.trainer, f"{where}.trainer")
    _check_learning_rates(recipe.model, stage, f"{where}.learning_rate")
    trained = [name for name in recipe.model.modalities if name in stage.learning_rate]
    _check_keys(stage.layer_decay, trained, f"{where}.layer_decay")
    _check_keys(stage.unfreeze_layers, trained, f"{where}.unfreeze_layers")
    if stage.early_stopping_patience is not None and not selects_best_epoch(recipe, stage):
        raise InputError(
            f"{where}.early_stopping_patience needs the best epoch, which trainer.load_best_model_at_end: false does "
            f"not keep; remove one of the two."
        )
    if stage.cache_feature_encoder:
        _check_cached_encoder(recipe, stage, f"{where}.cache_feature_encoder")
    frozen = frozen_backbones(recipe, stage)
    if recipe.model.config.get("layer_mixing") and stage.cache_features and frozen:
        raise InputError(
            f"{where}.cache_features: the cache holds the last layer of a backbone, and model.config.layer_mixing "
            f"reads all of them; set it to false, or give {' and '.join(frozen)} a learning rate."
        )


def _check_cached_encoder(recipe: Recipe, stage: StageRecipe, where: str):
    """Check what a recipe tells of whether the output of the convolutional encoder can be cached."""
    reason = None
    if not stage.freeze_feature_encoder:
        reason = "the encoder is trained (freeze_feature_encoder: false)"
    elif "audio" not in stage.learning_rate:
        reason = "the whole speech backbone is frozen, whose features cache_features caches"
    elif any(vars(recipe.data.augmentation).values()):
        reason = "augmentation changes the sound in every epoch"
    if reason is not None:
        raise InputError(f"{where}: {reason}; remove the key.")


def _check_learning_rates(model: ModelRecipe, stage: StageRecipe, where: str):
    if not stage.learning_rate:
        raise InputError(f"{where} is empty; name a parameter group: {', '.join(PARAMETER_GROUPS)}.")
    _check_keys(stage.learning_rate, PARAMETER_GROUPS, where)
    absent = sorted(set(stage.learning_rate) - {"head", *model.backbones})
    if absent:
        raise InputError(f"{where}: the model has no {absent[0]} backbone to train; remove that group.")


def _check_adapters(recipe: Recipe, where: str):
    adapters = recipe.model.adapters
    _check_keys(adapters, recipe.model.backbones, f"{where}: model.adapters")
    for name, options in adapters.items():
        kind = options.get("peft_type", "LORA")
        check_word(kind, ADAPTER_KINDS, f"{where}: model.adapters.{name}.peft_type")
        _check_keys(options, adapter_fields(kind), f"{where}: model.adapters.{name}")
        for key in ADAPTERS.keys() & options.keys():
            check_typed(options[key], float, ADAPTERS[key], f"{where}: model.adapters.{name}.{key}")
    trained = {group for stage in recipe.stages for group in stage.learning_rate}
    unused = sorted(set(adapters) - trained)
    if unused:
        raise InputError(
            f"{where}: model.adapters.{unused[0]}: no stage trains that backbone; give it a learning rate in a stage."
        )


def _check_sampling(recipe: Recipe, where: str):
    curriculum = recipe.sampling.curriculum
    if curriculum is not None and (curriculum.order == "column") != (curriculum.column is not None):
        raise InputError(
            f"{where}.curriculum: order `column` and the key `column` need each other; give both or neither."
        )
    if recipe.sampling.batch_seconds is not None:
        _check_batch_seconds(recipe, f"{where}.batch_seconds")


def _check_batch_seconds(recipe: Recipe, where: str):
    """Batches of constant seconds have each row once and are sorted by length, which excludes other orders."""
    if "audio" not in recipe.model.modalities:
        raise InputError(f"{where}: the model does not read sound; remove the key.")
    for name in ("balance", "speakers_per_batch", "curriculum"):
        if getattr(recipe.sampling, name) is not None:
            raise InputError(f"{where}: cannot be combined with sampling.{name}; remove one of them.")
    excluded = {"train_sampling_strategy": "random", "auto_find_batch_size": True, "dataloader_drop_last": True}
    for options in (recipe.trainer, *(stage.trainer for stage in recipe.stages)):
        for name, value in excluded.items():
            if options.get(name) == value:
                raise InputError(f"{where}: cannot be combined with trainer.{name}: {value}; remove one of them.")


def _check_strategies(recipe: Recipe, where: str):
    absent = sorted(set(recipe.evaluation.conditions) - set(recipe.model.modalities))
    if absent:
        raise InputError(
            f"{where}: evaluation.conditions: the model does not read {absent[0]!r}; it reads "
            f"{' and '.join(recipe.model.modalities)}."
        )
    if recipe.difficulty_weight is not None and recipe.sampling.curriculum is None:
        raise InputError(
            f"{where}: difficulty_weight needs sampling.curriculum, whose order defines the difficulty; with "
            f"`start: 1` there, every epoch has all rows."
        )


def _check_keys(options: Mapping[str, Any], known: Collection[str], where: str):
    for key in options:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{did_you_mean(key, known)}")


def _own_fields(config_class: type) -> set[str]:
    """The fields that a config class adds to PreTrainedConfig, without the configs of backbones."""
    return {name for name in config_class.__annotations__ if not name.endswith("_config")}
