"""Progress of slow techniques: silent in plain calls, a bar and a Stop inside a panel."""

import contextvars

_listener = contextvars.ContextVar("listener", default=None)


class Stopped(Exception):
    """Stop was pressed; raised from `progress`, so that a technique ends as on any other error."""


class Listener:
    """What a panel sets before it calls a technique: whom to tell, and whether to go on."""

    def __init__(self, report, stop):
        self.report = report      # called with (done, total); total is None where it is not known
        self.stop = stop          # a threading.Event
        self.depth = 0            # loops inside loops must not move the bar

    def listen(self):
        """Hear what `progress` says from now on in this thread."""
        _listener.set(self)


def progress(iterable, total=None):
    """Yield the items of an iterable; inside a panel, tell its bar how many are done, and obey its Stop.

    total: how many there will be, where the iterable has no length. Of loops inside loops only the
    outermost moves the bar.
    """
    listener = _listener.get()
    if listener is None:
        yield from iterable
        return
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    listener.depth += 1
    try:
        for done, item in enumerate(iterable, start=1):
            yield item
            if listener.stop.is_set():
                raise Stopped
            if listener.depth == 1:
                listener.report(done, total)
    finally:
        listener.depth -= 1
