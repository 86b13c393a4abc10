"""What the techniques that make images promise alike: their steps, a clean stop, any network.

Two walks are compared at their first step only, by the objective of step 1 and the image of step 2: what rounds
differently in the last bit grows about tenfold a step.
"""

import copy

import pytest
import torch
from torch import nn
from toys import network, raising, state_of

from course_utils import Step, count_passes, last_step, preprocess, sample_image
from course_utils.techniques import (
    adversarial_ascent,
    deep_dream,
    fooling_image,
    generate_class_image,
    invert_representation,
    visualize_filter,
)

STILL = {"shift": 0, "angle": 0, "zoom": 0}      # the same view at every step, so that objectives can be compared
# Two pictures of 64 by 72 or 64 by 64 pixels, in few steps.
MAKERS = {
    "visualize_filter": lambda model, layer, **options: visualize_filter(
        model, layer, [1, 3], **{"steps": 4, "size": 64, **STILL, **options}),
    "invert_representation": lambda model, layer, **options: invert_representation(
        model, photographs(), layer, **{"steps": 4, **options}),
    "deep_dream": lambda model, layer, **options: deep_dream(
        model, photographs(), layer, **{"octaves": 1, "steps": 4, "shift": 0, **options}),
    "generate_class_image": lambda model, layer, **options: generate_class_image(
        model, [3, 7], **{"steps": 4, "size": 64, **STILL, **options}),
    "fooling_image": lambda model, layer, **options: fooling_image(
        model, [3, 7], **{"steps": 4, "size": 64, "confidence": 1, **options}),
    "adversarial_ascent": lambda model, layer, **options: adversarial_ascent(
        model, photographs(), [3, 7], **{"steps": 4, "confidence": 1, "proximity": 0, "rate": 0.01, **options}),
}
MOVING = {"visualize_filter", "deep_dream", "generate_class_image"}      # they look from another place at every step
FALLING = {"invert_representation"}      # its objective is an energy


def photographs():
    model = network("squeezenet1_1", "pretrained")
    return torch.cat([preprocess(sample_image(name), model)[:, :, 60:124, 60:132] for name in ("red_panda", "crab")])


@pytest.fixture(params=MAKERS)
def name(request):
    return request.param


def test_steps_are_numbered_detached_and_of_the_final_size(squeezenet, name):
    steps = list(MAKERS[name](squeezenet, "features.6", rate=1.0))
    assert [step.number for step in steps] == [1, 2, 3, 4]
    for step in steps:
        assert isinstance(step, Step)
        assert step.image.shape == steps[-1].image.shape and step.image.shape[:2] == (2, 3)
        assert step.image.dtype == torch.float32 and step.objective.shape == (2,)
        assert not step.image.requires_grad and not step.objective.requires_grad
        assert 0 <= step.image.min() and step.image.max() <= 1


def test_every_row_gets_better(squeezenet, name):
    first, *_, last = MAKERS[name](squeezenet, "features.6", steps=12)
    gain = (first.objective - last.objective) * (1 if name in FALLING else -1)
    assert (gain > 0).all()


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"adversarial_ascent"}))      # that one draws nothing
def test_the_seed_decides(squeezenet, name):
    moving = {"shift": 8} if name in MOVING else {}
    first, same, other = (last_step(MAKERS[name](squeezenet, "features.6", seed=seed, steps=2, **moving))
                          for seed in (0, 0, 1))
    torch.testing.assert_close(first.image, same.image, atol=1e-4, rtol=0)
    assert (first.image - other.image).abs().mean() > 1e-3


@pytest.mark.parametrize("end", ["exhausted", "closed", "thrown at", "error inside", "interrupt inside"])
def test_however_it_ends_the_model_is_as_it_was(name, end):
    model = network("squeezenet1_1").train()
    try:
        before, steps = state_of(model), MAKERS[name](model, "features.6")
        next(steps)
        assert state_of(model) == before, "something is held while the caller looks at a step"
        if end == "exhausted":
            list(steps)
        elif end == "closed":
            steps.close()
        elif end == "thrown at":
            with pytest.raises(KeyboardInterrupt):
                steps.throw(KeyboardInterrupt)
        else:
            error = {"error inside": RuntimeError, "interrupt inside": KeyboardInterrupt}[end]
            with raising(model.features[5], error("stop")), pytest.raises(error, match="stop"):
                next(steps)
            before = state_of(model)      # `raising` has hung a hook on a layer and taken it off
        assert next(steps, None) is None
        assert state_of(model) == before
    finally:
        model.eval()


def test_closed_early_no_further_pass_is_made(squeezenet, name):
    with count_passes(squeezenet.features[0]) as passes:
        steps = MAKERS[name](squeezenet, "features.6", steps=100)
        next(steps)
        seen = passes.forward
        steps.close()
    assert seen == passes.forward <= 4      # two pictures; the inversion first asks for those to be matched


@pytest.mark.slow
@pytest.mark.parametrize(("network_name", "layer"), [
    ("alexnet", "features.8"), ("vgg16", "features.17"), ("vgg19", "features.19"), ("resnet18", "layer2"),
    ("googlenet", "inception3a"),
])
def test_other_networks(name, network_name, layer):
    model = network(network_name)
    before = state_of(model)
    steps = list(MAKERS[name](model, layer))
    assert steps[-1].image.isfinite().all() and steps[-1].objective.isfinite().all()
    assert (steps[-1].image - steps[0].image).abs().mean() > 1e-3
    assert state_of(model) == before


@pytest.mark.parametrize("depth", [3, 7, 12])
def test_hooks_and_truncation_give_the_same_first_step(squeezenet, depth):
    short = nn.Sequential(*squeezenet.features[:depth + 1])
    whole = list(visualize_filter(squeezenet, f"features.{depth}", [5, 9], steps=2, size=80))
    cut = list(visualize_filter(short, str(depth), [5, 9], steps=2, size=80))
    torch.testing.assert_close(whole[0].objective, cut[0].objective, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(whole[1].image, cut[1].image, atol=1e-3, rtol=0)


@pytest.mark.parametrize("index", [5, torch.tensor(5), torch.tensor([5]).numpy()[0]], ids=["int", "tensor", "NumPy"])
def test_one_filter_or_class_may_be_any_kind_of_integer(squeezenet, index):
    for make in (visualize_filter(squeezenet, "features.6", index, steps=1, size=64),
                 generate_class_image(squeezenet, index, steps=1, size=64),
                 fooling_image(squeezenet, index, steps=1, size=64)):
        assert next(make).image.shape == (1, 3, 64, 64)


def test_images_for_a_network_in_double_precision():
    model = copy.deepcopy(network("alexnet")).double()
    assert list(visualize_filter(model, "features.3", 5, steps=2, size=64))[-1].objective.isfinite().all()
    assert list(generate_class_image(model, 5, steps=2, size=64))[-1].objective.isfinite().all()
    assert list(fooling_image(model, 5, steps=2, size=64))[-1].objective.isfinite().all()
