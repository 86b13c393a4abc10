"""What all panels share: controls beside a picture, a status line, and a thread that only sets traits.

Nothing is printed, displayed or plotted here: what a callback or a thread prints appears in no cell.
"""

import contextlib
import functools
import html
import inspect
import io
import itertools
import re
import sys
import threading
import weakref
from base64 import b64encode
from pathlib import Path

import ipywidgets as widgets
import torch
from IPython import get_ipython
from PIL import Image
from torch import nn
from traitlets import TraitError, Unicode

from ..drawing import drawn_panel
from ..images import OUTPUT, encoded

# A style runs what stands in its `onload`; where that is forbidden, the panel works without it.
PAGE = '<style onload="{}">.course-panel:has(.course-position) .course-picture {{cursor: crosshair}}</style>'.format(
    html.escape(Path(__file__).with_name("page.js").read_text()))
RESTARTED = "No answer? After a restart choose Run, then Run All Above Selected Cell, and run this cell."
_panels = weakref.WeakSet()


class Panel(widgets.VBox):
    """Controls and a status line on the left, a picture on the right.

    `controls`: name → control, the first six in sight. `image`: the picture, with what it shows as its tooltip, which
    is its alternative text too. `status`: the text of the status line. `run`, `stop` and `bar` are on the screen only
    where there is something to run; `saves`: ending → button. A new panel ends the work of those that an earlier run
    of the same cell left behind.

    Raises TypeError where the function cannot be called with these controls, and says which is missing or unknown.
    """

    def __init__(self, function, controls, *, runs="", formats=(".png",), rows=()):
        self.function = function
        self._name = re.sub(r"\W", "", getattr(function, "__name__", "picture"))
        self.controls = {name: control for name, control in controls.items() if isinstance(control, widgets.Widget)}
        self._given = controls
        self._asked = None      # the values that were computed with last
        self._stopped = False
        self._worker = Worker()
        _check_call(function, controls)
        layout = {"display": "none", "min_width": "min(672px, 100%, 80vh)", "margin": "0"}
        self.image = Picture(format="jpeg", layout=layout)
        self.run = button(runs, "play", button_style="primary")
        self.stop = button("Stop", "stop", disabled=True)
        self.bar = widgets.FloatProgress(max=1, layout={"width": "98%", "height": "16px"})
        self._said = f"Press {runs}." if runs else ""      # how the work ended, or what to do first
        self._line, self.waiting = Line(self._said), Line()
        self.reset = button("Reset", "undo")
        self.saves = {ending: button(f"Save {ending[1:].upper()}", "save", disabled=True) for ending in formats}
        parts = {"picture": self.image, "run": self.run, "stop": self.stop, "bar": self.bar, "status": self._line,
                 "waiting": self.waiting, "reset": self.reset}
        parts |= {"save-" + ending[1:]: save for ending, save in self.saves.items()}
        for name, part in (self.controls | parts).items():
            part.add_class("course-" + name.replace("_", "-"))
        arrange(self.controls)
        buttons, rest = (widgets.HBox(row, layout={"width": "98%"}) for row in (
            [self.run, self.stop], [*self.saves.values(), self.reset]))
        running = [buttons, self.bar] if runs else []
        self._fields = [(field, field.value) for control in self.controls.values() for field in _fields(control)
                        if field.has_trait("value") and field.layout.display != "none" and not isinstance(field, Line)]
        shown = list(self.controls.values())
        more = [widgets.Accordion([widgets.VBox(shown[6:])], titles=["more"])] if shown[6:] else []
        left = [*shown[:6], *more, *running, self._line, self.waiting, rest, *rows, Line(RESTARTED),
                widgets.HTML(PAGE, layout={"display": "none"})]
        # Beside each other where there is room, else the picture beneath. It has up to three times the pixels
        # that most networks see, and more only where the picture itself has more.
        right = {"flex": "1 1 448px", "min_width": "0", "align_items": "flex-start", "margin": "0 0 0 16px"}
        super().__init__([widgets.HBox([
            widgets.VBox(left, layout={"width": "340px", "flex": "0 0 auto"}),
            widgets.VBox([self.image], layout=right),
        ], layout={"flex_flow": "row wrap"})])
        self.add_class("course-panel")
        self._cell, self._execution = cell_of(function)
        for panel in list(_panels):
            if panel._cell == self._cell and panel._execution != self._execution:
                panel.close()
        _panels.add(self)
        watch(getattr(get_ipython(), "kernel", None))
        self.run.on_click(lambda _: self._start())
        self.stop.on_click(lambda _: self._halt())
        self.reset.on_click(lambda _: self._put_back())
        for ending, save in self.saves.items():
            save.on_click(lambda _, ending=ending: self._save(ending))
        for control in self.controls.values():
            control.observe(self._changed, "value")

    def _repr_mimebundle_(self, **options):
        """The live panel, and for those who read without a kernel a picture of it, with its controls in words."""
        fields = [_described(field) for field, _ in self._fields]
        said = self.image.tooltip or self._said
        told = f"A panel with the controls {', '.join(f'{label} {value}'.strip() for label, value in fields)}: {said}"
        picture = Image.open(io.BytesIO(self.image.value)) if self.image.value else None
        data = encoded(drawn_panel(fields, said, picture), quality=75)
        live = super()._repr_mimebundle_(**options)
        return live | {"text/plain": told, "image/jpeg": b64encode(data).decode()}, {"image/jpeg": {"alt": told}}

    @property
    def status(self):
        """What the status line says."""
        return self._line.text

    def values(self):
        """What the function is called with: the controls' values now, and the constants."""
        return {name: given.value if name in self.controls else given for name, given in self._given.items()}

    def wait(self, timeout=None):
        """Block until the panel is idle, and pickers that load something too; TimeoutError after so many seconds."""
        for control in self.controls.values():
            if hasattr(control, "wait"):
                control.wait(timeout)
        self._worker.wait(timeout)

    def close(self):
        """End the work and take the panel off the screen; the controls stay."""
        self._worker.halt()
        for control in self.controls.values():
            with contextlib.suppress(ValueError):      # not observed: closed before
                control.unobserve(self._changed, "value")
        super().close()

    def _is_stale(self):
        """Whether the controls are ahead of the picture. Unchanged controls give the very same objects."""
        return self._asked is not None and any(value is not self._asked[name] for name, value in self.values().items())

    def _changed(self, change):
        """A control has a new value, or its old one back."""
        if not self.run.disabled:
            self._line.say(f"The controls changed: press {self.run.description}." if self._is_stale() else self._said)

    def _start(self):
        """Run was pressed. Nothing runs on values that are not those on the screen."""
        if self.run.disabled:
            return
        for name, control in self.controls.items():
            if why := getattr(control, "refusal", ""):
                self._line.say(f"Not run, because of {name.replace('_', ' ')}: {why}.", error=True)
                return
        self._busy(True)
        self._line.say("Starting …")
        self.stop.focus()
        self._submit()

    def _submit(self):
        """Hand the values of now to the thread."""
        values, recipe = self._ask()
        self._worker.submit(lambda unwanted: self._work(values, recipe, unwanted))

    def _ask(self):
        """The values of now, and the recipe that says them in words: later the controls say something else."""
        self._asked = self.values()
        told = {name: self._told(name, value) for name, value in self._asked.items()}
        return self._asked, {"technique": self._name, **told}

    def _told(self, name, value):
        """A value as it stands in the recipe of a saved picture."""
        if isinstance(value, nn.Module):
            return getattr(value, "course_name", type(value).__name__)
        if isinstance(value, torch.Tensor):
            return f"tensor {tuple(value.shape)}"
        return getattr(self.controls.get(name), "text", value)

    def _save(self, ending):
        if not self.saves[ending].disabled:
            paths = (OUTPUT / f"{self._name}_{number:02d}{ending}" for number in itertools.count(1))
            path = next(path for path in paths if not path.exists())
            self._line.say(f"Saving {path} …")
            error = attempt(self._write, path)
            self._end(in_words(error) if error else f"Saved {path} ({path.stat().st_size / 1e6:.1f} MB).", bool(error))

    def _put_back(self):
        for field, value in self._fields:
            with contextlib.suppress(TraitError):      # not a choice of the menu of now
                field.value = value

    def _halt(self):
        self._stopped = self.stop.disabled = True      # what runs ends within one step
        self._worker.halt()

    def _end(self, said, error=False):
        """Say how the work ended, and that the controls are ahead of it, if they are."""
        self._said = said
        if self._is_stale() and self.run.description:
            said += f" · The controls changed since: press {self.run.description}."
        self._line.say(said, error)
        self._busy(False)
        if self._stopped:
            self.run.focus()      # the keyboard goes on from where Stop was
            self._stopped = False

    def _busy(self, busy):
        self.run.disabled, self.stop.disabled = busy, not busy
        for save in self.saves.values():
            save.disabled = busy or not self.image.value
        if busy:
            self.bar.value = 0

    def _tell(self, done, total):
        # In steps of 1 %, so that quick loops do not flood the browser with messages.
        if total and (done >= total or done / total >= self.bar.value + 0.01):
            self.bar.value = done / total

    def _show(self, picture, said):
        self.image.value = encoded(picture)
        self.image.tooltip = said or self._name
        self.image.layout.display = None


