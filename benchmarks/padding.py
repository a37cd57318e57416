"""How much of a padded epoch is padding: bucketed against random batches, on MELD's real durations.

python benchmarks/padding.py $MERHAN_CORPORA/meld/media_durations.csv
"""

import argparse
import os

import pandas as pd
import torch
from common import command, publish

from merhan.reporting.markdown_tables import markdown_table
from merhan.training.sampling import LengthBucketSampler, padding_share


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("durations", help="CSV with the columns split and duration_s")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--max_seconds", type=float, default=12.0)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    table = pd.read_csv(arguments.durations)
    lengths = table.loc[table["split"] == "train", "duration_s"].clip(upper=arguments.max_seconds).tolist()
    generator = torch.Generator().manual_seed(0)
    orders = {
        "random batches": torch.randperm(len(lengths), generator=generator).tolist(),
        "bucketed batches": list(LengthBucketSampler(lengths, arguments.batch_size, seed=0)),
    }
    shares = {name: padding_share(lengths, order, arguments.batch_size) for name, order in orders.items()}
    rows = [[name, f"{share:.1%}"] for name, share in shares.items()]
    shown = command(MERHAN_CORPORA=os.environ.get("MERHAN_CORPORA", "MERHAN_CORPORA"))
    text = f"""`{shown}`

{len(lengths)} utterances, batch {arguments.batch_size}, {arguments.max_seconds:g} s cap, seed 0.

{markdown_table(["", "padding"], rows)}
"""
    publish("padding", text, arguments.write)


if __name__ == "__main__":
    main()
