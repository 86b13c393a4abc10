"""Pictures in and out: whatever file comes, upright RGB goes on, or an error that says what is wrong."""

import copy
import gc
import io
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch.nn.functional import interpolate
from torchvision.models import EfficientNet_B0_Weights, Inception_V3_Weights, ResNet50_Weights, SqueezeNet1_1_Weights
from torchvision.transforms.functional import normalize, resize, to_tensor
from toys import Toy, network

from course_utils import (
    load_image,
    preprocess,
    sample_image,
    sample_images,
    save_animation,
    save_image,
    to_image,
    to_input,
)
from course_utils.images import as_picture
from course_utils.techniques import deep_dream

# Two rows of three: no two pixels are alike, and no turn or mirror image is the picture again.
COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [0, 255, 255], [255, 0, 255]]], np.uint8)


def noise(height=40, width=60):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def own_network():
    """A network that says nothing of the inputs it wants."""
    return torch.nn.Conv2d(3, 1, 1)


def file_of(image, kind="PNG", **options):
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def assert_pixels(image, expected, within=0):
    assert image.mode == "RGB"
    expected = np.asarray(expected)
    assert np.asarray(image).shape == expected.shape
    assert np.abs(np.asarray(image).astype(int) - expected.astype(int)).max() <= within


def gray(values):
    return np.repeat(np.asarray(values)[..., None], 3, axis=-1)


# Modes of pictures --------------------------------------------------------------------------------------------


def test_rgb_stays_as_it_is():
    assert_pixels(load_image(file_of(Image.fromarray(COLOURS))), COLOURS)


def test_grayscale():
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    assert_pixels(load_image(file_of(Image.fromarray(values))), gray(values))


def test_one_bit():
    values = np.array([[True, False, True]])
    assert_pixels(load_image(file_of(Image.fromarray(values))), gray(values * 255))


def palette_picture():
    image = Image.frombytes("P", (2, 2), bytes([0, 1, 2, 1]))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette(kind):
    expected = [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]]
    assert_pixels(load_image(file_of(palette_picture(), kind)), expected)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_colour_becomes_white(kind):
    expected = [[[255, 0, 0], [255, 255, 255]], [[0, 0, 255], [255, 255, 255]]]
    assert_pixels(load_image(file_of(palette_picture(), kind, transparency=1)), expected)


def test_a_palette_with_degrees_of_transparency_is_laid_on_white():
    expected = [[[255, 0, 0], [127, 255, 127]], [[255, 255, 255], [127, 255, 127]]]
    assert_pixels(load_image(file_of(palette_picture(), transparency=bytes([255, 128, 0]))), expected)


ALPHA = np.array([[255, 128, 0]], np.uint8)
ON_WHITE = 255 - np.array([[255, 128, 0]]) / 255 * (255 - 40)      # the gray value 40, laid on white


def test_gray_with_transparency_is_laid_on_white():
    image = Image.merge("LA", [Image.new("L", (3, 1), 40), Image.fromarray(ALPHA)])
    assert_pixels(load_image(file_of(image)), gray(ON_WHITE.round()), within=1)


def test_rgb_with_transparency_is_laid_on_white():
    image = Image.merge("RGBA", [*Image.new("RGB", (3, 1), (40, 40, 255)).split(), Image.fromarray(ALPHA)])
    expected = np.stack([ON_WHITE, ON_WHITE, np.full((1, 3), 255)], axis=-1)
    assert_pixels(load_image(file_of(image)), expected.round(), within=1)


def test_one_transparent_colour_of_an_rgb_picture_becomes_white():
    expected = COLOURS.copy()
    expected[1, 1] = 255
    assert_pixels(load_image(file_of(Image.fromarray(COLOURS), transparency=(0, 255, 255))), expected)


def test_cmyk():
    image = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    assert_pixels(load_image(file_of(image, "TIFF")), np.full((4, 4, 3), [255, 0, 0]))
    assert_pixels(load_image(file_of(image, "JPEG", quality=100)), np.full((4, 4, 3), [255, 0, 0]), within=2)


