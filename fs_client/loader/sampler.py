"""Which samples make which batch, on which rank: shuffled, sharded, resumable, elastic.

The order of an epoch is `Permutation(n, seed, epoch)` (or 0 .. n-1 without shuffle), a pure function of its position.
One global step takes `world_size * batch_size` consecutive positions of it; rank r takes the r-th run of `batch_size`.
So the samples of a global step depend on the global batch alone, not on how many ranks share it: a state saved by 8
ranks of batch 32 goes on with 4 ranks of batch 64, sample for sample.

Every rank yields the same number of batches (collectives hang otherwise). The last step of an epoch may be short: its
positions are dealt in runs that differ by at most one sample. If it holds fewer positions than there are ranks, the
ranks left over take the epoch's first positions again: the only repeats there are, at most world_size - 1 an epoch,
and none with `drop_last`, which leaves the short step out.

Works as `batch_sampler=` of `torch.utils.data.DataLoader` (no torch is needed here), and as a plain iterable.
Single-threaded: one sampler belongs to one loop.
"""

from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fs_client.loader.permutation import VERSION, Permutation
from fs_common.errors import Code, EmberError

_POSITIONS_AHEAD = 8192
"""Positions mapped by one vectorised call: a call costs about 0.1 ms whatever its size below some thousands."""


class ElasticBatchSampler:
    """Yields lists of sample indices, one for each batch of this rank."""

    def __init__(
        self,
        n: int | Sized,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        shuffle: bool = True,
    ) -> None:
        """`n`: samples, or the dataset, as torch's samplers take it; `batch_size`: of one rank; `seed`: any integer,
        the same on every rank.

        Raises `EmberError(INVALID)` naming the argument that is out of range.
        """
        if isinstance(n, Sized):
            n = len(n)
        if n < 0:
            raise EmberError(Code.INVALID, f"n = {n} samples: a dataset has 0 or more")
        if batch_size < 1:
            raise EmberError(Code.INVALID, f"batch_size = {batch_size}: at least 1 is needed")
        if not 0 <= rank < world_size:
            raise EmberError(Code.INVALID, f"rank {rank} of world_size {world_size}: ranks count from 0")
        self._count = n
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._drop_last = drop_last
        self._shuffle = shuffle
        self._epoch = 0
        self._resume_at = 0
        """Global position at which the next iteration starts; 0 unless a state was loaded."""
        self._started_at = 0
        """Global position at which the iteration under way started."""
        self._position = 0
        """Global position after the last batch this sampler yielded."""

    @property
    def epoch(self) -> int:
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; call it before the iterator is made.

        Setting the epoch that is already set keeps a position loaded by `load_state_dict`.
        """
        if epoch != self._epoch:
            self._epoch = epoch
            self._resume_at = self._started_at = self._position = 0

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch."""
        return self._steps(self._count)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of this rank in the current epoch, from its start or from the position loaded last."""
        start = self._started_at = self._position = self._resume_at
        self._resume_at = 0
        order = Permutation(self._count, self._seed, self._epoch) if self._shuffle else None
        per_step = self._batch_size * self._world_size
        steps = self._steps(self._count - start)
        steps_ahead = max(1, _POSITIONS_AHEAD // self._batch_size)
        for first in range(0, steps, steps_ahead):
            runs = [self._run(start + step * per_step) for step in range(first, min(first + steps_ahead, steps))]
            positions = np.concatenate(runs)
            indices = positions if order is None else order(positions)
            end = 0
            for step, run in enumerate(runs, first):
                begin, end = end, end + len(run)
                self._position = min(start + (step + 1) * per_step, self._count)
                yield indices[begin:end].tolist()

    def _steps(self, positions: int) -> int:
        per_step = self._batch_size * self._world_size
        return positions // per_step if self._drop_last else -(-positions // per_step)

    def _run(self, base: int) -> NDArray[np.int64]:
        """The positions of this rank in the global step that starts at `base`."""
        size = min(self._batch_size * self._world_size, self._count - base)
        begin = base + size * self._rank // self._world_size
        end = base + size * (self._rank + 1) // self._world_size
        if begin < end:
            return np.arange(begin, end, dtype=np.int64)
        # Fewer positions than ranks: the ranks without one are counted, and the k-th takes position k of the epoch.
        empty_before = self._rank - (begin - base)
        return np.array([empty_before % self._count], np.int64)

    def state_dict(self, *, batches: int | None = None) -> dict[str, Any]:
        """Where this epoch stands, as plain values: the same on every rank, good for any number of ranks.

        A DataLoader with workers asks the sampler for batches it has not handed out yet. `batches` says how many
        batches of the iteration under way the training loop really took (None: as many as were yielded).
        """
        position = self._position
        if batches is not None:
            position = min(self._started_at + batches * self._batch_size * self._world_size, self._count)
        return {
            "version": VERSION,
            "n": self._count,
            "seed": self._seed,
            "epoch": self._epoch,
            "shuffle": self._shuffle,
            "position": position,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration goes on at the saved position, under this sampler's own batch size and ranks.

        Raises `EmberError(INVALID)` if the state is of another version or of another number of samples: the order
        would not be the one it was saved in.
        """
        if state.get("version") != VERSION:
            raise EmberError(Code.INVALID, f"sampler state of version {state.get('version')!r}; this is {VERSION}")
        if state["n"] != self._count:
            raise EmberError(Code.INVALID, f"sampler state of {state['n']} samples; the dataset has {self._count}")
        self._seed = state["seed"]
        self._epoch = state["epoch"]
        self._shuffle = state["shuffle"]
        self._resume_at = self._started_at = self._position = state["position"]

    def __repr__(self) -> str:
        return (
            f"ElasticBatchSampler(n={self._count}, batch_size={self._batch_size}, seed={self._seed}, "
            f"epoch={self._epoch}, rank={self._rank}/{self._world_size})"
        )
