"""Maps to pictures, without pyplot: safe in widget callbacks; and `show`, the one static figure."""

import io
import math
import re
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from IPython.display import Image as DisplayedImage
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from .images import as_array, as_picture, encoded
from .steps import return_memory

SEQUENTIAL = "inferno"
SIGNED = "RdBu_r"
_FONT = matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf"


def normalize_map(values, *, signed=False, percentile=100):
    """Scale a map to what can be drawn: a float array of the same shape less leading ones, in [0, 1].

    values: tensor or array, `(H, W)`, `(1, 1, H, W)`, or `(3, H, W)` for a colour gradient. Unsigned: zero
    (or the minimum, where there are negative values) becomes 0, the given percentile becomes 1. Signed:
    zero becomes 0.5, and the percentile of the absolute value becomes 0 or 1. What lies beyond is clipped.
    A map that is zero everywhere, or not finite, gives 0 there (signed: 0.5).
    Raises ValueError for a percentile outside 0…100.
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile={percentile}: accepted is 0 to 100")
    values = np.nan_to_num(as_array(values).astype(np.float64), posinf=0.0, neginf=0.0)
    if signed:
        return 0.5 + 0.5 * _divide(values, np.percentile(np.abs(values), percentile), np.abs(values).max()).clip(-1, 1)
    values = values - min(values.min(), 0)
    return _divide(values, np.percentile(values, percentile), values.max()).clip(0, 1)


def _divide(values, scale, largest):
    scale = scale or largest          # a percentile of zero: a sparse map, drawn by its maximum
    return values / scale if scale > 0 else np.zeros_like(values)


def heatmap(values, *, signed=False, cmap=None, percentile=100, size=None):
    """A map as a `PIL.Image`.

    values: as in `normalize_map`; three channels are drawn as a colour picture, one with a colour map
    (`cmap`, else inferno, or RdBu_r for signed maps). size: (height, width) to enlarge to, bilinearly and
    before colours and rounding. Raises ValueError for a shape that is no map.
    """
    values = _as_map(values)
    scaled = normalize_map(_resize(values, size) if size else values, signed=signed, percentile=percentile)
    if scaled.ndim == 3:
        return as_picture(scaled)
    colours = matplotlib.colormaps[cmap or (SIGNED if signed else SEQUENTIAL)]
    return Image.fromarray(colours(scaled, bytes=True)[..., :3])


def overlay(image, values, *, opacity=0.75, signed=False, cmap=None, percentile=100):
    """A map laid over a picture, as a `PIL.Image` of the picture's size.

    image: as for `as_picture`; values: as in `heatmap`. opacity in [0, 1]: that of the largest values; smaller ones
    (of either sign, where signed) are more transparent, and zero leaves the photograph as bright as it was, in gray.
    0 shows only the picture, 1 only the map.
    Raises ValueError for an opacity outside [0, 1], and for a map whose aspect ratio is not the picture's.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity={opacity}: accepted is 0 to 1")
    picture = as_picture(image)
    grid, size = tuple(_as_map(values).shape[-2:]), picture.size[::-1]
    if not _same_aspect(grid, size):
        raise ValueError(f"the map is {grid}, the picture {size} (height, width), of another aspect ratio: lay the map "
                         "over what the network saw, to_image(x, model)")
    colours = heatmap(values, signed=signed, cmap=cmap, percentile=percentile, size=size)
    scaled = normalize_map(_resize(_as_map(values), size), signed=signed, percentile=percentile)
    strength = abs(2 * scaled - 1) if signed else scaled
    strength = strength.max(axis=0) if strength.ndim == 3 else strength
    with np.errstate(divide="ignore"):
        alpha = np.float64(opacity) ** (1 / strength)      # opacity at 1, falling to 0 at 0, and everywhere 1 for 1
    gray = Image.blend(picture, picture.convert("L").convert("RGB"), min(1, 2 * opacity))
    return Image.composite(colours, gray, Image.fromarray((255 * alpha).round().astype(np.uint8)))


def _same_aspect(grid, size):
    """Whether a layer may have a grid of (rows, columns) for a picture of this (height, width)."""
    (short_side, short), (long_side, long) = sorted(zip(size, grid, strict=True))
    expected = long * short_side / long_side
    # A grid is rounded by up to one cell, and convolutions without padding lose up to two cells of both sides.
    rounding, lost = max(1, short / 10), 2 * (1 - short_side / long_side)
    return expected - lost - rounding <= short <= expected + rounding


