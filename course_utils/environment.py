"""A notebook's first line: seeds, threads, versions and device."""

import contextlib
import os
import random
from pathlib import Path

import numpy as np
import psutil
import torch
import torchvision

from .models import best_device
from .steps import follow_cells


def setup(seed=0):
    """Seed Python, NumPy and torch, use the CPU cores that there really are, and print one line about it.

    Returns the device that models will be put on. A container (Binder) may report all cores of its host:
    the variable CPU_LIMIT and the control group's quota are respected.
    """
    follow_cells()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(cpu_cores())
    device = best_device()
    threads = torch.get_num_threads()
    print(
        f"seed {seed} · {device} · {threads} CPU thread{'s' * (threads > 1)} · "
        f"torch {torch.__version__.split('+')[0]} · torchvision {torchvision.__version__.split('+')[0]}"
    )
    return device


def cpu_cores():
    """How many CPU cores this process may use, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, int(_limit() or cores)))


def _limit():
    try:
        if os.environ.get("CPU_LIMIT"):
            return float(os.environ["CPU_LIMIT"])
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        return float(quota) / float(period)
    except (OSError, ValueError):      # no control groups, no quota ("max"), or an odd CPU_LIMIT
        return None


def available_memory():
    """Bytes that are free for this process: the machine's, or what the limit of its container leaves."""
    limits = [os.environ.get("MEM_LIMIT", "")]      # Binder
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError):
            limits.append(Path(file).read_text().strip())
    used = psutil.Process().memory_info().rss
    return min([psutil.virtual_memory().available, *(int(limit) - used for limit in limits if limit.isdigit())])
