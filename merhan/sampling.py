"""Which utterance comes next."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice, zip_longest

import pandas as pd
import torch
from torch.utils.data import Sampler

from merhan.curriculum import pace
from merhan.recipe import SamplingRecipe


# Epoch, generator -> the rows of that epoch, `(rows,)`; some may come twice, and others not.
Draw = Callable[[int, torch.Generator], torch.Tensor]


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
        draw: which rows an epoch has, as many as there are; without it each once.

    (transformers' LengthGroupedSampler pads as little, but its order depends on the number of processes and on the
    state of torch's global generator, so neither two processes nor a resumed run would see what one process sees.)
    """

    def __init__(
        self,
        lengths: Sequence[float],
        batch_size: int,
        seed: int = 0,
        batches_per_bucket: int = 50,
        draw: Draw | None = None,
    ):
        self.lengths = torch.as_tensor(lengths, dtype=torch.float64)
        self.batch_size = batch_size
        self.bucket_size = batch_size * max(min(batches_per_bucket, len(lengths) // (4 * batch_size)), 1)
        self.seed = seed
        self.draw = draw
        self.epoch = 0

    def set_epoch(self, epoch: int):
        """Called by accelerate's data loader at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 10_007 + self.epoch)
        rows = torch.arange(len(self)) if self.draw is None else self.draw(self.epoch, generator)
        yield from self.order(rows[torch.randperm(len(rows), generator=generator)], generator)

    def order(self, shuffled: torch.Tensor, generator: torch.Generator) -> Iterator[int]:
        """The shuffled rows of an epoch, batch after batch."""
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


class SpeakerGroupSampler(LengthBucketSampler):
    """Batches of few speakers, each with as many rows as the others: what differs within a batch is the emotion.

    The speakers of a batch are drawn by the rows they have left. Where these do not fill it, rows of theirs come again,
    in place of others that wait for another epoch.

    Args:
        speakers: a number per row, the same for rows of one speaker.
        speakers_per_batch: the most that a batch has.
        options: as of `LengthBucketSampler`; lengths do not matter.
    """

    def __init__(self, *options, speakers: Sequence[int], speakers_per_batch: int, **more):
        super().__init__(*options, **more)
        self.speakers = torch.as_tensor(speakers)
        self.speakers_per_batch = speakers_per_batch

    def order(self, shuffled: torch.Tensor, generator: torch.Generator) -> Iterator[int]:
        speakers = self.speakers[shuffled]
        groups = [shuffled[speakers == speaker].tolist() for speaker in speakers.unique()]
        waiting = [list(group) for group in groups]
        for start in range(0, len(shuffled), self.batch_size):
            size = min(self.batch_size, len(shuffled) - start)
            left = torch.tensor([float(len(rows)) for rows in waiting])
            number = min(self.speakers_per_batch, int(left.count_nonzero()))
            together = left.multinomial(number, generator=generator).tolist()
            turns = _in_turn([[speaker] * len(waiting[speaker]) for speaker in together])[:size]
            yield from [waiting[speaker].pop() for speaker in turns]
            yield from islice(cycle(_in_turn([groups[speaker] for speaker in together])), size - len(turns))


def _in_turn(lists: Sequence[Sequence[int]]) -> list[int]:
    """One of each list, then the next of each, until all are spent."""
    return [one for several in zip_longest(*lists) for one in several if one is not None]


def sampler_of(
    recipe: SamplingRecipe, rows: pd.DataFrame, difficulty: Sequence[float] | None = None
) -> Callable[..., LengthBucketSampler]:
    """The sampler that a recipe asks for, still without lengths, batch size and seed."""
    draw = None
    if recipe.balance or recipe.curriculum:
        classes = numbers_of(rows[recipe.balance]) if recipe.balance else None
        easiest = torch.arange(len(rows)) if difficulty is None else torch.tensor(difficulty).argsort(stable=True)
        share = partial(pace, recipe.curriculum) if recipe.curriculum else lambda epoch: 1.0
        draw = partial(draw_rows, order=easiest, share=share, classes=classes)
    if recipe.speakers_per_batch is None:
        return partial(LengthBucketSampler, draw=draw)
    speakers, most = numbers_of(rows["speaker"]), recipe.speakers_per_batch
    return partial(SpeakerGroupSampler, draw=draw, speakers=speakers, speakers_per_batch=most)


def numbers_of(column: pd.Series) -> torch.Tensor:
    """`(rows,)`: from 0 on a number for each word of a column, in the words' order."""
    return torch.from_numpy(pd.factorize(column, sort=True)[0])


def draw_rows(
    epoch: int,
    generator: torch.Generator,
    order: torch.Tensor,
    share: Callable[[int], float],
    classes: torch.Tensor | None = None,
) -> torch.Tensor:
    """The rows of an epoch, `(rows,)`: always as many as there are, so that epochs have equally many steps.

    Args:
        order: all rows, the easiest first.
        share: epoch -> how much of the order there is to draw from, in (0, 1].
        classes: a number per row; an epoch then has as many rows of each class that there is to draw from. No row comes
            again before the others (of its class) have come.
    """
    size = len(order)
    available = order[: max(round(share(epoch) * size), 1)]
    if classes is None:
        return _repeated(available, size, generator)
    groups = [available[classes[available] == one] for one in classes[available].unique()]
    first = torch.randperm(len(groups), generator=generator)  # who gets one more where the rows cannot be shared out
    quotas = [(size + int(place)) // len(groups) for place in first]
    return torch.cat([_repeated(group, quota, generator) for group, quota in zip(groups, quotas, strict=True)])


def _repeated(rows: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    rounds = range(math.ceil(size / len(rows)))
    return torch.cat([rows[torch.randperm(len(rows), generator=generator)] for _ in rounds])[:size]


def padding_share(lengths: Sequence[float], order: Sequence[int], batch_size: int) -> float:
    """Share of a padded epoch that is padding, in [0, 1), for rows taken in `order`."""
    batches = torch.as_tensor(lengths, dtype=torch.float64)[torch.as_tensor(order)].split(batch_size)
    padded = sum(batch.max() * len(batch) for batch in batches)
    return float(1 - sum(batch.sum() for batch in batches) / padded)
