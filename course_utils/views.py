"""Does it survive? Changes that leave a photograph what it is to the eye.

Each takes pictures `(N, 3, H, W)` with values in [0, 1] and gives such pictures, of the same shape, device and
precision. Shifts, mirror images, crops and sizes stay in the autograd graph; what passes through 8 bits does not.
"""

import io
from functools import partial

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import center_crop, resize

from .images import as_picture, to_input
from .scores import class_scores, classes_in, probabilities


def shifted(image, pixels):
    """Moved diagonally, down and to the right; what leaves on one side comes in on the other."""
    return image.roll((pixels, pixels), dims=(2, 3))


def mirrored(image):
    """Left and right exchanged."""
    return image.flip(3)


def cropped(image, margin):
    """The middle, without so many pixels at each edge, enlarged to the old size. Raises ValueError if nothing is left.
    """
    height, width = image.shape[2:]
    if not 0 <= 2 * margin < min(height, width):
        raise ValueError(f"margin={margin}: accepted is 0 to less than half of {min(height, width)} pixels")
    middle = center_crop(image, [height - 2 * margin, width - 2 * margin])
    return resize(middle, [height, width], antialias=True).clamp(0, 1)


def halved(image):
    """Half the size and back."""
    height, width = image.shape[2:]
    small = resize(image, [max(1, height // 2), max(1, width // 2)], antialias=True)
    return resize(small, [height, width], antialias=True).clamp(0, 1)


def png(image):
    """Saved and read again without loss: rounded to 8 bits."""
    return _read_back(image, "png", compress_level=1)


def jpeg(image, quality):
    """Saved as JPEG and read again. quality: Pillow's, 1 to 95."""
    return _read_back(image, "jpeg", quality=quality)


def _read_back(image, kind, **options):
    rows = []
    for row in image:
        file = io.BytesIO()
        as_picture(row).save(file, kind, **options)
        rows.append(np.array(Image.open(file)))
    pixels = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)
    return pixels.to(image.device, image.dtype, memory_format=torch.channels_last) / 255


VIEWS = {
    "8 bits": png,
    "JPEG 95": partial(jpeg, quality=95),
    "JPEG 75": partial(jpeg, quality=75),
    "moved by 1": partial(shifted, pixels=1),
    "moved by 16": partial(shifted, pixels=16),
    "mirrored": mirrored,
    "middle, enlarged": partial(cropped, margin=16),
    "halved and back": halved,
}


def probability_when_moved(model, image, target, shifts):
    """Probability of each picture's class at each of the shifts (`shifted`): `(len(shifts), N)`.

    image: `(N, 3, H, W)` in [0, 1]. target and errors: as in `class_score`.
    """
    def probability(pixels):
        p = probabilities(class_scores(model, to_input(shifted(image, pixels), model)))
        return p.gather(1, classes_in(p, target)[:, None])[:, 0]

    with torch.no_grad():
        return torch.stack([probability(pixels) for pixels in shifts]).cpu()


def draw_shifts(axes, shifts, values, **labels):
    """Bars of values against shifts, coloured by the largest power of two, up to 16, that divides the shift.

    labels: what matplotlib's `axes.set` takes besides, such as title and ylabel.
    """
    for power, colour in ((1, "0.8"), (2, "0.5"), (4, "C0"), (8, "C1"), (16, "C3")):
        at = [i for i, k in enumerate(shifts) if k % power == 0 and (power == 16 or k % (2 * power))]
        axes.bar([shifts[i] for i in at], [float(values[i]) for i in at], color=colour)
    axes.set(xticks=range(0, shifts[-1] + 1, 4), ylim=(0, 1.05), xlabel="shift, in pixels", **labels)
