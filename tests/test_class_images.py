"""Class-specific images: the objective, the rules by hand, and that the network recognizes what comes out."""

import json

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import gaussian_blur
from toys import Toy, network, toy_pictures

from course_utils import evaluation_mode, last_step, load_image, preprocess, save_image, to_input
from course_utils.techniques import (
    blur,
    blur_every,
    class_evidence,
    clip_small_contribution,
    clip_small_norm,
    generate_class_image,
    one_after_another,
    pixel_parameterization,
)

CLASSES = [56, 235, 130, 72, 963]      # king snake, German shepherd, flamingo, spider, pizza


def pictures(rows=1, side=64):
    return torch.randn(rows, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("target", [5, [5, 6, 7]])
def test_evidence_looks_before_the_last_relu(squeezenet, target):
    x = pictures(3)
    with evaluation_mode(squeezenet):
        maps = squeezenet.classifier[1](squeezenet.features(x))
        evidence = class_evidence(squeezenet, x, target)
    torch.testing.assert_close(evidence, maps.mean(dim=(2, 3))[range(3), target], atol=1e-4, rtol=1e-4)


def test_a_dead_class_has_evidence_with_a_gradient(squeezenet):
    x = torch.zeros(1, 3, 64, 64, requires_grad=True)
    with evaluation_mode(squeezenet):
        dead = (squeezenet(x)[0] == 0).nonzero()[0].item()
        (gradient,) = torch.autograd.grad(class_evidence(squeezenet, x, dead).sum(), x)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_evidence_is_the_score_where_no_relu_follows(name):
    other, x = network(name), pictures(side=96)
    with evaluation_mode(other):
        torch.testing.assert_close(class_evidence(other, x, 7), other(x)[:, 7])


def test_rivals_count_against_the_class():
    toy, x = Toy(), toy_pictures(rows=2)
    scores = toy(x)
    expected = scores[:, 1] - 0.5 * scores[:, [0, 2]].logsumexp(dim=1)
    torch.testing.assert_close(class_evidence(toy, x, 1, rival=0.5), expected)
    p = scores.softmax(dim=1)[:, 1]
    torch.testing.assert_close(class_evidence(toy, x, 1, rival=1), (p / (1 - p)).log())


@pytest.mark.parametrize("sigma", [0.7, 1.5])
def test_blur_is_a_gaussian(sigma):
    dot = torch.zeros(1, 2, 25, 25)
    dot[:, :, 12, 12] = 1
    down, right = torch.meshgrid(torch.arange(-12.0, 13), torch.arange(-12.0, 13), indexing="ij")
    bell = torch.exp(-(down ** 2 + right ** 2) / (2 * sigma ** 2))
    torch.testing.assert_close(blur(dot, sigma)[0, 1], bell / bell.sum(), atol=1e-4, rtol=0)
    wide = gaussian_blur(dot, 25, sigma)      # a kernel that cuts nothing off
    torch.testing.assert_close(blur(dot, sigma), wide, atol=1e-4, rtol=0)


def test_blur_every_few_steps():
    image, rule = pictures(), blur_every(4, 1)
    assert torch.equal(rule(image, None, 3), image)
    torch.testing.assert_close(rule(image, None, 8), blur(image, 1))


def test_clips_keep_the_largest():
    values = torch.tensor([1.0, -4, 2, -3]).reshape(1, 1, 2, 2) * torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1)
    gradient = torch.tensor([9.0, 0.1, 0.1, 1]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert clip_small_norm(0.5)(values, gradient, 1)[0, 0].tolist() == [[0, -4], [0, -3]]
    assert clip_small_contribution(0.5)(values, gradient, 1)[0, 0].tolist() == [[1, 0], [0, -3]]
    both = one_after_another(clip_small_norm(0.5), lambda parameters, gradient, number: parameters * number)
    assert both(values, gradient, 2)[0, 0].tolist() == [[0, -8], [0, -6]]


def test_penalty_and_decay_make_the_picture_weaker(squeezenet):
    def energy(**options):
        last = list(generate_class_image(squeezenet, 130, steps=12, size=80, shift=0, angle=0, zoom=0, rate=0.05,
                                         parameterization=pixel_parameterization, **options))[-1]
        return to_input(last.image, squeezenet).square().mean()

    plain = energy(decay=0)
    assert energy(decay=0.2) < 0.9 * plain
    assert energy(decay=0, penalty=lambda x: 0.1 * x.square().sum(dim=(1, 2, 3))) < 0.5 * plain


def test_a_class_comes_out_alone_as_in_a_batch():
    both, alone = (list(generate_class_image(Toy(), target, steps=2, size=24)) for target in ([1, 2], 2))
    torch.testing.assert_close(both[0].objective[1:], alone[0].objective, rtol=1e-6, atol=0)
    torch.testing.assert_close(both[1].image[1:], alone[1].image, rtol=0, atol=1e-6)      # holds the first gradient


@pytest.mark.parametrize("target", [-1, 1000, [3, 1000]])
def test_a_class_that_is_not_there(squeezenet, target):
    with pytest.raises(IndexError, match="0 to 999"):
        next(generate_class_image(squeezenet, target, size=64))


@pytest.mark.parametrize("target", [1.5, "flamingo"])
def test_what_is_no_class(squeezenet, target):
    with pytest.raises(ValueError, match="accepted are indices"):
        next(generate_class_image(squeezenet, target, size=64))


@pytest.mark.slow
def test_class_images_are_recognized_from_their_files(squeezenet, tmp_path):
    """By the network that they were made for, after 8-bit rounding and PNG; the recipe comes along.

    Where a single walk ends depends on how a processor rounds: the mean of five classes is what can be promised.
    """
    step = last_step(generate_class_image(squeezenet, CLASSES, seed=1))
    files = [save_image(image, tmp_path / f"{c}.png", {"class": c, "seed": 1})
             for image, c in zip(step.image, CLASSES, strict=True)]
    assert [json.loads(Image.open(path).text["recipe"]) for path in files] == [{"class": c, "seed": 1} for c in CLASSES]
    x = preprocess([load_image(path) for path in files], squeezenet, size=224)
    with evaluation_mode(squeezenet), torch.no_grad():
        p = squeezenet(x).softmax(dim=1)[range(len(CLASSES)), CLASSES]
    assert p.mean() > 0.8, p
