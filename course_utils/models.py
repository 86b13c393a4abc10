"""Networks to explain, and what they say about a picture."""

import difflib
import hashlib
import http.client
import os
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

import torch
import torchvision
from torchvision.models import get_model, get_model_weights, list_models

from .networks import LITE0_WEIGHTS, EfficientNetLite0, fold_batch_norm
from .scores import class_scores, probabilities

BUNDLED = "squeezenet1_1", "efficientnet_lite0"      # their weights come with the course
DEFAULT = BUNDLED[0]
_WEIGHTS = Path(__file__).parent / "weights"
_CATEGORIES = LITE0_WEIGHTS.meta["categories"]
# Common names that torchvision's list shortened or replaced.
_ALIASES = {
    "red panda": 387, "worm snake": 52, "alsatian": 235, "orca": 148, "puma": 286,
    "hippo": 344, "mobile phone": 487,
}


class Prediction(NamedTuple):
    """One line of a network's answer: class index, class name, probability in [0, 1]."""

    index: int
    name: str
    probability: float


def best_device():
    """The device to work on: CUDA, then Apple's MPS, then the CPU; the variable COURSE_DEVICE overrides.

    Raises ValueError where COURSE_DEVICE names no device that torch can use here.
    """
    wanted = os.environ.get("COURSE_DEVICE")
    if wanted:
        return _usable(wanted, f"COURSE_DEVICE={wanted!r}")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _usable(device, label):
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{label} cannot be used here: {reason}") from error
    return torch.device(device)


def available_models():
    """Names of all classification networks that `load_model` accepts, the two bundled ones first."""
    return [*BUNDLED, *(name for name in list_models(module=torchvision.models) if name not in BUNDLED)]


def load_model(name=DEFAULT, *, weights="pretrained", device=None):
    """A classification network in evaluation mode, frozen, channels_last, on the best device.

    name: one of `available_models()`. weights: "pretrained" (ImageNet; bundled for squeezenet1_1 and
    efficientnet_lite0, fetched once by torchvision for the others) or "random" (drawn from torch's global
    generator). The bundled weights of squeezenet1_1 are a conversion of the original SqueezeNet v1.1, not
    torchvision's file of that name. efficientnet_lite0 has its BatchNorm folded into the convolutions.

    Raises ValueError for an unknown name, an unknown kind of weights or a device that cannot be used,
    RuntimeError where weights cannot be fetched or a file is corrupt.
    """
    if name not in available_models():
        near = difflib.get_close_matches(str(name), available_models(), n=5, cutoff=0.4)
        raise ValueError(f"no model {name!r}; the nearest names are {near or available_models()[:5]}")
    if weights not in ("pretrained", "random"):
        raise ValueError(f"weights={weights!r}: accepted are 'pretrained' and 'random'")
    device = best_device() if device is None else _usable(device, f"device={str(device)!r}")
    published = published_weights(name)
    if weights == "random":
        model = _untrained(name)
    elif name in BUNDLED:
        model = _untrained(name)
        model.load_state_dict(_bundled_weights(name))
    else:
        model = _fetch(name, published)
    model.course_weights = published      # preprocess looks here
    model.course_name = f"{name}, {weights} weights"      # what the recipe of a saved picture says
    model.eval().requires_grad_(False)
    if isinstance(model, EfficientNetLite0):
        fold_batch_norm(model)
    return model.to(device, memory_format=torch.channels_last)


def _untrained(name):
    if name == "efficientnet_lite0":
        return EfficientNetLite0()
    # GoogLeNet and Inception warn, and initialize slowly, unless they are told which way to do it.
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return get_model(name, weights=None, **options)


def published_weights(name):
    """The entry for the ImageNet weights of a network, as torchvision has it: address, size, transforms, categories."""
    if name == "efficientnet_lite0":
        return LITE0_WEIGHTS
    entries = get_model_weights(name)
    return getattr(entries, "IMAGENET1K_V1", None) or next(iter(entries))


def cached_file(published):
    """Where torchvision keeps, or would keep, the file of these weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(published.url).path).name


def must_be_fetched(name):
    """Whether the weights of a network must be fetched first: they are neither bundled nor in torchvision's cache."""
    return name not in BUNDLED and not cached_file(published_weights(name)).is_file()