SIXTEEN_BITS = np.array([[0, 128, 129, 257, 32768, 51528, 51529, 65535]], np.uint16)
EIGHT_BITS = gray([[0, 0, 1, 1, 128, 200, 201, 255]])      # a 257th, rounded


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(kind):
    assert_pixels(load_image(file_of(Image.fromarray(SIXTEEN_BITS), kind)), EIGHT_BITS)


def test_sixteen_bits_in_the_other_byte_order():
    image = Image.frombytes("I;16B", (8, 1), SIXTEEN_BITS.astype(">u2").tobytes())
    assert_pixels(load_image(file_of(image, "TIFF")), EIGHT_BITS)


@pytest.mark.parametrize("values", [[0.0, 0.25, 1.0], [0.0, 63.75, 255.0]], ids=["up to 1", "up to 255"])
def test_floats(values):
    image = Image.fromarray(np.array([values], np.float32))
    assert image.mode == "F"
    assert_pixels(load_image(file_of(image, "TIFF")), gray([[0, 64, 255]]))


def test_floats_that_are_no_numbers_or_out_of_range():
    image = Image.fromarray(np.array([[np.nan, -3.0, 1.0, 0.5]], np.float32))
    assert_pixels(load_image(file_of(image, "TIFF")), gray([[0, 0, 255, 128]]))


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("bits", [1, 8, 10, 12, 14, 16])
def test_files_are_scaled_by_the_range_that_their_values_show(bits, kind):
    full = 2**bits - 1
    values = np.array([[0, full // 2, full]], kind)
    assert_pixels(load_image(file_of(Image.fromarray(values), "TIFF")), gray((values / full * 255).round()))


def test_values_beyond_sixteen_bits_are_scaled_by_the_largest():
    values = np.array([[-7, 0, 100_000, 200_000]], np.int32)
    assert_pixels(load_image(file_of(Image.fromarray(values), "TIFF")), gray([[0, 0, 128, 255]]))


@pytest.mark.parametrize("scale", [1, 255])
def test_floats_that_ring_beyond_their_range_are_clipped(scale):
    values = np.array([[-0.1, 0, 0.5, 1, 1.2]], np.float32) * scale
    assert_pixels(load_image(file_of(Image.fromarray(values), "TIFF")), gray([[0, 0, 128, 255, 255]]))


def test_one_transparent_value_of_sixteen_bits_becomes_white():
    assert_pixels(load_image(file_of(Image.fromarray(SIXTEEN_BITS), transparency=32768)),
                  gray([[0, 0, 1, 1, 255, 200, 201, 255]]))


def test_every_mode_of_pillow_gives_its_colour():
    orange = Image.new("RGB", (3, 2), (204, 102, 51))      # a colour of the palette, too
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    coloured = {mode: orange.convert(mode) for mode in ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "P")}
    coloured |= {"RGBa": orange.convert("RGBA").convert("RGBa"), "PA": orange.convert("P").convert("PA"),
                 "LAB": ImageCms.profileToProfile(orange, srgb, lab, outputMode="LAB")}
    grays = {"L": orange.convert("L"), "LA": orange.convert("LA"), "La": orange.convert("LA").convert("La")}
    for mode, picture in (coloured | grays).items():
        expected = gray(np.asarray(orange.convert("L"))) if mode in grays else np.asarray(orange)
        assert picture.mode == mode
        assert_pixels(load_image(picture), expected, within=2)


# On which side of the upright picture the first row and the first column of the file lie (the EXIF standard).
ORIENTATIONS = {
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_rotated_picture_is_put_upright(orientation, kind):
    row, column = ORIENTATIONS[orientation]
    stored = COLOURS.swapaxes(0, 1) if row in ("left", "right") else COLOURS
    stored = stored[::-1] if row in ("bottom", "right") else stored
    stored = stored[:, ::-1] if column in ("bottom", "right") else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_pixels(load_image(file_of(Image.fromarray(stored.copy()), kind, exif=exif)), COLOURS)


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (5, 3), colour) for colour in ("red", "lime", "blue")]
    animation = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(animation)).n_frames == 3
    assert_pixels(load_image(animation), np.full((3, 5, 3), [255, 0, 0]))


