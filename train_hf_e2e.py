"""Train MER-HAN from a recipe; `merhan/cli/train.py` has the options, `merhan/api.py` the steps.

python train_hf_e2e.py --config configs/quickstart.yaml
accelerate launch --config_file configs/accelerate/multi_gpu.yaml train_hf_e2e.py --config configs/meld.yaml
"""

from merhan.cli import train
from merhan.cli.main import run_program


def main():
    run_program(train)


if __name__ == "__main__":
    main()
