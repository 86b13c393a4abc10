"""The techniques that make images: milliseconds per step, beside the passes and transformations of a step, bare."""

import functools
import itertools

import torch

from benchmarks.measure import median_times, peak_memory
from course_utils import hooks, load_model, preprocess, run_to, sample_image, to_input
from course_utils.techniques import (
    before_relu,
    deep_dream,
    fourier_coefficients,
    fourier_picture,
    invert_representation,
    random_transform,
    visualize_filter,
)

HEADER = ("technique", "pictures", "ours", "bare", "ours / bare", "steps a second", "our memory")
STEPS = 10      # in one measurement, so that the start of a run counts for little


def rows(name, device):
    """One row per technique for a network: milliseconds per step, memory of a run in MB."""
    model = load_model(name, device=device)
    for technique, pictures, ours, step in contenders(model, device):
        memory = peak_memory(ours, device)
        times = median_times({"ours": ours, "bare": functools.partial(repeat, step)}, device)
        ours_ms, bare_ms = times["ours"] * 1e3 / STEPS, times["bare"] * 1e3 / STEPS
        yield technique, pictures, ours_ms, bare_ms, ours_ms / bare_ms, 1e3 / ours_ms, memory


def contenders(model, device):
    """(technique, batch, our run of some steps, one bare step) for each technique."""
    x = preprocess(sample_image("red_panda"), model)
    wide = preprocess(sample_image("horses"), model, size=640)
    channels, layer = [0, 8, 16, 24, 32, 40], "features.12"

    waves = fourier_coefficients((len(channels), 3, 128, 128), device=device).requires_grad_()
    transform = random_transform()

    def filters():
        seen = to_input(transform(fourier_picture(waves, (128, 128))), model)
        with hooks.record(model, *before_relu(model, layer)) as activations:
            model(seen)
        torch.autograd.grad(sum(A.sum() for A in activations.values()), waves)

    def to_layer(x):
        x = x.clone(memory_format=torch.preserve_format).requires_grad_()
        torch.autograd.grad(run_to(model, x, "features.7")["features.7"].square().sum(), x)

    yield ("visualize_filter", len(channels),
           lambda: run(visualize_filter(model, layer, channels, steps=STEPS, size=128)), filters)
    yield ("invert_representation", 1,
           lambda: run(invert_representation(model, x, "features.7", steps=STEPS)), lambda: to_layer(x))
    yield ("deep_dream", 1,
           lambda: run(deep_dream(model, wide, "features.7", octaves=1, steps=STEPS)), lambda: to_layer(wide))


def run(steps):
    for _ in itertools.islice(steps, STEPS):
        pass


def repeat(step):
    for _ in range(STEPS):
        step()
