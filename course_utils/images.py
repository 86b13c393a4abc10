"""Pictures in and out: files to upright RGB, RGB to what a network sees, and back."""

import contextlib
import difflib
import io
import json
import os
import re
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from torchvision.transforms.v2 import functional as F

from .models import DEFAULT, published_weights

_COURSE = Path(__file__).resolve().parent.parent
INPUT_IMAGES, OUTPUT = _COURSE / "input_images", _COURSE / "output"      # OUTPUT: what panels save
ACCEPTED = "JPEG, PNG, WebP, GIF, BMP or TIFF"
# How far beyond its range a picture of floats may lie, as a fraction of it: Lanczos enlargement overshoots by 0.17 on
# photographs and by 0.25 at corners; a normalized photograph reaches from about -2 to 2.5, or from -1 to 1.
_RINGING = 0.25


def load_image(source):
    """An upright RGB `PIL.Image` from a path, bytes, an open file or a picture.

    EXIF rotation is applied where its header can be read, transparency is laid on white, of an animation the
    first frame is taken. Whole numbers of more than 8 bits and floats are scaled to 8 bits by the range that
    their values show: white is the smallest of 1, 255, 1023, 4095, 16383 and 65535 that holds the largest.

    Raises FileNotFoundError for a missing file, ValueError for what is not a picture, is truncated, or is
    larger than Pillow's decompression limit; the message says what was found.
    """
    return _to_rgb(_upright(source))


def _upright(source):
    if isinstance(source, Image.Image):      # not decoded yet, where it was opened but never looked at
        label = getattr(source, "filename", None) or "the picture"
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        label = str(path)
        try:
            there = path.exists()
        except (OSError, ValueError) as error:      # too long a name, for instance
            raise ValueError(f"{label[:60]}… cannot be a file: {error}") from error
        if not there:
            names = os.listdir(path.parent) if path.parent.is_dir() else []
            near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
            hint = f"; near it are {', '.join(near)}" if near else ""
            raise FileNotFoundError(f"no file {path}{hint}; accepted is a picture: {ACCEPTED}")
        if not path.is_file():
            raise ValueError(f"{path} is a folder; accepted is a picture: {ACCEPTED}")
    elif isinstance(source, bytes | bytearray | memoryview):
        label, source = "the file", io.BytesIO(source)
    elif hasattr(source, "read"):
        label = str(getattr(source, "name", "the open file"))
    else:
        raise ValueError(f"a {type(source).__name__} is no picture; accepted are a path, bytes or a PIL.Image")
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(source, Image.Image):
                image = source
            else:      # closed again: of an animation Pillow would keep the file open
                image = stack.enter_context(Image.open(source))
            image.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        pixels = re.search(r"\d+", str(error)).group()
        limit = Image.MAX_IMAGE_PIXELS
        raise ValueError(f"{label} is too large: {pixels} pixels. Accepted are up to {limit}; scale it down") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{label} is not a picture but {_kind(source)}; accepted is {ACCEPTED}") from error
    except Exception as error:      # there is no telling what a damaged file drives a decoder to
        raise ValueError(f"{label} is a damaged or truncated picture ({error}); accepted is {ACCEPTED}") from error
    try:
        return ImageOps.exif_transpose(image)
    except Exception:      # a damaged header costs the rotation, not the picture
        return image


def _kind(source):
    """What a file is that is no picture, in words. Text has no bytes below the tab; nearly everything else has."""
    if isinstance(source, str | os.PathLike):
        source = io.BytesIO(Path(source).read_bytes())
    source.seek(0)
    head = source.read(512)
    return "empty" if not head else "text" if min(head) > 8 else "of a kind that Pillow does not know"


def _to_rgb(image):
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bits(image)
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_eight_bits(image):
    values = np.asarray(image).astype(np.float64)
    largest = values[np.isfinite(values)].max(initial=0)
    # Cameras put 10, 12 or 14 bits into 16. And 16 bits with nothing above 255 would be black all over.
    ringing = _RINGING * (image.mode == "F")
    whites = (white for white in (1, 255, 1023, 4095, 16383, 65535) if largest <= white + ringing * min(white, 255))
    white = next(whites, largest)
    values[values == image.info.get("transparency", np.nan)] = white      # the one transparent gray of a PNG
    return Image.fromarray((np.nan_to_num(values).clip(0, white) * (255 / white)).round().astype(np.uint8))


def sample_image(name):
    """One of the course's photographs by name, such as "red_panda". Raises ValueError naming all of them."""
    if not INPUT_IMAGES.is_dir():
        raise ValueError(f"the photographs are not here ({INPUT_IMAGES}): work in a clone, with pip install -e .")
    if name not in sample_images():
        raise ValueError(f"no photograph {name!r}; there are {', '.join(sample_images())}")
    return load_image(INPUT_IMAGES / f"{name}.jpg")