def test_one_pixel():
    image = load_image(file_of(Image.new("RGB", (1, 1), "lime")))
    assert_pixels(image, [[[0, 255, 0]]])
    x = preprocess(image, network("squeezenet1_1"))
    assert x.shape == (1, 3, 224, 224)
    torch.testing.assert_close(to_image(x, network("squeezenet1_1"))[0, :, 100, 100], torch.tensor([0.0, 1.0, 0.0]))


@pytest.mark.parametrize("size", [(10_000, 10), (10, 10_000)])
def test_a_picture_a_thousand_times_as_long_as_wide_is_loaded_but_not_blown_up(size):
    image = load_image(file_of(Image.new("L", size)))
    assert image.size == size and image.mode == "RGB"
    for options in ({}, {"size": 512}):
        with pytest.raises(ValueError, match=f"{size[0]}×{size[1]}: crop it first, to less than 1:50"):
            preprocess(image, network("squeezenet1_1"), **options)


# Where pictures come from -------------------------------------------------------------------------------------


def test_a_picture_may_be_a_path_bytes_an_open_file_or_a_picture(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(file_of(noise()))
    with path.open("rb") as file:
        sources = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), memoryview(path.read_bytes()),
                   io.BytesIO(path.read_bytes()), file, noise(), Image.open(path)]
        for source in sources:
            assert_pixels(load_image(source), noise())


def test_a_missing_file_is_answered_with_those_near_it(tmp_path):
    (tmp_path / "red_panda.jpg").touch()
    with pytest.raises(FileNotFoundError, match=r"red_pandas\.jpg; near it are red_panda\.jpg; accepted.*JPEG"):
        load_image(tmp_path / "red_pandas.jpg")
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere.picture\.png; accepted"):
        load_image(tmp_path / "nowhere" / "picture.png")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path.name} is a folder; accepted is .*JPEG"):
        load_image(tmp_path)


@pytest.mark.parametrize("content, found", [
    (b"Dear diary", "text"), (b"", "empty"), (b"<svg></svg>", "text"), (b"\xff\xfe\x00", "of a kind that Pillow"),
])
def test_what_is_no_picture_is_refused(tmp_path, content, found):
    path = tmp_path / "diary.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"diary\.jpg is not a picture but {found}.*accepted is JPEG"):
        load_image(path)
    with pytest.raises(ValueError, match=f"the file is not a picture but {found}"):
        load_image(content)


