"""Settings of every test run. The kernels that execute the notebooks inherit them."""

import os

os.environ.setdefault("COURSE_DEVICE", "cpu")       # the same figures whether or not there is a GPU
os.environ.setdefault("OMP_NUM_THREADS", "2")       # the cores that the course's limits are meant for

import pytest  # noqa: E402  (torch must not be imported before the settings above)
from toys import network  # noqa: E402


@pytest.fixture
def squeezenet():
    """The bundled network, one for all tests, which leave it as it is."""
    return network("squeezenet1_1", "pretrained")