def sample_images():
    """Names of the course's photographs, in alphabetical order."""
    return sorted(file.stem for file in INPUT_IMAGES.glob("*.jpg"))


def _transforms(model):
    published = getattr(model, "course_weights", None) or published_weights(DEFAULT)
    own = getattr(model, "course_input", {})
    return published.transforms(**{name: own[name] for name in ("mean", "std") if name in own})


def preprocess(image, model, *, size=None, mean=None, std=None):
    """A picture as the network wants it: float `(1, 3, H, W)`, normalized, channels_last, on its device.

    image: a `PIL.Image` or anything `load_image` takes; a list of them gives a batch. The transforms are
    those of the model's own weights (for most: shorter side to 256, centre crop of 224). size=n keeps the
    whole picture instead, its long side n pixels, in this call.

    A network of your own gets ImageNet's usual transforms, unless you say once what it was trained with:
    size=(height, width), mean and std, three numbers each, for pixel values in [0, 1]. The model keeps them
    as `course_input`, because later calls, `to_image`, `to_input` and the techniques must agree with this one.

    Raises ValueError for another size, mean or std, for a picture more than 50 times longer than wide, and
    for pictures of different shapes in a batch with size=n.
    """
    size = _size_to_take(model, {"size": size, "mean": mean, "std": std})
    images = [load_image(one) for one in (image if isinstance(image, list | tuple) else [image])]
    if not images:
        raise ValueError("no picture given: accepted is a picture or a list with at least one")
    for one in images:
        if max(one.size) > 50 * min(one.size):      # the resize would blow it up to gigabytes
            raise ValueError(f"the picture is {one.width}×{one.height}: crop it first, to less than 1:50")
    transforms = _transforms(model)
    rows = [transforms(one) if size is None else _resized(one, size, transforms) for one in images]
    if len({row.shape for row in rows}) > 1:
        shapes = sorted({f"{row.shape[2]}×{row.shape[1]}" for row in rows})
        raise ValueError(f"with size={size} the pictures come out as {', '.join(shapes)}: a batch needs one shape")
    parameter = next(model.parameters(), torch.empty(0))
    return torch.stack(rows).to(parameter.device, parameter.dtype, memory_format=torch.channels_last)


_ACCEPTED_INPUT = {      # shapes, kinds of numbers, lowest, highest, and the same in words
    "size": ([(), (2,)], "iu", 1, np.inf, "is the long side in pixels, or (height, width) of the network's input"),
    "mean": ([(3,)], "iuf", 0, 1, "are three numbers from 0 to 1, where pixel values are from 0 to 1"),
    "std": ([(3,)], "iuf", 1e-6, np.inf, "are three numbers above 0, where pixel values are from 0 to 1"),
}


def _size_to_take(model, said):
    """The size for this call. What is said of the network itself, all that is more than one number, stays with it."""
    said = {name: np.asarray(value) for name, value in said.items() if value is not None}
    for name, values in said.items():
        shapes, kinds, lowest, highest, accepted = _ACCEPTED_INPUT[name]
        right_numbers = values.dtype.kind in kinds and ((lowest <= values) & (values <= highest)).all()
        if values.shape not in shapes or not right_numbers:
            raise ValueError(f"{name}={values.tolist()}: accepted {accepted}")
    of_the_network = {name: values.tolist() for name, values in said.items() if values.ndim}
    if of_the_network:
        model.course_input = getattr(model, "course_input", {}) | of_the_network
    return said["size"].tolist() if "size" in said else getattr(model, "course_input", {}).get("size")


def _resized(image, size, transforms):
    """The whole picture at that long side; or, for (height, width), its centre, with ImageNet's usual margin."""
    whole = isinstance(size, int)
    scale = size / max(image.size) if whole else max(size[0] / image.height, size[1] / image.width) * 256 / 224
    shape = [max(1, round(image.height * scale)), max(1, round(image.width * scale))]
    small = F.resize(image, shape, interpolation=transforms.interpolation, antialias=True)
    small = small if whole else F.center_crop(small, size)
    pixels = F.to_dtype(F.pil_to_tensor(small), torch.float32, scale=True)
    return F.normalize(pixels, transforms.mean, transforms.std)


def _mean_and_std(x, model):
    transforms = _transforms(model)
    return [torch.tensor(values, device=x.device, dtype=x.dtype)[:, None, None]
            for values in (transforms.mean, transforms.std)]


