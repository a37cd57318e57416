"""Evaluate a model; `merhan/cli/evaluate.py` has the options, `merhan/evaluation/evaluate.py` the steps.

python evaluate_hf_e2e.py --checkpoint outputs/quickstart
python evaluate_hf_e2e.py --checkpoint me/merhan-meld --manifest data/meld/manifest.parquet
"""

from merhan.cli import evaluate
from merhan.cli.main import run_program


def main():
    run_program(evaluate)


if __name__ == "__main__":
    main()
