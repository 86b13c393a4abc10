"""What the tests of the package share; settings of the run are in the conftest.py above this folder."""

import pytest
from toys import network


@pytest.fixture
def squeezenet():
    """The bundled network, one for all tests, which leave it as it is."""
    return network("squeezenet1_1", "pretrained")
