"""Run a recipe over all folds of its protocol, pool the test predictions, and tabulate them with intervals.

    python benchmarks/cross_validate.py --config configs/emodb.yaml --folds 5 --jobs 2

A fold that is finished is not run again; an interrupted one goes on. Nothing is chosen on test. The pooled row joins
the test rows of all folds (every utterance once); its interval draws speakers.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from common import REPOSITORY, command, hardware, publish

from merhan.errors import exits_cleanly
from merhan.evaluation import figures
from merhan.metrics import SCORES
from merhan.recipe import load_recipe
from merhan.report import TITLES, interval_note, markdown_table, with_interval
from merhan.run import check_run, run_folder


@exits_cleanly
def main():
    arguments = parse()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        folders = list(pool.map(lambda fold: run(arguments, fold), range(arguments.folds)))
    tables = [pd.read_parquet(folder / "evaluation/test/predictions.parquet") for folder in folders]
    found = [json.loads((folder / "evaluation/test/metrics.json").read_text()) for folder in folders]
    pooled = figures(pd.concat(tables, ignore_index=True), found[0]["labels"])
    rows = [[f"fold {number}", one["n"], *(f"{one[name]:.3f}" for name in SCORES)] for number, one in enumerate(found)]
    means = [[one[name] for one in found] for name in SCORES]
    rows.append(
        ["mean over folds (standard deviation)", "", *(f"{np.mean(m):.3f} ({np.std(m, ddof=1):.3f})" for m in means)]
    )
    rows.append(["all test rows", pooled["n"], *(with_interval(pooled, name) for name in SCORES)])
    table = markdown_table(["", "n", *(TITLES[name] for name in SCORES)], rows)
    protocol = found[0]["protocol"]
    seed = json.loads((folders[0] / "provenance.json").read_text())["seed"]
    text = f"""`{command(MERHAN_CORPORA=os.environ.get("MERHAN_CORPORA", "MERHAN_CORPORA"))}`

Protocol `{protocol["name"]}` version {protocol["version"]} (hash `{protocol["hash"]}`), seed {seed}, {hardware()}.
{interval_note(pooled)}

{table}
"""
    publish(arguments.section or Path(arguments.config).stem, text, arguments.write)


def run(arguments: argparse.Namespace, fold: int) -> Path:
    """Train and evaluate one fold unless it is there; returns its folder."""
    changes = [*arguments.set, f"data.fold={fold}"]
    recipe = load_recipe(arguments.config, changes)
    check_run(recipe, resume=True, overwrite=False)  # a fold of other settings is not this one
    folder = run_folder(recipe)
    if not (folder / "model/README.md").is_file():
        words = [word for change in changes for word in ("--set", change)]
        program = [sys.executable, "train_hf_e2e.py", "--config", arguments.config, "--resume", *words]
        threads = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // arguments.jobs, 1))}
        log = folder.parent / f"{folder.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"fold {fold}: training, see {log}", flush=True)
        with log.open("w") as file:
            done = subprocess.run(
                program, cwd=REPOSITORY, env=os.environ | threads, stdout=file, stderr=file, check=False
            )
        if done.returncode:
            sys.exit(f"error: fold {fold} failed; see {log}")
    return folder


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="recipe whose data.protocol has folds")
    parser.add_argument("--folds", type=int, required=True, help="how many there are")
    parser.add_argument("--jobs", type=int, default=1, help="folds at a time; they share the cores (default: 1)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of the recipe")
    parser.add_argument("--section", help="section of RESULTS.md (default: the recipe's name)")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
