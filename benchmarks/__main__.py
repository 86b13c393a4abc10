"""Measure everything, print the tables, and write them to benchmarks/RESULTS.md."""

import argparse
import platform
from pathlib import Path

import torch

from benchmarks import attribution, image_making
from course_utils import setup

RESULTS = Path(__file__).parent / "RESULTS.md"
INTRODUCTION = """# What the techniques cost

Written by `make bench`. Times are medians in milliseconds for one photograph (cat_dog) of 224 × 224; the contenders of
a row were called in turns.

- **ours**: the function of the course, with its defaults (50 passes where a method averages, in batches of 8).
- **bare passes**: only the forward and backward passes that the method needs, same network, same batches. Two methods
  have work of their own at every layer that no bare pass contains: guided backprop keeps what enters each ReLU and
  clamps the signal there, and `lrp` divides and multiplies as its rules say.
- **Captum, same network**: Captum's call on the network as `load_model` prepares it (frozen, channels_last), same
  batches.
- **Captum, as documented**: the network as torchvision gives it, and Captum's default batching: all at once.
- **our memory**: the most that our call held above the network and the picture, in MB.
- **largest difference**: between our map and Captum's on the same network, as a fraction of the maximum. Captum's
  NoiseTunnel was given our noise. A dash: Captum does not have the method.
- For the techniques that make images, **bare** is one step's transformations, and the forward and backward pass of its
  objective: of the network as far as it is needed, and for the inversion of the two regularizers.
"""


def main():
    argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__).parse_args()
    device = setup(0)
    text = INTRODUCTION
    for where in dict.fromkeys([torch.device("cpu"), device]):
        text += f"\n## {describe(where)}\n"
        for name, weights in attribution.NETWORKS.items():
            text += f"\n### {name}, {weights} weights\n\n" + table(attribution.HEADER, attribution.rows(name, where))
        text += "\n### Images made by optimization: squeezenet1_1, milliseconds per step\n\n"
        text += table(image_making.HEADER, image_making.rows("squeezenet1_1", where))
    RESULTS.write_text(text, encoding="utf-8")
    print(f"Written to {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}")


def describe(device):
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return f"{device.type.upper()} ({hardware}), torch {torch.__version__.split('+')[0]}, {platform.machine()}"


def table(header, rows):
    """A Markdown table; each row is printed as soon as it is there."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    print("\n" + "\n".join(lines))
    for row in rows:
        lines.append("| " + " | ".join(_text(value) for value in row) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def _text(value):
    if value is None:
        return "–"
    if isinstance(value, str | int):
        return str(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value >= 0.01 or value == 0 else f"{value:.0e}"


if __name__ == "__main__":
    main()
