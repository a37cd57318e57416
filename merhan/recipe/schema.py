"""The fields of a recipe: their types, defaults, units and allowed values.

The reference page of every key is generated from this module.
"""

from dataclasses import dataclass
from typing import Any

from merhan.names import MODALITIES, SCORES
from merhan.recipe.ranges import LARGEST_SEED
from merhan.recipe.setting import nested, setting


PARAMETER_GROUPS = ("head", "audio", "text")
BALANCES = ("label", "corpus", "speaker")
ORDERS = ("prototypes", "label_frequency", "confidence", "column")
PACINGS = ("linear", "root", "step")
NOISE_KINDS = ("white", "pink", "hum", "babble")
BUILT_IN_BACKBONES = ("light", "tiny", "features")  # backbones that do not come from a checkpoint
ADAPTER_KINDS = ("LORA", "LOHA", "LOKR", "OFT", "IA3")  # those that can be merged into the weights that they adapt


@dataclass
class NoiseRecipe:
    """Additive noise."""

    snr: list[float] = setting(
        [5.0, 20.0],
        help="signal-to-noise ratio in dB, drawn uniformly between the two",
        minimum=-60,
        maximum=100,
        pair=True,
        required=True,
    )
    kinds: list[str] = setting(
        list(NOISE_KINDS), help="kinds of noise, one drawn per utterance", choices=NOISE_KINDS, required=True
    )
    probability: float = setting(0.5, help="share of the utterances that get noise", minimum=0, maximum=1)


@dataclass
class RoomRecipe:
    """Reverberation."""

    seconds: list[float] = setting(
        [0.2, 0.8],
        help="reverberation time in seconds (decay by 60 dB), drawn uniformly between the two",
        minimum=0.01,
        maximum=10,
        pair=True,
        required=True,
    )
    probability: float = setting(0.5, help="share of the utterances that are reverberated", minimum=0, maximum=1)


@dataclass
class AugmentationRecipe:
    """Augmentation of the sound of training utterances, applied in this order; by default none."""

    speed: list[float] = setting(
        [], help="playback speeds, one drawn per utterance; [0.9, 1.0, 1.1] is usual", minimum=0.5, maximum=2
    )
    room: RoomRecipe | None = setting(None, help="reverberation; null = none")
    noise: NoiseRecipe | None = setting(None, help="additive noise; null = none")
    telephone: float = setting(
        0.0, help="share of the utterances that are band-pass filtered to 300-3400 Hz", minimum=0, maximum=1
    )
    gain: list[float] = setting(
        [], help="gain in dB, drawn uniformly between the two; empty = none", minimum=-60, maximum=60, pair=True
    )


@dataclass
class TranscriptNoiseRecipe:
    """Simulated errors of a speech recogniser in the words of training utterances."""

    error_rate: list[float] = setting(
        [0.0, 0.3],
        help="share of wrong words, drawn uniformly between the two",
        minimum=0,
        maximum=1,
        pair=True,
        required=True,
    )
    deletions: float = setting(
        0.5, help="share of the wrong words that are deleted; the others are substituted", minimum=0, maximum=1
    )


@dataclass
class SharesRecipe:
    """How the protocols `grouped:<column>` and `random` divide the rows; the rest is for training."""

    validation: float = setting(0.15, help="share of the rows for validation", above=0, below=0.5)
    test: float = setting(0.15, help="share of the rows for test", above=0, below=0.5)
    seed: int = setting(
        0, help="seed of the division, which does not depend on the seed of the run", minimum=0, maximum=LARGEST_SEED
    )


