"""Filter visualization: the building blocks invert, the objective rises, the model is left alone."""

import pytest
import torch
from toys import network, state_of

from course_utils.techniques import (
    before_relu,
    decorrelated_to_rgb,
    fourier_parameterization,
    fourier_picture,
    fourier_to_image,
    image_to_fourier,
    jitter,
    normalized,
    picture_to_fourier,
    pixel_parameterization,
    rgb_to_decorrelated,
    rotate_and_scale,
    visualize_filter,
)


@pytest.fixture
def image():
    return 0.05 + 0.9 * torch.rand(2, 3, 12, 15, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("width", [14, 15])
def test_fourier_parameterization_inverts(image, width):
    image = image[..., :width]
    torch.testing.assert_close(fourier_to_image(image_to_fourier(image), image.shape[-2:]), image)
    torch.testing.assert_close(decorrelated_to_rgb(rgb_to_decorrelated(image)), image, rtol=1e-4, atol=1e-5)
    again = fourier_picture(picture_to_fourier(image), image.shape[-2:])
    torch.testing.assert_close(again, image, rtol=1e-4, atol=1e-4)


def test_jitter_inverts_and_moves(image):
    moved = jitter(image, (3, -2))
    torch.testing.assert_close(moved[..., 3, 0], image[..., 0, 2])
    assert torch.equal(jitter(moved, (-3, 2)), image)


def test_a_quarter_turn_is_a_quarter_turn_and_no_turn_is_none():
    square = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotate_and_scale(square, 0, 1), square, rtol=0, atol=1e-5)
    torch.testing.assert_close(rotate_and_scale(square, 90, 1), square.rot90(1, dims=(2, 3)), rtol=0, atol=1e-4)


def test_normalized_rows_have_root_mean_square_one_and_zero_stays_zero(image):
    gradient = torch.cat([image, torch.zeros_like(image[:1])])
    rms = normalized(gradient).square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(rms, torch.tensor([1.0, 1.0, 0.0]))


def test_layers_before_a_relu(squeezenet):
    assert before_relu(squeezenet, "features.12") == ["features.12.expand1x1", "features.12.expand3x3"]
    assert before_relu(squeezenet, squeezenet.features[1]) == ["features.0"]
    assert before_relu(squeezenet, "features") == before_relu(squeezenet, "features.12")
    assert before_relu(network("vgg16"), "features.28") == ["features.28"]
    lite0 = network("efficientnet_lite0", "pretrained")
    assert before_relu(lite0, "features.17") == before_relu(lite0, "features.17.1") == ["features.17.0"]
    assert before_relu(lite0, "features.16") == ["features.16"]      # a bottleneck ends without a ReLU


def test_filters_of_lite0_that_start_silent_come_alive():
    model, silent = network("efficientnet_lite0", "pretrained"), [0, 160, 320]
    first, *_, last = visualize_filter(model, "features.17", silent, steps=12, size=96)
    assert (first.objective < 0).all() and (last.objective > 1).all()


@pytest.mark.parametrize("parameterization", [fourier_parameterization, pixel_parameterization])
def test_the_objective_rises_for_every_filter_of_a_batch(squeezenet, parameterization):
    before = state_of(squeezenet)
    steps = list(visualize_filter(squeezenet, "features.6", [3, 40, 100], steps=12, size=64,
                                  parameterization=parameterization, shift=0, angle=0, zoom=0))
    assert [step.number for step in steps] == list(range(1, 13))
    assert (steps[-1].objective > steps[0].objective).all()
    for step in steps:
        assert step.image.shape == (3, 3, 64, 64) and step.objective.shape == (3,)
        assert not step.image.requires_grad and 0 <= step.image.min() and step.image.max() <= 1
    assert state_of(squeezenet) == before


def test_a_filter_sets_out_alone_as_in_a_batch(squeezenet):
    """With the same response and the same first step; later ones multiply what a batch rounds differently."""
    both, alone = (list(visualize_filter(squeezenet, "features.4", channel, steps=2, size=64))
                   for channel in ([7, 20], 20))
    torch.testing.assert_close(both[0].objective[1:], alone[0].objective, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(both[1].image[1:], alone[1].image, rtol=0, atol=1e-3)


def test_what_is_wrong_is_told(squeezenet):
    with pytest.raises(IndexError, match="channel 128"):
        next(visualize_filter(squeezenet, "features.4", 128, size=64))
    with pytest.raises(ValueError, match="features.4"):
        next(visualize_filter(squeezenet, "feature.4", 0, size=64))
