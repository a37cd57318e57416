"""Training of one stage, from its start or its last checkpoint to its saved model."""

from collections.abc import Sequence
from copy import copy, deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from peft import PeftModel
from torch.utils.data import Subset
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments, set_seed

from merhan.content_hashes import write_hashes
from merhan.data.collator import Collator
from merhan.data.dataset import EmotionDataset
from merhan.errors import InputError
from merhan.logs import get_logger
from merhan.models.adapters import add_adapters, merge_adapters
from merhan.models.inference import as_in_training, label_ids, load_stage_model, longest_first, predict_logits
from merhan.recipe.schema import AugmentationRecipe, Recipe, StageRecipe
from merhan.training.adversary import ADAM_BETA1, add_adversary, remove_adversary
from merhan.training.arguments import autocast_precision, training_arguments
from merhan.training.checkpoints import last_checkpoint
from merhan.training.compilation import compile_layers
from merhan.training.curriculum import label_uncertainty, load_or_compute, row_difficulty, row_weights
from merhan.training.feature_cache import read_convolutions, use_cached_convolutions, use_cached_features
from merhan.training.interruption import signals_noted
from merhan.training.parameter_groups import GradualUnfreezing, count_trainable, frozen_modalities, set_trainable
from merhan.training.sampling import build_sampler
from merhan.training.single_cast import cast_states_once
from merhan.training.stage_history import reset_peak_memory, save_history
from merhan.training.trainer import MerhanTrainer
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import MerhanProcessor


logger = get_logger(__name__)


def train_stage(
    recipe: Recipe,
    stage: StageRecipe,
    seed: int,
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    train: EmotionDataset,
    validation: EmotionDataset,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> MerhanForSequenceClassification:
    """Train one stage, and save its best epoch (or its last, as the recipe says) in `folder/model`.

    A finished stage is loaded. An interrupted one is resumed from its last complete checkpoint; on a CPU the weights
    are then bit-equal to those of an uninterrupted run.

    Args:
        recipe: the strategies that all stages share.
        stage: what trains, for how long and at which rate.
        seed: seed of the stage's random draws.
        train, validation: their `features` and `extras` are set for this stage.
        folder: the stage's folder, for checkpoints, history and model.
        callbacks: further Trainer callbacks.

    Returns:
        The saved model, read back.
    """
    if (folder / "model").is_dir():
        logger.info(f"stage {stage.name}: already finished, loading {folder / 'model'}")
        return load_stage_model(folder / "model", model.config._attn_implementation)
    reset_peak_memory()
    set_seed(seed)  # adapters and adversary start with random weights, the same ones in a resumed run
    adapters = _prepare_model(recipe, stage, model, train)
    arguments = _arguments(recipe, stage, folder, seed)
    _set_features(stage, model, (train, validation), arguments)
    difficulty = _difficulty(recipe, model, processor, train, arguments, folder)
    _speed_up_layers({**recipe.trainer, **stage.trainer}, model, arguments)
    trainer = MerhanTrainer(
        model,
        arguments,
        learning_rates=_learning_rates(recipe, stage),
        num_labels=len(label_ids(model)),
        layer_decay=stage.layer_decay,
        sampler=build_sampler(recipe.sampling, train.rows, difficulty),
        batch_seconds=recipe.sampling.batch_seconds,
        ema_decay=recipe.ema_decay,
        train_dataset=train,
        eval_dataset=Subset(validation, longest_first(validation).tolist()),
        data_collator=Collator(processor),
        processing_class=_processing_class(processor),
        callbacks=[*callbacks, *_stage_callbacks(stage, model)],
    )
    with signals_noted() as trainer.interruption:
        _train(trainer, seed, folder)
        merge_adapters(adapters)
        if recipe.adversary is not None:
            remove_adversary(model)
        trained = _save_stage(trainer, folder)
        trainer.end_if_interrupted(f"the end of stage {stage.name}")
    return trained


def _train(trainer: MerhanTrainer, seed: int, folder: Path):
    """Train from the start or from the last intact checkpoint."""
    set_seed(seed)
    with PartialState().main_process_first():  # it removes what the others must not resume from
        checkpoint = last_checkpoint(folder)
    trainer.train(resume_from_checkpoint=checkpoint)


def _prepare_model(
    recipe: Recipe, stage: StageRecipe, model: MerhanForSequenceClassification, train: EmotionDataset
) -> list[PeftModel]:
    """Set what trains, and attach adapters and adversary; returns the adapters."""
    set_trainable(model, stage.learning_rate, stage.freeze_feature_encoder)
    adapters = add_adapters(model, recipe.model.adapters, stage.learning_rate)
    train.extras.clear()
    if recipe.adversary is not None:
        train.extras["adversary_labels"] = add_adversary(model, recipe.adversary, train.rows)
    counts = [f"{name} ({count:,} parameters)" for name, count in count_trainable(model).items()]
    logger.info(f"stage {stage.name}: training {', '.join(counts)}")
    return adapters


def _arguments(recipe: Recipe, stage: StageRecipe, folder: Path, seed: int) -> TrainingArguments:
    """The stage's TrainingArguments: defaults of its strategies, then the recipe's, then its own."""
    options: dict[str, Any] = {}
    if recipe.adversary is not None:
        options["adam_beta1"] = ADAM_BETA1
    options |= {**recipe.trainer, **stage.trainer}
    if stage.unfreeze_layers:
        options["ddp_find_unused_parameters"] = True  # DDP would wait for gradients of layers that are still frozen
    return training_arguments(folder, options, stage.epochs, recipe.metric, seed)


def _learning_rates(recipe: Recipe, stage: StageRecipe) -> dict[str, float]:
    rates = dict(stage.learning_rate)
    if recipe.adversary is not None:
        rates["adversary"] = recipe.adversary.learning_rate
    return rates


def _stage_callbacks(stage: StageRecipe, model: MerhanForSequenceClassification) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = []
    if stage.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(stage.early_stopping_patience))
    if stage.unfreeze_layers:
        callbacks.append(GradualUnfreezing(model, stage.unfreeze_layers))
    return callbacks


