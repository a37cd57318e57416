"""Train recipes x folds x seeds, each run in a process of its own, and compare them in one table.

    merhan experiment configs/experiments/emodb.yaml --jobs 2
    merhan experiment configs/experiments/meld-fusions.yaml --launcher "accelerate launch --multi_gpu"

Finished runs are kept and interrupted ones are resumed. Exit code 1 if a run failed.
"""

import argparse
import sys

from merhan.cli.options import Number


HELP = "train recipes x folds x seeds and compare them in one table; resumable; exit code 1 if a run failed"


def add_arguments(parser: argparse.ArgumentParser):
    """Declare the options of the command."""
    parser.add_argument("file", help="experiment, a YAML file; configs/experiments has examples")
    parser.add_argument(
        "--jobs",
        type=Number(int, minimum=1, maximum=1024),
        default=1,
        help="runs at a time; they share the cores unless OMP_NUM_THREADS is set",
    )
    parser.add_argument("--launcher", help="command that starts each run, as 'accelerate launch' (default: python)")
    parser.add_argument("--dry_run", action="store_true", help="only try every row on tiny stand-ins")


def run(arguments: argparse.Namespace):
    """Run the command."""
    from merhan.experiments.run import run_experiment

    folder, failures = run_experiment(arguments.file, arguments.jobs, arguments.launcher, arguments.dry_run)
    if arguments.dry_run:
        print(*(failures or ["every row builds and trains"]), sep="\n")
    else:
        print(f"\n{(folder / 'report.md').read_text(encoding='utf-8')}\nreport: {folder / 'report.html'}")
    sys.exit(1 if failures else 0)
