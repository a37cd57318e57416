"""A rehearsal (`train_hf_e2e.py --dry_run`): all that a run does, two steps per stage, on tiny stand-ins.

The data are a few utterances of the built-in corpus under the labels of the recipe's own, with speakers, dialogues and
every other column, the recipe's own ones too; the backbones are random ones of the named family. So it needs no
network, no corpus and no GPU, it takes seconds, and it leaves nothing behind. What it finds is what would otherwise end
a run after hours: an option that cannot work, a stage that trains nothing.
"""

import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch
from transformers import set_seed
from transformers.integrations import get_reporting_integration_callbacks

from merhan.building import build_model, build_processor, tiny_audio, tiny_text
from merhan.corpora import require_options, room
from merhan.corpora.demo_corpus import EMOTIONS, say, speak
from merhan.dataset import Data
from merhan.errors import InputError
from merhan.leaks import require_accepted
from merhan.protocols import labels_of, named_protocol, require_fold
from merhan.recipe import BUILT_IN, DataRecipe, HubRecipe, ModelRecipe, Recipe, load_recipe
from merhan.run import check_run, run_folder
from merhan.stages import group_of
from merhan.trainer import load_trained, training_arguments
from processing_merhan import SAMPLING_RATE


# The longest one that a backbone's name holds is its family; the first one stands for a name that holds none.
FAMILIES = {
    "audio": ("wav2vec2", "hubert", "wavlm"),
    "text": ("roberta", "bert", "distilbert", "xlm-roberta", "electra"),
}
SPEAKERS = 4  # per split
LIMITS = {
    "max_steps": 2,
    "warmup_steps": 0,  # both steps at the full rate
    "per_device_train_batch_size": 4,
    "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": None,
    "torch_compile": False,
    "report_to": "none",
}


def rehearse(path: str | Path, changes: Sequence[str], train: Callable[[Recipe, Data], None]) -> str:
    """Check a recipe, and train and evaluate it on stand-ins; returns a line that says what was built.

    Args:
        train: what a run does once its data are read.

    Raises:
        InputError: the recipe is wrong, cannot be built or trained, or a stage leaves a group as it was that it names.
    """
    recipe = load_recipe(path, [*changes, "data.source=null"])
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, _own_cache(folder), redirect_stdout(said):
        recipe = replace(recipe, output_dir=folder, hub=HubRecipe())
        labels = check(recipe)
        rows = stand_in_rows(labels, ["train", "validation", *recipe.evaluation.splits], Path(folder, "audio"))
        rows = with_own_columns(rows, recipe, Path(folder, "vectors.npy"))
        recipe = replace(recipe, model=stand_in_model(recipe.model, rows["text"]))
        recipe.stages = [replace(stage, trainer=stage.trainer | LIMITS) for stage in recipe.stages]
        try:
            model = _initial(recipe, labels, rows)
            train(recipe, Data(rows, rows, {"name": "rehearsal", "version": 1, "hash": "none", "leaks": []}, [], []))
            trained = [_moved(recipe, number, model) for number in range(len(recipe.stages))]
        except InputError:
            raise
        except (ValueError, TypeError, AssertionError, ImportError, RuntimeError) as error:
            where = [line for line in said.getvalue().splitlines() if line.startswith("stage ")][-1:]
            raise InputError(f"{path}: {' '.join([*where, 'ends with:', *str(error).split()])}") from error
    backbones = [one.config.model_type for one in _backbones(model)]
    return (
        f"{path}: {recipe.run_name} builds and trains, tiny {' and '.join(backbones)} with {model.num_parameters():,} "
        f"parameters, {len(labels)} labels; stages {', '.join(trained)}"
    )


def check(recipe: Recipe) -> list[str]:
    """What can be known to be wrong without data; returns the labels that the data will have."""
    data = recipe.data
    check_run(recipe, resume=False, overwrite=False)
    require_accepted([], data.accept_leaks)
    require_options(data.corpus, data.options)
    for stage in recipe.stages:
        options = recipe.trainer | stage.trainer
        reporters = training_arguments(Path(recipe.output_dir), options, stage.epochs, recipe.metric, 0).report_to
        try:
            get_reporting_integration_callbacks(reporters)
        except ValueError as error:
            raise InputError(f"trainer.report_to, in stage {stage.name}: {error}") from None
    return _labels(data)


def stand_in_model(recipe: ModelRecipe, texts: Sequence[str]) -> ModelRecipe:
    """The same model over tiny random backbones of the same families."""
    audio, text = recipe.audio_backbone, recipe.text_backbone
    if audio not in (None, *BUILT_IN):
        audio = str(tiny_audio(_family(audio, "audio")))
    if text not in (None, *BUILT_IN):
        text = str(tiny_text(texts, _family(text, "text")))
    return replace(recipe, audio_backbone=audio, text_backbone=text, checkpoint=None)


