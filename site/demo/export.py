"""Puts together what the demo is served from: its scripts, its runtime, the network, and the photographs.

`python site/demo/export.py RUNTIME FOLDER`: the folder with onnxruntime-web's files, and the one to fill. `make site`
calls it.
"""

import json
import shutil
import sys
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageOps

from course_utils import class_name, load_model, sample_images, to_input
from course_utils.drawing import SEQUENTIAL
from course_utils.images import INPUT_IMAGES

HERE = Path(__file__).parent
RUNTIME = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"      # one thread, no GPU
DRAWN = 448          # pixels: the side of the picture on the page
OPACITY = 0.75       # of the largest value of a map: as `overlay`
THUMBNAIL = 128      # pixels: twice what is shown, for fine screens


class ClassMaps(torch.nn.Module):
    """From pixels, uint8 `(1, H, W, 3)`, to probabilities `(1, 1000)` and class maps `(1, 1000, h, w)`.

    The class map is that of notebook 06: the votes of the cells, whose mean is the score.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels):
        x = to_input(pixels.permute(0, 3, 1, 2) / 255, self.model)
        maps = self.model.classifier[:-1](self.model.features(x))      # all of the head but the average
        return maps.mean((2, 3)).softmax(1), maps


def export_network(network, side, path):
    """Write the network as ONNX; returns how many cells its maps have along a side."""
    pixels = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    torch.onnx.export(network, (pixels,), input_names=["pixels"], output_names=["probabilities", "maps"],
                      dynamo=True, verbose=False).save(path)
    return network(pixels)[1].shape[-1]


def copy_photographs(folder):
    """The photographs, and a small square of each."""
    for name in sample_images():
        photograph = INPUT_IMAGES / f"{name}.jpg"
        shutil.copy(photograph, folder / "photographs")
        with Image.open(photograph) as image:
            ImageOps.fit(image, (THUMBNAIL, THUMBNAIL)).save(folder / "thumbnails" / photograph.name, quality=85)


def main(runtime, folder):
    for name in ("photographs", "thumbnails"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for file in [*HERE.glob("*.js"), *HERE.glob("*.css"), *(runtime / name for name in RUNTIME)]:
        shutil.copy(file, folder)
    copy_photographs(folder)
    model = load_model(device="cpu").to(memory_format=torch.contiguous_format)
    transforms = model.course_weights.transforms()
    side, network = transforms.crop_size[0], folder / "network.onnx"
    cells = export_network(ClassMaps(model).eval(), side, network)
    (folder / "settings.json").write_text(json.dumps({
        "shorter": transforms.resize_size[0], "side": side, "cells": cells, "drawn": DRAWN,
        "largest": Image.MAX_IMAGE_PIXELS,
        "classes": [class_name(i) for i in range(1000)],
        "colours": matplotlib.colormaps[SEQUENTIAL](range(256), bytes=True)[:, :3].tolist(),
        "opacity": OPACITY,
        "megabytes": round(sum(file.stat().st_size for file in (network, folder / RUNTIME[1])) / 1e6),
    }), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
