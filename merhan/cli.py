"""The `merhan` command."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from omegaconf import OmegaConf

from merhan.comparison import as_table, compare, read_system
from merhan.corpora import CORPORA, read_corpus
from merhan.dataset import load_data
from merhan.doctor import as_html, as_json, as_text, examine, raw_folder
from merhan.errors import InputError, exits_cleanly
from merhan.evaluation import add_source_options, cluster_column, load_checkpoint, open_evaluation
from merhan.experiment import run_experiment
from merhan.explanation import explain, explain_rows, require_raw
from merhan.leaks import unaccepted
from merhan.manifest import read_manifest
from merhan.metrics import FEWEST_CLUSTERS
from merhan.preparation import prepare
from merhan.provenance import histories
from merhan.publishing import publish
from merhan.recipe import load_recipe
from merhan.report import markdown_table
from merhan.robustness import sweep
from merhan.robustness import table as robustness_table
from merhan.unification import prepare_all


@exits_cleanly
def main(words: list[str] | None = None):
    arguments = parser().parse_args(words)
    arguments.run(arguments)


def run_prepare(arguments: argparse.Namespace):
    if arguments.corpus == "all":
        prepare_all(Path(arguments.source), arguments.out, arguments.strict, arguments.workers)
        return
    options = reader_options(arguments)
    if arguments.label:
        options["label_map"] = {word: ours or None for word, _, ours in (one.partition("=") for one in arguments.label)}
    prepare(arguments.corpus, arguments.source, arguments.out, options, arguments.strict, arguments.workers)


def run_doctor(arguments: argparse.Namespace):
    """Exit code 1 says that training should not go ahead."""
    path = Path(arguments.source)
    if arguments.corpus:
        rows = read_corpus(arguments.corpus, path, **reader_options(arguments)).rows
    elif path.is_dir():
        rows = raw_folder(path)
        if rows.empty:
            raise InputError(f"{path}: no audio file in it or below it.")
    else:
        rows = read_manifest(path)
    diagnosis, found = examine(rows, path.name)
    print(as_text(diagnosis))
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(diagnosis), indent=2, ensure_ascii=False) + "\n")
    if arguments.html:
        arguments.html.write_text(as_html(diagnosis, found))
    sys.exit(0 if diagnosis.healthy else 1)


def run_audit(arguments: argparse.Namespace):
    """Exit code 1 says that something leaks which the recipe does not accept."""
    recipe = load_recipe(arguments.config, arguments.set)
    data = load_data(recipe.data, recipe.model.modalities, recipe.model.backbones, histories=histories(recipe.model))
    refused = unaccepted(data.leaks, recipe.data.accept_leaks)
    rows = [
        [
            leak.kind,
            " to ".join(leak.sides),
            leak.rows,
            f"{leak.share:.1%}",
            "no" if leak in refused else "yes",
            leak.example,
        ]
        for leak in data.leaks
    ]
    header = ["leak", "from where", "rows", "share", "accepted", "such as"]
    print(markdown_table(header, rows) if rows else "no leak")
    sys.exit(1 if refused else 0)


def reader_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """`--option key=value` and `--column ours=theirs` as the reader takes them."""
    options = OmegaConf.to_container(OmegaConf.from_dotlist(arguments.option))
    if arguments.column:
        options["columns"] = dict(column.partition("=")[::2] for column in arguments.column)
    return options


def run_compare(arguments: argparse.Namespace):
    systems = [read_system(path, arguments.split) for path in arguments.predictions]
    if len(systems) < 2:
        raise InputError("compare: give two runs at least.")
    differences = compare(systems, arguments.resamples, arguments.seed)
    if arguments.json:
        # JSON has no NaN, which stands where there is no interval or no test.
        rows = [{key: None if one != one else one for key, one in row._asdict().items()} for row in differences]
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    column = cluster_column(systems[0].predictions)
    clusters = column.removesuffix("_id") + "s"
    note = f"intervals and p-values draw {clusters}"
    if systems[0].predictions[column].nunique() < FEWEST_CLUSTERS:
        note = f"without intervals and p-values over {clusters}: fewer than {FEWEST_CLUSTERS} say too little of others"
    print(f"{len(systems[0].predictions)} rows; {note}.\n\n{as_table(differences)}")


def run_an_experiment(arguments: argparse.Namespace):
    """Exit code 1 says that a run failed."""
    folder, failures = run_experiment(arguments.file, arguments.jobs, arguments.launcher, arguments.dry_run)
    if arguments.dry_run:
        print(*(failures or ["every row builds and trains"]), sep="\n")
    else:
        print(f"\n{(folder / 'report.md').read_text()}\nreport: {folder / 'report.html'}")
    sys.exit(1 if failures else 0)


def run_explain(arguments: argparse.Namespace):
    model, processor = load_checkpoint(arguments.checkpoint)
    require_raw(model, processor)
    if arguments.utterance:
        recipe = Path(arguments.checkpoint) / "recipe.yaml"
        if not (Path(arguments.checkpoint) / "model").is_dir():
            raise InputError(f"{arguments.checkpoint}: is no run's folder, so --utterance has no data to look in.")
        modalities = model.config.modalities, processor.modalities
        data = load_data(load_recipe(recipe).data, *modalities, only=arguments.split)
        pages = explain_rows(model, processor, data, arguments.utterance, arguments.out)
    else:
        if not (arguments.audio or arguments.text):
            raise InputError("explain: what? Give --audio, --text or both, or --utterance of a run.")
        try:
            waveform = processor.load_audio(arguments.audio) if arguments.audio else None
            page = explain(model, processor, waveform, arguments.text, arguments.speaker)
        except ValueError as error:
            raise InputError(str(error)) from None
        arguments.out.mkdir(parents=True, exist_ok=True)
        pages = [arguments.out / "explanation.html"]
        pages[0].write_text(page)
    print(*(f"page: {page}" for page in pages), sep="\n")


def run_robustness(arguments: argparse.Namespace):
    model, processor, data, folder = open_evaluation(arguments)
    rows = sweep(model, processor, data, arguments.split, folder, batch_size=arguments.batch_size)
    if PartialState().is_main_process:
        print(f"\n{robustness_table(rows)}\n\npage: {folder / 'robustness.html'}")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="merhan", description="Corpora in, models out.")
    commands = top.add_subparsers(required=True, metavar="command")
    for add in (
        add_prepare,
        add_doctor,
        add_audit,
        add_compare,
        add_experiment,
        add_explain,
        add_robustness,
        add_publish,
    ):
        add(commands)
    return top


def add_prepare(commands: Any):
    command = commands.add_parser("prepare", help="raw release -> 16 kHz FLAC and a manifest; goes on where it stopped")
    command.add_argument(
        "corpus",
        choices=[*CORPORA, "all"],
        help="whose format to read; `table` for a CSV of your own, "
        "`all` for every corpus below the source, in one manifest",
    )
    command.add_argument("source", help="the raw release's folder, a file, or the name of a `datasets` data set")
    command.add_argument("out", type=Path, help="folder to write")
    command.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="WORD=OURS",
        help="merge labels, as excitement=joy, or drop them, as frustration= (may be repeated)",
    )
    add_reader_options(command)
    command.add_argument("--strict", action="store_true", help="other counts than the published ones are an error")
    command.add_argument("--workers", type=int, help="recordings at a time (default: one per core)")
    command.set_defaults(run=run_prepare)


def add_doctor(commands: Any):
    command = commands.add_parser("doctor", help="what is wrong with a manifest or a raw folder; exit code 1 if much")
    command.add_argument("source", help="a manifest, or a folder with recordings")
    command.add_argument("--corpus", choices=CORPORA, help="read the folder as this corpus, with labels and words")
    add_reader_options(command)
    command.add_argument("--json", type=Path, help="also write the diagnosis for a program")
    command.add_argument("--html", type=Path, help="also write a page with pictures")
    command.set_defaults(run=run_doctor)


def add_audit(commands: Any):
    command = commands.add_parser("audit", help="what the splits of a recipe's data share; exit code 1 if not accepted")
    command.add_argument("--config", required=True, help="recipe")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of the recipe")
    command.set_defaults(run=run_audit)


def add_compare(commands: Any):
    command = commands.add_parser(
        "compare", help="whether one system is better than another, and would be for other speakers"
    )
    command.add_argument("predictions", nargs="+", help="runs, evaluation folders, or predictions.parquet files")
    command.add_argument("--split", default="test", help="of runs (default: test)")
    command.add_argument("--resamples", type=int, default=5000, help="of bootstrap and randomisation (default: 5000)")
    command.add_argument("--seed", type=int, default=0, help="of both (default: 0)")
    command.add_argument("--json", type=Path, help="also write the figures for a program")
    command.set_defaults(run=run_compare)


def add_experiment(commands: Any):
    command = commands.add_parser(
        "experiment", help="recipes x folds x seeds in one table; runs what is missing; exit code 1 if a run failed"
    )
    command.add_argument("file", help="a YAML file, as those in configs/experiments")
    command.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="runs at a time; they share the cores, unless OMP_NUM_THREADS says otherwise (default: 1)",
    )
    command.add_argument(
        "--launcher", help="what starts each run, as 'accelerate launch --multi_gpu' (default: python)"
    )
    command.add_argument("--dry_run", action="store_true", help="rehearse every row on tiny stand-ins, and no more")
    command.set_defaults(run=run_an_experiment)


def add_explain(commands: Any):
    command = commands.add_parser(
        "explain", help="pages that show what an answer hangs on: voice or words, and which words met which seconds"
    )
    command.add_argument("checkpoint", help="a run's folder, a model folder, or a Hub id")
    command.add_argument("--audio", help="a recording")
    command.add_argument("--text", help="its words")
    command.add_argument("--speaker", help="who says it, for a model that reads that")
    command.add_argument("--utterance", nargs="+", help="utterance_id of rows of the run's own data, in place of these")
    command.add_argument("--split", default="test", help="where those rows are (default: test)")
    command.add_argument("--out", type=Path, default=Path("explained"), help="folder to write (default: explained)")
    command.set_defaults(run=run_explain)


def add_robustness(commands: Any):
    command = commands.add_parser(
        "robustness", help="what is left under noise, wrong words, a missing modality; goes on where it stopped"
    )
    command.add_argument("checkpoint", help="a run's folder, a model folder, or a Hub id")
    add_source_options(command)
    command.set_defaults(run=run_robustness)


def add_publish(commands: Any):
    command = commands.add_parser("publish", help="push a finished run's model to the Hub, and load it back to compare")
    command.add_argument("folder", type=Path, help="the run's folder, as outputs/quickstart")
    command.add_argument("repo_id", help="where to, as me/merhan-demo")
    command.add_argument("--public", action="store_true", help="anyone may see it (default: only you)")
    command.set_defaults(run=lambda given: publish(given.folder, given.repo_id, private=not given.public))


def add_reader_options(command: argparse.ArgumentParser):
    command.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="for `table` and `datasets`: which column is which, as audio=path (may be repeated)",
    )
    command.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="an option of the reader")


if __name__ == "__main__":
    main()
