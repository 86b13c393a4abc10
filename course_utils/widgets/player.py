"""`play`: watch a picture grow step by step, and stop it when you like."""

import math
import time

import ipywidgets as widgets
import numpy as np
import torch

from ..drawing import drawn_curve, image_grid
from ..hooks import measured
from ..images import encoded, save_animation, save_image
from .panel import Panel, attempt, in_words
from .pickers import ClassPicker

FRAMES = 60             # kept for the animation, at most
WIDEST_FRAME = 480      # pixels


class Play(Panel):
    """A panel that runs a generator of `Step` from a Run button, with preview, objective curve and Stop.

    generator_function: called as `generator_function(**values)`, yields `Step(number, objective, image)`; with None for
    an objective there is no curve.
    controls: as in `explore`; they are read when Run is pressed. total: how many steps there will be, for
    the progress bar: a number, or a function `total(**values)`; without it, the value of the control
    `steps`. recipe: a dict of what else belongs into the metadata of a saved picture, beside the values. A control
    cannot have these two names.

    Stop acts after the step that is running, and the picture made so far stays; so it does after an error,
    which is told in the status line. "Save PNG" and "Save GIF" write into the course's folder `output`.
    """

    def __init__(self, generator_function, *, total=None, recipe=None, **controls):
        self._total, self._recipe, self._film = total, recipe or {}, None
        self.curve = widgets.Image(format="jpeg", layout={"display": "none", "width": "98%"})
        super().__init__(generator_function, controls, runs="Run", formats=(".png", ".gif"), rows=[self.curve])

    def _work(self, values, recipe, unwanted):
        about = "".join(f"{recipe[name]} · " for name, control in self.controls.items()
                        if isinstance(control, ClassPicker))
        film = Film({**self._recipe, **recipe}, about)
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
            self._film = film      # the one whose picture is on the screen
            self._show(film.picture(), film.said())
            if film.objectives:
                self.curve.value = encoded(drawn_curve(film.objectives))
            self.curve.layout.display = None if film.objectives else "none"

    def _write(self, path):
        self._film.save(path)


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
        if step.objective is not None:
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
        objective = f" · objective {np.mean(self.objectives[-1]):.4g}" if self.objectives else ""
        return f"{self._about}step {self.last.number}{of}{objective}"

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
