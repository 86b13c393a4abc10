"""Attacks stay where they may, aim where they are told, and are Captum's."""

import contextlib

import pytest
import torch
from torch import nn
from toys import Toy, network, raising, state_of, toy_pictures

from benchmarks import captum_calls
from course_utils import class_scores, preprocess, sample_image, to_image, to_input
from course_utils.techniques import fast_gradient_sign, projected_gradient
from course_utils.views import png

ATTACKS = [fast_gradient_sign, projected_gradient]
NETWORKS = ["squeezenet1_1", "efficientnet_lite0"]

every_attack = pytest.mark.parametrize("attack", ATTACKS)
every_network = pytest.mark.parametrize("name", NETWORKS)

pytestmark = pytest.mark.slow


def toy_input(model, rows=3):
    """Pixel noise in [0, 1], some of it at the very ends of the range, as a network sees it."""
    image = (toy_pictures(rows) * 0.6 + 0.5).clamp(0, 1)
    assert (image == 0).any() and (image == 1).any()
    return to_input(image, model)


def photographs(model, *names):
    return preprocess([sample_image(name) for name in names], model)


def top_classes(model, x):
    return class_scores(model, x).argmax(dim=1)


@every_attack
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("epsilon", [0, 1 / 255, 2 / 255, 0.3])
def test_pixels_stay_within_epsilon_and_in_range(attack, targeted, epsilon):
    model = Toy()
    x = toy_input(model)
    changed = attack(model, x, 1, epsilon=epsilon, targeted=targeted)
    assert changed.shape == x.shape and changed.dtype == x.dtype and not changed.requires_grad
    assert_in_the_box(model, x, changed, epsilon)


def assert_in_the_box(model, x, changed, epsilon):
    # Not clipped, as to_image would: what the network sees must itself lie in the range of pixels.
    black, white = (to_input(torch.full_like(x[:1, :, :1, :1], value), model) for value in (0, 1))
    pixels = (changed - black) / (white - black)
    assert pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6
    assert (to_image(changed, model) - to_image(x, model)).abs().max() <= epsilon + 1e-6


@every_network
@every_attack
def test_photographs_stay_within_epsilon_exactly_so_after_the_png(attack, name):
    model = network(name, "pretrained")
    x = photographs(model, "crab", "panda")
    changed = attack(model, x, epsilon=2 / 255)
    assert_in_the_box(model, x, changed, 2 / 255)
    before, after = to_image(x, model), png(to_image(changed, model))
    torch.testing.assert_close(png(before), before, rtol=0, atol=1e-6)      # whole levels to begin with
    assert (255 * (after - before)).round().abs().max() == 2


@every_attack
def test_one_step_of_a_linear_network_is_the_sign_of_its_weights(attack):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 2, dtype=torch.float64))
    x = to_input(torch.full((1, 3, 4, 5), 0.5, dtype=torch.float64), model)
    uphill = (model[1].weight[0] - model[1].weight[1]).detach().view_as(x).sign()      # away from 1, towards 0
    for target, targeted in ((1, False), (0, True)):
        moved = to_image(attack(model, x, target, epsilon=0.1, targeted=targeted), model) - 0.5
        torch.testing.assert_close(moved, 0.1 * uphill)


def test_one_full_step_of_the_projection_is_the_fast_method():
    model = Toy()
    x = toy_input(model)
    for step in (None, 0.05):
        torch.testing.assert_close(projected_gradient(model, x, epsilon=0.05, steps=1, step=step),
                                   fast_gradient_sign(model, x, epsilon=0.05))


@every_network
def test_steps_follow_the_gradient_at_each_picture_in_turn(name):
    model = network(name, "pretrained")
    x = photographs(model, "crab")
    halfway = projected_gradient(model, x, 4, epsilon=1, steps=1, step=1 / 255)      # an epsilon that never holds back
    once_more = projected_gradient(model, halfway, 4, epsilon=1, steps=1, step=1 / 255)
    both = projected_gradient(model, x, 4, epsilon=1, steps=2, step=1 / 255)
    assert differing(once_more, both) < 0.01


@every_attack
def test_targets_are_one_for_all_or_one_for_each_row(attack):
    model = Toy()
    x = toy_input(model)
    each = torch.tensor([2, 0, 1])
    for targeted in (False, True):
        rows = torch.cat([attack(model, row[None], int(c), targeted=targeted) for row, c in zip(x, each, strict=True)])
        torch.testing.assert_close(attack(model, x, each, targeted=targeted), rows)
        torch.testing.assert_close(attack(model, x, 2, targeted=targeted),
                                   attack(model, x, torch.full((3,), 2), targeted=targeted))
    torch.testing.assert_close(attack(model, x), attack(model, x, top_classes(model, x)))


