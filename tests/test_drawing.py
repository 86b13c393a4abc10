"""Maps to pictures: the hottest is drawn hottest, zero is neutral, and nothing is undefined."""

import base64
import io
import warnings

import matplotlib
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from PIL import Image
from torch.nn.functional import interpolate

from course_utils import heatmap, image_grid, normalize_map, overlay, show
from course_utils.drawing import written

RAMP = torch.linspace(0, 1, 200).reshape(10, 20)


@pytest.fixture(autouse=True)
def no_warnings():
    """A division by zero or an invalid value fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def luminance(picture):
    """How bright each pixel is to the eye, by linear light."""
    return (np.asarray(picture) / 255) ** 2.2 @ [0.2126, 0.7152, 0.0722]


def noise(height=6, width=9):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


# Scaling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(10, 20), (1, 10, 20), (1, 1, 10, 20)])
def test_a_map_is_scaled_to_its_maximum(shape):
    found = normalize_map(3 * RAMP.reshape(shape))
    assert found.shape == (10, 20)
    np.testing.assert_allclose(found, RAMP, atol=1e-6)


def test_zero_stays_zero_and_the_minimum_only_where_it_is_negative():
    np.testing.assert_allclose(normalize_map(np.array([[2.0, 4.0]])), [[0.5, 1.0]])
    np.testing.assert_allclose(normalize_map(np.array([[-1.0, 0.0, 1.0]])), [[0.0, 0.5, 1.0]])


def test_signed_maps_are_scaled_alike_on_both_sides():
    np.testing.assert_allclose(normalize_map(np.array([[-1.0, 0.0, 4.0]]), signed=True), [[0.375, 0.5, 1.0]])
    np.testing.assert_allclose(normalize_map(np.array([[-4.0, 0.0, 1.0]]), signed=True), [[0.0, 0.5, 0.625]])


def test_what_lies_beyond_the_percentile_is_clipped():
    values = np.arange(101.0)[None]
    np.testing.assert_allclose(normalize_map(values, percentile=50)[0], (values[0] / 50).clip(0, 1))
    np.testing.assert_allclose(normalize_map(values - 50, signed=True, percentile=50)[0, [0, 25, 50, 75, 100]],
                               [0, 0, 0.5, 1, 1])


def test_a_sparse_map_whose_percentile_is_zero_is_drawn_by_its_maximum():
    values = np.zeros((10, 10))
    values[3, 4] = 7
    assert normalize_map(values, percentile=90).tolist() == (values / 7).tolist()
    assert normalize_map(values, signed=True, percentile=90)[3, 4] == 1


@pytest.mark.parametrize("percentile", [-1, 100.5])
def test_a_percentile_that_there_is_not_is_refused(percentile):
    with pytest.raises(ValueError, match=f"percentile={percentile}: accepted is 0 to 100"):
        normalize_map(RAMP, percentile=percentile)


NAN, INF = float("nan"), float("inf")
UNUSUAL = {      # name: (map, unsigned, signed)
    "zeros": ([[0.0, 0.0]], [[0, 0]], [[0.5, 0.5]]),
    "a constant": ([[3.0, 3.0]], [[1, 1]], [[1, 1]]),
    "a negative constant": ([[-3.0, -3.0]], [[0, 0]], [[0, 0]]),
    "no numbers": ([[NAN, NAN]], [[0, 0]], [[0.5, 0.5]]),
    "one that is no number": ([[NAN, 0.0, 2.0]], [[0, 0, 1]], [[0.5, 0.5, 1]]),
    "infinities": ([[INF, -INF, 2.0]], [[0, 0, 1]], [[0.5, 0.5, 1]]),
    "the smallest numbers": ([[0.0, 1e-40]], [[0, 1]], [[0.5, 1]]),
    "the largest numbers": ([[0.0, 3e38]], [[0, 1]], [[0.5, 1]]),
}


@pytest.mark.parametrize("values, unsigned, signed", UNUSUAL.values(), ids=UNUSUAL)
@pytest.mark.parametrize("form", [torch.tensor, np.array])
def test_unusual_maps_have_a_defined_picture(values, unsigned, signed, form):
    values = form(values)
    np.testing.assert_allclose(normalize_map(values), unsigned, rtol=1e-6)
    np.testing.assert_allclose(normalize_map(values, signed=True), signed, rtol=1e-6)


@pytest.mark.parametrize("values", [case[0] for case in UNUSUAL.values()], ids=UNUSUAL)
@pytest.mark.parametrize("options", [{}, {"signed": True}, {"percentile": 99}, {"percentile": 0}, {"size": (8, 12)}])
def test_unusual_maps_are_drawn(values, options):
    values = torch.tensor(values)
    expected = options.get("size", values.shape)
    assert heatmap(values, **options).size == expected[::-1]
    assert heatmap(values.expand(3, *values.shape), **options).size == expected[::-1]


# Colours ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cmap", [None, "viridis", "gray"])
def test_the_hottest_value_of_a_ramp_is_drawn_hottest(cmap):
    bright = luminance(heatmap(RAMP, cmap=cmap)).ravel()
    assert bright.argmax() == bright.size - 1 and bright.argmin() == 0
    assert (np.diff(bright) > -1e-3).all() and len(set(bright)) > 150
    enlarged = luminance(heatmap(RAMP, cmap=cmap, size=(40, 80)))
    assert enlarged[-1, -1] == enlarged.max() and enlarged[0, 0] == enlarged.min()


def test_a_signed_zero_is_neutral_and_signs_are_red_and_blue():
    colours = np.asarray(heatmap(torch.linspace(-1, 1, 101)[None], signed=True))[0].astype(int)
    red, green, blue = colours.T
    assert colours[50].max() - colours[50].min() <= 2
    assert (red[60:] > blue[60:] + 20).all() and (blue[:40] > red[:40] + 20).all()


def test_a_signed_zero_of_a_colour_gradient_is_mid_gray():
    gradient = torch.zeros(3, 1, 3)
    gradient[:, 0, 1] = torch.tensor([2.0, -2.0, 1.0])
    expected = [[[127.5] * 3, [255, 0, 191], [127.5] * 3]]
    assert np.abs(np.asarray(heatmap(gradient, signed=True)) - expected).max() <= 1


def test_three_channels_keep_their_proportions():
    colours = torch.tensor([[[1.0]], [[0.5]], [[0.0]]])
    assert heatmap(4 * colours).getpixel((0, 0)) == (255, 128, 0)


@pytest.mark.parametrize("options", [{}, {"signed": True}, {"percentile": 95}, {"size": (20, 30)}])
def test_eight_bits_and_floats_agree(options):
    eight = noise()
    floats = torch.from_numpy(eight / 255).float()
    for one, other in ((eight[..., 0], floats[..., 0]), (eight.transpose(2, 0, 1), floats.permute(2, 0, 1))):
        difference = np.asarray(heatmap(one, **options)).astype(int) - np.asarray(heatmap(other, **options))
        assert np.abs(difference).max() <= 1
    how, values = {name: options[name] for name in options if name != "size"}, RAMP[:, :15]
    assert overlay(eight, values, **how) == overlay(floats.permute(2, 0, 1), values, **how)
    assert image_grid([eight, eight]) == image_grid([floats, floats.numpy()])


def test_a_map_is_enlarged_before_it_is_coloured():
    values = torch.tensor([[0.0, 1.0], [0.5, 0.0]])
    large = interpolate(values[None, None], size=(16, 24), mode="bilinear", align_corners=False)[0, 0]
    expected = matplotlib.colormaps["inferno"]((large / large.max()).numpy(), bytes=True)[..., :3]
    found = np.asarray(heatmap(values, size=(16, 24)))
    assert np.abs(found.astype(int) - expected).max() <= 1
    coloured_first = heatmap(values).resize((24, 16), Image.Resampling.BILINEAR)
    assert np.abs(found.astype(int) - np.asarray(coloured_first)).max() > 20


@pytest.mark.parametrize("shape", [(2, 10, 20), (2, 3, 10, 20), (20,), (0, 4), (3, 0, 4)])
def test_other_shapes_are_no_maps(shape):
    with pytest.raises(ValueError, match=r"no map of shape \(.*accepted are \(H, W\)"):
        heatmap(np.zeros(shape))


def test_a_map_is_left_as_it_is():
    values = np.array([[0.0, NAN, 2.0]])
    tensor = torch.tensor([[0.0, NAN, 2.0]], requires_grad=True)
    for drawn in (values, tensor):
        heatmap(drawn, size=(4, 6))
        normalize_map(drawn)
    np.testing.assert_equal(values, [[0.0, NAN, 2.0]])
    np.testing.assert_equal(tensor.detach().numpy(), [[0.0, NAN, 2.0]])


# Overlays -----------------------------------------------------------------------------------------------------


def test_an_overlay_has_the_pictures_size_and_lies_between_picture_and_map():
    picture = Image.fromarray(noise(25, 50))
    assert overlay(picture, RAMP, opacity=0) == picture
    assert overlay(picture, RAMP, opacity=1) == heatmap(RAMP, size=(25, 50))
    half = np.asarray(overlay(picture, RAMP, opacity=0.5, cmap="viridis", percentile=90)).astype(int)
    ends = [np.asarray(end).astype(int) for end in
            (picture, picture.convert("L").convert("RGB"), heatmap(RAMP, size=(25, 50), cmap="viridis", percentile=90))]
    assert half.shape == (25, 50, 3)
    assert (half >= np.minimum.reduce(ends) - 1).all() and (half <= np.maximum.reduce(ends) + 1).all()


@pytest.mark.parametrize("signed", [False, True])
def test_an_overlay_shows_the_photograph_where_the_map_is_zero_and_the_map_where_it_is_largest(signed):
    picture, values = np.full((20, 30, 3), 200, np.uint8), torch.zeros(20, 30)
    values[:, :10], values[:, 20:] = 1.0, -1.0 if signed else 0.5
    left, middle, right = np.asarray(overlay(picture, values, signed=signed, opacity=0.75)).astype(int)[10, [5, 15, 25]]
    colours = np.asarray(heatmap(values, signed=signed))[10].astype(int)
    assert middle.tolist() == [200] * 3
    assert np.abs(left - (0.75 * colours[5] + 50)).max() <= 1
    alpha = 0.75 if signed else 0.75**2
    assert np.abs(right - (alpha * colours[25] + (1 - alpha) * 200)).max() <= 2


@pytest.mark.parametrize("opacity", [-0.1, 1.1])
def test_an_opacity_that_there_is_not_is_refused(opacity):
    with pytest.raises(ValueError, match=f"opacity={opacity}: accepted is 0 to 1"):
        overlay(noise(), RAMP, opacity=opacity)


@pytest.mark.parametrize("grid, size", [
    ((7, 7), (224, 224)), ((5, 9), (180, 320)), ((11, 19), (180, 320)), ((9, 5), (320, 180)), ((7, 7), (193, 224)),
    ((13, 13), (224, 224)), ((3, 13), (150, 450)), ((7, 26), (150, 450)), ((1, 1), (40, 50)), ((67, 100), (427, 640)),
    ((180, 320), (180, 320)),
], ids=str)
def test_a_layers_grid_fits_the_picture_up_to_rounding(grid, size):
    assert overlay(np.zeros((*size, 3), np.uint8), torch.ones(1, 1, *grid)).size == size[::-1]


@pytest.mark.parametrize("grid, size", [
    ((7, 7), (480, 640)), ((7, 7), (400, 500)), ((13, 13), (427, 640)), ((6, 6), (360, 640)), ((7, 7), (640, 480)),
    ((224, 224), (240, 320)), ((5, 9), (320, 180)), ((5, 9), (224, 224)),
], ids=str)
def test_the_map_of_a_crop_is_not_laid_over_the_whole_picture(grid, size):
    with pytest.raises(ValueError, match=r"another aspect ratio: lay the map over .* to_image\(x, model\)"):
        overlay(np.zeros((*size, 3), np.uint8), torch.ones(1, 1, *grid))


@pytest.mark.parametrize("opacity", [0, 1])
def test_a_turned_picture_is_drawn_upright(opacity):
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(noise(20, 40)).save(file, "PNG", exif=exif)
    picture = Image.open(file)
    assert overlay(picture, RAMP.T, opacity=opacity).size == (20, 40)
    assert image_grid([picture]).size == (20, 40)


# Grids --------------------------------------------------------------------------------------------------------


def plain(colour, width=40, height=30):
    return Image.new("RGB", (width, height), colour)


def test_pictures_stand_in_a_row_with_gaps_of_white():
    sheet = image_grid([plain("red"), plain("lime"), plain("blue")], gap=10)
    assert sheet.size == (3 * 40 + 2 * 10, 30)
    assert [sheet.getpixel((x, 15)) for x in (0, 39, 40, 49, 50, 89, 100, 139)] == [
        (255, 0, 0), (255, 0, 0), (255, 255, 255), (255, 255, 255), (0, 255, 0), (0, 255, 0), (0, 0, 255), (0, 0, 255)
    ]


def test_pictures_fill_row_after_row():
    sheet = image_grid([plain("red"), plain("lime"), plain("blue")], columns=2, gap=4)
    assert sheet.size == (84, 64)
    assert sheet.getpixel((50, 10)) == (0, 255, 0) and sheet.getpixel((10, 50)) == (0, 0, 255)
    assert sheet.getpixel((60, 50)) == (255, 255, 255)


def test_pictures_of_different_sizes_get_one_width():
    sheet = image_grid([plain("red", 40, 30), plain("blue", 20, 30)], width=80, gap=0)
    assert sheet.size == (160, 120)
    assert sheet.getpixel((40, 59)) == (255, 0, 0) and sheet.getpixel((40, 60)) == (255, 255, 255)
    assert sheet.getpixel((120, 119)) == (0, 0, 255)


def test_a_small_map_is_enlarged_without_inventing_pixels():
    sheet = image_grid([np.array([[0, 255], [255, 0]], np.uint8)], width=200)
    assert sheet.size == (200, 200) and {colour for _, colour in sheet.getcolors()} == {(0, 0, 0), (255, 255, 255)}


def test_titles_stand_above_their_pictures():
    pictures = [plain("red", 120, 30), plain("blue", 120, 30)]
    sheet = np.asarray(image_grid(pictures, titles=["Grad-CAM", ""], gap=0))
    band = sheet.shape[0] - 30
    assert band > 10 and (sheet[band:, :120] == [255, 0, 0]).all() and (sheet[band:, 120:] == [0, 0, 255]).all()
    assert (sheet[:band, :120].min(axis=-1) < 100).any()         # there is writing above the first
    assert (sheet[:band, 120:] == 255).all()                     # and none above the second
    two_lines = image_grid(pictures, titles=["one\ntwo", ""], gap=0)
    assert two_lines.height - 30 == pytest.approx(2 * band, abs=1)


def test_a_grid_of_nothing_or_with_other_titles_is_refused():
    with pytest.raises(ValueError, match="no pictures given"):
        image_grid([])
    with pytest.raises(ValueError, match="1 titles for 2 pictures"):
        image_grid([plain("red"), plain("blue")], titles=["one"])


# The static figure --------------------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch):
    """What `show` hands to the notebook: a list of (data by kind, metadata by kind), as a kernel would send it."""
    sent = []
    monkeypatch.setattr("course_utils.drawing.display", lambda figure: sent.append(DisplayFormatter().format(figure)))
    return sent


def the_picture(shown, kind):
    (data, metadata), = shown
    assert [name for name in data if name.startswith("image/")] == [f"image/{kind}"]
    return Image.open(io.BytesIO(base64.b64decode(data[f"image/{kind}"]))), metadata[f"image/{kind}"]


def test_show_emits_a_flat_picture_as_png_with_its_alt_text(shown):
    show(plain("red"), plain("blue"), alt="a red and a blue box", titles=["red", "blue"], width=100)
    picture, metadata = the_picture(shown, "png")
    expected = image_grid([plain("red"), plain("blue")], titles=["red", "blue"], width=100)
    assert metadata["alt"] == "a red and a blue box"
    assert picture.format == "PNG" and picture.convert("RGB") == expected


def test_show_emits_a_photograph_as_jpeg_which_is_smaller(shown):
    smooth = Image.fromarray(noise(12, 16)).resize((480, 360), Image.Resampling.BICUBIC)
    show(smooth, alt="clouds of colour")
    picture, metadata = the_picture(shown, "jpeg")
    assert metadata["alt"] == "clouds of colour"
    assert picture.format == "JPEG" and picture.size == (480, 360)
    assert np.abs(np.asarray(picture).astype(int) - np.asarray(smooth)).mean() < 3


@pytest.mark.parametrize("pictures, columns, expected", [(1, None, 480), (4, None, 250), (10, None, 100), (10, 2, 480)])
def test_without_a_width_pictures_share_the_page(shown, pictures, columns, expected):
    show(*[plain("red")] * pictures, alt="boxes", columns=columns)
    picture, _ = the_picture(shown, "png")
    in_a_row = columns or pictures
    assert picture.width == in_a_row * expected + (in_a_row - 1) * 6


def chart():
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([1, 3, 2])
    return figure


def test_show_emits_a_chart_as_png_and_the_same_chart_as_the_same_bytes(shown):
    show(chart(), alt="a line that rises and falls")
    picture, metadata = the_picture(shown, "png")
    assert metadata["alt"] == "a line that rises and falls"
    assert "Software" not in picture.info and luminance(picture.convert("RGB")).min() < 0.1
    show(chart(), alt="a line that rises and falls")
    assert shown[0] == shown[1]


@pytest.mark.parametrize("pictures, alt, message", [
    ([plain("red")], "", "alt is empty"), ([plain("red")], "  ", "alt is empty"), ([], "nothing", "no pictures given"),
    ([chart(), plain("red")], "a chart among pictures", "no picture of shape"),
])
def test_what_cannot_be_shown_is_refused(shown, pictures, alt, message):
    with pytest.raises(ValueError, match=message):
        show(*pictures, alt=alt)
    assert shown == []


def test_a_long_title_is_broken_into_lines_and_stays_over_its_picture():
    black = Image.new("RGB", (120, 50))
    one, two = (image_grid([black, black], titles=[title, ""]) for title in ("garden", "black and gold garden spider"))
    assert two.height > one.height
    ink = np.asarray(two.crop((0, 0, two.width, two.height - 50)).convert("L")) < 128
    assert ink[:, :120].any() and not ink[:, 120:].any()


def test_a_written_text_keeps_to_its_page_and_its_lines():
    page = written("one\n" + "word " * 60 + "\n" + "long" * 60, (200, 90))
    ink = np.asarray(page.convert("L")) < 128
    assert page.size == (200, 90) and ink.any() and ink[:, :8].sum() == 0
    short = np.asarray(written("one", (200, 90)).convert("L")) < 128
    assert (ink[:22] == short[:22]).all()      # the first line is a line
    assert ink[22:].any() and not short[22:].any()
