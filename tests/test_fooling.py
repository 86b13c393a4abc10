"""Adversarial and fooling images: where they stop, what the price buys, and what evolution keeps."""

import math

import pytest
import torch
from toys import Toy, network, state_of, toy_pictures

from course_utils import class_score, last_step, preprocess, probabilities, sample_image, to_image, to_input
from course_utils.techniques import (
    adversarial_ascent,
    ascend_until_certain,
    cppn_picture,
    evolve_fooling_image,
    fooling_image,
    pixel_picture,
    static,
)

BOTH = pytest.mark.parametrize("name", ["squeezenet1_1", "efficientnet_lite0"])

pytestmark = pytest.mark.slow


def answers(model, image):
    with torch.no_grad():
        return probabilities(model(to_input(image, model)))


@BOTH
def test_static_is_taken_for_each_target(name):
    model, targets = network(name, "pretrained"), torch.tensor([130, 963])
    *before, last = fooling_image(model, targets, size=128)
    assert (answers(model, last.image)[range(2), targets] >= 0.99).all()
    assert all((answers(model, step.image)[range(2), targets] < 0.99).any() for step in before[-3:])
    assert (answers(model, static((2, 3, 128, 128)))[range(2), targets] < 0.1).all()


@BOTH
def test_a_photograph_is_taken_for_the_target_and_hardly_changed(name):
    model = network(name, "pretrained")
    x = torch.cat([preprocess(sample_image(each), model) for each in ("red_panda", "coffee")])
    last = last_step(adversarial_ascent(model, x, torch.tensor([130, 963])))
    assert (answers(model, last.image)[range(2), [130, 963]] >= 0.99).all()
    assert (255 * (last.image - to_image(x, model))).square().mean().sqrt() < 3


def test_the_first_step_is_the_start_and_later_ones_move_by_the_rate(squeezenet):
    x = preprocess(sample_image("crab"), squeezenet)
    steps = adversarial_ascent(squeezenet, x, 963, rate=1 / 255)
    first, second = next(steps), next(steps)
    start = 255 * (first.image - to_image(x, squeezenet)).abs()
    assert 0 < start.max() < 0.1      # levels: a hundredth of a step of noise, which the seed decides
    other = next(adversarial_ascent(squeezenet, x, 963, rate=1 / 255, seed=1))
    assert not torch.equal(other.image, first.image)
    moved = 255 * (second.image - first.image).square().mean().sqrt()
    assert 0.8 < moved <= 1.001      # less by what would have left the range


def test_the_objective_is_the_log_odds_less_the_price():
    model, x = network("resnet18"), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for step in adversarial_ascent(model, x, 5, proximity=2, steps=3):
        p = answers(model, step.image)[:, 5]
        change = 255 * (step.image - to_image(x, model))
        expected = (p / (1 - p)).log() - 2 * change.square().mean(dim=(1, 2, 3))
        torch.testing.assert_close(step.objective, expected, atol=1e-3, rtol=1e-3)


def test_a_price_makes_the_change_smaller(squeezenet):
    x = preprocess(sample_image("crab"), squeezenet)
    start = to_image(x, squeezenet)
    free, dear = (last_step(adversarial_ascent(squeezenet, x, 130, proximity=price, confidence=1, steps=15))
                  for price in (0, 100))
    assert (dear.image - start).norm() < 0.7 * (free.image - start).norm()


def test_on_a_linear_network_the_straight_way_is_taken():
    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(2, 48, generator=torch.Generator().manual_seed(0)))

        def forward(self, x):
            return x.flatten(1) @ self.weight.T

    model = Linear()
    image = torch.full((1, 3, 4, 4), 0.5)
    *_, last = ascend_until_certain(model, image, torch.tensor([1]), confidence=0.7, steps=200, rate=1e-3)
    std = torch.tensor([0.229, 0.224, 0.225]).repeat_interleave(16)
    way = (model.weight[1] - model.weight[0]).detach() / std
    moved = (last.image - image).flatten()
    assert torch.cosine_similarity(moved, way, dim=0) > 0.999
    gained = math.log(0.7 / 0.3) - last_odds(model, image)
    # As far as it is to the confidence, to within the last step.
    assert 0 <= moved.norm() - gained / way.norm() < 1e-3 * 48 ** 0.5 * 1.01


def last_odds(model, image):
    scores = model(to_input(image, model))[0].detach()
    return (scores[1] - scores[0]).item()


def test_an_impossible_confidence_ends_after_the_steps_and_is_refused_beyond_one(squeezenet):
    assert last_step(fooling_image(squeezenet, 130, confidence=1, size=64, steps=3, rate=1e-4)).number == 3
    for steps in (fooling_image(squeezenet, 130, confidence=99),
                  adversarial_ascent(squeezenet, noise(), 130, confidence=-1)):
        with pytest.raises(ValueError, match="confidence=.*0 to 1"):
            next(steps)


def noise():
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("target", [1000, [3, -1]])
def test_a_class_that_is_not_there_is_refused(squeezenet, target):
    with pytest.raises(IndexError, match="0 to 999"):
        next(fooling_image(squeezenet, target, size=64))
    with pytest.raises(IndexError, match="0 to 999"):
        next(adversarial_ascent(squeezenet, noise().expand(2, -1, -1, -1), target))