def _as_map(values):
    values = as_array(values)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[0] != 3) or 0 in values.shape:
        raise ValueError(f"no map of shape {values.shape}; accepted are (H, W), (1, H, W) and (3, H, W)")
    return torch.from_numpy(values.astype(np.float32))


def _resize(values, size):
    channels = values.reshape(1, -1, *values.shape[-2:])
    enlarged = torch.nn.functional.interpolate(channels, size=tuple(size), mode="bilinear", align_corners=False)
    return enlarged.reshape(*values.shape[:-2], *size)


def image_grid(images, *, columns=None, titles=None, width=None, gap=6):
    """Pictures side by side on white, as one `PIL.Image`.

    images: as for `as_picture`, at least one. columns: all in one row unless given. titles: one string
    above each, broken into lines where it is too long. width: every picture is scaled to that many pixels.
    Raises ValueError for no picture, or another number of titles.
    """
    pictures = [as_picture(image) for image in images]
    if not pictures:
        raise ValueError("no pictures given")
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(titles)} titles for {len(pictures)} pictures")
    if width:
        pictures = [_scaled(picture, width) for picture in pictures]
    columns = min(columns or len(pictures), len(pictures))
    cell_width = max(picture.width for picture in pictures)
    cell_height = max(picture.height for picture in pictures)
    font = ImageFont.truetype(_FONT, max(11, min(18, cell_width // 14)))
    titles = [_in_lines(title, font, cell_width) for title in titles or []]
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    band = round(lines * font.size * 1.35)
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * (cell_width + gap) - gap, rows * (cell_height + band + gap) - gap), "white")
    draw = ImageDraw.Draw(sheet)
    for i, picture in enumerate(pictures):
        left, top = (i % columns) * (cell_width + gap), (i // columns) * (cell_height + band + gap)
        if titles:
            draw.text((left + 2, top + 1), titles[i], fill="black", font=font)
        sheet.paste(picture, (left, top + band))
    return sheet


def _in_lines(title, font, width):
    """The title, with line breaks between words where it would run over its neighbour."""
    lines = []
    for line in title.split("\n"):
        words = line.split(" ")
        lines.append(words[0])
        for word in words[1:]:
            longer = f"{lines[-1]} {word}"
            if font.getlength(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(word)
    return "\n".join(lines)


def written(text, size):
    """A text as a `PIL.Image` of size (width, height), black on white, in lines that fit; the rest is cut off."""
    font = ImageFont.truetype(_FONT, 13)
    page = Image.new("RGB", size, "white")
    ImageDraw.Draw(page).multiline_text((8, 6), _in_lines(text, font, size[0] - 16), fill="black", font=font, spacing=3)
    return page


def _scaled(picture, width):
    method = Image.Resampling.NEAREST if picture.width * 2 <= width else Image.Resampling.LANCZOS
    return picture.resize((width, max(1, round(picture.height * width / picture.width))), method)


STYLES = "overlay", "beside", "colour", "gray"


@dataclass(frozen=True)
class Drawing:
    """How a map is drawn: style (one of `STYLES`), the percentile drawn brightest, the opacity.

    "overlay" lies over the photograph, "beside" has the photograph on its left, "colour" and "gray" are the map alone.
    """

    style: str = "overlay"
    percentile: float = 100
    opacity: float = 0.75

    def __call__(self, image, values, signed=False):
        """A map as a `PIL.Image` of the picture's size. image: as for `as_picture`; values: as in `heatmap`."""
        drawn = overlay(image, values, signed=signed, percentile=self.percentile,
                        cmap="gray" if self.style == "gray" else None,
                        opacity=self.opacity if self.style in STYLES[:2] else 1)
        if self.style == "beside":
            return image_grid([image, drawn])
        return drawn.convert("L") if self.style == "gray" else drawn

    def cell(self, position, rows, columns):
        """The cell (i, j) of a map of so many rows and columns that lies at a position of the drawn picture.

        position: two fractions, from the left and from the top, such as "0.25 0.6"; a click on a panel's picture gives
        them. Raises ValueError for other words.
        """
        numbers = [float(word) for word in position.split() if re.fullmatch(r"[01]|[01]?\.\d+", word)]
        if len(numbers) != 2 or max(numbers) > 1:
            raise ValueError(f"position {position!r}: click on the picture, or type two fractions such as 0.25 0.6")
        across, down = numbers
        if self.style == "beside":      # the photograph on the left has the same cells
            across = 2 * across % 1
        return min(int(down * rows), rows - 1), min(int(across * columns), columns - 1)


def drawn_curve(objectives):
    """The objective over the steps as a picture of 800 by 280, one line for each image of the batch.

    objectives: a list with one list `(N,)` for each step; values that are not finite are drawn as zero.
    """
    values = np.array(objectives, dtype=float)
    shown = np.linspace(0, len(values) - 1, min(len(values), 400)).round().astype(int)
    values = np.nan_to_num(values[shown], posinf=0, neginf=0)
    width, height, left, edge = 800, 280, 110, 34
    low, high = values.min(), values.max()
    x = left + (width - left - edge) * shown / max(shown[-1], 1)
    y = height - edge - (height - 2 * edge) * (values - low) / ((high - low) or 1)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(_FONT, 26)
    draw.line([(left, edge), (left, height - edge), (width - edge, height - edge)], fill="#9e9e9e", width=2)
    for text, position, anchor in [
        (f"{high:.3g}", (left - 8, edge), "rm"), (f"{low:.3g}", (left - 8, height - edge), "rm"),
        ("objective", (left + 10, 4), "lt"), (f"step {len(objectives)}", (width - edge, height - 4), "rb"),
    ]:
        draw.text(position, text, fill="#424242", font=font, anchor=anchor)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.8, values.shape[1]), bytes=True)
    for line, colour in zip(y.T, colours, strict=True):
        draw.line(list(zip(x, line, strict=True)), fill=tuple(colour[:3].tolist()), width=4, joint="curve")
    return sheet


def drawn_panel(fields, said, picture=None):
    """A panel as a picture for those who cannot run it.

    fields: `(label, value)` of its controls. said: what stands under them. picture: its `PIL.Image`, if it has one.
    """
    font, small, row = ImageFont.truetype(_FONT, 14), ImageFont.truetype(_FONT, 12), 26
    said = _in_lines(f"{said}\nThe controls work once you run the notebook.", small, 316)
    if picture:
        picture = _scaled(picture, min(600, round(336 * picture.width / picture.height)))
    width, height = picture.size if picture else (0, 0)
    end = 24 + round(max((font.getlength(label) for label, _ in fields), default=0))      # of the labels
    below = row * len(fields) + 12
    sheet = Image.new("RGB", (340 + width, max(height, below + 17 * (said.count("\n") + 1))), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (label, value) in enumerate(fields):
        top = row * number + 4
        draw.text((end - 8, top + 10), label, fill="#424242", font=font, anchor="rm")
        if label:
            draw.rectangle((end, top, 328, top + 20), outline="#bdbdbd")
        draw.text((end + 6 if label else 24, top + 10), value, fill="black", font=font, anchor="lm")
    draw.multiline_text((12, below), said, fill="#616161", font=small)
    if picture:
        sheet.paste(picture, (340, 0))
    return sheet


def show(*pictures, alt, titles=None, columns=None, width=None):
    """Show one static figure in the notebook, with alternative text for those who cannot see it.

    pictures: pictures as for `as_picture`, laid out by `image_grid`; or one matplotlib `Figure`.
    alt: what the figure shows, in words. titles, columns, width: as in `image_grid`; without a width,
    pictures share about 1,000 pixels. The figure is embedded as PNG or JPEG, whichever is smaller.
    Raises ValueError for an empty alt, and as `image_grid` does.
    """
    if not alt.strip():
        raise ValueError("alt is empty: say in words what the figure shows")
    if len(pictures) == 1 and isinstance(pictures[0], Figure):
        data, kind = _png(pictures[0]), "png"
    else:
        in_a_row = min(columns or len(pictures), len(pictures)) or 1
        width = width or min(480, 1000 // in_a_row)
        data, kind = _smaller(image_grid(pictures, columns=columns, titles=titles, width=width))
    display(DisplayedImage(data=data, format=kind, alt=alt))
    return_memory()      # what made the pictures is done


def _png(figure):
    buffer = io.BytesIO()
    # No version of matplotlib in the file: the same figure is then the same bytes.
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def _smaller(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=True)
    return min((buffer.getvalue(), "png"), (encoded(picture, quality=85), "jpeg"), key=lambda file: len(file[0]))
