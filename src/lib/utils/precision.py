"""Number types of a network's arithmetic: which a device computes in, and which is the fastest."""

import time
from collections.abc import Callable, Sequence

import torch

from .device import cpu_has_float16
from .errors import UserError


def check_computes_in(name: str, device: torch.device, option: str) -> None:
    """Check that a device computes in the number type that an option asks for.

    A CPU without bfloat16 passes: PyTorch emulates it there, so that measuring shows how slow it is.

    Args:
        name: float32, bfloat16 or float16.
        device: that the network runs on.
        option: such as `--amp`, for the message.

    Raises:
        UserError: it does not; names the type to use instead.
    """
    if name == 'bfloat16' and device.type == 'cuda' and torch.cuda.get_device_capability(device) < (8, 0):
        gpu, instead = torch.cuda.get_device_name(device), 'float16' if option == '--amp' else 'float32'
        raise UserError(f'{option} bfloat16: {gpu} does not compute in it (from Ampere on GPUs do); use {instead}')
    if name == 'float16' and device.type == 'cpu' and not cpu_has_float16():
        raise UserError(f'{option} float16: this processor has no float16 instructions; use bfloat16, or a GPU')


def faster_dtype(
    run: Callable[[torch.dtype], object],
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.bfloat16),
    rounds: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[torch.dtype, dict[torch.dtype, float]]:
    """Measure the number types of a computation, and find the fastest.

    Each type runs once to warm up and then once a round, in turn with the others, so that a machine that is busy for
    a while slows all of them.

    Args:
        run: does the computation in the type that it is given, and waits for its end.
        dtypes: to choose from; of equally fast ones the first is chosen.
        rounds: runs of each type that are measured.
        clock: gives the time in seconds.

    Returns:
        The fastest type, and the shortest time of each, `{type: seconds}`.
    """
    for dtype in dtypes:
        run(dtype)
    seconds = dict.fromkeys(dtypes, float('inf'))
    for _ in range(rounds):
        for dtype in dtypes:
            start = clock()
            run(dtype)
            seconds[dtype] = min(seconds[dtype], clock() - start)
    return min(dtypes, key=seconds.__getitem__), seconds