@dataclass
class DataRecipe:
    """The data: source, splits, and how an utterance becomes tensors."""

    corpus: str = setting("demo", help="corpus reader, a module of merhan/data/corpora")
    source: Any = setting(
        None, help="folder of the raw release, a file, or a `datasets` name; for `manifest` also a list of files"
    )
    options: dict[str, Any] = setting(
        {}, help="options of the corpus reader, as `columns` of a table: {audio: file, label: feeling}"
    )
    label_map: dict[Any, Any] = setting(
        {},
        help="label (or class id) of the source -> label of the vocabulary; null drops its rows; case does not matter",
    )
    own_labels: list[str] = setting([], help="labels that are valid in addition to the vocabulary, as `stress`")
    protocol: str | None = setting(
        None,
        help="a file of configs/protocols, `loso:<column>`, `loco`, `grouped:<column>` (shares of the rows, no value "
        "of the column in two splits) or `random` (shares of the rows, needs accept_leaks: [speaker]); null = the "
        "manifest's `split` column",
    )
    shares: SharesRecipe = nested(SharesRecipe, help="shares of the protocols `grouped:<column>` and `random`")
    fold: int = setting(0, help="the fold that is tested, from 0", minimum=0, maximum=1e6)
    accept_leaks: list[str] = setting(
        [], help="kinds of leak between splits to train in spite of, as `speaker` or `speaker:validation`"
    )
    min_seconds: float = setting(
        0.5, help="shorter recordings are padded with zeros to this length", above=0, maximum=600
    )
    max_seconds: float | None = setting(
        12.0, help="of longer recordings only the middle is used; null = no limit", above=0, maximum=86400
    )
    trim_silence: float | None = setting(
        None,
        help="cut leading and trailing sound that is this many dB below the loudest 10 ms; null = keep",
        above=0,
        maximum=300,
    )
    max_tokens: int = setting(
        128,
        help="maximum number of tokens; truncates the dialogue context, never the current turn",
        minimum=8,
        maximum=1e6,
    )
    context_turns: int = setting(
        0, help="number of previous turns of the dialogue in the text input", minimum=0, maximum=1e6
    )
    use_speaker: bool = setting(False, help="put the speaker's name into the text input")
    augmentation: AugmentationRecipe = nested(AugmentationRecipe, help="augmentation of training recordings")
    transcript_noise: TranscriptNoiseRecipe | None = setting(None, help="word errors in training texts; null = none")
    soft_labels: bool = setting(False, help="train on the distribution of the raters' votes (column `votes`)")


@dataclass
class ModelRecipe:
    """The backbones, and fields of their configs and of MerhanConfig that differ from the defaults."""

    audio_backbone: str | None = setting(
        None,
        help="Hub id (`me/model` or `me/model@revision`) or folder of a speech model; `light` (log-mel, trained from "
        "scratch), `tiny` (random, for trials), `features` (vectors in the column audio_features); null = no audio",
    )
    text_backbone: str | None = setting(
        None,
        help="Hub id (`me/model` or `me/model@revision`) or folder of a text model; `tiny` (random, for trials), "
        "`features` (vectors in the column text_features); null = no text",
    )
    checkpoint: str | None = setting(
        None,
        help="a MER-HAN model whose fusion initialises this one, and whose heads do where labels or dimensions are the "
        "same; null = random",
    )
    audio_config: dict[str, Any] = setting({}, help="fields of the speech backbone's config to change")
    text_config: dict[str, Any] = setting({}, help="fields of the text backbone's config to change")
    config: dict[str, Any] = setting({}, help="fields of MerhanConfig; class_weights may also be `balanced`")
    adapters: dict[str, dict[str, Any]] = setting(
        {},
        help="modality -> fields of peft's config (`r`, `target_modules`, `peft_type`, ...): train adapters in place "
        "of the backbone's weights, merged into them at the end of the stage",
    )
    attn_implementation: str = setting("sdpa", help="attention implementation of transformers, as `sdpa` or `eager`")

    @property
    def modalities(self) -> list[str]:
        """The modalities that the model reads, of `audio` and `text`."""
        return [name for name in MODALITIES if getattr(self, f"{name}_backbone")]

    @property
    def backbones(self) -> list[str]:
        """The modalities that are encoded by a backbone; the others are stored feature vectors."""
        return [name for name in self.modalities if name not in self.stored]

    @property
    def stored(self) -> list[str]:
        """The modalities that are read as stored feature vectors."""
        return [name for name in self.modalities if getattr(self, f"{name}_backbone") == "features"]


@dataclass
class StageRecipe:
    """One training stage: what trains, for how long and at which learning rate."""

    name: str = setting(help="name of the stage and of its folder")
    epochs: float = setting(help="number of epochs", above=0, maximum=1e6)
    learning_rate: dict[str, float] = setting(
        help="parameter group (head, audio, text) -> peak learning rate; a group without a rate is frozen",
        minimum=0,
        maximum=100,
    )
    early_stopping_patience: int | None = setting(
        None,
        help="stop after this many epochs without a better validation metric; null = never",
        minimum=1,
        maximum=1e6,
    )
    freeze_feature_encoder: bool = setting(True, help="keep the convolutional encoder of wav2vec2-like models frozen")
    layer_decay: dict[str, float] = setting(
        {}, help="modality -> factor on the learning rate from each layer to the one below", above=0, maximum=1
    )
    unfreeze_layers: dict[str, int] = setting(
        {}, help="modality -> number of layers that are unfrozen per epoch, from the top", minimum=1, maximum=1e6
    )
    cache_features: bool = setting(True, help="run frozen backbones once per utterance instead of once per epoch")
    cache_feature_encoder: bool = setting(
        False,
        help="run the frozen convolutional encoder once per utterance as well; takes 50 KB of disk per second of sound "
        "in half precision",
    )
    trainer: dict[str, Any] = setting({}, help="TrainingArguments of this stage alone")


