"""Deletion and insertion: plain loops in NumPy, closed forms on linear networks, and what all measures promise."""

import copy
import itertools

import numpy as np
import pytest
import torch
from test_other_networks import FAMILIES, picture
from torch import nn
from toys import Toy, network, raising, state_of, toy_pictures

from course_utils import load_model, preprocess, sample_image, to_input
from course_utils.measures import enlarge
from course_utils.techniques import blurred, deletion_curve, empty_picture, insertion_curve, removal_ranks

CURVES = pytest.mark.parametrize("curve", [deletion_curve, insertion_curve])
FILLS = ("blur", "mean", "black")


def maps(rows=2, height=8, width=11, seed=5):
    """Signed maps without two equal values."""
    return torch.randn(rows, 1, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def looped(model, before, after, values, c, steps):
    """The curve of one picture `(3, H, W)` and one map `(H, W)`, pixel by pixel, in NumPy."""
    picture, after = before.numpy().copy(), after.numpy()
    order = sorted(np.ndindex(*values.shape), key=lambda place: -values[place])
    p, done = [], 0
    for k in range(steps + 1):
        due = round(k * len(order) / steps)
        for row, column in order[done:due]:
            picture[:, row, column] = after[:, row, column]
        done = due
        with torch.no_grad():
            scores = model(torch.from_numpy(picture.copy())[None])[0].numpy()
        p.append(np.exp(scores[c]) / np.exp(scores).sum())
    return p


def gaussian(x, sigma):
    """A Gaussian blur of `(N, C, H, W)` in NumPy: as wide as 3 σ or the picture, mirrored at the edges."""
    x = x.numpy()
    for axis in (2, 3):
        radius = min(round(3 * sigma), x.shape[axis] - 1)
        weights = np.exp(-np.arange(-radius, radius + 1) ** 2 / (2 * sigma ** 2))
        padded = np.pad(x, [(radius, radius) if a == axis else (0, 0) for a in range(4)], mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * radius + 1, axis)
        x = windows @ (weights / weights.sum())
    return torch.from_numpy(x)


def by_hand(model, x, fill):
    if fill == "blur":
        return gaussian(x, 16.0)
    return torch.zeros_like(x) if fill == "mean" else to_input(torch.zeros_like(x), model)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("steps", [1, 4, 7, 28, 88, 100])
def test_both_curves_are_a_loop_over_pixels(fill, steps):
    model, x, values = Toy(), toy_pictures(2), maps()
    empty = by_hand(model, x, fill)
    for curve, before, after in ((deletion_curve, x, empty), (insertion_curve, empty, x)):
        expected = [looped(model, before[i], after[i], values[i, 0].numpy(), c, steps) for i, c in enumerate((2, 0))]
        found = curve(model, x, values, torch.tensor([2, 0]), steps=steps, fill=fill)
        torch.testing.assert_close(found, torch.tensor(np.array(expected)))


def test_a_small_map_is_enlarged_bilinearly_and_keeps_its_sign():
    model, x, values = Toy(), toy_pictures(2), maps(2, 3, 4)
    large = enlarge(values, (8, 11))
    for curve in (deletion_curve, insertion_curve):
        torch.testing.assert_close(curve(model, x, values, 1, steps=5), curve(model, x, large, 1, steps=5))
        assert not torch.allclose(curve(model, x, values, 1, steps=5), curve(model, x, values.abs(), 1, steps=5))


def test_the_blur_is_a_gaussian_and_leaves_flat_pictures_flat():
    x = toy_pictures(2, 30, 41)
    for sigma in (2.0, 16.0):
        torch.testing.assert_close(blurred(x, sigma), gaussian(x, sigma))
    flat = torch.full((1, 3, 20, 20), 0.7)
    torch.testing.assert_close(blurred(flat, 16.0), flat)
    assert blurred(torch.ones(1, 1, 1, 4), 8.0).shape == (1, 1, 1, 4)


# Closed forms -------------------------------------------------------------------------------------------------


def linear(height=2, width=3):
    """Two classes: the score of class 1 is w · x, that of class 0 is 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * height * width, 2, bias=False)).double()
    model[1].weight.data = torch.randn(2, 3 * height * width, generator=torch.Generator().manual_seed(3),
                                       dtype=torch.float64)
    model[1].weight.data[0] = 0
    return model, model[1].weight[1].detach().view(3, height, width)


@pytest.mark.parametrize("fill", FILLS)
def test_on_a_linear_score_no_order_beats_what_each_exchange_costs(fill):
    (model, w), x = linear(), toy_pictures(1, 2, 3)
    cost = (w * (x - by_hand(model, x, fill))).sum(dim=1, keepdim=True)
    best = [curve(model, x, cost, 1, steps=6, fill=fill) for curve in (deletion_curve, insertion_curve)]
    shares = torch.cat([torch.zeros(1).double(), cost.flatten().sort(descending=True).values.cumsum(0)])
    torch.testing.assert_close(best[0][0], (model(x)[0, 1] - shares).sigmoid().detach())
    for order in itertools.islice(itertools.permutations(range(6)), 0, 720, 7):
        values = torch.tensor(order).double().view(1, 1, 2, 3)
        assert (deletion_curve(model, x, values, 1, steps=6, fill=fill) >= best[0] - 1e-12).all()
        assert (insertion_curve(model, x, values, 1, steps=6, fill=fill) <= best[1] + 1e-12).all()


@pytest.mark.parametrize("fill", FILLS)
def test_insertion_is_the_deletion_of_the_least_important_read_backwards(fill):
    model, x, values = Toy(), toy_pictures(2), maps()
    inserted = insertion_curve(model, x, values, 1, steps=8, fill=fill)
    torch.testing.assert_close(inserted, deletion_curve(model, x, -values, 1, steps=8, fill=fill).flip(1))


@CURVES
def test_the_ends_are_the_picture_and_the_filling(curve):
    model, x = Toy(), toy_pictures(2)
    for fill in FILLS:
        found = curve(model, x, maps(), 1, steps=3, fill=fill)
        ends = [model(y).softmax(dim=1)[:, 1].detach() for y in (x, by_hand(model, x, fill))]
        expected = ends if curve is deletion_curve else ends[::-1]
        torch.testing.assert_close(found[:, [0, -1]], torch.stack(expected, dim=1))
        torch.testing.assert_close(empty_picture(model, x, fill), by_hand(model, x, fill))


def test_equal_values_come_in_a_seeded_order_that_is_no_order_of_rows():
    x, flat = toy_pictures(2, 20, 20), torch.zeros(2, 1, 20, 20)
    one, again, other = (removal_ranks(x, flat, seed) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other) and torch.equal(one[0], one[1])
    assert one[0].flatten().sort().values.tolist() == list(range(400))
    upper = (one[0, 0, :10] < 200).sum().item()      # of the first half, how many lie in the upper half
    assert 70 < upper < 130
    half = torch.zeros(2, 1, 20, 20)
    half[:, :, 10:] = 1
    assert removal_ranks(x, half)[:, :, 10:].max() == 199      # larger values come first all the same
    model, x = Toy(), toy_pictures(1)
    curves = [deletion_curve(model, x, torch.zeros(1, 1, 8, 11), 1, steps=4, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(curves[0], curves[1]) and not torch.allclose(curves[0], curves[2])


# What all measures promise ------------------------------------------------------------------------------------


@CURVES
def test_a_row_of_a_batch_is_what_the_row_alone_gives(curve):
    model, x, values = Toy(), toy_pictures(3), maps(3)
    values[1] = values[1].round()      # with ties
    batch = curve(model, x, values, steps=10)
    assert batch.shape == (3, 11) and batch.dtype == x.dtype and not batch.requires_grad
    own = model(x).argmax(dim=1)
    torch.testing.assert_close(batch, curve(model, x, values, own, steps=10))
    for i in range(3):
        torch.testing.assert_close(batch[i:i + 1], curve(model, x[i:i + 1], values[i:i + 1], steps=10))


@CURVES
def test_the_default_is_28_steps_of_blur(curve):
    model, x, values = Toy(), toy_pictures(1), maps(1)
    torch.testing.assert_close(curve(model, x, values, 1), curve(model, x, values, 1, steps=28, fill="blur", seed=0))


@CURVES
def test_pictures_maps_and_network_are_left_as_they_are(curve):
    model = Toy().train()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    x, values = toy_pictures(2).requires_grad_(), maps().requires_grad_()
    kept, before = (x.detach().clone(), values.detach().clone()), state_of(model)
    found = curve(model, x, values, 1, steps=3)
    assert state_of(model) == before and x.grad is None and values.grad is None
    assert torch.equal(x.detach(), kept[0]) and torch.equal(values.detach(), kept[1])
    torch.testing.assert_close(found, curve(Toy(), *kept, 1, steps=3))
    with torch.inference_mode():
        torch.testing.assert_close(curve(model, x * 1, values * 1, 1, steps=3), found)
    for call in (1, 2):      # 2 × 12 pictures are four batches
        with raising(model.features[4], KeyboardInterrupt(), call):
            before = state_of(model)
            with pytest.raises(KeyboardInterrupt):
                curve(model, x, values, 1, steps=11)
            before["features.4"] = state_of(model)["features.4"]      # the state of the hook that raises
            assert state_of(model) == before


@CURVES
def test_another_default_device_changes_nothing(curve):
    model, x, values = Toy(), toy_pictures(2), maps()
    expected = curve(model, x, values, steps=3)
    with torch.device("meta"):
        torch.testing.assert_close(curve(model, x, values, steps=3), expected)


@CURVES
def test_batches_stay_small(curve):
    model, seen = Toy(), []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    curve(model, toy_pictures(2), maps(), 1, steps=28)
    assert max(seen) <= 8 and sum(seen) == 2 * 29


@pytest.mark.parametrize("curve, name", [
    (curve, name) for curve in (deletion_curve, insertion_curve) for name in ("squeezenet1_1", "efficientnet_lite0")])
def test_in_single_precision_on_both_networks_it_is_the_loop(curve, name):
    model = load_model(name, device="cpu")
    x = preprocess(sample_image("crab"), model)
    values = enlarge(maps(1, 28, 28).float(), (224, 224))
    empty = gaussian(x, 16.0).float()
    before, after = (x, empty) if curve is deletion_curve else (empty, x)
    order = values.flatten().argsort(descending=True, stable=True)
    expected = []
    for k in range(4):
        changed = before.clone().flatten(2)
        first = order[:round(k * 224 * 224 / 3)]
        changed[..., first] = after.flatten(2)[..., first]
        with torch.no_grad():
            expected.append(model(changed.view_as(x)).softmax(dim=1)[0, 121])
    torch.testing.assert_close(curve(model, x, values, 121, steps=3)[0], torch.stack(expected), rtol=0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_measured(name):
    model, x = network(name), picture(FAMILIES[name])
    before = state_of(model)
    for curve in (deletion_curve, insertion_curve):
        found = curve(model, x, maps(1, 4, 4).float(), 1, steps=2)
        assert found.shape == (1, 3) and (0 <= found).all() and (found <= 1).all()
    assert state_of(model) == before


@CURVES
@pytest.mark.parametrize("change, error, words", [
    ({"values": maps(1)}, ValueError, "one map for each picture"),
    ({"values": torch.zeros(2, 3, 8, 11)}, ValueError, "one map for each picture"),
    ({"values": torch.zeros(2, 8, 11)}, ValueError, "one map for each picture"),
    ({"values": torch.zeros(2, 1, 0, 4)}, ValueError, "one map for each picture"),
    ({"values": np.zeros((2, 1, 8, 11))}, ValueError, "values is a ndarray"),
    ({"values": torch.full((2, 1, 8, 11), torch.nan)}, ValueError, "not finite"),
    ({"steps": 0}, ValueError, "steps=0"),
    ({"fill": "white"}, ValueError, "fill='white'.*'blur', 'mean', 'black'"),
    ({"target": 3}, IndexError, "0 to 2"),
    ({"target": torch.tensor([1, 2, 0])}, ValueError, "one class each"),
    ({"target": "panda"}, ValueError, "find_class"),
    ({"x": torch.zeros(2, 1, 8, 11).double()}, ValueError, "accepted is a float tensor"),
    ({"x": toy_pictures(2).float()}, ValueError, "float32"),
])
def test_what_is_wrong_is_refused_in_words(curve, change, error, words):
    given = {"x": toy_pictures(2), "values": maps(), "target": 1} | change
    with pytest.raises(error, match=words):
        curve(Toy(), given.pop("x"), given.pop("values"), given.pop("target"), **given)


def test_a_network_without_a_choice_has_no_probability():
    model = copy.deepcopy(Toy())
    model.head = nn.Linear(5, 1).double()
    with pytest.raises(ValueError, match="no choice"):
        deletion_curve(model, toy_pictures(2), maps(), 0)
