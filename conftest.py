"""Settings of every test run, of the package and of notebooks. The kernels that execute notebooks inherit them."""

import os
import shutil

import pytest

os.environ.setdefault("COURSE_DEVICE", "cpu")       # the same figures whether or not there is a GPU
os.environ["TQDM_DISABLE"] = "1"                    # the same outputs whether or not a loop is slow today
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in tools/jupyter: threads that wait do not spin
if "PYTEST_XDIST_WORKER" in os.environ:
    # One of several processes: a core for each, since threads that wait for each other's cores spin.
    os.environ["CPU_LIMIT"] = os.environ["OMP_NUM_THREADS"] = "1"
else:
    os.environ.setdefault("OMP_NUM_THREADS", "2")   # the cores that the course's limits are meant for

WORKERS = 4                 # more would wait for the longest notebook
MEMORY = 2 * 2**30          # bytes a worker: a notebook may take 1.5 GB


def pytest_xdist_auto_num_workers(config):
    """How many processes `pytest -n auto` starts: one a core, as far as the memory goes."""
    # Imported here because torch, which comes along, reads the settings above.
    from course_utils.environment import available_memory, cpu_cores

    return max(1, min(WORKERS, cpu_cores(), available_memory() // MEMORY))


@pytest.fixture(scope="module")      # not longer: while it is open, no other test may use asyncio
def browser():
    """Chromium or Chrome, driven by Playwright; without one the test is skipped, unless the environment insists."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    if program is None and os.environ.get("COURSE_BROWSER_TEST") != "required":
        pytest.skip("no Chromium or Chrome here (COURSE_BROWSER_TEST=required insists)")
    assert program, "COURSE_BROWSER_TEST=required, but there is no Chromium or Chrome"
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=quiet)
        yield browser
        browser.close()