def to_image(x, model):
    """What the network sees, back to pixel values: float tensor of the same shape, in [0, 1].

    x: `(N, 3, H, W)` or `(3, H, W)`, normalized as `preprocess` does it for this model. Values outside
    what pixels can hold are clipped.
    """
    mean, std = _mean_and_std(x, model)
    return (x * std + mean).clamp(0, 1)


def to_input(image, model):
    """Pixel values in [0, 1] to what the network sees: the inverse of `to_image`, in the autograd graph.

    image: float tensor `(N, 3, H, W)` or `(3, H, W)`; the result has the same shape, and the precision of
    the model's parameters.
    """
    mean, std = _mean_and_std(image, model)
    x = (image - mean) / std
    return x.to(next(model.parameters(), x).dtype)


def as_array(values):
    """A tensor or an array as a NumPy array, without leading dimensions of size one before the last two."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()      # NumPy has no bfloat16
    values = np.asarray(values)
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    return values


def as_picture(image):
    """An upright RGB `PIL.Image` from a picture, a tensor or an array; this is where values become 8 bits.

    Accepted: a `PIL.Image`, read as `load_image` does; `(3, H, W)`, `(1, 3, H, W)`, `(H, W, 3)` or `(H, W)`,
    floats in [0, 1], booleans or uint8. Floats beyond that by up to a quarter, as enlarging makes them,
    are clipped. Raises ValueError for others, for another shape and for other integers.
    """
    if isinstance(image, Image.Image):
        return load_image(image)
    shape, values = tuple(np.shape(image)), as_array(image)
    if values.ndim == 3 and values.shape[0] == 3:
        values = values.transpose(1, 2, 0)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3):
        raise ValueError(f"no picture of shape {shape}; accepted are (3, H, W), (H, W, 3), (H, W)")
    if values.dtype.kind in "iu" and values.dtype != np.uint8:
        raise ValueError(f"a picture of {values.dtype}: accepted are floats in [0, 1] and uint8 from 0 to 255")
    if values.dtype != np.uint8:
        values = values.astype(np.float64)
        low, high = (extreme(values[np.isfinite(values)], initial=0) for extreme in (np.min, np.max))
        if low < -_RINGING or high > 1 + _RINGING:
            raise ValueError(f"a picture with values from {low:.3g} to {high:.3g}: accepted are 0 to 1; for "
                             "normalized network input use to_image(x, model), divide floats from 0 to 255 by 255")
        values = np.round(np.nan_to_num(values).clip(0, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(values)).convert("RGB")


def encoded(picture, quality=92):
    """A picture as JPEG bytes: ten times quicker than PNG, and at this quality no loss can be seen."""
    buffer = io.BytesIO()
    as_picture(picture).save(buffer, "jpeg", quality=quality, subsampling=0)
    return buffer.getvalue()


def save_image(image, path, recipe=None):
    """Save a picture as PNG, with its recipe in the file's metadata; returns the path.

    image: as for `as_picture`. recipe: a dict, stored as JSON under the key "recipe" (read it back with
    `PIL.Image.open(path).text["recipe"]`). Missing folders are made. Raises ValueError unless the path
    ends in .png.
    """
    path = _target(path, ".png")
    metadata = PngImagePlugin.PngInfo()
    if recipe is not None:
        metadata.add_text("recipe", json.dumps(recipe, default=_plain))
    # Encoded first: what goes wrong in it costs no file that was there before.
    encoded = io.BytesIO()
    as_picture(image).save(encoded, "png", pnginfo=metadata)
    path.write_bytes(encoded.getvalue())
    return path


def _plain(value):
    """What JSON has no notation for: numbers of NumPy and torch as numbers, all else in words."""
    return value.item() if isinstance(value, np.generic | torch.Tensor) and value.ndim == 0 else str(value)


def save_animation(images, path, seconds_per_frame=0.1):
    """Save pictures of one size as an endless GIF; returns the path.

    images: as for `as_picture`, at least one. Missing folders are made. Raises ValueError for no picture,
    for pictures of different sizes, and unless the path ends in .gif.
    """
    path = _target(path, ".gif")
    frames = [as_picture(image) for image in images]
    if len({frame.size for frame in frames}) != 1:
        sizes = sorted({frame.size for frame in frames})
        raise ValueError(f"an animation needs pictures of one size; given were {sizes or 'none'}")
    # One palette, with dithering, so that colours do not flicker; drawn from all frames (every third row is
    # enough), because the first may be gray and the last colourful.
    palette = Image.fromarray(np.concatenate([np.asarray(frame)[::3] for frame in frames])).quantize(256)
    frames = [frame.quantize(palette=palette) for frame in frames]
    milliseconds = max(20, round(1000 * seconds_per_frame))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return path


def _target(path, suffix):
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"{path} is to be saved as {suffix}: choose a name that ends so")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
