"""A run as data: YAML -> typed recipe, `--set key=value` on top, everything checked before any weight is loaded.

A recipe may begin with `base: other.yaml`, a path relative to its own, or a list of them of which a later one wins.
What it says itself then changes what the base says, key by key, as `--set` does: a value, a list (`stages`) or a free
mapping (`learning_rate`, `trainer`, `model.config`) takes the place of the base's. A dotted key changes one entry:
`model.config.hidden_size: 64`, `stages.1.epochs: 3`.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, InterpolationResolutionError, OmegaConfBaseException
from transformers import TrainingArguments
from yaml import YAMLError

from merhan.adapters import KINDS, fields_of
from merhan.augmentation import NOISES, AugmentationRecipe, TranscriptNoiseRecipe
from merhan.errors import InputError, nearest
from merhan.manifest import DIMENSIONS
from merhan.metrics import SCORES
from modeling_merhan import CHOICES, MerhanAudioConfig, MerhanConfig


GROUPS = ("head", "audio", "text")
BALANCES = ("label", "corpus", "speaker")
ORDERS = ("prototypes", "label_frequency", "confidence", "column")
PACINGS = ("linear", "root", "step")
BUILT_IN = ("light", "tiny", "features")  # backbones that come from no checkpoint


@dataclass
class DataRecipe:
    """What is read, how it is split, and how an utterance becomes tensors."""

    corpus: str = "demo"  # a reader of merhan/corpora
    source: Any = None  # the raw release's folder, a file, or a `datasets` name; for `manifest` also a list of files
    options: dict[str, Any] = field(default_factory=dict)  # the reader's own, as `columns` of your own table
    label_map: dict[str, Any] = field(default_factory=dict)  # the label column's words -> ours, null drops the rows
    protocol: str | None = None  # configs/protocols, or loso:<column>, loco; null = the `split` column
    fold: int = 0  # which fold is tested, from 0
    accept_leaks: list[str] = field(default_factory=list)  # kinds of leak to train in spite of, see merhan/leaks.py
    min_seconds: float = 0.5  # shorter sound gets zeros behind it
    max_seconds: float | None = 12.0  # of longer sound the middle is kept
    trim_silence: float | None = None  # decibels below the loudest 10 ms that count as silence, before and after
    max_tokens: int = 128  # bound on the text; cuts the context, never the current turn
    context_turns: int = 0  # earlier turns of the dialogue that the text holds
    use_speaker: bool = False  # whether the speaker's name stands in the text
    # What happens to the sound and the words of training rows alone; their keys are in merhan/augmentation.py.
    augmentation: AugmentationRecipe = field(default_factory=AugmentationRecipe)
    transcript_noise: TranscriptNoiseRecipe | None = None
    soft_labels: bool = False  # train on the share of raters that gave each label (the manifest's `votes`)


@dataclass
class ModelRecipe:
    """Which backbones, and the fields of their configs and of MerhanConfig that differ from the defaults."""

    # Hub id or folder; `light` from scratch; `tiny` for a trial; `features` for vectors of the data's own, column
    # audio_features, without a backbone; null = no audio
    audio_backbone: str | None = None
    text_backbone: str | None = None  # Hub id or folder; `tiny`; `features`, column text_features; null = no text
    # A model of ours that this one begins with, its backbones aside, and its heads where they have the same labels or
    # dimensions; null = at random.
    checkpoint: str | None = None
    audio_config: dict[str, Any] = field(default_factory=dict)
    text_config: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)  # class_weights also takes `balanced`
    # Modality -> fields of peft's config (`r`, `target_modules`, ..., `peft_type`): in a stage that trains this
    # backbone, adapters train in its place, and are merged into it at the stage's end.
    adapters: dict[str, dict[str, Any]] = field(default_factory=dict)
    attn_implementation: str = "sdpa"  # or eager

    @property
    def modalities(self) -> list[str]:
        """What the model will read."""
        return [name for name in ("audio", "text") if getattr(self, f"{name}_backbone")]

    @property
    def backbones(self) -> list[str]:
        """The modalities that a backbone reads; the others come as features."""
        return [name for name in self.modalities if getattr(self, f"{name}_backbone") != "features"]


@dataclass
class StageRecipe:
    """What trains, for how long and at which rate."""

    name: str = MISSING
    epochs: float = MISSING
    learning_rate: dict[str, float] = MISSING  # parameter group -> peak rate; a group without a rate is frozen
    early_stopping_patience: int | None = None  # epochs without a better validation metric
    freeze_feature_encoder: bool = True  # of wav2vec2-like backbones: their convolutions stay as pretrained
    layer_decay: dict[str, float] = field(default_factory=dict)  # modality -> factor on the rate, per layer downwards
    unfreeze_layers: dict[str, int] = field(
        default_factory=dict
    )  # modality -> layers that thaw per epoch, from the top
    cache_features: bool = True  # run frozen backbones once per utterance instead of once per epoch
    trainer: dict[str, Any] = field(default_factory=dict)  # TrainingArguments of this stage alone


@dataclass
class CurriculumRecipe:
    """From easy to hard, in every stage anew; see merhan/curriculum.py."""

    order: str = MISSING  # prototypes, label_frequency, confidence (of the stage's first weights) or column
    column: str | None = None  # of the manifest, a number per row: the higher, the harder
    pacing: str = "linear"  # or root, step
    start: float = 0.3  # share of the rows, the easiest, that the first epoch draws from
    epochs: float = 5  # after so many an epoch draws from all


@dataclass
class SamplingRecipe:
    """Which rows an epoch has, always as many as there are, and who meets whom in a batch."""

    balance: str | None = None  # label, corpus or speaker: as many rows of each; null = every row once
    speakers_per_batch: int | None = None  # the most that a batch has, in place of rows of like length
    curriculum: CurriculumRecipe | None = None


@dataclass
class AdversaryRecipe:
    """What the fused utterance must not tell; see merhan/adversary.py."""

    column: str = "speaker"  # of the manifest; rows where it is empty take no part
    weight: float = 0.3  # of the reversed gradient
    learning_rate: float = 1.0e-2  # its own, some ten times that of the head, which it must keep up with


@dataclass
class EvaluationRecipe:
    """What is measured once training is over. Test rows are read here for the first time."""

    splits: list[str] = field(default_factory=lambda: ["test"])
    conditions: list[str] = field(default_factory=list)  # `audio`, `text`: also with that modality alone


@dataclass
class HubRecipe:
    """Where the model is published, if anywhere."""

    repo_id: str | None = None
    private: bool = True
    license: str | None = None  # of the weights, null = `other`: what they learnt from has licences of its own


@dataclass
class Recipe:
    """Everything that determines a run."""

    run_name: str = MISSING
    seed: int = 0
    output_dir: str = "outputs"
    # Of validation, chooses each stage's epoch: war, uar, macro_f1, weighted_f1. With trainer.load_best_model_at_end:
    # false none is chosen, the last one counts.
    metric: str = "uar"
    data: DataRecipe = field(default_factory=DataRecipe)
    model: ModelRecipe = field(default_factory=ModelRecipe)
    stages: list[StageRecipe] = field(default_factory=list)
    sampling: SamplingRecipe = field(default_factory=SamplingRecipe)
    adversary: AdversaryRecipe | None = None
    difficulty_weight: float | None = None  # 0 to 1: how much the loss of a row hangs on its curriculum's difficulty
    ema_decay: float | None = None  # 0.999: what is validated and kept is a moving average of the weights
    trainer: dict[str, Any] = field(default_factory=dict)  # TrainingArguments of every stage
    evaluation: EvaluationRecipe = field(default_factory=EvaluationRecipe)
    hub: HubRecipe = field(default_factory=HubRecipe)


# Set by the recipe in its own words, or by the run itself.
_OURS = {
    "output_dir": "output_dir and run_name",
    "num_train_epochs": "stages[].epochs",
    "learning_rate": "stages[].learning_rate",
    "seed": "seed",
    "label_smoothing_factor": "model.config.label_smoothing",
    "metric_for_best_model": "metric",
    "push_to_hub": "hub.repo_id",
    "hub_token": "the environment variable HF_TOKEN",
    "hub_model_id": "hub.repo_id",
    "resume_from_checkpoint": "--resume",
    "remove_unused_columns": "nothing: the model reads every column that it is given",
    "dataloader_persistent_workers": "nothing: workers begin each epoch anew, to draw its augmentation",
}


def load_recipe(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe and what it is based on, apply `key=value` changes and check it.

    A change takes the place of a value or of a free mapping (as `learning_rate`); of a part with fields of its own it
    changes those that it names.

    Raises:
        InputError: no such file, not YAML, a recipe that is based on itself, an unknown key (names the nearest right
            one), a wrong type, an unset environment variable, a stage without a group to train.
    """
    config = OmegaConf.structured(Recipe)
    for file, own in _layers(os.path.normpath(path)).items():
        with in_words(file):
            for key, value in own.items():
                _put(config, str(key), value)
    with in_words(path):
        return _check(OmegaConf.to_object(_changed(config, changes)), str(path))