def _processing_class(processor: MerhanProcessor) -> MerhanProcessor | None:
    """What Trainer saves beside the weights.

    The tokenizer of a model without text is a placeholder, whose special tokens Trainer would write into the config.
    """
    return processor if "text" in processor.modalities else None


def _set_features(
    stage: StageRecipe,
    model: MerhanForSequenceClassification,
    datasets: Sequence[EmotionDataset],
    arguments: TrainingArguments,
):
    """Let the data sets read cached features of what is frozen, where augmentation does not change its input."""
    modalities = frozen_modalities(model) if stage.cache_features else []
    speed = arguments.device, autocast_precision(arguments), arguments.dataloader_num_workers
    for dataset in datasets:
        dataset.features.clear()
        for modality in modalities:
            if modality not in dataset.changing:
                use_cached_features(model.merhan, dataset, modality, *speed)
    if stage.cache_feature_encoder:
        _require_cacheable_encoder(stage.name, model, datasets)
        for dataset in datasets:
            use_cached_convolutions(model.merhan, dataset, *speed)
        read_convolutions(model.merhan)


def _require_cacheable_encoder(name: str, model: MerhanForSequenceClassification, datasets: Sequence[EmotionDataset]):
    """Raise InputError where the output of the convolutional encoder cannot be cached, or is not needed."""
    backbone: Any = model.merhan.audio_backbone
    encoder: Any = getattr(backbone, "feature_extractor", None)
    reason = None
    if not hasattr(encoder, "conv_layers") or getattr(backbone.config, "add_adapter", False):
        reason = "the speech backbone has no convolutional encoder whose output could replace the sound"
    elif any(parameter.requires_grad for parameter in encoder.parameters()):
        reason = "the encoder is trained (freeze_feature_encoder: false)"
    elif "audio" in frozen_modalities(model):
        reason = "the whole speech backbone is frozen, whose features cache_features caches"
    elif any("audio" in dataset.changing for dataset in datasets):
        reason = "augmentation changes the sound in every epoch"
    if reason is not None:
        raise InputError(f"stage {name}: cache_feature_encoder: {reason}; remove the key.")


def _speed_up_layers(options: dict[str, Any], model: MerhanForSequenceClassification, arguments: TrainingArguments):
    """Compile the layers where the recipe asks for it; else let autocast cast their states less often."""
    is_compiled = compile_layers(model, options)
    if autocast_precision(arguments) is not None and not is_compiled:
        cast_states_once(model)


def _difficulty(
    recipe: Recipe,
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    train: EmotionDataset,
    arguments: TrainingArguments,
    folder: Path,
) -> np.ndarray | None:
    """The difficulty of each training row `(rows,)`, computed once at the stage's start; None without curriculum.

    Sets the weights of the rows as well, where the recipe derives them from it.
    """
    curriculum = recipe.sampling.curriculum
    if curriculum is None:
        return None
    plain = copy(train)
    plain.augmentation, plain.transcript_noise, plain.extras = AugmentationRecipe(), None, {}

    def uncertainty() -> np.ndarray:
        # On a copy of the model: evaluating the model itself would change its gradients with the number of processes.
        with as_in_training(arguments.to_dict()):
            logits, _ = predict_logits(deepcopy(model), processor, plain, arguments.per_device_eval_batch_size)
        return label_uncertainty(logits, np.array(plain.labels))

    compute = partial(row_difficulty, curriculum, train.rows, uncertainty)
    difficulty = load_or_compute(folder / "difficulty.npy", compute, writes=PartialState().is_main_process)
    if recipe.difficulty_weight is not None:
        train.extras["row_weights"] = torch.from_numpy(row_weights(difficulty, recipe.difficulty_weight)).float()
    return difficulty


def _save_stage(trainer: MerhanTrainer, folder: Path) -> MerhanForSequenceClassification:
    """Save the stage's model atomically: the existence of `folder/model` marks the stage as finished."""
    save_history(trainer)
    trainer.save_model(str(folder / "model.part"))
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        write_hashes(folder / "model.part")
        (folder / "model.part").rename(folder / "model")
    trainer.accelerator.wait_for_everyone()
    # The trained model may be sharded over processes or wrapped; reading it back is also what a resumed run does.
    attention = trainer.model.config._attn_implementation
    return load_stage_model(folder / "model", attention)
