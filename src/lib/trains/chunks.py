"""A batch in chunks that go through the network one after the other (`--accumulate`), as several devices share it."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import accumulate
from operator import add

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def split_batch(batch: dict, sizes: Sequence[int]) -> list[dict]:
    """Divide a batch into chunks.

    Args:
        batch: `{name: [B, ...]}`; with more than one size, `meta` is left out.
        sizes: images in each chunk, the first chunk's first. A short batch fills the first ones, and what a larger
            one has left is the last one's.

    Returns:
        The chunks that hold an image, batches too.
    """
    if len(sizes) == 1:
        return [batch]
    ends = list(accumulate(sizes))[:-1]
    parts = {name: tensor.tensor_split(ends) for name, tensor in batch.items() if name != 'meta'}
    chunks = [dict(zip(parts, of_chunk, strict=True)) for of_chunk in zip(*parts.values(), strict=True)]
    return [chunk for chunk in chunks if len(chunk['input']) > 0]


@contextlib.contextmanager
def running_statistics_kept(network: nn.Module) -> Iterator[None]:
    """Let batch norms normalise as ever within the block, but leave their running statistics as they are."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def mean_over_chunks(stats: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return `{name: scalar}`, the mean of each scalar over the chunks."""
    return {name: reduce(add, [of_chunk[name] for of_chunk in stats]) / len(stats) for name in stats[0]}