def stand_in_rows(labels: Sequence[str], splits: Sequence[str], folder: Path) -> pd.DataFrame:
    """A manifest with every column, an utterance or two of each label in each split, and their recordings."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for split in dict.fromkeys(splits):
        for turn in range(max(2 * len(labels), 2 * SPEAKERS) if split == "train" else len(labels)):
            rows.append(_row(folder, rng, split, turn, list(labels)))
    return pd.DataFrame(rows)


def with_own_columns(rows: pd.DataFrame, recipe: Recipe, vectors: Path) -> pd.DataFrame:
    """The same rows with vectors for each modality that comes as such, and with the columns, beside those of a
    manifest, that a curriculum or an adversary names."""
    named = [one.column for one in (recipe.sampling.curriculum, recipe.adversary) if one and one.column]
    words = (rows["turn"] % SPEAKERS).astype(str)  # to a curriculum these are numbers
    np.save(vectors, np.random.default_rng(0).standard_normal((5, 8), np.float32))
    given = set(recipe.model.modalities) - set(recipe.model.backbones)
    rows = rows.assign(**{f"{modality}_features": str(vectors) for modality in given})
    return rows.assign(**{name: words for name in named if name not in rows})


def _row(folder: Path, rng: np.random.Generator, split: str, turn: int, labels: list[str]) -> dict[str, Any]:
    label, speaker = labels[turn % len(labels)], f"{split}-{turn % SPEAKERS}"
    voice, words = EMOTIONS[list(EMOTIONS)[turn % len(EMOTIONS)]]
    waveform = speak(rng, 150.0, 1.0, voice)[:SAMPLING_RATE]
    path = folder / f"{split}-{turn}.wav"
    soundfile.write(path, waveform, SAMPLING_RATE)
    return {
        "utterance_id": path.stem,
        "corpus": f"demo-{turn % 2}",
        "audio": str(path),
        "text": say(rng, words),
        "label": label,
        "source_label": label,
        "split": split,
        "speaker": speaker,
        "session": speaker,
        "dialogue": split,
        "turn": turn,
        "duration": len(waveform) / SAMPLING_RATE,
        "language": "en",
        "gender": ("female", "male")[turn % 2],
        "votes": json.dumps({label: 2, labels[0]: 1} if label != labels[0] else {label: 3}),
        **dict(zip(("valence", "arousal", "dominance"), rng.uniform(1, 5, 3), strict=True)),
    }


def _labels(data: DataRecipe) -> list[str]:
    """Of the protocol where it names them, else the corpus's; four of the vocabulary where neither is known."""
    if data.protocol and data.protocol != "loco" and not data.protocol.startswith("loso:"):
        spec = named_protocol(data.protocol)
        require_fold(spec, data.fold)
        return labels_of(spec)
    own = set(getattr(room(data.corpus), "LABELS", {}).values()) - {None}
    return sorted({data.label_map.get(label, label) for label in own} - {None}) or sorted(EMOTIONS)


def _family(name: str, modality: str) -> str:
    known = FAMILIES[modality]
    return max((family for family in known if family in name.lower()), key=len, default=known[0])


def _initial(recipe: Recipe, labels: Sequence[str], rows: pd.DataFrame) -> torch.nn.Module:
    """The model as a run begins with it."""
    set_seed(recipe.seed)
    train = rows[rows["split"] == "train"]
    build_processor(recipe.model, recipe.data, train)
    return build_model(recipe.model, sorted(labels), train)


def _moved(recipe: Recipe, number: int, initial: torch.nn.Module) -> str:
    """`warmup (head)`, or an error if a group that the stage names is as it was before it."""
    stages, folder = recipe.stages, run_folder(recipe)
    after = load_trained(folder / stages[number].name / "model", "eager").state_dict()
    earlier = load_trained(folder / stages[number - 1].name / "model", "eager") if number else initial
    before: Mapping[str, torch.Tensor] = earlier.state_dict()
    moved = {group_of(name) for name in after if name not in before or not torch.equal(after[name], before[name])}
    if still := [name for name in stages[number].learning_rate if name not in moved]:
        raise InputError(
            f"stages[{number}] ({stages[number].name}): learning_rate names {' and '.join(still)}, but nothing of it "
            f"trains; give it a rate above 0, or thaw some of it."
        )
    return f"{stages[number].name} ({', '.join(stages[number].learning_rate)})"


def _backbones(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    return filter(None, (model.merhan.audio_backbone, model.merhan.text_backbone))


@contextmanager
def _own_cache(folder: str):
    """Tiny backbones and features go where all goes that is thrown away."""
    before = os.environ.get("MERHAN_CACHE")
    os.environ["MERHAN_CACHE"] = str(Path(folder, "cache"))
    try:
        yield
    finally:
        os.environ.pop("MERHAN_CACHE")
        if before is not None:
            os.environ["MERHAN_CACHE"] = before