def _layers(path: str, heirs: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """File -> what it says itself, those that the recipe is based on first; each once, however many are based on it."""
    if path in heirs:
        raise InputError(f"{path}: is based on itself ({' -> '.join([*heirs, path])}); drop one `base`.")
    if heirs and not Path(path).is_file():
        raise InputError(f"{heirs[-1]}: base: there is no {path}; write it relative to {heirs[-1]}.")
    with in_words(path):
        own = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    if not isinstance(own, dict):
        raise InputError(f"{path}: holds a {type(own).__name__}, not keys with values, as a recipe does.")
    base = own.pop("base", None) or []
    bases = base if isinstance(base, list) else [base]
    if not all(isinstance(one, str) for one in bases):
        raise InputError(f"{path}: base: {base!r} is neither the path of a recipe nor a list of them.")
    found = {}
    for one in bases:
        found |= _layers(os.path.normpath(Path(path).parent / one), [*heirs, path])
    return found | {path: own}


def change_data(data: DataRecipe, changes: Sequence[str]) -> DataRecipe:
    """Apply `data.key=value` changes to what is read, where there is no recipe."""
    with in_words("--set"):
        config = OmegaConf.structured(Recipe(run_name="", data=data))
        return OmegaConf.to_object(_changed(config, changes).data)


def _changed(config: Any, changes: Sequence[str]) -> Any:
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"--set {change}: write key=value, as data.fold=1.")
        _put(config, key, OmegaConf.to_container(OmegaConf.create(f"value: {value}"), resolve=False)["value"])
    return config


