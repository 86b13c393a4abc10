"""A sheet of maps for any picture and network: words instead of errors, a shuffled twin, one page for everything."""

import contextlib
import copy
import re
import warnings
from collections import Counter
from pathlib import Path

from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from .drawing import heatmap, image_grid, overlay, written
from .hooks import evaluation_mode, leaf, nodes, randomized
from .scores import class_score
from .steps import Stopped
from .widgets.panel import in_words

TILE = 224
# Activations by the name of their node in autograd's graph; the last stands for a ReLU under `relu_rule`.
_ACTIVATIONS = {
    "Relu": "ReLU", "Threshold": "ReLU", "Hardtanh": "ReLU6", "LeakyRelu": "LeakyReLU", "Elu": "ELU", "Silu": "SiLU",
    "Gelu": "GELU", "Mish": "Mish", "Hardswish": "Hardswish", "Hardsigmoid": "Hardsigmoid", "Sigmoid": "Sigmoid",
    "Tanh": "Tanh", "Softplus": "Softplus", "_RuledReLU": "ruled",
}


def in_a_sentence(function, *arguments, **options):
    """What a function gives, and what it warned of; or None, and why there is nothing, in one sentence.

    A Stop of a panel passes through.
    """
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            return function(*arguments, **options), "; ".join(str(warning.message) for warning in heard)
    except Stopped:
        raise
    except Exception as error:      # whatever it is: one failure must not cost the rest
        return None, in_words(error).split(". ")[0].split("\n")[0]


def activations(model, x, target=None):
    """How often each kind of activation lies between pictures and their score: a Counter of names such as "ReLU6".

    Counted in autograd's graph, so that functions count as modules do. Under `relu_rule` the ReLUs that it has reached
    are counted as "ruled". x, target and errors: as for `class_score`.
    """
    with evaluation_mode(model):
        score = class_score(model, leaf(x), target)
        kinds = [_ACTIVATIONS.get(node.name().split("Backward")[0]) for node in nodes(score.grad_fn, set())]
    return Counter(kind for kind in kinds if kind)


def share(part, whole):
    """A part over the whole, as a number. Raises ValueError where the whole is zero."""
    if not whole.any():
        raise ValueError("nothing moves this score: it, or its gradient, is zero")
    return (part / whole).item()


@contextlib.contextmanager
def shuffled_copy(model, seed=0):
    """A copy of a network whose weights are permuted as `randomized` does it; the network itself is not touched.

    None where no copy can be made, and for None.
    """
    with contextlib.ExitStack() as stack:
        yield in_a_sentence(lambda: model and stack.enter_context(randomized(copy.deepcopy(model), seed=seed)))[0]


def map_tile(pixels, values):
    """A map as a tile: of pixels by itself, its channels added up; of a coarser grid or of one channel, as an overlay.

    pixels: what the network saw, in [0, 1]. values: `(1, C, h, w)`, drawn signed where some are negative, else from
    their smallest to their largest.
    """
    signed = bool((values < 0).any())
    if values.shape[1] > 1:
        return heatmap(values.sum(dim=1), signed=signed, percentile=99.5)
    return overlay(pixels, values if signed else values - values.min(), signed=signed)


def recipe_of(model, image, classes, name, technique, shuffle):
    """How a map was made, for the metadata of its file. classes: `(1,)`, or None where the network has no answer."""
    return {
        "map": name, "technique": getattr(technique, "func", technique).__name__,
        "options": getattr(technique, "keywords", {}), "target": None if classes is None else classes.item(),
        "picture": f"{image.width}×{image.height}", "model": getattr(model, "course_name", type(model).__name__),
        "preprocessing": getattr(model, "course_input", "its own"), "seed of the twin": 0 if shuffle else None,
    }


def save_text(text, path):
    """Save a text; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def file_name(number, name):
    """A name of a tile as that of a PNG which every system takes, such as "04_gradient_image.png"."""
    return f"{number:02d}_{'_'.join(re.findall('[A-Za-z0-9]+', name))}.png"


class Page:
    """A photograph, a text beside it, and tiles beneath, four in a row; with pairs, two pairs in a row.

    pixels: `(1, 3, H, W)` in [0, 1]. names: those of the tiles, which are white until they are put there.
    """

    def __init__(self, pixels, text, names, pairs=False):
        self.pixels, self.tiles = pixels, {}
        self._titles = {name: f"{name}\n" for name in names}
        self._columns = 2 if pairs else 4
        photograph = image_grid([pixels], width=TILE)
        self._empty = image_grid([Image.new("RGB", photograph.size, "white")] * (1 + pairs))
        width = 4 * TILE + 18
        lines = sum(1 + len(line) // 88 for line in text.split("\n"))      # when broken
        height = max(photograph.height, 17 * lines + 12)
        self._head = Image.new("RGB", (width, height), "white")
        self._head.paste(photograph, (0, 0))
        self._head.paste(written(text, (width - TILE - 6, height)), (TILE + 6, 0))

    def put(self, name, values, twin, said):
        """A map on its place, a twin at its side if there is one, and a title; without a map the words stand there."""
        if values is None:
            drawn, said = [written(said, (TILE, TILE))], ""
        else:
            drawn = [map_tile(self.pixels, each) for each in (values, twin) if each is not None]
        self.tiles[name] = image_grid(drawn, width=TILE)
        self._titles[name] = f"{name}\n{said}"

    def maps(self):
        """The tiles without the photograph and the text, as a `PIL.Image`."""
        drawn = [self.tiles.get(name, self._empty) for name in self._titles]
        return image_grid(drawn, titles=list(self._titles.values()), columns=self._columns)

    def picture(self):
        """The page as a float tensor `(1, 3, H, W)` in [0, 1]."""
        grid = self.maps()
        page = Image.new("RGB", (self._head.width, self._head.height + 6 + grid.height), "white")
        page.paste(self._head, (0, 0))
        page.paste(grid, (0, self._head.height + 6))
        return pil_to_tensor(page)[None] / 255
