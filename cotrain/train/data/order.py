"""The order of the data: which peer takes which sample when, a pure function of seed, epoch, cursor, rank and ranks."""

from __future__ import annotations

import numpy as np

from cotrain.train.data.permutation import Indices, permute


def share_positions(*, cursor: int, rank: int, ranks: int, start: int, count: int) -> Indices:
    """Positions in the run's data order that one peer takes in a round, for its samples from `start` on.

    A round begins at `cursor`, and the peer of `rank` among `ranks` takes positions cursor + rank + ranks * i, here
    for i from `start` to `start + count - 1`. Returns int64 [count]. Raises ValueError for arguments out of range.
    """
    if not 0 <= rank < ranks or min(cursor, start, count) < 0:
        raise ValueError(f"out of range: cursor={cursor}, rank={rank}, ranks={ranks}, start={start}, count={count}")
    return cursor + rank + ranks * np.arange(start, start + count, dtype=np.int64)


def first_unused(*, cursor: int, rank: int, ranks: int, used: int) -> int:
    """The first of this share's samples (`start` above) whose position is not below `used`."""
    return max(0, -((rank + cursor - used) // ranks))  # rounded up


def samples_at(positions: Indices, *, num_samples: int, seed: int) -> Indices:
    """The samples at these positions (both int64 [n]).

    The data order is an endless sequence of epochs, each with its own permutation of all samples. Raises ValueError
    if there are no samples.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples}, expected 1 or more")
    epochs, offsets = np.divmod(positions, num_samples)
    return permute(offsets, size=num_samples, seed=seed, tweaks=epochs)