@pytest.mark.parametrize("source", [None, 3, {"name": "upload.png"}])
def test_what_is_no_source_is_refused(source):
    with pytest.raises(ValueError, match=f"a {type(source).__name__} is no picture"):
        load_image(source)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_truncated_picture_is_refused(tmp_path, kind):
    content = file_of(noise(), kind)
    path = tmp_path / "half"
    path.write_bytes(content[:len(content) // 2])
    with pytest.raises(ValueError, match="half is (a damaged or truncated|not a) picture.*accepted is JPEG"):
        load_image(path)


def test_a_truncated_picture_that_was_opened_but_not_read_yet_is_refused(tmp_path):
    path = tmp_path / "half.png"
    path.write_bytes(file_of(noise())[:2000])
    with Image.open(path) as image, pytest.raises(ValueError, match=r"half\.png is a damaged or truncated picture"):
        load_image(image)


@pytest.mark.filterwarnings("ignore:.*(EXIF|Truncated|Tag data)")
@pytest.mark.parametrize("exif", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"not a directory of tags",
                                  b"MM\0*\0\0\0\x08\xff\xff\x01\x12\0\x03\xff\xff\xff\xff"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_broken_exif_header_costs_no_picture(kind, exif):
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = load_image(file_of(noise(), kind, **options))
    broken = file_of(noise(), kind, exif=b"Exif\0\0" + exif, **options)
    assert_pixels(load_image(broken), plain)
    assert_pixels(load_image(Image.open(io.BytesIO(broken))), plain)


@pytest.mark.parametrize("limit", [2399, 1000], ids=["above the limit", "far above the limit"])
def test_a_picture_beyond_pillows_limit_is_refused(monkeypatch, tmp_path, limit):
    path = tmp_path / "bomb.png"
    path.write_bytes(file_of(noise(40, 60)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match=rf"bomb\.png is too large: 2400 pixels. Accepted are up to {limit};"):
        load_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2400)
    assert_pixels(load_image(path), noise(40, 60))


def test_the_courses_photographs():
    assert {"red_panda", "cat_dog", "komodo_dragon", "horses"} <= set(sample_images())
    assert all(sample_image(name).mode == "RGB" for name in sample_images())
    with pytest.raises(ValueError, match="no photograph 'unicorn'; there are .*red_panda"):
        sample_image("unicorn")


def test_without_the_photographs_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("course_utils.images.INPUT_IMAGES", tmp_path / "input_images")
    with pytest.raises(ValueError, match="photographs are not here .*input_images.*clone"):
        sample_image("red_panda")


# Pictures to inputs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, weights", [
    ("squeezenet1_1", SqueezeNet1_1_Weights.IMAGENET1K_V1), ("resnet50", ResNet50_Weights.IMAGENET1K_V1),
    ("inception_v3", Inception_V3_Weights.IMAGENET1K_V1), ("efficientnet_b0", EfficientNet_B0_Weights.IMAGENET1K_V1),
])
def test_preprocess_equals_the_transforms_of_the_models_weights(name, weights):
    image = sample_image("cat_dog")
    x = preprocess(image, network(name))
    torch.testing.assert_close(x, weights.transforms()(image)[None], rtol=0, atol=0)
    assert x.is_contiguous(memory_format=torch.channels_last) and x.dtype == torch.float32


def test_a_network_of_ones_own_gets_imagenets_transforms_its_dtype_and_device():
    image, model = noise(), own_network().double()
    expected = SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()(image)[None]
    torch.testing.assert_close(preprocess(image, model), expected.double(), rtol=0, atol=0)
    assert preprocess(image, model.to("meta")).device.type == "meta"


HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def test_what_a_network_of_ones_own_was_trained_with_is_said_once():
    model, image = own_network(), noise(300, 300)
    expected = Inception_V3_Weights.IMAGENET1K_V1.transforms(**HALF)(image)[None]      # 342 and 299 pixels
    x = preprocess(image, model, size=(299, 299), **HALF)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(preprocess(image, model), x, rtol=0, atol=0)
    torch.testing.assert_close(to_image(x, model), (x + 1) / 2)
    torch.testing.assert_close(to_input(to_image(x, model), model), x)
    whole = preprocess(noise(100, 300), model, size=60)
    assert whole.shape == (1, 3, 20, 60)
    torch.testing.assert_close(to_input(to_image(whole, model), model), whole)
    assert preprocess(image, model).shape == x.shape      # a long side is for one call
    assert preprocess(image, own_network()).shape == (1, 3, 224, 224)      # and no other network is touched


def test_a_network_may_have_an_oblong_input():
    model, image = own_network(), noise(64, 256)
    x = preprocess(image, model, size=[56, 112], mean=[0, 0, 0], std=torch.ones(3))
    assert x.shape == (1, 3, 56, 112)
    by_hand = to_tensor(resize(image, [64, 256]))[:, 4:60, 72:184]
    torch.testing.assert_close(x[0], by_hand)


def test_techniques_take_what_was_said_of_a_network():
    toy = Toy()
    x = preprocess(noise(24, 31), toy, size=31, **HALF)
    first = next(deep_dream(toy, x, "features.3", octaves=1, steps=1))
    torch.testing.assert_close(first.image, to_tensor(noise(24, 31))[None].double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("said, message", [
    ({"mean": 0.5}, "mean=0.5: accepted are three numbers"), ({"mean": (0.5, 0.5)}, "three numbers"),
    ({"mean": (123.7, 116.3, 103.5)}, "mean=.*from 0 to 1"), ({"mean": ("a", "b", "c")}, "three numbers"),
    ({"std": (0.5, 0, 0.5)}, "std=.*three numbers above 0"), ({"std": (1, 1, float("nan"))}, "above 0"),
    ({"size": (299, 299, 3)}, "size=.*long side in pixels, or"), ({"size": (0, 299)}, "long side"),
    ({"size": 20.5}, "long side"), ({"size": "299"}, "long side"),
])
def test_what_cannot_be_said_of_a_network_is_refused_and_nothing_kept(said, message):
    model = own_network()
    with pytest.raises(ValueError, match=message):
        preprocess(noise(), model, **{**HALF, **said})
    torch.testing.assert_close(preprocess(noise(), model), preprocess(noise(), own_network()))


def test_a_list_of_pictures_makes_a_batch():
    model = network("squeezenet1_1")
    first, second = noise(), noise(300, 200)
    batch = preprocess([first, file_of(second)], model)
    torch.testing.assert_close(batch, torch.cat([preprocess(first, model), preprocess(second, model)]), rtol=0, atol=0)
    with pytest.raises(ValueError, match="no picture given"):
        preprocess([], model)


@pytest.mark.parametrize("given, size, expected", [
    ((300, 200), 96, (64, 96)), ((200, 300), 96, (96, 64)), ((300, 200), 600, (400, 600)), ((200, 5), 100, (2, 100)),
    ((45, 1), 9, (1, 9)),
])
def test_with_a_size_the_whole_picture_is_kept(given, size, expected):
    image, model = noise(given[1], given[0]), network("squeezenet1_1")
    x = preprocess(image, model, size=size)
    assert x.shape == (1, 3, *expected)
    transforms = SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()
    by_hand = normalize(to_tensor(resize(image, expected)), transforms.mean, transforms.std)
    torch.testing.assert_close(x[0], by_hand, rtol=0, atol=1e-6)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_a_size_that_the_picture_has_changes_nothing():
    image = noise(40, 60)
    model = network("squeezenet1_1")
    assert_pixels(as_picture(to_image(preprocess(image, model, size=60), model)), image)


@pytest.mark.parametrize("size", [0, -5])
def test_a_size_below_one_is_refused(size):
    with pytest.raises(ValueError, match=f"size={size}: accepted is the long side"):
        preprocess(noise(), network("squeezenet1_1"), size=size)


# Inputs to pictures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3, 20, 31), (3, 31, 20)])
def test_to_image_and_to_input_are_inverses(shape):
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    model = own_network()
    x = to_input(pixels, model)
    assert x.shape == shape
    torch.testing.assert_close(to_image(x, model), pixels, rtol=0, atol=1e-6)
    torch.testing.assert_close(to_input(to_image(x, model), model), x, rtol=0, atol=1e-5)


def test_black_and_white_are_where_imagenets_mean_puts_them():
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(to_input(torch.zeros(3, 1, 1), own_network())[:, 0, 0], -mean / std)
    torch.testing.assert_close(to_input(torch.ones(3, 1, 1), own_network())[:, 0, 0], (1 - mean) / std)


def test_the_models_own_mean_and_deviation_are_used():
    model = own_network()
    own = SimpleNamespace(mean=[0.5, 0.5, 0.5], std=[0.5, 0.25, 0.5])
    model.course_weights = SimpleNamespace(transforms=lambda: own)
    x = to_input(torch.ones(1, 3, 2, 2), model)
    assert x[0, :, 0, 0].tolist() == [1, 2, 1]
    torch.testing.assert_close(to_image(x, model), torch.ones(1, 3, 2, 2), rtol=0, atol=0)


def test_to_image_clips_what_pixels_cannot_hold():
    image = to_image(torch.tensor([-100.0, 100.0]).expand(1, 3, 1, 2), own_network())
    assert image[0, :, 0].tolist() == [[0, 1]] * 3


def test_to_input_is_differentiable():
    pixels = torch.rand(1, 3, 4, 6, requires_grad=True)
    gradient, = torch.autograd.grad(to_input(pixels, own_network()).sum(), pixels)
    expected = (1 / torch.tensor([0.229, 0.224, 0.225]))[:, None, None].expand(3, 4, 6)
    torch.testing.assert_close(gradient[0], expected)


@pytest.mark.parametrize("image", [
    noise(4, 6), np.asarray(noise(4, 6)), torch.from_numpy(np.array(noise(4, 6))).permute(2, 0, 1),
    to_tensor(noise(4, 6)), to_tensor(noise(4, 6))[None], to_tensor(noise(4, 6)).double().numpy(),
    to_tensor(noise(4, 6)).permute(1, 2, 0), to_tensor(noise(4, 6)).requires_grad_(),
], ids=["picture", "array", "8-bit tensor", "tensor", "batch of one", "float64 array", "H W 3", "in a graph"])
def test_every_form_of_a_picture_gives_the_same(image):
    assert_pixels(as_picture(image), noise(4, 6))


def test_one_channel_is_gray_no_number_is_black_and_a_little_beyond_is_clipped():
    values = torch.tensor([[0.0, 0.5, 1.2, -0.2, float("nan"), float("inf")]])
    assert_pixels(as_picture(values), gray([[0, 128, 255, 0, 0, 255]]))


@pytest.mark.parametrize("image", [
    to_tensor(noise()) * 255, np.asarray(noise()).astype(np.float64), (to_tensor(noise()) - 0.5) / 0.5,
    to_tensor(noise()) - 0.5,
    preprocess(sample_image("panda"), network("squeezenet1_1")),
], ids=["0 to 255", "an array", "around zero", "less the mean", "network input"])
def test_what_holds_no_pixel_values_is_refused(image):
    with pytest.raises(ValueError, match=r"from .* to .*: accepted are 0 to 1; .* to_image\(x, model\), .* by 255"):
        as_picture(image)


def test_enlarging_does_not_make_a_picture_unfit():
    for name in sample_images():
        values = np.asarray(sample_image(name).convert("L").resize((40, 40)), np.float32) / 255
        as_picture(Image.fromarray(values).resize((100, 100), Image.Resampling.LANCZOS))
        as_picture(interpolate(torch.from_numpy(values)[None, None], scale_factor=7.3, mode="bicubic"))


def test_a_picture_of_pillows_is_read_as_from_a_file():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.open(io.BytesIO(file_of(Image.fromarray(COLOURS), exif=exif)))
    transparent = Image.merge("LA", [Image.new("L", (3, 1), 40), Image.fromarray(ALPHA)])
    for picture in (turned, transparent, Image.fromarray(SIXTEEN_BITS), palette_picture()):
        assert_pixels(as_picture(picture), load_image(picture))
    assert as_picture(turned).size == (2, 3)


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (4, 4, 6), (4,), ()])
def test_other_shapes_are_no_pictures(shape):
    with pytest.raises(ValueError, match=r"no picture of shape \(.*accepted are \(3, H, W\)"):
        as_picture(np.zeros(shape))


