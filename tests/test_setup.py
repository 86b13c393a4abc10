"""The first line of every notebook: seeds, threads, versions and device."""

import builtins
import io
import os
import random

import numpy as np
import pytest
import torch
import torchvision

import course_utils
from course_utils import environment


@pytest.fixture(autouse=True)
def threads():
    """Give the tests after these the number of threads that they had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_one_seed_gives_the_same_numbers_again_and_another_others():
    environment.setup(5)
    first = draws()
    environment.setup(5)
    assert draws() == first
    environment.setup(6)
    assert not set(draws()) & set(first)


def test_one_line_says_what_the_notebook_runs_on(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    monkeypatch.setenv("CPU_LIMIT", "1")
    assert environment.setup(7) == torch.device("cpu")
    line, = capsys.readouterr().out.splitlines()
    assert line.startswith("seed 7 · cpu · 1 CPU thread · torch ")
    assert line.endswith(f"torchvision {torchvision.__version__.split('+')[0]}")
    assert torch.get_num_threads() == 1


@pytest.fixture
def computer(monkeypatch):
    """A computer with 8 cores for this process; what it says about limits is the test's to decide."""
    def limited_to(variable=None, quota=None):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
        monkeypatch.delenv("CPU_LIMIT", raising=False)
        if variable is not None:
            monkeypatch.setenv("CPU_LIMIT", variable)

        def open_quota(path, *args, **kwargs):
            if path != "/sys/fs/cgroup/cpu.max":
                return builtins.open(path, *args, **kwargs)
            if quota is None:
                raise FileNotFoundError(path)
            return io.StringIO(quota)

        monkeypatch.setattr(environment, "open", open_quota, raising=False)
    return limited_to


@pytest.mark.parametrize("variable, quota, expected", [
    (None, None, 8), ("2", None, 2), ("2.0", None, 2), ("0.5", None, 1), ("64", None, 8), ("", None, 8),
    ("many", None, 8), (None, "max 100000\n", 8), (None, "200000 100000\n", 2), (None, "150000 100000\n", 1),
    (None, "garbage", 8), ("3", "200000 100000\n", 3),
])
def test_the_limits_of_a_container_are_respected(computer, variable, quota, expected):
    computer(variable, quota)
    assert environment.cpu_cores() == expected


def test_a_computer_that_does_not_say_what_a_process_may_use(computer, monkeypatch):
    computer()
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert environment.cpu_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert environment.cpu_cores() == 1


def test_every_public_name_is_there_and_documented():
    for name in course_utils.__all__:
        assert getattr(course_utils, name).__doc__, name
    assert len(set(course_utils.__all__)) == len(course_utils.__all__)
