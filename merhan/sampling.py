"""Which utterance comes next."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class LengthBucketSampler(Sampler[int]):
    """Utterances of like length side by side, in a new order every epoch.

    The rows are shuffled, sorted by length within buckets of many batches, and the batches shuffled. The batch that
    holds the longest utterance comes first, so that running out of memory shows at once.

    Args:
        lengths: of every row, in any unit.
        batch_size: rows per optimizer step over all processes and accumulation steps. The order depends on nothing
            else, so two processes with half of it each see what one process sees.
        seed: of the order, together with the epoch.
        batches_per_bucket: more means less padding, and less chance in who meets whom in a batch. A small corpus is
            cut into four buckets at least, or every epoch would have the same batches.

    (transformers' LengthGroupedSampler pads as little, but its order depends on the number of processes and on the
    state of torch's global generator, so neither two processes nor a resumed run would see what one process sees.)
    """

    def __init__(self, lengths: Sequence[float], batch_size: int, seed: int = 0, batches_per_bucket: int = 50):
        self.lengths = torch.as_tensor(lengths, dtype=torch.float64)
        self.batch_size = batch_size
        self.bucket_size = batch_size * max(min(batches_per_bucket, len(lengths) // (4 * batch_size)), 1)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int):
        """Called by accelerate's data loader at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 10_007 + self.epoch)
        shuffled = torch.randperm(len(self.lengths), generator=generator)
        # A short last batch stays last: anywhere else it would shift the ones behind it across batch borders.
        whole = len(shuffled) - len(shuffled) % self.batch_size
        buckets = shuffled[:whole].split(self.bucket_size) if whole else ()
        batches = [
            batch
            for bucket in buckets
            for batch in bucket[self.lengths[bucket].argsort(stable=True)].split(self.batch_size)
        ]
        order = torch.randperm(len(batches), generator=generator).tolist()
        longest = max(order, key=lambda number: self.lengths[batches[number]].max().item(), default=0)
        order.sort(key=lambda number: number != longest)
        yield from (row for number in order for row in batches[number].tolist())
        yield from shuffled[whole:].tolist()


def padding_share(lengths: Sequence[float], order: Sequence[int], batch_size: int) -> float:
    """Share of a padded epoch that is padding, in [0, 1), for rows taken in `order`."""
    batches = torch.as_tensor(lengths, dtype=torch.float64)[torch.as_tensor(order)].split(batch_size)
    padded = sum(batch.max() * len(batch) for batch in batches)
    return float(1 - sum(batch.sum() for batch in batches) / padded)