# Saving -------------------------------------------------------------------------------------------------------


def test_a_saved_picture_comes_back_to_the_bit(tmp_path):
    levels = torch.arange(256).reshape(1, 8, 32).expand(3, 8, 32) / 255
    path = save_image(levels, tmp_path / "new" / "folder" / "levels.png")
    assert path == tmp_path / "new" / "folder" / "levels.png"
    assert_pixels(load_image(path), gray(np.arange(256).reshape(8, 32)))
    assert_pixels(load_image(save_image(noise(), tmp_path / "noise.png")), noise())


def test_values_are_rounded_not_cut(tmp_path):
    path = save_image(torch.tensor([[0.499, 0.501, 254.4, 254.6]]) / 255, tmp_path / "rounded.png")
    assert_pixels(load_image(path), gray([[0, 1, 254, 255]]))


def test_the_recipe_is_in_the_file(tmp_path):
    recipe = {"model": "squeezenet1_1", "seed": 0, "rates": [0.1, 0.05], "layer": "features.12", "name": "Ära ∂"}
    path = save_image(noise(), tmp_path / "picture.png", recipe | {"device": torch.device("cpu")})
    with Image.open(path) as image:
        assert json.loads(image.text["recipe"]) == recipe | {"device": "cpu"}
    with Image.open(save_image(noise(), tmp_path / "plain.png")) as image:
        assert "recipe" not in image.text