@every_attack
@every_network
def test_a_photograph_in_a_batch_is_what_it_is_alone(attack, name):
    """Ties of max-pools let the sign of a slope near zero depend on the batch: few values may differ."""
    model = network(name, "pretrained")
    x = photographs(model, "crab", "panda", "dog")
    options = {} if attack is fast_gradient_sign else {"steps": 2}
    together = attack(model, x, **options)
    for row, alone in enumerate(x):
        assert differing(together[row:row + 1], attack(model, alone[None], **options)) < 0.02


def differing(a, b):
    """The share of values that differ by more than rounding."""
    return ((a - b).abs() > 1e-4).float().mean().item()


@every_attack
def test_the_loss_rises_away_from_a_class_and_falls_towards_one(attack):
    model = network("squeezenet1_1", "pretrained")
    x = photographs(model, "crab", "dog")
    top = top_classes(model, x)
    before, after = (class_scores(model, v).softmax(dim=1)[range(2), top] for v in (x, attack(model, x)))
    assert (after < before).all()
    before, after = (class_scores(model, v).log_softmax(dim=1)[:, 859]
                     for v in (x, attack(model, x, 859, epsilon=0.2 / 255, targeted=True)))
    assert (after > before).all()


@every_network
@pytest.mark.parametrize("targeted", [False, True])
def test_both_are_captums(name, targeted):
    model = network(name, "pretrained")
    x, target = photographs(model, "crab", "dog"), torch.tensor([4, 859])
    theirs = captum_calls.fast_gradient_sign(model, x, target, targeted=targeted)
    assert differing(fast_gradient_sign(model, x, target, targeted=targeted), theirs) < 1e-3
    # In a large picture some slopes are rounding, and a sign that differs there leads later steps astray.
    x = x[:, :, 80:144, 80:144].contiguous(memory_format=torch.channels_last)
    theirs = captum_calls.projected_gradient(model, x, target, targeted=targeted, steps=3)
    assert differing(projected_gradient(model, x, target, targeted=targeted, steps=3), theirs) < 1e-3


@every_attack
def test_the_picture_and_the_model_are_left_as_they_were(attack):
    model = Toy()
    model.train()
    model.features[0].weight.requires_grad_(True)
    x = toy_input(model)
    before, state = x.clone(), state_of(model)
    first = attack(model, x)
    assert torch.equal(x, before) and not x.requires_grad and state_of(model) == state
    with torch.inference_mode():
        torch.testing.assert_close(attack(model, x), first)
    with pytest.raises(KeyboardInterrupt), contextlib.ExitStack() as stack:
        stack.enter_context(raising(model.head, KeyboardInterrupt()))
        attack(model, x)
    assert state_of(model) == state


@every_attack
def test_a_flat_loss_leaves_the_picture(attack):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 2))
    model[1].weight.data.zero_()
    x = to_input(torch.rand(1, 3, 4, 5), model)
    torch.testing.assert_close(attack(model, x, 0), x)


@every_attack
@pytest.mark.parametrize("arguments, error, message", [
    (dict(targeted=True), ValueError, "targeted=True needs the target"),
    (dict(epsilon=-0.1), ValueError, "epsilon=-0.1.*from 0"),
    (dict(epsilon=float("nan")), ValueError, "epsilon=nan"),
    (dict(target=3), IndexError, "class 3.*0 to 2"),
    (dict(target=[0, 1]), ValueError, "3 pictures"),
    (dict(target="toaster"), ValueError, "find_class"),
])
def test_bad_options_are_refused_in_words(attack, arguments, error, message):
    model = Toy()
    with pytest.raises(error, match=message):
        attack(model, toy_input(model), **arguments)


@pytest.mark.parametrize("arguments, message", [
    (dict(steps=0), "steps=0.*from 1"), (dict(step=-1), "step=-1.*from 0"),
])
def test_bad_steps_are_refused_in_words(arguments, message):
    model = Toy()
    with pytest.raises(ValueError, match=message):
        projected_gradient(model, toy_input(model), **arguments)


@every_attack
def test_a_wrong_input_is_refused_in_words(attack):
    model = Toy()
    with pytest.raises(ValueError, match="accepted is a float tensor"):
        attack(model, torch.zeros(3, 4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="accepted is a tensor"):
        attack(model, "panda.jpg")
