"""What every image-making technique yields."""

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