def frames_of(path):
    with Image.open(path) as animation:
        frames = []
        for i in range(animation.n_frames):
            animation.seek(i)
            frames.append((animation.convert("RGB"), animation.info["duration"]))
        return frames, animation.info["loop"]


def test_an_animation_keeps_its_frames_their_colours_and_its_pace(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)]
    images = [Image.new("RGB", (31, 20), colour) for colour in colours]
    path = save_animation(images, tmp_path / "new" / "colours.gif", seconds_per_frame=0.25)
    frames, loop = frames_of(path)
    assert loop == 0 and path == tmp_path / "new" / "colours.gif"
    assert [duration for _, duration in frames] == [250] * 4
    for (frame, _), colour in zip(frames, colours, strict=True):
        assert_pixels(frame, np.full((20, 31, 3), colour), within=4)


def test_an_animation_may_be_made_of_tensors(tmp_path):
    levels = [torch.full((3, 4, 6), level) for level in (0.0, 0.5, 1.0)]
    frames, _ = frames_of(save_animation(iter(levels), tmp_path / "levels.gif", seconds_per_frame=0.001))
    assert [frame.getpixel((0, 0))[0] for frame, _ in frames] == [0, 128, 255]
    assert [duration for _, duration in frames] == [20] * 3      # faster than that no viewer goes


