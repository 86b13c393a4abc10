"""Deep dream: what it promises about its pictures, and that it leaves the network alone."""

import pytest
import torch
from toys import Toy, network, toy_pictures

from course_utils import load_model, preprocess, sample_image, to_image, to_input
from course_utils.techniques import deep_dream, layer_strength

SHORT = {"octaves": 2, "steps": 3}


@pytest.fixture(scope="module")
def model():
    return load_model(device="cpu")


@pytest.fixture(scope="module")
def x(model):
    return preprocess(sample_image("horses"), model, size=160)


@pytest.mark.parametrize(("layer", "channel"), [("features.7", None), ("features.11", None), ("features.9", 86)])
def test_objective_rises_in_every_octave(model, x, layer, channel):
    # Without jitter the steps of an octave see the same view, so that their objectives can be compared.
    values = [step.objective.item() for step in deep_dream(model, x, layer, channel, octaves=3, steps=10, shift=0)]
    assert len(values) == 30
    for start in (0, 10, 20):
        assert values[start + 9] > 2 * values[start]


def test_pictures_keep_size_and_range(model, x):
    before = x.clone()
    steps = list(deep_dream(model, x, "features.7", rate=0.3, **SHORT))
    assert [step.number for step in steps] == list(range(1, 7))
    assert x.shape[-2] != x.shape[-1]
    for step in steps:
        assert step.image.shape == x.shape
        assert not step.image.requires_grad and not step.objective.requires_grad
        assert step.objective.shape == (1,)
        assert 0 <= step.image.min() and step.image.max() <= 1
    assert torch.equal(x, before)


def test_the_first_step_is_the_photograph(model, x):
    first = next(deep_dream(model, x, "features.7"))
    torch.testing.assert_close(first.image, to_image(x, model), atol=1e-6, rtol=0)


def test_the_objective_is_the_strength_of_the_picture(model, x):
    # With one octave and no jitter the network sees the very picture that a step holds.
    for step in deep_dream(model, x, "features.7", octaves=1, steps=3, shift=0):
        with torch.no_grad():
            strength = layer_strength(model, to_input(step.image, model), "features.7")
        torch.testing.assert_close(step.objective, strength, rtol=1e-3, atol=0)


def test_strength_by_hand():
    layer = torch.nn.Conv2d(3, 2, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, 0, 0], [0, 2, 0]])[:, :, None, None]
    picture = torch.zeros(1, 3, 1, 2)
    picture[0, :, 0, 0] = torch.tensor([3.0, 1, 5])
    toy = torch.nn.Sequential(layer)
    # One position answers (3, 2), the other (0, 0): half of 9 + 4, over two positions.
    assert layer_strength(toy, picture, "0").item() == pytest.approx(13 / 4)
    assert layer_strength(toy, picture, "0", 1).item() == pytest.approx(1)


def test_rate_is_the_change_of_a_step():
    toy = Toy()
    pictures = to_input(0.5 + 0.01 * toy_pictures(rows=2, height=24, width=31), toy)
    start, after = deep_dream(toy, pictures, "features.3", octaves=1, steps=2, rate=0.03)
    change = (after.image - start.image).square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(change, torch.full_like(change, 0.03))


def test_rows_do_not_mix():
    toy = Toy()
    pictures = to_input(0.5 + 0.1 * toy_pictures(rows=2, height=24, width=31), toy)
    both, second = (list(deep_dream(toy, rows, "features.3", octaves=1, steps=2)) for rows in (pictures, pictures[1:]))
    torch.testing.assert_close(both[0].objective[1:], second[0].objective, rtol=1e-12, atol=0)
    torch.testing.assert_close(both[1].image[1:], second[1].image, rtol=0, atol=1e-12)      # holds the first gradient


def test_what_is_silent_dreams_of_nothing():
    toy = Toy()
    toy.features[3].bias.data[2] = -1e6
    pictures = to_input(0.5 + 0.1 * toy_pictures(height=24, width=31), toy)
    last = list(deep_dream(toy, pictures, "features.4", 2, **SHORT))[-1]
    assert last.objective.item() == 0
    torch.testing.assert_close(last.image, to_image(pictures, toy), atol=1e-6, rtol=0)


@pytest.mark.parametrize("channel", [-1, 384, 5000])
def test_a_channel_that_is_not_there(model, x, channel):
    with pytest.raises(IndexError, match=f"channel {channel}.*0 to 383"):
        next(deep_dream(model, x, "features.9", channel))


def test_wrong_layer_and_wrong_input(model, x):
    with pytest.raises(ValueError, match="features.13"):
        next(deep_dream(model, x, "features.13"))
    with pytest.raises(ValueError, match="no layer 'nonsense'"):
        next(deep_dream(model, x, "nonsense"))
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        next(deep_dream(model, x[0], "features.9"))
    with pytest.raises(ValueError, match=r"\(N, C, h, w\)"):
        next(deep_dream(network("alexnet"), torch.zeros(1, 3, 224, 224), "classifier.1"))
