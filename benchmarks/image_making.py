"""The techniques that make images: milliseconds per step, beside the passes and transformations of a step, bare."""

import functools
import itertools

import torch

from benchmarks.measure import median_times, peak_memory
from course_utils import load_model, preprocess, run_to, sample_image, to_image, to_input
from course_utils.techniques import (
    adversarial_ascent,
    before_relu,
    class_evidence,
    deep_dream,
    evolve_fooling_image,
    fooling_image,
    fourier_coefficients,
    fourier_picture,
    generate_class_image,
    invert_representation,
    jitter,
    random_transform,
    visualize_filter,
)

HEADER = ("technique", "pictures", "ours", "bare", "ours / bare", "steps a second", "our memory")
STEPS = 30      # in one measurement, so that the start of a run counts for little


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
    photograph = to_image(wide, model)
    channels, classes, layer = [0, 8, 16, 24, 32, 40], [56, 235, 130, 72, 963], "features.12"

    def in_waves(rows, side, transform, *layers):
        """One bare step on waves: paint, transform, one pass to the layers and back."""
        waves = fourier_coefficients((rows, 3, side, side), device=device).requires_grad_()

        def step():
            seen = to_input(transform(fourier_picture(waves, (side, side))), model)
            activations = run_to(model, seen, *layers)
            torch.autograd.grad(sum(A.sum() for A in activations.values()), waves)
        return step

    def strength(x):
        return run_to(model, x, "features.7")["features.7"].square().sum()

    def inversion():
        image = x.clone(memory_format=torch.preserve_format).requires_grad_()
        torch.autograd.grad(strength(image) + alpha_norm(image) + total_variation(image), image)

    def dream():
        image = photograph.clone(memory_format=torch.preserve_format).requires_grad_()
        torch.autograd.grad(strength(to_input(jitter(image, (7, -5)), model)), image)

    def in_pixels(picture):
        """One bare step on pixels: one pass to the class maps and back, and a second to look at the answer."""
        image = picture.contiguous(memory_format=torch.channels_last).requires_grad_()

        def step():
            torch.autograd.grad(class_evidence(model, to_input(image, model), 963, rival=1).sum(), image)
            with torch.no_grad():
                model(to_input(image, model))
        return step

    def question():
        with torch.no_grad():
            model(x.expand(8, -1, -1, -1).contiguous(memory_format=torch.channels_last))

    def alpha_norm(x):
        return x.pow(6).mean()

    def total_variation(x):
        here = x[:, :, :-1, :-1]
        return ((x[:, :, 1:, :-1] - here).square() + (x[:, :, :-1, 1:] - here).square()).mean()

    yield ("visualize_filter", len(channels),
           lambda: run(visualize_filter(model, layer, channels, steps=STEPS, size=128)),
           in_waves(len(channels), 128, random_transform(), *before_relu(model, layer)))
    yield ("generate_class_image", len(classes),
           lambda: run(generate_class_image(model, classes, steps=STEPS)),
           in_waves(len(classes), 224, random_transform(shift=32, angle=15, zoom=0.3), "classifier.1"))
    yield ("invert_representation", 1,
           lambda: run(invert_representation(model, x, "features.7", steps=STEPS)),
           inversion)
    yield ("deep_dream", 1,
           lambda: run(deep_dream(model, wide, "features.7", octaves=1, steps=STEPS)), dream)
    yield ("fooling_image", len(classes),
           lambda: run(fooling_image(model, classes, confidence=1, steps=STEPS)),
           in_pixels(to_image(x, model).repeat(len(classes), 1, 1, 1)))
    yield ("adversarial_ascent", 1,
           lambda: run(adversarial_ascent(model, x, 963, confidence=1, steps=STEPS)), in_pixels(to_image(x, model)))
    yield ("evolve_fooling_image", 8,
           lambda: run(evolve_fooling_image(model, evaluations=8 * STEPS)), question)


def run(steps):
    for _ in itertools.islice(steps, STEPS):
        pass


def repeat(step):
    for _ in range(STEPS):
        step()
