"""Occlusion and RISE: closed forms on linear toys, plain loops, Captum, and what they refuse."""

import itertools

import pytest
import torch
from captum import attr as captum
from torch import nn
from toys import Toy, network, toy_pictures

from course_utils import preprocess, sample_image
from course_utils.techniques import occlusion, patch_grid, random_masks, rise


def linear(height=8, width=8):
    """S_c(x) = w_c · x: what a patch is worth is the sum of w · x inside."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * height * width, 2, bias=False)).double()
    model[1].weight.data = torch.randn(2, 3 * height * width, generator=torch.Generator().manual_seed(3),
                                       dtype=torch.float64)
    return model, model[1].weight.view(2, 3, height, width).detach()


# --- occlusion


def test_the_drop_of_a_linear_score_is_the_patchs_share_and_all_of_them_are_the_score():
    (model, w), x = linear(), toy_pictures(2, 8, 8)
    shares = (w[[1]] * x).sum(dim=1, keepdim=True)
    found = occlusion(model, x, 1, patch=2, stride=2)
    torch.testing.assert_close(found, nn.functional.avg_pool2d(shares, 2) * 4)
    torch.testing.assert_close(found.sum(dim=(1, 2, 3)), model(x)[:, 1].detach())


@pytest.mark.parametrize("fill", [None, 2.0, torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1), "another picture"])
def test_occlusion_is_a_loop_over_patches_that_may_hang_over_the_edge(fill):
    model, x = Toy(), toy_pictures(2, 8, 11)
    fill = toy_pictures(2, 8, 11, seed=5) if fill == "another picture" else fill
    filled = torch.zeros_like(x) if fill is None else torch.as_tensor(fill, dtype=x.dtype).expand_as(x)
    with torch.no_grad():
        drops = []
        for top, left in itertools.product((0, 3, 6), (0, 3, 6, 9)):
            hidden = x.clone()
            hidden[..., top:top + 4, left:left + 4] = filled[..., top:top + 4, left:left + 4]
            drops.append(model(x)[:, 2] - model(hidden)[:, 2])
    expected = torch.stack(drops, dim=1).view(2, 1, 3, 4)
    for batch_size in (1, 5, 100):
        found = occlusion(model, x, 2, patch=4, stride=3, fill=fill, batch_size=batch_size)
        torch.testing.assert_close(found, expected)


def test_every_pixel_is_under_a_patch_and_one_larger_than_the_picture_hides_all():
    boxes, grid = patch_grid((8, 11), 4, 3)
    assert grid == (3, 4) and len(boxes) == 12 and boxes[-1] == (6, 9, 4, 4)
    assert patch_grid((224, 224), 32, 16)[1] == (13, 13)
    model, x = Toy(), toy_pictures(1, 8, 11)
    whole = (model(x) - model(torch.zeros_like(x)))[:, 1].detach()
    torch.testing.assert_close(occlusion(model, x, 1, patch=50).flatten(), whole)


@pytest.mark.parametrize("name", ["squeezenet1_1", "efficientnet_lite0"])
def test_occlusion_is_captums(name):
    model = network(name, "pretrained")
    x = preprocess(sample_image("crab"), model)
    target = int(model(x).argmax())
    ours = occlusion(model, x, target, patch=64, stride=64)      # 224 is no multiple: the last patches are cut off
    theirs = captum.Occlusion(model).attribute(x, target=target, sliding_window_shapes=(3, 64, 64),
                                               strides=(3, 64, 64), perturbations_per_eval=8)
    scale = theirs.abs().max().item()
    torch.testing.assert_close(ours, theirs[:, :1, ::64, ::64], rtol=0, atol=1e-3 * scale)


# --- RISE


def test_masks_depend_on_the_seed_and_not_on_the_batches():
    one, many, other = (torch.cat([*random_masks((9, 14), 20, 3, 0.5, seed, size)])
                        for seed, size in ((0, 1), (0, 8), (1, 8)))
    assert one.shape == (20, 1, 9, 14) and torch.equal(one, many) and not torch.equal(one, other)
    assert 0 <= one.min() and one.max() <= 1


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_every_pixel_is_seen_equally_often(keep):
    seen = torch.cat([*random_masks((28, 28), 4000, 4, keep, 0, 500)]).mean(dim=0)
    assert (seen - keep).abs().max() < 0.05


def test_rise_is_the_mean_score_weighted_by_what_the_masks_leave():
    model, x = Toy(), toy_pictures(2, 8, 11)
    masks = torch.cat([*random_masks((8, 11), 13, 3, 0.4, 7)]).double()
    with torch.no_grad():
        expected = torch.stack([(model(row * masks)[:, 1, None, None, None] * masks).sum(0) / masks.sum(0)
                                for row in x])
    for batch_size in (1, 4, 50):
        found = rise(model, x, 1, masks=13, cells=3, keep=0.4, seed=7, batch_size=batch_size)
        torch.testing.assert_close(found, expected)


def test_a_network_that_always_says_the_same_gives_a_flat_map():
    model = Toy()
    model.head.weight.data.zero_()
    found = rise(model, toy_pictures(), 1, masks=40, cells=3)
    torch.testing.assert_close(found, model.head.bias[1].detach().expand_as(found))


def test_a_pixel_that_no_mask_shows_is_zero_and_not_nan():
    found = rise(Toy(), toy_pictures(), 1, masks=1, cells=2, keep=1e-9)
    assert not found.any() and not found.isnan().any()


def test_on_a_linear_score_many_masks_find_the_pixels_that_count():
    (model, w), x = linear(), toy_pictures(1, 8, 8)
    shares = (w[1] * x).sum(dim=1)
    found = rise(model, x, 1, masks=20000, cells=8, batch_size=1000)
    assert torch.corrcoef(torch.stack([found.flatten(), shares.flatten()]))[0, 1] > 0.6


# --- both


@pytest.mark.parametrize("technique, options", [
    (occlusion, {"patch": 0}), (occlusion, {"stride": 0}), (occlusion, {"batch_size": 0}),
    (occlusion, {"fill": torch.zeros(5)}), (rise, {"masks": 0}), (rise, {"cells": 0}), (rise, {"keep": 0}),
    (rise, {"keep": 1.5}), (rise, {"batch_size": 0}),
])
def test_options_without_sense_are_refused_in_words(technique, options):
    (name, _), = options.items()
    with pytest.raises(ValueError, match=name):
        technique(Toy(), toy_pictures(), **options)