def _bundled_weights(name):
    weights_file, hash_file = _WEIGHTS / f"{name}.pth", _WEIGHTS / f"{name}.pth.sha256"
    repair = "restore it with `git checkout course_utils/weights` or install the course again"
    for file in (weights_file, hash_file):
        if not file.is_file():
            raise RuntimeError(f"the bundled weights are missing: no {file}; {repair}")
    if hashlib.sha256(weights_file.read_bytes()).hexdigest() != hash_file.read_text().split()[0]:
        raise RuntimeError(f"the bundled weights are corrupt (SHA-256 differs): {weights_file}; {repair}")
    return torch.load(weights_file, map_location="cpu", weights_only=True)


def _fetch(name, published):
    file = cached_file(published)
    if file.is_file():
        _check_cached(file)
    else:
        megabytes = published.meta["_file_size"]
        print(f"{name}: fetching {megabytes:.0f} MB once, to {file}", file=sys.stderr)
    try:
        return get_model(name, weights=published)
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        if file.is_file():
            raise
        raise RuntimeError(
            f"the weights of {name} could not be fetched from {published.url} ({error}). They would be kept "
            f"in {file.parent}: put the file there by hand, or try again with a network. "
            f"What works now without one: {', '.join(_models_that_work_now())}, and any model with "
            "weights='random'"
        ) from error


def _check_cached(file):
    # torchvision's file names end in the first digits of the file's SHA-256: name-0123abcd.pth
    digits = file.stem.rpartition("-")[2]
    hash_ = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            hash_.update(block)
    found = hash_.hexdigest()
    if not found.startswith(digits):
        raise RuntimeError(
            f"the cached weights {file} are corrupt: their SHA-256 begins with {found[:len(digits)]}, expected "
            f"{digits}. Delete the file and load the model again: it is then fetched anew"
        )


def _models_that_work_now():
    return [name for name in available_models() if not must_be_fetched(name)]


def class_name(index, classes=1000):
    """The ImageNet name of a class; "class 3" where the network has another number of classes than ImageNet.

    Raises IndexError for an index outside 0…classes − 1.
    """
    if not 0 <= int(index) < classes:
        raise IndexError(f"class {index}: the network's classes are 0 to {classes - 1}")
    return _CATEGORIES[int(index)] if classes == len(_CATEGORIES) else f"class {int(index)}"


def find_class(name):
    """Indices of the ImageNet classes called `name`: a list, because a name may fit several.

    First the classes of exactly that name or alias ("red panda" is torchvision's "lesser panda"); without
    any, those whose name contains it. Case does not matter.
    Raises ValueError for a name that nothing contains, with the nearest names.
    """
    wanted = str(name).strip().lower()
    names = [category.lower() for category in _CATEGORIES]
    exact = [i for i, category in enumerate(names) if category == wanted]
    found = exact or [_ALIASES[name] for name in [wanted] if name in _ALIASES]
    found = found or [i for i, category in enumerate(names) if wanted and wanted in category]
    if not found:
        near = difflib.get_close_matches(wanted, names + list(_ALIASES), n=5, cutoff=0.4)
        raise ValueError(f"no ImageNet class is called {name!r}; the nearest names are "
                         f"{', '.join(near) or 'none'}")
    return found


def predict(model, x, k=5):
    """The k most probable classes of a picture: a list of `Prediction(index, name, probability)`.

    x: preprocessed `(N, 3, H, W)`. A batch of one gives one list, a larger batch a list of lists. All classes
    where the network has fewer than k. Raises ValueError for a wrong shape, or a k below 1.
    """
    scores = class_scores(model, x)
    classes = scores.shape[1]
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"k={k}: accepted is a whole number from 1; the network has {classes} classes")
    top, indices = probabilities(scores.detach()).cpu().topk(min(k, classes), dim=1)
    rows = [
        [Prediction(i, class_name(i, classes), p) for i, p in zip(*row, strict=True)]
        for row in zip(indices.tolist(), top.tolist(), strict=True)
    ]
    return rows[0] if len(rows) == 1 else rows
