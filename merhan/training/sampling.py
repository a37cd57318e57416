"""The order of training rows: batches by length or by speaker, balanced or by a curriculum."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice, zip_longest

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Sampler

from merhan.errors import InputError
from merhan.recipe.schema import SamplingRecipe
from merhan.training.curriculum import curriculum_share
from processing_merhan import MerhanProcessor


# (epoch, generator) -> the rows of that epoch `(rows,)`; some may be repeated and others left out.
Draw = Callable[[int, torch.Generator], torch.Tensor]


class LengthBucketSampler(Sampler[int]):
    """Batches of rows of similar length, in a new order in every epoch.

    The rows are shuffled and sorted by the cell of the length grid that they belong to, so that which rows of a cell
    share a batch is random, and the batches are shuffled. The batch with the longest row comes first, so that running
    out of memory shows at once.

    Args:
        cells: number of the grid cell of every row, see `merhan.data.dataset.grid_cells`.
        batch_size: rows per optimizer step, over all processes and accumulation steps. The order depends on nothing
            else, so two processes with half of it each see the batches of one process.
        seed: seed of the order, together with the epoch.
        by_length: whether rows are sorted; without, a batch has rows of any length.
        draw: the rows of an epoch, as many as there are; None = every row once.

    (transformers' LengthGroupedSampler pads as little, but its order depends on the number of processes and on the
    state of torch's global generator, so neither two processes nor a resumed run would see the same batches.)
    """

    def __init__(
        self,
        cells: Sequence[int] | np.ndarray | torch.Tensor,
        batch_size: int,
        seed: int = 0,
        by_length: bool = True,
        draw: Draw | None = None,
    ):
        self.cells = torch.as_tensor(cells)
        self.batch_size = batch_size
        self.seed = seed
        self.by_length = by_length
        self.draw = draw
        self.epoch = 0

    def set_epoch(self, epoch: int):
        """Called by accelerate's data loader at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.cells)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 10_007 + self.epoch)
        rows = torch.arange(len(self))
        if self.draw is not None:
            rows = self.draw(self.epoch, generator)
        yield from self.order(rows[torch.randperm(len(rows), generator=generator)], generator)

    def order(self, shuffled: torch.Tensor, generator: torch.Generator) -> Iterator[int]:
        """The shuffled rows of an epoch `(rows,)`, batch after batch."""
        rows = shuffled
        if self.by_length:
            rows = shuffled[self.cells[shuffled].argsort(stable=True)]
        # An incomplete batch comes last: anywhere else it would shift the following rows across batch borders. It holds
        # neighbours from a random place, so that the borders of the other batches differ between epochs.
        incomplete = len(rows) % self.batch_size
        start = int(torch.randint(len(rows) - incomplete + 1, (), generator=generator))
        last = rows[start : start + incomplete]
        batches = torch.cat([rows[:start], rows[start + incomplete :]]).view(-1, self.batch_size)
        order = torch.randperm(len(batches), generator=generator).tolist()
        largest = self.cells[batches].amax(dim=1).tolist()
        longest = max(order, key=lambda number: largest[number], default=0)
        order.sort(key=lambda number: number != longest)
        for number in order:
            yield from batches[number].tolist()
        yield from last.tolist()


class SecondsBatchSampler(Sampler[list[int]]):
    """Batches of rows of similar length that hold about equally many seconds of sound, padding included: many short
    utterances or few long ones. Every epoch has each row once, in batches of the same sizes.

    Args:
        cells: number of the grid cell of every row, see `merhan.data.dataset.grid_cells`.
        samples: what each row alone is padded to.
        limit: maximum number of samples of a batch; a row that is longer is a batch of its own.
        multiple: the number of batches is a multiple of this, that of the batches of an optimizer step.
        seed: seed of the order, together with the epoch.
    """

    def __init__(self, cells: np.ndarray, samples: np.ndarray, limit: float, multiple: int, seed: int = 0):
        self.cells = torch.from_numpy(cells)
        order = self.cells.argsort(stable=True)
        self.sizes = batch_sizes(samples[order.numpy()], limit, multiple)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int):
        """Called by accelerate's data loader at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 10_007 + self.epoch)
        shuffled = torch.randperm(len(self.cells), generator=generator)
        batches = shuffled[self.cells[shuffled].argsort(stable=True)].split(self.sizes)
        order = torch.randperm(len(batches), generator=generator).tolist()
        longest = len(batches) - 1
        order.sort(key=lambda number: number != longest)
        for number in order:
            yield batches[number].tolist()


def batch_sizes(samples: np.ndarray, limit: float, multiple: int) -> list[int]:
    """Numbers of neighbouring rows that form a batch each of at most `limit` samples, padding included.

    Args:
        samples: what each row alone is padded to, in ascending order.
        multiple: the largest batches are halved until their number is a multiple of this.

    Raises:
        InputError: batches of one row each are no such multiple.
    """
    sizes = [0]
    for length in samples.tolist():
        if sizes[-1] and (sizes[-1] + 1) * length > limit:
            sizes.append(0)
        sizes[-1] += 1
    while len(sizes) % multiple:
        largest = int(np.argmax(sizes))
        if sizes[largest] == 1:
            raise InputError(
                f"sampling.batch_seconds: {len(samples)} batches of one row each cannot be shared by {multiple} "
                f"processes and accumulation steps; choose a larger value, or fewer of them."
            )
        half = sizes[largest] // 2
        sizes[largest : largest + 1] = [half, sizes[largest] - half]
    return sizes


class SpeakerGroupSampler(LengthBucketSampler):
    """Batches of few speakers with equally many rows each, so that what differs within a batch is the emotion.

    The speakers of a batch are drawn in proportion to the rows that they have left. Where these do not fill the batch,
    rows of the same speakers are repeated, in place of others that wait for another epoch.

    Args:
        speakers: a number per row, the same for rows of one speaker.
        speakers_per_batch: maximum number of speakers in a batch.
        args, kwargs: as of [`LengthBucketSampler`]; rows are not sorted by length.
    """

    def __init__(self, *args, speakers: Sequence[int] | torch.Tensor, speakers_per_batch: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.speakers = torch.as_tensor(speakers)
        self.speakers_per_batch = speakers_per_batch

    def order(self, shuffled: torch.Tensor, generator: torch.Generator) -> Iterator[int]:
        """The shuffled rows of an epoch `(rows,)`, batch after batch."""
        speakers = self.speakers[shuffled]
        groups = [shuffled[speakers == speaker].tolist() for speaker in speakers.unique()]
        remaining = [list(group) for group in groups]
        for start in range(0, len(shuffled), self.batch_size):
            size = min(self.batch_size, len(shuffled) - start)
            chosen = self._draw_speakers(remaining, generator)
            turns = _interleave([[speaker] * len(remaining[speaker]) for speaker in chosen])[:size]
            yield from [remaining[speaker].pop() for speaker in turns]
            yield from islice(cycle(_interleave([groups[speaker] for speaker in chosen])), size - len(turns))

    def _draw_speakers(self, remaining: Sequence[Sequence[int]], generator: torch.Generator) -> list[int]:
        """The speakers of a batch, drawn by how many rows they have left."""
        weights = torch.tensor([float(len(rows)) for rows in remaining])
        number = min(self.speakers_per_batch, int(weights.count_nonzero()))
        return weights.multinomial(number, generator=generator).tolist()


def build_sampler(
    recipe: SamplingRecipe, rows: pd.DataFrame, difficulty: np.ndarray | None = None
) -> Callable[..., LengthBucketSampler]:
    """The sampler class of a recipe with its options; cells, batch size and seed are still to be given.

    Args:
        rows: the training rows.
        difficulty: of every row, for a curriculum.
    """
    draw = _row_draw(recipe, rows, difficulty)
    if recipe.speakers_per_batch is None:
        return partial(LengthBucketSampler, draw=draw)
    speakers = class_ids(rows["speaker"])
    return partial(SpeakerGroupSampler, draw=draw, speakers=speakers, speakers_per_batch=recipe.speakers_per_batch)


def _row_draw(recipe: SamplingRecipe, rows: pd.DataFrame, difficulty: np.ndarray | None) -> Draw | None:
    """How the rows of an epoch are drawn; None = every row once."""
    if not recipe.balance and recipe.curriculum is None:
        return None
    order, classes = torch.arange(len(rows)), None
    if difficulty is not None:
        order = torch.tensor(difficulty).argsort(stable=True)
    if recipe.balance:
        classes = class_ids(rows[recipe.balance])
    share = _all_rows if recipe.curriculum is None else partial(curriculum_share, recipe.curriculum)
    return partial(draw_rows, order=order, share=share, classes=classes)


def _all_rows(epoch: int) -> float:
    return 1.0


def class_ids(column: pd.Series) -> torch.Tensor:
    """`(rows,)`: the values of a column as numbers from 0, in sorted order."""
    return torch.from_numpy(pd.factorize(column, sort=True)[0])


def draw_rows(
    epoch: int,
    generator: torch.Generator,
    order: torch.Tensor,
    share: Callable[[int], float],
    classes: torch.Tensor | None = None,
) -> torch.Tensor:
    """The rows of an epoch `(rows,)`: always as many as there are, so that all epochs have equally many steps.

    Args:
        epoch: number of the epoch.
        generator: of the random draws.
        order: all rows `(rows,)`, the easiest first.
        share: epoch -> the share of the order that is available, in (0, 1].
        classes: a number per row; an epoch then has equally many rows of each available class. No row is repeated
            before all others (of its class) were drawn.
    """
    size = len(order)
    available = order[: max(round(share(epoch) * size), 1)]
    if classes is None:
        return _repeated(available, size, generator)
    groups = [available[classes[available] == number] for number in classes[available].unique()]
    # Where the rows cannot be divided evenly, a random permutation decides which classes get one more.
    places = torch.randperm(len(groups), generator=generator).tolist()
    quotas = [(size + place) // len(groups) for place in places]
    return torch.cat([_repeated(group, quota, generator) for group, quota in zip(groups, quotas, strict=True)])


def batch_shapes(
    processor: MerhanProcessor, shapes: np.ndarray, order: Sequence[int], batch_size: int
) -> list[tuple[int, int, int]]:
    """Rows, samples and tokens of the batches of an epoch, for rows taken in `order`.

    Args:
        shapes: what each row alone is padded to, `(rows, 2)`, see `EmotionDataset.shapes`.
    """
    batches = torch.as_tensor(shapes)[torch.as_tensor(order)].split(batch_size)
    return [(len(batch), *processor.shape(*batch.amax(dim=0).tolist())) for batch in batches]


def _repeated(rows: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """`size` rows: whole random permutations, the last one cut."""
    rounds = range(math.ceil(size / len(rows)))
    return torch.cat([rows[torch.randperm(len(rows), generator=generator)] for _ in rounds])[:size]


def _interleave(lists: Sequence[Sequence[int]]) -> list[int]:
    """The first element of each list, then the second of each, until all are used."""
    return [element for elements in zip_longest(*lists) for element in elements if element is not None]
