"""Views: what they do to a picture, exactly where that can be said, and what they leave alone."""

import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from toys import Toy

from course_utils import preprocess, sample_image, save_image, to_image, to_input
from course_utils.views import (
    VIEWS,
    cropped,
    draw_shifts,
    halved,
    jpeg,
    mirrored,
    png,
    probability_when_moved,
    shifted,
)


@pytest.fixture
def pictures():
    """Two pictures of noise, higher than wide."""
    return torch.rand(2, 3, 24, 18, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_view_is_a_picture_of_the_same_kind_and_leaves_the_original(name, dtype):
    pictures = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = pictures.clone()
    view = VIEWS[name](pictures)
    assert view.shape == pictures.shape and view.dtype == dtype and view.device == pictures.device
    assert 0 <= view.min() and view.max() <= 1
    assert torch.equal(pictures, before) and not torch.equal(view, before)


@pytest.mark.parametrize("name", VIEWS)
def test_a_row_does_not_depend_on_its_neighbours(name):
    pictures = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(VIEWS[name](pictures)[1:], VIEWS[name](pictures[1:]), atol=1e-6, rtol=0)


def test_a_shift_moves_every_pixel_down_and_right_and_back_again(pictures):
    moved = shifted(pictures, 5)
    assert torch.equal(moved[:, :, 5:, 5:], pictures[:, :, :-5, :-5])
    assert torch.equal(moved[:, :, :5, :5], pictures[:, :, -5:, -5:])
    assert torch.equal(shifted(moved, -5), pictures)
    assert torch.equal(shifted(pictures, 0), pictures)


def test_a_mirror_image_exchanges_left_and_right(pictures):
    assert torch.equal(mirrored(pictures)[..., 0], pictures[..., -1])
    assert torch.equal(mirrored(mirrored(pictures)), pictures)


def test_png_is_rounding_to_8_bits_as_a_saved_file_holds_it(pictures, tmp_path):
    assert torch.equal(png(pictures), (pictures.double() * 255).round().float() / 255)
    assert torch.equal(png(png(pictures)), png(pictures))
    read = np.asarray(Image.open(save_image(pictures[1], tmp_path / "one.png")))
    assert np.array_equal(png(pictures)[1].permute(1, 2, 0).mul(255).round().numpy(), read)
    levels = torch.arange(256.0).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    for part in (-0.49, 0.49):       # less than half a level is lost in the file
        assert torch.equal(png(((levels + part) / 255).clamp(0, 1)), levels / 255)


@pytest.mark.parametrize("quality", [95, 75, 50])
def test_jpeg_is_pillows(quality):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 18, 3), dtype=np.uint8))
    file = io.BytesIO()
    image.save(file, "jpeg", quality=quality)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 255
    assert torch.equal(jpeg(x, quality), expected)


def test_jpeg_of_a_lower_quality_is_farther_from_a_photograph(squeezenet):
    image = to_image(preprocess(sample_image("red_panda"), squeezenet), squeezenet)
    errors = [(jpeg(image, quality) - image).abs().mean() * 255 for quality in (95, 75, 50)]
    assert 0 < errors[0] < errors[1] < errors[2] < 8       # gray levels


def test_a_crop_enlarges_the_middle():
    image = torch.zeros(1, 3, 40, 40)
    image[:, :, 10:30, 10:30] = 1
    assert torch.equal(cropped(image, 10), torch.ones_like(image))
    assert torch.equal(cropped(image, 0), image)
    ramp = torch.linspace(0, 1, 40).expand(1, 3, 40, 40)
    torch.testing.assert_close(cropped(ramp, 10).mean(), ramp.mean())
    with pytest.raises(ValueError, match=r"margin=20.*less than half of 40"):
        cropped(image, 20)
    with pytest.raises(ValueError, match="margin=-1"):
        cropped(image, -1)


def test_halving_keeps_what_is_wide_and_wipes_out_what_is_a_pixel_wide():
    even, stripes = torch.full((1, 3, 16, 16), 0.3), torch.arange(16).remainder(2).float().expand(1, 3, 16, 16)
    torch.testing.assert_close(halved(even), even)
    assert halved(stripes)[..., 4:12].std() < 0.05 < stripes.std()
    assert halved(torch.rand(1, 3, 15, 1)).shape == (1, 3, 15, 1)


def test_shifts_mirrors_crops_and_sizes_have_a_gradient(pictures):
    for view in (lambda x: shifted(x, 3), mirrored, lambda x: cropped(x, 3), halved):
        x = pictures.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(view(x).sum(), x)
        assert gradient.abs().sum() > 0


def test_probabilities_of_moved_pictures_are_those_of_the_moved_pictures():
    toy, pictures = Toy(), torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    found = probability_when_moved(toy, pictures, [0, 2], [0, 5, 8])
    assert found.shape == (3, 2)
    for row, pixels in zip(found, (0, 5, 8), strict=True):
        p = toy(to_input(shifted(pictures, pixels), toy)).softmax(dim=1)
        torch.testing.assert_close(row, p[range(2), [0, 2]])


def test_bars_of_shifts_have_a_colour_for_each_power_of_two():
    axes, shifts = Figure().subplots(), range(0, 33)
    draw_shifts(axes, shifts, torch.arange(33) / 33, title="moved")
    bars = {round(bar.get_x() + bar.get_width() / 2): (bar.get_facecolor(), bar.get_height()) for bar in axes.patches}
    assert sorted(bars) == list(shifts) and axes.get_title() == "moved"
    assert all(abs(height - shift / 33) < 1e-6 for shift, (_, height) in bars.items())
    assert len({colour for colour, _ in bars.values()}) == 5
    assert bars[16][0] == bars[0][0] == bars[32][0] != bars[8][0] == bars[24][0]
