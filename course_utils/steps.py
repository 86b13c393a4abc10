"""What every image-making technique yields, and the progress of slow ones: a bar in plain calls, a Stop in panels."""

import contextvars
import ctypes
import functools
import threading
import time
from collections import deque
from typing import NamedTuple

import torch
from IPython import get_ipython
from tqdm.auto import tqdm

PATIENCE = 3      # seconds before a cell, or a plain call elsewhere, shows a bar

_listener = contextvars.ContextVar("listener", default=None)
_bar_in_use = threading.Lock()      # held by the outermost loop


class Step(NamedTuple):
    """One step of an optimization that makes images, or of whatever else grows.

    number: counted from 1. objective: `(N,)` tensor, one value per image of the batch; None where nothing is optimized.
    image: detached float tensor `(N, 3, H, W)` in [0, 1], of the final size at every step.
    """

    number: int
    objective: torch.Tensor | None
    image: torch.Tensor


def last_step(steps):
    """The last `Step` of a generator; no other is kept, where a list would hold dozens of pictures.

    Raises ValueError for a generator that yields nothing.
    """
    kept = deque(steps, maxlen=1)
    if not kept:
        raise ValueError("there is no last step: the generator yielded none")
    return_memory()
    return kept[0]


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
    """Yield the items of an iterable, and show how many are done.

    A plain call shows a bar once its cell has run for three seconds; the loops of a cell follow each other in one
    bar. TQDM_DISABLE=1 in the environment turns it off. Inside a panel its bar is told instead, and its Stop obeyed.
    total: how many there will be, where the iterable has no length. Of loops inside loops only the outermost moves
    the bar.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    if listener := _listener.get():
        yield from _told(iterable, total, listener)
    elif threading.current_thread() is threading.main_thread() and _bar_in_use.acquire(blocking=False):
        try:
            yield from _shown(iterable, total)
        finally:
            _bar_in_use.release()
    else:      # another loop has the bar, or a panel's thread, whose output no cell would show
        yield from iterable


def _shown(iterable, total):
    began, bar = time.monotonic(), None
    due = max(began + 0.1, (_cell.since or began) + PATIENCE)      # nothing flickers for a tenth of a second
    try:
        for done, item in enumerate(iterable, start=1):
            yield item
            if bar is None and time.monotonic() > due:
                bar = _cell.bar_at_nought(total, began)
            if bar is not None:
                bar.update(done - bar.n)
    finally:
        if _cell.since is None:
            _cell.end()


class Cell:
    """The notebook cell that runs: since when, and its bar. Outside of notebooks each loop has a bar of its own."""

    since = bar = None

    def begin(self, info=None):
        """A cell begins; IPython says so after `follow_cells`."""
        self.since = time.monotonic()

    def end(self, result=None):
        """The cell, or the loop outside of notebooks, has ended."""
        self.close_bar()
        self.since = None

    def close_bar(self):
        """The bar goes, if there is one."""
        if self.bar is not None:
            self.bar.total = None      # else tqdm leaves one that did not get to its end, in red
            self.bar.close()
            self.bar = None

    def bar_at_nought(self, total, began):
        """The bar for the next loop, which began then; of an unknown length, another one."""
        if self.bar is not None and None not in (total, self.bar.total):
            self.bar.reset(total)
        else:
            self.close_bar()
            self.bar = tqdm(total=total, leave=False)
        if not self.bar.disable:      # the time that is left is told from how long the loop has been running
            age = time.monotonic() - began
            self.bar.start_t -= age
            self.bar.last_print_t -= age
        return self.bar


_cell = Cell()


def follow_cells():
    """Have IPython say when cells begin and end, if this is a notebook."""
    if shell := get_ipython():
        shell.events.register("pre_run_cell", _cell.begin)
        shell.events.register("post_run_cell", _cell.end)


def _told(iterable, total, listener):
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


def return_memory():
    """Hand freed memory back to the system, where the C library keeps it otherwise (Linux with glibc).

    Optimizing an image frees tensors of ever other sizes, and the gaps between them pile up: in the notebook on
    deep dream to 500 MB, a quarter of what Binder gives.
    """
    if trim := _malloc_trim():
        trim(0)


@functools.cache
def _malloc_trim():
    try:
        return getattr(ctypes.CDLL("libc.so.6"), "malloc_trim", None)
    except OSError:      # no such library on macOS and Windows
        return None
