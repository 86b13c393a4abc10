"""Small networks whose answers can be worked out by hand, and what several tests share."""

import contextlib
import functools

import torch
from torch import nn

from course_utils import load_model


@functools.cache
def network(name, weights="random"):
    """A network of torchvision's on the CPU, drawn from a fixed seed; one for all tests, which leave it as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_model(name, weights=weights, device="cpu")


class Toy(nn.Module):
    """Two convolutions and a linear head in float64, for pictures of any size, in evaluation mode.

    It has what techniques stumble over: in-place ReLUs, and a batch normalization and a dropout that give other
    results in training mode. No maximum is taken anywhere, so nothing can be tied.
    """

    def __init__(self, seed=0, activation=nn.ReLU):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), activation(inplace=True),
            nn.Conv2d(4, 5, 3, stride=2), activation(inplace=True), nn.Dropout(),
        )
        self.head = nn.Linear(5, 3)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.double().eval().parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2

    def forward(self, x):
        return self.head(self.features(x).mean(dim=(2, 3)))


def toy_pictures(rows=1, height=8, width=11, seed=1):
    """Float64 noise `(rows, 3, height, width)`: no two values are equal, so that nothing is tied."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, height, width, generator=generator, dtype=torch.float64)


def state_of(model):
    """Everything about a model that a technique could leave changed: compare two of these with `==`.

    Of every module all attributes, hooks and an instance's own `forward` among them; of every parameter and
    buffer its identity, its version (counted up by each in-place change), `requires_grad` and `.grad`.
    """
    def comparable(value):
        if isinstance(value, torch.Tensor):
            gradient = None if value.grad is None else (id(value.grad), value.grad.tolist())
            return id(value), value.data_ptr(), value._version, value.requires_grad, gradient, value._backward_hooks
        if isinstance(value, dict):
            return [(key, comparable(item)) for key, item in value.items()]
        return value

    return {name: comparable(vars(module)) for name, module in model.named_modules()}


@contextlib.contextmanager
def raising(module, error, call=1):
    """Let a module raise an error at the end of a call, the first unless told otherwise."""
    calls = []

    def hook(module, inputs, output):
        calls.append(module)
        if len(calls) == call:
            raise error

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