class Picture(widgets.Image):
    """A picture with a tooltip, which ipywidgets' view can only show for what has a description."""

    description = Unicode("").tag(sync=True)


class Line(widgets.HTML):
    """A line of plain text, `text`; errors stand out."""

    def __init__(self, text=""):
        super().__init__()
        self.say(text)

    def say(self, text, error=False):
        """Show a text; an empty one takes no room."""
        self.text = text
        colour = "var(--jp-error-color1, #c62828)" if error else "var(--jp-content-font-color2, #616161)"
        style = f"color: {colour}; line-height: 1.4; padding: 4px 0; overflow-wrap: anywhere"
        unbroken = re.sub(r"(\d) s\b", r"\1&nbsp;s", html.escape(text))      # no line ends within "0.04 s"
        self.value = f'<div role="status" style="{style}">{unbroken}</div>'
        self.layout.display = None if text else "none"


def button(description, icon, **options):
    """A button that shares its row with others."""
    return widgets.Button(description=description, icon=icon, layout={"flex": "1 1 0", "width": "auto"}, **options)


class Worker:
    """Does the newest piece of work in a thread that lives only while there is some.

    Work handed in while other work runs is done next; what waited before it is dropped, and what runs is
    told that it is no longer wanted.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._waiting = self._unwanted = self._thread = None

    def submit(self, work):
        """work: called with a `threading.Event`, set as soon as its result is not wanted any more."""
        with self._lock:
            self._waiting = work
            if self._unwanted is not None:
                self._unwanted.set()
                return
            self._unwanted = threading.Event()
            self._thread = threading.Thread(target=self._run, name="course panel", daemon=True)
            self._thread.start()

    def halt(self):
        """Drop what waits, and tell what runs to end."""
        with self._lock:
            self._waiting = None
            if self._unwanted is not None:
                self._unwanted.set()

    def wait(self, timeout=None):
        """Block until nothing is left to do; TimeoutError after so many seconds."""
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise TimeoutError(f"still at work after {timeout} s")

    def _run(self):
        while True:
            with self._lock:
                work, self._waiting = self._waiting, None
                unwanted = self._unwanted = threading.Event() if work else None
            if work is None:
                return
            work(unwanted)


@functools.cache
def watch(kernel):
    """Let panels say that they wait while a cell runs, and let an interrupt of an idle kernel stop what they run."""
    if kernel is None:
        return
    timers = []

    def tell(text):
        for panel in list(_panels):
            panel.waiting.say(text)

    def began(info):
        timers.append(threading.Timer(1, tell, ["A cell is running: the controls are heard when it is done."]))
        timers[-1].start()

    def ended(result):
        while timers:
            timers.pop().cancel()
        tell("")

    kernel.shell.events.register("pre_run_cell", began)
    kernel.shell.events.register("post_run_cell", ended)
    # The kernel ignores interrupts between its cells; this is what it puts back after each.
    kernel.saved_sigint_handler = lambda *signal: [panel._worker.halt() for panel in list(_panels)]


def attempt(function, *arguments):
    """Call a function; returns its exception, if there was one: in a thread it can only be told."""
    try:
        function(*arguments)
    except Exception as error:
        return error


def _check_call(function, controls):
    """Raise TypeError unless the function takes arguments of these names, and needs no others."""
    try:
        with contextlib.suppress(ValueError):      # some functions of C do not say what they take
            inspect.signature(function).bind(**controls)
    except TypeError as error:
        name = getattr(function, "__name__", type(function).__name__)
        given = ", ".join(controls) or "none"
        raise TypeError(f"{name} cannot be called with the controls given ({given}): {error}") from None


def in_words(error):
    """An exception in one line, without the words of Python where it has its own."""
    if getattr(error, "strerror", None):
        return f"{error.strerror}: {error.filename}"
    known = isinstance(error, ValueError | IndexError | RuntimeError | OSError)
    return known and str(error) or f"{type(error).__name__}: {error}"


def arrange(controls):
    """Label every control, line the labels up, and let sliders and text fields answer when they are let go."""
    for name, control in controls.items():
        if control.has_trait("description") and not control.description:
            control.description = name.replace("_", " ")
    fields = [field for control in controls.values() for field in _fields(control)]
    labelled = [field for field in fields
                if getattr(field, "description", "") and hasattr(field.style, "description_width")]
    width = f"{16 + 7 * max((len(field.description) for field in labelled), default=0)}px"
    for field in fields:
        if field.has_trait("continuous_update"):
            field.continuous_update = False
        if field in labelled:
            field.style.description_width = width
            field.layout.width = field.layout.width or "98%"
        else:
            field.layout.margin = f"2px 2px 2px calc({width} + 8px)"


def _fields(control):
    """The rows of a picker, or the control itself."""
    return control.children if isinstance(control, widgets.VBox) else [control]


def _described(field):
    """A field's label, and its value as the screen shows it."""
    if isinstance(field, widgets.Checkbox):
        return "", f"{'☑' if field.value else '☐'} {field.description}"
    value = getattr(field, "label", None) or field.value or getattr(field, "placeholder", field.value)
    return field.description, f"{value:.4g}" if isinstance(value, float) else str(value)


def cell_of(function):
    """The notebook cell that is running, and which of its runs this is.

    JupyterLab gives every cell an id. Without one, the place in the code that called us and the function's
    name stand for it.
    """
    parent = getattr(get_ipython(), "get_parent", dict)()
    frame = sys._getframe()
    while Path(frame.f_code.co_filename).parent == Path(__file__).parent:
        frame = frame.f_back
    place = frame.f_code.co_filename, getattr(function, "__qualname__", repr(function))
    return parent.get("metadata", {}).get("cellId") or place, parent.get("header", {}).get("msg_id") or object()
