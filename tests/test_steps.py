"""Freed memory goes back to the system, and a run of steps keeps only its last."""

import ctypes
import platform
import weakref
from pathlib import Path

import pytest
import torch

from course_utils import Step, last_step, steps


def resident_megabytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no malloc_trim")
def test_what_was_freed_goes_back_to_the_system():
    blocks = [bytearray(100_000) for _ in range(3000)]      # small enough for the heap
    pin = blocks[-1]      # the heap cannot shrink past it by itself
    del blocks
    before = resident_megabytes()
    steps.return_memory()
    assert resident_megabytes() < before - 200
    assert len(pin) == 100_000


@pytest.mark.parametrize("found", [OSError("no libc"), object()], ids=["no library", "no such function"])
def test_elsewhere_nothing_happens(monkeypatch, found):
    def library(name):
        if isinstance(found, OSError):
            raise found
        return found

    steps._malloc_trim.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", library)
    steps.return_memory()
    monkeypatch.undo()
    steps._malloc_trim.cache_clear()


def test_the_last_step_is_kept_and_no_other():
    alive = []

    def steps():
        for number in range(1, 6):
            image = torch.zeros(1, 3, 4, 4)
            alive.append(weakref.ref(image))
            yield Step(number, torch.zeros(1), image)
            del image
            # Of the steps before this one, only the one just handed out may still be held.
            assert sum(reference() is not None for reference in alive) <= 1

    assert last_step(steps()).number == 5


def test_a_run_without_a_step_has_no_last_one():
    with pytest.raises(ValueError, match="yielded none"):
        last_step(iter(()))
