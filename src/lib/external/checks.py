"""The door of the kernels: arguments that their loops cannot work on are refused before a byte is read or written.

The loops check no index. Each kernel asks here once a call, so that the cost does not grow with the arrays.
"""

import numbers
import operator
from collections.abc import Sequence

import numpy as np

LARGEST = 2**31 - 1  # of the whole numbers that kernels take: products of two of them do not overflow 64 bits
MOST_THREADS = 256  # OpenMP ends the process when it cannot start as many threads as asked


def check_array(
    name: str,
    array: np.ndarray,
    dtype: str,
    shape: Sequence[int | str],
    contiguous: bool = True,
    writable: bool = False,
) -> None:
    """Refuse an array that a kernel cannot work on.

    Args:
        name: the argument's name, for the message.
        array [...]: what was given for it.
        dtype: the only type that is accepted, such as 'float32', in the machine's byte order.
        shape: the size of each axis, or a word for an axis that may have any size.
        contiguous: whether it has to lie in memory in one piece, the last axis innermost.
        writable: whether the kernel writes to it.

    Raises:
        TypeError: not a NumPy array, or of another type.
        ValueError: another shape or layout, or an array to write to that is read-only.
    """
    wanted = f'{dtype} [{", ".join(map(str, shape))}]'
    if not isinstance(array, np.ndarray):
        raise TypeError(f'expected {name} as a NumPy array {wanted}, found {type(array).__name__}')
    if array.dtype != np.dtype(dtype):
        raise TypeError(f'expected {name} as {wanted}, found {array.dtype} {list(array.shape)}')
    if array.ndim != len(shape) or any(isinstance(n, int) and n != m for n, m in zip(shape, array.shape, strict=True)):
        raise ValueError(f'expected {name} as {wanted}, found {list(array.shape)}')
    if not array.flags.aligned:  # vector instructions may fault on numbers that lie across the borders of their size
        raise ValueError(f'expected {name} aligned in memory, found it at an address or strides that are not')
    if contiguous and not array.flags.c_contiguous:
        raise ValueError(f'expected {name} contiguous in memory, found strides {list(array.strides)}')
    if writable and not array.flags.writeable:
        raise ValueError(f'expected {name} to be writable, found a read-only array')


def check_whole(name: str, value: int, least: int, most: int = LARGEST) -> int:
    """Return `value` as an int, if it is a whole number from `least` to `most`.

    Raises:
        TypeError: not a whole number.
        ValueError: out of that range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f'expected {name} as a whole number, found {type(value).__name__}') from None
    if not least <= number <= most:
        raise ValueError(f'expected {name} from {least} to {most}, found {number}')
    return number


def check_number(name: str, value: float) -> float:
    """Return `value` as a float, if it is a number; infinite or NaN, too.

    Raises:
        TypeError: not a number.
        ValueError: a whole number that no float stands for.
    """
    if not isinstance(value, numbers.Real):
        raise TypeError(f'expected {name} as a number, found {type(value).__name__}')
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f'expected {name} as a number that a float stands for, found a larger one') from None


def check_threads(threads: int) -> int:
    """Return the number of threads that a kernel starts: as many as asked, `MOST_THREADS` at most.

    Raises:
        TypeError, ValueError: not a whole number over 0.
    """
    return min(check_whole('threads', threads, 1), MOST_THREADS)


def check_apart(written: dict[str, np.ndarray], read: dict[str, np.ndarray]) -> None:
    """Refuse arrays [...] to write to that share memory with one another or with one that is read.

    Raises:
        ValueError: naming the two.
    """
    others = dict(read)
    for name, array in written.items():
        for other, neighbour in others.items():
            if np.may_share_memory(array, neighbour):
                raise ValueError(f'expected {name} in memory of its own, found it overlapping {other}')
        others[name] = array