def test_a_target_by_name_is_refused(squeezenet):
    with pytest.raises(ValueError, match="find_class"):
        next(fooling_image(squeezenet, "flamingo"))


def test_static_is_the_same_in_every_row_and_follows_the_seed():
    rows = static((3, 3, 16, 20), seed=4)
    assert torch.equal(rows[0], rows[2]) and 0 <= rows.min() and rows.max() <= 1
    assert not torch.equal(rows, static((3, 3, 16, 20), seed=5))


@BOTH
def test_evolution_keeps_the_best_and_never_gets_worse(name):
    model = network(name, "pretrained")
    before = state_of(model)
    steps = list(evolve_fooling_image(model, evaluations=36, keep=3))
    assert [step.number for step in steps] == [1, 2, 3, 4, 5]      # eight at a time, and four in the end
    for step in steps:
        assert step.image.shape == (3, 3, 224, 224) and 0 <= step.image.min() and step.image.max() <= 1
        assert step.objective.shape == (3,) and (step.objective.diff() <= 0).all()
    for earlier, later in zip(steps, steps[1:], strict=False):
        assert (later.objective >= earlier.objective).all()
    assert state_of(model) == before


@pytest.mark.parametrize("encoding", ["cppn", "pixels"])
def test_the_objective_is_a_probability_of_the_picture(squeezenet, encoding):
    step = last_step(evolve_fooling_image(squeezenet, encoding=encoding, evaluations=16, keep=4))
    gaps = (answers(squeezenet, step.image) - step.objective[:, None]).abs().amin(dim=1)
    assert (gaps < 1e-3).all()


def test_the_seed_decides_what_evolves(squeezenet):
    first, same, other = (next(evolve_fooling_image(squeezenet, seed=seed)) for seed in (0, 0, 1))
    torch.testing.assert_close(first.image, same.image)
    assert (first.image - other.image).abs().mean() > 1e-2


def test_every_question_is_one_picture(squeezenet):
    asked = []
    handle = squeezenet.register_forward_hook(lambda module, inputs, output: asked.append(len(output)))
    try:
        list(evolve_fooling_image(squeezenet, evaluations=20, keep=1))
    finally:
        handle.remove()
    assert asked == [8, 8, 4]


@pytest.mark.parametrize("options", [{"encoding": "waves"}, {"evaluations": 0}, {"keep": 0}])
def test_evolution_refuses_what_it_does_not_know(squeezenet, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        next(evolve_fooling_image(squeezenet, **options))


def test_drawings_by_hand():
    # Without weights every sum is 0, and the colours are the middle of their range.
    assert torch.equal(cppn_picture(torch.zeros(2, 228), size=5), torch.full((2, 3, 5, 5), 0.5))
    # A bell of x alone, painted red: even from top to bottom, largest in the middle column.
    genome = torch.zeros(1, 228)
    genome[0, 6 * 4] = 2.0                     # first layer, unit 6, a bell: 2 x
    genome[0, 48 + 12 * 3 + 6] = 1.0           # second layer, unit 3, an edge: that bell
    genome[0, 48 + 144 + 3] = 3.0              # red: that edge
    red, green, blue = cppn_picture(genome, size=5)[0]
    x = torch.linspace(-1, 1, 5)
    torch.testing.assert_close(red, torch.sigmoid(torch.tanh(torch.exp(-4 * x ** 2))).expand(5, 5))
    assert torch.equal(green, blue)


def test_pixels_are_their_genome():
    genomes = torch.randn(2, 3 * 4 * 4)
    torch.testing.assert_close(pixel_picture(genomes, size=4), genomes.sigmoid().reshape(2, 3, 4, 4))


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_fooling_under_no_grad_and_inference_mode(squeezenet, around):
    with around():
        x = noise().clone()
        for steps in (fooling_image(squeezenet, [130, 3], size=64, steps=3),
                      adversarial_ascent(squeezenet, x, 7, steps=3),
                      evolve_fooling_image(squeezenet, evaluations=16, keep=2)):
            first, *_, last = steps
            assert (last.objective >= first.objective).all() and last.image.isfinite().all()


def test_everything_is_made_on_the_device_of_the_network(squeezenet):
    x, target = noise(), torch.tensor([130])
    torch.set_default_device("meta")      # whatever is made without a word about the device lands here
    try:
        for steps in (fooling_image(squeezenet, target, size=64, steps=2),
                      adversarial_ascent(squeezenet, x, target, steps=2),
                      evolve_fooling_image(squeezenet, evaluations=16, keep=2)):
            for step in steps:
                assert step.image.device.type == step.objective.device.type == "cpu"
    finally:
        torch.set_default_device(None)


def test_a_small_network_in_double_precision():
    toy_network, x = Toy(), toy_pictures(rows=2)
    first, *_, last = adversarial_ascent(toy_network, x, 1, steps=10, rate=0.01, proximity=0)
    assert (last.objective > first.objective).all()
    assert (class_score(toy_network, to_input(last.image, toy_network), 1).isfinite()).all()
