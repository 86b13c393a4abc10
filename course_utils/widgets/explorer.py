"""`explore`: change a control, see the picture change."""

import threading

import torch
from PIL import Image
from torch import nn

from ..hooks import measured
from ..images import preprocess, save_image
from ..models import class_name
from ..scores import class_scores, probabilities
from ..steps import Listener, Stopped
from .panel import Panel, attempt, in_words
from .pickers import ClassPicker


class Explore(Panel):
    """A panel of controls with one live picture; show it by naming it in the last line of a cell.

    function: called as `function(**values)`; returns a picture (`PIL.Image`, tensor or array), or a picture
    and a text for the status line. controls: one keyword argument each: a picker, any ipywidget with a
    value, or a plain value that is passed on as it is. button: without it the picture is drawn at once, and
    again at every change, of which only the newest counts. With a name for it, such as "Compute", it is
    drawn on click, with a bar that follows `course_utils.progress`, and a Stop. A click on the picture fills in a
    text field that is named `position`, for `Drawing.cell`.

    The first picture of a panel without a button is drawn before `explore` returns, and its errors are
    raised. Later ones are told in the status line, and the last good picture stays.
    """

    def __init__(self, function, *, button=None, **controls):
        self._button = button
        super().__init__(function, controls, runs=button or "")
        if button is None:
            try:
                self._draw(*self._ask(), threading.Event())
            except BaseException:
                self.close()
                raise

    def _changed(self, change):
        if self._button is not None:
            super()._changed(change)
        elif self._is_stale():      # a picker that follows another reports twice
            self._submit()

    def _work(self, values, recipe, unwanted):
        Listener(self._tell, unwanted).listen()
        error = attempt(self._draw, values, recipe, unwanted)
        if error and not unwanted.is_set():
            self._end(in_words(error), error=True)
        elif error and self._button is not None:
            self._end("Stopped.")

    def _draw(self, values, recipe, unwanted):
        """Show the picture, unless it is not wanted any more; errors are raised."""
        with measured(values.values()) as cost:
            result = self.function(**values)
            picture, text = result if isinstance(result, tuple) else (result, "")
            cost = cost()
        said = [part for part in (self._asked_about(values), text) if part]
        if unwanted.is_set():
            raise Stopped
        self._show(picture, " · ".join(said))
        self._shown = picture, recipe
        self._end(" · ".join([*said, cost]))

    def _write(self, path):
        save_image(self._shown[0], path, self._shown[1])

    def _asked_about(self, values):
        """Which class the picture is about, and what the network says, where it is asked about a photograph."""
        targets = [values[name] for name, control in self.controls.items() if isinstance(control, ClassPicker)]
        models, images = ([value for value in values.values() if isinstance(value, kind)]
                          for kind in (nn.Module, Image.Image))
        if not (targets and models and images):
            return ""
        with torch.no_grad():
            p = probabilities(class_scores(models[0], preprocess(images[0], models[0])))[0]
        top = int(p.argmax())
        asked = top if targets[0] is None else targets[0]
        said = f"map for {asked} {class_name(asked, len(p))} ({p[asked]:.2f})"
        return said if asked == top else f"{said} · the network says {class_name(top, len(p))} ({p[top]:.2f})"
