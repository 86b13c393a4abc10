"""What every image-making technique yields."""

from collections import deque
from typing import NamedTuple

import torch

from .memory import return_memory


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
