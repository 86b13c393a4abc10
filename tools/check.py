"""Does everything that the course needs work here? One line each, and what to do where it does not: make check

Only the standard library is imported before the packages have been looked for, so that a missing one is told in words.
"""

import functools
import hashlib
import importlib
import importlib.metadata
import os
import re
import sys
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "course_utils" / "weights"
INSTALL = f"{Path(sys.executable).name} -m pip install --editable ."
FROM_GIT = "git checkout course_utils/weights brings it back; without git, download the course again"
NEEDED = 1.5        # GB: what the largest notebooks take
MODULES = {"pillow": "PIL", "ipython": "IPython"}


class Trouble(Exception):
    """What is wrong, and what to do."""


def declared(pattern):
    """What the pattern's group finds in pyproject.toml; Python reads TOML itself from 3.11 on only."""
    return re.search(pattern, (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]


def python():
    here, least = sys.version.split()[0], declared('^requires-python = ">=(.+?)"')
    if numbers(here) < numbers(least):
        raise Trouble(f"this is Python {here}, and the course needs {least} or newer. Remove the folder .venv, then: "
                      "make PYTHON=python3.12 lab, with the name of a newer one")
    return f"Python {here}"


def dependencies():
    """Distribution -> oldest version that will do, as pyproject.toml has them."""
    block = declared(r"^dependencies = \[\n(.*?)^\]")
    return dict(re.findall(r'^ *"([a-z0-9-]+)>=([\d.]+)"', block, flags=re.MULTILINE))


def numbers(version):
    return [int(part) for part in re.match(r"[\d.]*\d", version)[0].split(".")]


def packages():
    """Every package is there, new enough, and can be imported."""
    missing, old, broken, found = [], [], [], {}
    for name, least in dependencies().items():
        try:
            found[name] = importlib.metadata.version(name)
            if numbers(found[name]) < numbers(least):
                old.append(f"{name} {found[name]} (needs {least})")
            importlib.import_module(MODULES.get(name, name))
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
        except Exception as error:      # a package that is damaged may fail in any way
            broken.append(f"{name} ({type(error).__name__}: {str(error)[:120]})")
    wrong = [f"{word}: {', '.join(names)}" for word, names in
             [("missing", missing), ("too old", old), ("cannot be imported", broken)] if names]
    if wrong:
        remedy = f"In the folder of the course: {INSTALL}"
        if broken:
            remedy += "; if it stays so, make clean, then make lab, which sets everything up anew"
        raise Trouble(f"{'; '.join(wrong)}. {remedy}")
    shown = "torch", "torchvision", "numpy", "jupyterlab", "ipywidgets", "ipykernel"
    return f"{len(found)} packages: {', '.join(f'{name} {found[name]}' for name in shown)}"


def course():
    """Python finds this folder's course_utils, and not that of another clone."""
    import course_utils

    place = Path(course_utils.__file__).resolve().parent.parent
    if place != ROOT:
        raise Trouble(f"course_utils is that of {place}, not of this folder. Here: {INSTALL}")
    return "course_utils is the one of this folder"


def device():
    import torch

    from course_utils.environment import cpu_cores
    from course_utils.models import best_device

    try:
        chosen = best_device()
        torch.ones(2, device=chosen).sum().item()
    except (ValueError, RuntimeError) as error:
        raise Trouble(f"{error}. The course runs without: COURSE_DEVICE=cpu make lab") from None
    return f"works on {chosen}; CPU cores: {cpu_cores()}"


def memory():
    from course_utils.environment import available_memory

    free = available_memory() / 1e9
    if free < NEEDED:
        raise Trouble(f"{free:.1f} GB of memory are free, and the largest notebooks take {NEEDED} GB. Close other "
                      "programs, and in JupyterLab the kernels that you do not use: Kernel, Shut Down All Kernels")
    return f"{free:.1f} GB of memory are free"


def weights():
    """The files of both networks are those that the course was made with."""
    recorded = sorted(WEIGHTS.glob("*.pth.sha256"))
    if len(recorded) < 2:
        raise Trouble(f"the hashes of the two networks are not all in {WEIGHTS}: {FROM_GIT}")
    for file in recorded:
        stored = file.with_suffix("")
        if not stored.is_file():
            raise Trouble(f"{stored.name} is missing: {FROM_GIT}")
        if hashlib.sha256(stored.read_bytes()).hexdigest() != file.read_text().split()[0]:
            raise Trouble(f"{stored.name} is damaged, its SHA-256 is another: {FROM_GIT}")
    return f"both networks are whole: {', '.join(file.name.split('.')[0] for file in recorded)}"


@functools.cache
def network():
    from course_utils import load_model

    return load_model()


def prediction():
    from course_utils import predict, preprocess, sample_image

    best = predict(network(), preprocess(sample_image("red_panda"), network()))[0]
    if best.index != 387:
        raise Trouble(f"the network takes the red panda for {best.name}: torch computes something else here. "
                      "Remove the folder .venv, then make lab")
    return f"a prediction: the red panda is a {best.name} ({best.probability:.2f})"


def panel():
    from course_utils import explore, last_spatial_layer, sample_image
    from course_utils.techniques import draw_grad_cam
    from course_utils.widgets import Drawing

    started = time.perf_counter()
    shown = explore(draw_grad_cam, model=network(), image=sample_image("cat_dog"), target=281,
                    layer=last_spatial_layer(network()), drawing=Drawing())
    shown.close()
    return f"a panel, drawn in {time.perf_counter() - started:.1f} s"


CHECKS = python, packages, course, device, memory, weights, prediction, panel


def main():
    started, failed = time.perf_counter(), 0
    for check in CHECKS:
        try:
            print(f"ok       {check()}", flush=True)
            continue
        except Trouble as trouble:
            said = str(trouble)
        except ImportError as error:
            said = f"{check.__name__} could not be tried: {error}"
        except Exception as error:
            said = f"{check.__name__}: {type(error).__name__}: {error}"
        failed += 1
        print(textwrap.fill(said, 110, initial_indent="TROUBLE  ", subsequent_indent=" " * 9), flush=True)
    seconds = f"{time.perf_counter() - started:.0f} s"
    if failed:
        sys.exit(f"{failed} of {len(CHECKS)} are in trouble ({seconds}). Begin with the first; more: docs/running.md")
    print(f"Everything works ({seconds}): make lab")


if __name__ == "__main__":
    os.environ["TQDM_DISABLE"] = "1"
    main()