def _put(config: Any, key: str, value: Any):
    """Change one key in place; of a part with fields of its own, each field that the value names."""
    try:
        node = OmegaConf.select(config, key)
    except InterpolationResolutionError:  # what is replaced need not resolve, as an environment variable
        node = None
    free = OmegaConf.is_dict(node) and OmegaConf.get_type(node) is dict  # as learning_rate: replaced, not merged
    if OmegaConf.is_dict(node) and not free and isinstance(value, Mapping):
        for name, one in value.items():
            _put(config, f"{key}.{name}", one)
    else:
        OmegaConf.update(config, key, value, merge=not free)


@contextmanager
def in_words(path: str | Path, kind: type = Recipe):
    """What OmegaConf and YAML say of a recipe (or another file of that kind), as one sentence that names the key."""
    schema = OmegaConf.structured(kind)
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such {kind.__name__.lower()}; recipes are in configs/.") from None
    except (ConfigKeyError, ConfigAttributeError) as error:
        raise InputError(f"{path}: unknown key {error.full_key!r}{_nearest_key(error, schema)}") from None
    except InterpolationResolutionError as error:
        raise InputError(f"{path}: {error.full_key}: {_first_line(error)}; set it, or give the key a value.") from None
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {getattr(error, 'full_key', None) or 'recipe'}: {_first_line(error)}.") from None
    except (TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: a --set key leads nowhere ({_first_line(error)}).") from None
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({_first_line(error)}).") from None


def chooses_epoch(recipe: Recipe, stage: StageRecipe) -> bool:
    """Whether a stage keeps its best epoch by the validation metric; else it keeps its last."""
    return (recipe.trainer | stage.trainer).get("load_best_model_at_end", True)


def save_recipe(recipe: Recipe, path: str | Path):
    """Write the resolved recipe: what ran, with every default spelled out."""
    OmegaConf.save(OmegaConf.structured(recipe), path)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _nearest_key(error: ConfigKeyError, schema: Any) -> str:
    parent, _, key = (error.full_key or str(error.key)).rpartition(".")
    kind = error.object_type if isinstance(error.object_type, type) else Recipe
    known = [one.name for one in fields(kind)] if hasattr(kind, "__dataclass_fields__") else list(schema)
    known += ["base"] * (kind is Recipe)
    dotted = f"{parent}." if parent else ""
    return nearest(dotted + key, [dotted + name for name in known])


def _check(recipe: Recipe, where: str) -> Recipe:
    _check_ranges(recipe, where)
    _check_source(recipe.data.source, where)
    known = {one.name for one in fields(TrainingArguments)}
    _check_keys(recipe.trainer, known, f"{where}: trainer")
    _check_word(recipe.metric, SCORES, f"{where}: metric")
    if not recipe.stages:
        raise InputError(f"{where}: stages is empty; a run needs at least one.")
    for number, stage in enumerate(recipe.stages):
        _check_keys(stage.trainer, known, f"{where}: stages[{number}].trainer")
        _check_keys(stage.learning_rate, GROUPS, f"{where}: stages[{number}].learning_rate")
        if not stage.learning_rate:
            raise InputError(f"{where}: stages[{number}].learning_rate is empty; name a group: {', '.join(GROUPS)}.")
        if absent := set(stage.learning_rate) - {"head", *recipe.model.backbones}:
            raise InputError(f"{where}: stages[{number}].learning_rate: there is no {absent.pop()} backbone to train.")
        trained = [name for name in recipe.model.modalities if name in stage.learning_rate]
        _check_keys(stage.layer_decay, trained, f"{where}: stages[{number}].layer_decay")
        _check_keys(stage.unfreeze_layers, trained, f"{where}: stages[{number}].unfreeze_layers")
        if stage.early_stopping_patience is not None and not chooses_epoch(recipe, stage):
            raise InputError(
                f"{where}: stages[{number}].early_stopping_patience waits for a better epoch, and with "
                f"trainer.load_best_model_at_end: false none is kept; leave one of the two out."
            )
        frozen = _frozen(recipe, stage)
        if recipe.model.config.get("layer_mixing") and stage.cache_features and frozen:
            raise InputError(
                f"{where}: stages[{number}].cache_features: a cache holds a backbone's last layer, and "
                f"model.config.layer_mixing reads all; set it to false, or give {' and '.join(frozen)} a learning rate."
            )
    if absent := set(recipe.evaluation.conditions) - set(recipe.model.modalities):
        raise InputError(
            f"{where}: evaluation.conditions: {absent.pop()!r} is no modality of this model; it reads "
            f"{' and '.join(recipe.model.modalities)}."
        )
    if len({stage.name for stage in recipe.stages}) < len(recipe.stages):
        raise InputError(f"{where}: two stages have one name; each keeps its checkpoints under its own.")
    _check_keys(recipe.model.config, _own_fields(MerhanConfig), f"{where}: model.config")
    _check_adapters(recipe, where)
    _check_sampling(recipe.sampling, f"{where}: sampling")
    if recipe.difficulty_weight is not None and recipe.sampling.curriculum is None:
        raise InputError(
            f"{where}: difficulty_weight needs sampling.curriculum, whose order says what is difficult; with "
            "`start: 1` there, every epoch has all rows."
        )
    for key, known in {**CHOICES, "dimensions": DIMENSIONS}.items():
        chosen = recipe.model.config.get(key, [])
        for one in chosen if isinstance(chosen, list) else [chosen]:
            if one not in known:
                raise InputError(f"{where}: model.config.{key}: unknown {one!r}{nearest(one, known)}")
    if recipe.model.audio_backbone == "light":
        _check_keys(recipe.model.audio_config, _own_fields(MerhanAudioConfig), f"{where}: model.audio_config")
    if recipe.model.audio_backbone is None and recipe.model.text_backbone is None:
        raise InputError(f"{where}: model has neither audio_backbone nor text_backbone; name one or both.")
    return recipe


def _check_adapters(recipe: Recipe, where: str):
    adapters = recipe.model.adapters
    _check_keys(adapters, recipe.model.backbones, f"{where}: model.adapters")
    for name, options in adapters.items():
        kind = options.get("peft_type", "LORA")
        _check_word(kind, KINDS, f"{where}: model.adapters.{name}.peft_type")
        _check_keys(options, fields_of(kind), f"{where}: model.adapters.{name}")
    if idle := set(adapters) - {group for stage in recipe.stages for group in stage.learning_rate}:
        raise InputError(
            f"{where}: model.adapters.{idle.pop()}: no stage trains that backbone; give it a learning rate."
        )


def _check_sampling(sampling: SamplingRecipe, where: str):
    if sampling.balance is not None:
        _check_word(sampling.balance, BALANCES, f"{where}.balance")
    if (curriculum := sampling.curriculum) is not None:
        _check_word(curriculum.order, ORDERS, f"{where}.curriculum.order")
        _check_word(curriculum.pacing, PACINGS, f"{where}.curriculum.pacing")
        if (curriculum.order == "column") != (curriculum.column is not None):
            raise InputError(f"{where}.curriculum: order `column` and a column belong together; give both or neither.")


def _check_ranges(recipe: Recipe, where: str):
    sampling = recipe.sampling
    curriculum = sampling.curriculum or CurriculumRecipe(order=ORDERS[0])
    data, sizes = recipe.data, ("per_device_train_batch_size", "per_device_eval_batch_size")
    rules = {
        "run_name": (Path(recipe.run_name).name == recipe.run_name != "", "a folder's name, without / and .."),
        "data.fold": (data.fold >= 0, "0 or more"),
        "data.min_seconds": (data.min_seconds > 0, "above 0"),
        "data.max_seconds": (data.max_seconds is None or data.max_seconds >= data.min_seconds, "min_seconds or more"),
        "data.trim_silence": (data.trim_silence is None or data.trim_silence > 0, "above 0, as 30"),
        "data.max_tokens": (data.max_tokens >= 8, "8 or more"),
        "data.context_turns": (data.context_turns >= 0, "0 or more"),
        "sampling.speakers_per_batch": ((sampling.speakers_per_batch or 1) >= 1, "1 or more"),
        "sampling.curriculum.start": (0 < curriculum.start <= 1, "above 0, at most 1"),
        "sampling.curriculum.epochs": (curriculum.epochs > 0, "above 0"),
        "adversary.weight": (recipe.adversary is None or recipe.adversary.weight > 0, "above 0"),
        "adversary.learning_rate": (recipe.adversary is None or recipe.adversary.learning_rate > 0, "above 0"),
        "difficulty_weight": (0 <= (recipe.difficulty_weight or 0) <= 1, "from 0 to 1"),
        "ema_decay": (recipe.ema_decay is None or 0 < recipe.ema_decay < 1, "between 0 and 1"),
        **_spoiling_rules(data),
        **{f"stages[{n}].epochs": (stage.epochs > 0, "above 0") for n, stage in enumerate(recipe.stages)},
        **{
            f"stages[{n}].layer_decay": (all(0 < one <= 1 for one in stage.layer_decay.values()), "above 0, at most 1")
            for n, stage in enumerate(recipe.stages)
        },
        **{
            f"stages[{n}].unfreeze_layers": (all(one >= 1 for one in stage.unfreeze_layers.values()), "1 or more")
            for n, stage in enumerate(recipe.stages)
        },
        **{f"trainer.{size}": (recipe.trainer.get(size, 1) >= 1, "1 or more") for size in sizes},
    }
    for key, (holds, wanted) in rules.items():
        if not holds:
            raise InputError(f"{where}: {key} is out of its range; it must be {wanted}.")


def _spoiling_rules(data: DataRecipe) -> dict[str, tuple[bool, str]]:
    """Of augmentation and transcript noise: key -> whether it holds, and what would."""
    sound, words = data.augmentation, data.transcript_noise
    rules = {
        "augmentation.speed": (all(0.5 <= one <= 2 for one in sound.speed), "speeds from 0.5 to 2"),
        "augmentation.gain": (not sound.gain or _is_range(sound.gain, -60, 60), "[low, high] in dB within -60 and 60"),
        "augmentation.telephone": (0 <= sound.telephone <= 1, "a share from 0 to 1"),
    }
    if room := sound.room:
        rules["augmentation.room.seconds"] = (_is_range(room.seconds, 0.01, 10), "[low, high] within 0.01 and 10")
        rules["augmentation.room.probability"] = (0 <= room.probability <= 1, "from 0 to 1")
    if noise := sound.noise:
        rules["augmentation.noise.snr"] = (_is_range(noise.snr, -60, 100), "[low, high] in dB within -60 and 100")
        kinds = bool(noise.kinds) and set(noise.kinds) <= set(NOISES)
        rules["augmentation.noise.kinds"] = (kinds, f"some of {', '.join(NOISES)}")
        rules["augmentation.noise.probability"] = (0 <= noise.probability <= 1, "from 0 to 1")
    if words:
        rules["transcript_noise.error_rate"] = (_is_range(words.error_rate, 0, 1), "[low, high] within 0 and 1")
        rules["transcript_noise.deletions"] = (0 <= words.deletions <= 1, "a share from 0 to 1")
    return {f"data.{key}": rule for key, rule in rules.items()}


def _is_range(bounds: list[float], least: float, most: float) -> bool:
    return len(bounds) == 2 and least <= bounds[0] <= bounds[1] <= most


def _check_source(source: Any, where: str):
    several = source if isinstance(source, list) and source else [source]
    if source is not None and not all(isinstance(one, str) for one in several):
        raise InputError(f"{where}: data.source: {source!r} is neither a path or name nor a list of them; quote it.")


def _frozen(recipe: Recipe, stage: StageRecipe) -> list[str]:
    """The backbones that do not train in a stage."""
    return [name for name in recipe.model.backbones if name not in stage.learning_rate]


def _check_keys(given: dict[str, Any], known: Sequence[str] | set[str], where: str):
    for key in given:
        if key in _OURS and where.endswith("trainer"):
            raise InputError(f"{where}.{key}: is not set here but by {_OURS[key]}.")
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{nearest(key, known)}")


def _check_word(given: str, known: Sequence[str], where: str):
    if given not in known:
        raise InputError(f"{where}: unknown {given!r}{nearest(given, known)}")


def _own_fields(config_class: type) -> set[str]:
    return {name for name in config_class.__annotations__ if not name.endswith("_config")}