def test_an_animation_of_different_sizes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"one size; given were \[\(6, 4\), \(7, 4\)\]"):
        save_animation([noise(4, 6), noise(4, 7)], tmp_path / "sizes.gif")
    with pytest.raises(ValueError, match="one size; given were none"):
        save_animation([], tmp_path / "none.gif")


@pytest.mark.parametrize("save, image, suffix", [(save_image, noise(), ".png"), (save_animation, [noise()], ".gif")])
def test_another_suffix_is_refused_before_anything_is_made(tmp_path, save, image, suffix):
    with pytest.raises(ValueError, match=rf"picture\.jpg is to be saved as {suffix}"):
        save(image, tmp_path / "folder" / "picture.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_encoded_costs_no_file(tmp_path):
    path = save_image(Image.new("RGB", (4, 4), "red"), tmp_path / "keep.png")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="no picture of shape"):
        save_image(torch.zeros(5, 4, 4), path)
    assert path.read_bytes() == before
    for mode in ("CMYK", "HSV", "YCbCr", "P", "F"):
        picture = Image.new("RGB", (4, 4), "red").convert("L" if mode == "F" else "RGB").convert(mode)
        assert load_image(save_image(picture, path)).size == (4, 4)


def test_a_recipe_keeps_numbers_as_numbers(tmp_path):
    recipe = {"class": np.int64(130), "rate": torch.tensor(0.5), "steps": 3, "layer": Path("a")}
    path = save_image(torch.zeros(3, 4, 4), tmp_path / "a.png", recipe)
    assert json.loads(Image.open(path).text["recipe"]) == {"class": 130, "rate": 0.5, "steps": 3, "layer": "a"}


def test_pictures_of_other_number_types():
    values = torch.linspace(0, 1, 48).reshape(3, 4, 4)
    assert_pixels(as_picture(values.bfloat16()), np.asarray(as_picture(values.bfloat16().float())))
    with pytest.raises(ValueError, match="a picture of int64"):
        as_picture(torch.zeros(3, 4, 4, dtype=torch.long))


def test_a_path_that_no_file_can_have():
    with pytest.raises(ValueError, match="cannot be a file"):
        load_image("x" * 5000 + ".png")


def test_an_animation_is_closed_again(tmp_path):
    path = save_animation([np.zeros((4, 4)), np.ones((4, 4))], tmp_path / "a.gif")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        load_image(path)
        gc.collect()


def test_pictures_of_different_shapes_make_no_batch():
    with pytest.raises(ValueError, match="with size=64 the pictures come out as 32×64, 64×32"):
        preprocess([Image.new("RGB", (32, 64)), Image.new("RGB", (64, 32))], network("squeezenet1_1"), size=64)


def test_to_input_has_the_precision_of_the_model():
    model = copy.deepcopy(network("squeezenet1_1")).double()
    assert to_input(torch.rand(1, 3, 8, 8), model).dtype == torch.float64
