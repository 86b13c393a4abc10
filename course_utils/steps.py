"""What every image-making technique yields, and the memory that a run of it leaves."""

import ctypes
import functools
from collections import deque
from typing import NamedTuple

import torch


class Step(NamedTuple):
    """One step of an optimization that makes images.

    number: counted from 1. objective: `(N,)` tensor, one value per image of the batch.
    image: detached float tensor `(N, 3, H, W)` in [0, 1], of the final size at every step.
    """

    number: int
    objective: torch.Tensor
    image: torch.Tensor


def last_step(steps):
    """The last `Step` of a generator; no other is kept, where a list would hold dozens of pictures.

    Raises ValueError for a generator that yields nothing.
    """
    kept = deque(steps, maxlen=1)
    if not kept:
        raise ValueError("there is no last step: the generator yielded none")
    return_memory()
    return kept[0]


def return_memory():
    """Hand freed memory back to the system, where the C library keeps it otherwise (Linux with glibc).

    Optimizing an image frees tensors of ever other sizes, and the gaps between them pile up: in the notebook on
    deep dream to 500 MB, a quarter of what Binder gives.
    """
    if trim := _malloc_trim():
        trim(0)


@functools.cache
def _malloc_trim():
    try:
        return getattr(ctypes.CDLL("libc.so.6"), "malloc_trim", None)
    except OSError:      # no such library on macOS and Windows
        return None