@dataclass
class CurriculumRecipe:
    """Curriculum learning: easy rows first, in every stage anew."""

    order: str = setting(
        help="what makes a row difficult: `prototypes` (distance of valence, arousal and dominance from the class "
        "mean), `label_frequency` (rare labels), `confidence` (of the stage's initial weights) or `column`",
        choices=ORDERS,
    )
    column: str | None = setting(None, help="column of the manifest with a difficulty per row, for order `column`")
    pacing: str = setting("linear", help="how the share of available rows grows", choices=PACINGS)
    start: float = setting(
        0.3, help="share of the rows, the easiest, that the first epoch draws from", above=0, maximum=1
    )
    epochs: float = setting(5, help="number of epochs after which all rows are available", above=0, maximum=1e6)


@dataclass
class SamplingRecipe:
    """Which rows an epoch has (always as many as there are training rows), and how batches are composed."""

    balance: str | None = setting(
        None, help="draw equally many rows of each value of this column; null = every row once", choices=BALANCES
    )
    speakers_per_batch: int | None = setting(
        None, help="maximum number of speakers in a batch; replaces batching by length", minimum=1, maximum=1e6
    )
    curriculum: CurriculumRecipe | None = setting(None, help="curriculum learning; null = none")
    batch_seconds: float | None = setting(
        None,
        help="seconds of sound, padding included, in a batch of one process, so that short utterances come in large "
        "batches; replaces per_device_train_batch_size",
        above=0,
        maximum=1e6,
    )


@dataclass
class AdversaryRecipe:
    """Adversarial training by gradient reversal: the fused representation should not predict a column."""

    column: str = setting("speaker", help="column that must not be predictable; rows where it is empty are ignored")
    weight: float = setting(0.3, help="factor on the reversed gradient", above=0, maximum=1e6)
    learning_rate: float = setting(
        1.0e-2, help="learning rate of the adversary; about ten times that of the head works", above=0, maximum=100
    )


@dataclass
class EvaluationRecipe:
    """The evaluation after training. Test rows are read here for the first time."""

    splits: list[str] = setting(["test"], help="splits to evaluate", required=True)
    conditions: list[str] = setting([], help="also evaluate with this modality alone", choices=MODALITIES)


@dataclass
class HubRecipe:
    """Publishing on the Hugging Face Hub."""

    repo_id: str | None = setting(None, help="repository, as me/my-model; null = do not publish")
    private: bool = setting(True, help="create a private repository")
    license: str | None = setting(None, help="licence of the weights, as the Hub names it; null = `other`")
    quote_people: bool | None = setting(
        None,
        help="publish names of speakers, their scores, and utterances that leaks quote; null = only if the licences of "
        "all corpora are known and permit to pass them on",
    )


@dataclass
class Recipe:
    """Everything that determines a run."""

    run_name: str = setting(help="name of the run and of its folder")
    seed: int = setting(0, help="seed of weights, order and augmentation", minimum=0, maximum=LARGEST_SEED)
    output_dir: str = setting("outputs", help="folder of the run folders")
    metric: str = setting(
        "uar",
        help="validation metric that selects the epoch of each stage; not with trainer.load_best_model_at_end: false",
        choices=SCORES,
    )
    data: DataRecipe = nested(DataRecipe, help="the data")
    model: ModelRecipe = nested(ModelRecipe, help="the model")
    stages: list[StageRecipe] = setting([], help="training stages, one after another", required=True)
    sampling: SamplingRecipe = nested(SamplingRecipe, help="composition of epochs and batches")
    adversary: AdversaryRecipe | None = setting(None, help="adversarial training; null = none")
    difficulty_weight: float | None = setting(
        None,
        help="how much the loss of a row is weighted by its curriculum difficulty; null = not",
        minimum=0,
        maximum=1,
    )
    ema_decay: float | None = setting(
        None,
        help="decay of a moving average of the weights, which is then validated and kept; null = none",
        above=0,
        below=1,
    )
    trainer: dict[str, Any] = setting({}, help="TrainingArguments of every stage")
    evaluation: EvaluationRecipe = nested(EvaluationRecipe, help="the evaluation after training")
    hub: HubRecipe = nested(HubRecipe, help="publishing")

    def __post_init__(self):
        # Keys of a value -> how it was written, where that was an interpolation. It is published in place of the value.
        self.written: dict[tuple[Any, ...], str] = {}


def selects_best_epoch(recipe: Recipe, stage: StageRecipe) -> bool:
    """Whether a stage keeps its best epoch by the validation metric; otherwise it keeps the last one."""
    return (recipe.trainer | stage.trainer).get("load_best_model_at_end", True)


def frozen_backbones(recipe: Recipe, stage: StageRecipe) -> list[str]:
    """The modalities whose backbone does not train in a stage."""
    return [name for name in recipe.model.backbones if name not in stage.learning_rate]
