"""`explore`: change a control, see the picture change."""

from ..progress import Listener, Stopped
from .panel import Panel, in_words, measured


def explore(function, *, button=None, **controls):
    """A panel of controls with one live picture; show it by naming it in the last line of a cell.

    function: called as `function(**values)`; returns a picture (`PIL.Image`, tensor or array), or a picture
    and a text for the status line. controls: one keyword argument each: a picker, any ipywidget with a
    value, or a plain value that is passed on as it is. button: without it the picture is drawn at once, and
    again at every change, of which only the newest counts. With a name for it, such as "Compute", it is
    drawn on click, with a bar that follows `course_utils.progress`, and a Stop.

    The first picture of a panel without a button is drawn before `explore` returns, and its errors are
    raised. Later ones are told in the status line, and the last good picture stays.
    """
    panel = Explore(function, button, controls)
    if button is None:
        try:
            panel.draw()
        except BaseException:
            panel.close()
            raise
    return panel


class Explore(Panel):
    """What `explore` returns."""

    def __init__(self, function, button, controls):
        self._button = button
        self._asked = None      # the values of the newest picture that was asked for
        super().__init__(function, controls, runs=button is not None)
        if button is not None:
            self.run.description = button
            self.run.on_click(lambda _: self._clicked())
            self._line.say(f"Press {button}.")

    def draw(self):
        """Draw here and now; errors are raised."""
        self._asked = self.values()
        self._show(*self._compute(self._asked))

    def _changed(self, change):
        values = self.values()
        if self._button is not None:
            if not self.run.disabled:
                self._line.say(f"The controls changed: press {self._button}.")
        # A picker that follows another reports twice; unchanged controls give the very same objects.
        elif self._asked is None or any(values[name] is not self._asked[name] for name in values):
            self._asked = values
            self._worker.submit(lambda unwanted: self._work(values, unwanted))

    def _clicked(self):
        if not self.run.disabled:
            values = self.values()
            self._busy(True)
            self._line.say("Computing …")
            self._worker.submit(lambda unwanted: self._work(values, unwanted))

    def _work(self, values, unwanted):
        Listener(self._tell, unwanted).listen()
        try:
            picture, text = self._compute(values)
            if not unwanted.is_set():
                self._show(picture, text)
        except Stopped:
            pass
        except Exception as error:      # whatever it is: here it can only be told
            if not unwanted.is_set():
                self._line.say(in_words(error), error=True)
        if self._button is not None:
            if unwanted.is_set():
                self._line.say("Stopped.")
            self._busy(False)

    def _compute(self, values):
        """The picture, and what the status line will say."""
        with measured(values.values()) as cost:
            result = self.function(**values)
            picture, text = result if isinstance(result, tuple) else (result, "")
            return picture, f"{text} · {cost()}" if text else cost()

    def _show(self, picture, text):
        super()._show(picture)
        self._line.say(text)
