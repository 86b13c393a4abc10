"""`play`: watch a picture grow step by step, and stop it when you like."""

import itertools
import math
import re
import time

import ipywidgets as widgets
import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..drawing import image_grid
from ..images import OUTPUT, save_animation, save_image
from .panel import Panel, attempt, button, encoded, in_words, measured, side_by_side
from .pickers import ClassPicker

FRAMES = 60             # kept for the animation, at most
WIDEST_FRAME = 480      # pixels


class Play(Panel):
    """A panel that runs a generator of `Step` from a Run button, with preview, objective curve and Stop.

    generator_function: called as `generator_function(**values)`, yields `Step(number, objective, image)`.
    controls: as in `explore`; they are read when Run is pressed. total: how many steps there will be, for
    the progress bar: a number, or a function `total(**values)`; without it, the value of the control
    `steps`. recipe: a dict of what else belongs into the metadata of a saved picture, beside the values.

    Stop acts after the step that is running, and the picture made so far stays; so it does after an error,
    which is told in the status line. "Save PNG" and "Save GIF" write into the course's folder `output`.
    """

    def __init__(self, generator_function, *, total=None, recipe=None, **controls):
        self._name = getattr(generator_function, "__name__", "picture")
        self._total, self._recipe, self._film = total, recipe or {}, None
        self.curve = widgets.Image(format="jpeg", layout={"display": "none", "width": "98%"})
        self.save_png = button("Save PNG", "image", disabled=True)
        self.save_gif = button("Save GIF", "film", disabled=True)
        for name, part in {"curve": self.curve, "save-png": self.save_png, "save-gif": self.save_gif}.items():
            part.add_class(f"course-{name}")
        rows = [side_by_side(self.save_png, self.save_gif), self.curve]
        super().__init__(generator_function, controls, runs="Run", rows=rows)
        self.save_png.on_click(lambda _: self._save(".png"))
        self.save_gif.on_click(lambda _: self._save(".gif"))

    def _work(self, values, recipe, unwanted):
        about = "".join(f"{recipe[name]} · " for name, control in self.controls.items()
                        if isinstance(control, ClassPicker))
        self._film = film = Film({"technique": self._name, **self._recipe, **recipe}, about)
        with measured(values.values()) as cost:
            error = attempt(self._follow, film, values, unwanted)
            error = attempt(self._preview, film) or error      # also after an error: what was made stays
            ended = "stopped" if unwanted.is_set() else "done"
            self._end(in_words(error) if error else f"{film.said()} · {ended} · {cost()}", error=bool(error))

    def _follow(self, film, values, unwanted):
        film.total = self._total(**values) if callable(self._total) else self._total or values.get("steps")
        steps = self.function(**values)
        due = 0
        try:
            for step in steps:
                film.add(step)
                self._tell(step.number, film.total)
                started = time.perf_counter()
                if started >= due:
                    self._preview(film)
                    self._line.say(film.said())
                    # At most ten pictures a second, and a fifth of the time where pictures are large.
                    due = started + max(0.1, 5 * (time.perf_counter() - started))
                if unwanted.is_set():
                    break
        finally:
            getattr(steps, "close", bool)()      # a generator is closed in the thread that ran it

    def _preview(self, film):
        if film.last:
            self._show(film.picture())
            self.curve.value = encoded(drawn_curve(film.objectives))
            self.curve.layout.display = None

    def _busy(self, busy):
        super()._busy(busy)
        self.save_png.disabled = self.save_gif.disabled = busy or not self._film.last

    def _save(self, suffix):
        if self.save_png.disabled:
            return
        name = re.sub(r"\W", "", self._name)
        paths = (OUTPUT / f"{name}_{number:02d}{suffix}" for number in itertools.count(1))
        path = next(path for path in paths if not path.exists())
        film = self._film
        self.run.disabled = self.save_png.disabled = self.save_gif.disabled = True

        def work(unwanted):
            error = attempt(film.save, path)
            said = in_words(error) if error else f"Saved {path} ({path.stat().st_size / 1e6:.1f} MB)."
            self._line.say(said, error=bool(error))
            self._busy(False)

        self._line.say(f"Saving {path} …")
        self._worker.submit(work)


class Film:
    """What is kept of a run: the newest step, the course of the objective, and some frames."""

    def __init__(self, recipe, about):
        self.recipe, self._about = recipe, about
        self.total = self.last = None
        self.objectives = []
        self._frames, self._stride = [], 1

    def add(self, step):
        """Take in a step."""
        self.last = step
        self.objectives.append(step.objective.tolist())
        if self._is_kept(step):
            self._frames.append(_eight_bits(step.image))
            if len(self._frames) == FRAMES:      # full: every second one goes, and only half as many come
                self._frames, self._stride = self._frames[::2], 2 * self._stride

    def said(self):
        """Where the run is, in words."""
        if not self.last:
            return f"{self._about}no step"
        of = f" of {self.total}" if self.total else ""
        return f"{self._about}step {self.last.number}{of} · objective {np.mean(self.objectives[-1]):.4g}"

    def picture(self):
        """The newest picture, or all of the batch in a grid."""
        return _grid(self.last.image)

    def save(self, path):
        """Write the picture with its recipe, or the animation, as the path's ending says."""
        if path.suffix == ".png":
            save_image(self.picture(), path, {**self.recipe, "step": self.last.number})
        else:
            last = [] if self._is_kept(self.last) else [_eight_bits(self.last.image)]
            save_animation([_grid(frame, WIDEST_FRAME) for frame in [*self._frames, *last]], path)

    def _is_kept(self, step):
        return (step.number - 1) % self._stride == 0


def _eight_bits(image):
    return (image * 255).round().to("cpu", torch.uint8)


def _grid(images, widest=None):
    count = len(images)
    columns = count if count <= 3 else math.ceil(math.sqrt(count))
    width = min(images.shape[-1], widest // columns) if widest else None
    return image_grid(list(images), columns=columns, width=width)


def drawn_curve(objectives):
    """The objective over the steps as a picture, one line for each image of the batch.

    objectives: a list with one list `(N,)` for each step. Drawn at twice the size it is shown at.
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
    font = ImageFont.load_default(26)
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
