"""Train MER-HAN from a recipe: warm-up of the head, full fine-tuning, evaluation, a model folder, the Hub.

    python train_hf_e2e.py --config configs/quickstart.yaml
    python train_hf_e2e.py --config configs/emodb.yaml --set data.source=/data/emodb --set data.fold=1
    accelerate launch --config_file configs/accelerate/multi_gpu.yaml train_hf_e2e.py --config configs/meld.yaml
    python train_hf_e2e.py --config configs/meld.yaml --resume          after an interruption, in whatever stage
    python train_hf_e2e.py --config configs/meld.yaml --dry_run         would it work? seconds, no data, no download

What comes out is outputs/<run_name>/: recipe.yaml (resolved), manifest.parquet, provenance.json, a folder per stage,
model/ (what would be published, complete) and evaluation/<split>/ (predictions, figures, picture, report).
"""

import argparse

from accelerate import PartialState
from transformers import set_seed

from merhan.building import build_model, build_processor
from merhan.dataset import Data, EmotionDataset, load_data
from merhan.errors import exits_cleanly
from merhan.evaluation import calibrate
from merhan.leaks import require_accepted
from merhan.provenance import histories
from merhan.publishing import export, publish
from merhan.recipe import Recipe, load_recipe
from merhan.rehearsal import rehearse
from merhan.run import check_evaluation, check_run, check_strategies, evaluate_run, farewell, open_run
from merhan.trainer import train_stage


@exits_cleanly
def main():
    arguments = parse()
    if arguments.dry_run:
        print(rehearse(arguments.config, arguments.set, train))
        return
    recipe = load_recipe(arguments.config, arguments.set)
    check_run(recipe, arguments.resume, arguments.overwrite)
    with PartialState().main_process_first():
        backbones = recipe.model.backbones
        data = load_data(recipe.data, recipe.model.modalities, backbones, histories=histories(recipe.model))
    require_accepted(data.leaks, recipe.data.accept_leaks)
    check_evaluation(recipe, data)
    train(recipe, data, arguments.resume, arguments.overwrite)


def train(recipe: Recipe, data: Data, resume: bool = False, overwrite: bool = False):
    """From rows with splits to a model folder and its evaluation."""
    modalities = recipe.model.modalities
    parts = dict(list(data.rows.groupby("split")))
    check_strategies(recipe, parts["train"])
    labels = sorted(parts["train"]["label"].unique())
    set_seed(recipe.seed)
    with PartialState().main_process_first():
        processor = build_processor(recipe.model, recipe.data, parts["train"])
        model = build_model(recipe.model, labels, parts["train"])
    for_training = {
        "augmentation": recipe.data.augmentation,
        "transcript_noise": recipe.data.transcript_noise,
        "soft_labels": recipe.data.soft_labels,
    }
    known = model.config.label2id, modalities, data.dialogues
    training, validation = (
        EmotionDataset(parts[name], processor, *known, seed=recipe.seed, dimensions=model.config.dimensions, **options)
        for name, options in (("train", for_training), ("validation", {}))
    )

    folder = open_run(recipe, data, resume, overwrite)
    for note in [*data.notes, *(f"accepted leak: {leak}" for leak in data.leaks)]:
        print(f"note: {note}")
    for number, stage in enumerate(recipe.stages):
        model = train_stage(
            recipe, stage, recipe.seed + number, model, processor, training, validation, folder / stage.name
        )

    calibrate(model, processor, parts["validation"], data.dialogues)
    found = evaluate_run(recipe, folder, model.eval(), processor, data)
    if PartialState().is_main_process:
        export(folder, recipe, model, processor, found)
        print(farewell(folder, modalities, recipe.evaluation.splits[0]))
        if recipe.hub.repo_id:
            publish(folder, recipe.hub.repo_id, recipe.hub.private)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="recipe, a YAML file; configs/ has one per corpus")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the recipe, as data.fold=1 or stages.0.epochs=3 (may be repeated)",
    )
    parser.add_argument("--run_name", help="name of the run's folder, in place of the recipe's")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run of this recipe")
    parser.add_argument("--overwrite", action="store_true", help="delete a run of this name and begin again")
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="try all of it on tiny stand-ins, two steps per stage; leaves nothing",
    )
    arguments = parser.parse_args()
    if arguments.run_name:
        arguments.set.append(f"run_name={arguments.run_name}")
    return arguments


if __name__ == "__main__":
    main()
