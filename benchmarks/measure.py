"""Time and memory of functions, measured side by side."""

import gc
import platform
import statistics
import time
from pathlib import Path

import torch

from course_utils.steps import return_memory


def median_times(functions, device, seconds=1.0, fewest=3):
    """Median seconds of each function, called in turns so that all see the same machine; None stays None.

    The turns go on for `seconds`, and for `fewest` turns at least. One call each goes before.
    """
    live = {name: function for name, function in functions.items() if function}
    times = {name: [] for name in live}
    for function in live.values():
        function()
    start = time.perf_counter()
    while len(times[next(iter(times))]) < fewest or time.perf_counter() - start < seconds:
        for name, function in live.items():
            times[name].append(_time(function, device))
    return {name: statistics.median(times[name]) if name in times else None for name in functions}


def _time(function, device):
    _synchronize(device)
    start = time.perf_counter()
    function()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(function, device):
    """How many MB a call holds at most, above what was held before it; None where that cannot be told."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if platform.system() != "Linux" or device.type != "cpu":
        return None
    return_memory()      # give back what earlier calls freed, or it would hide new use
    Path("/proc/self/clear_refs").write_text("5")      # start the high-water mark anew
    before = _status("VmRSS")
    function()
    return (_status("VmHWM") - before) / 1024


def _status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])
