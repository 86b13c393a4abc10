"""The stub file of the techniques says what the notebooks define, and editors read it."""

import inspect

import jedi  # comes with IPython
import pytest
from technique_stubs import STUBS, stub_text

from course_utils import techniques


def test_the_stubs_are_those_of_the_notebooks():
    assert STUBS.read_text(encoding="utf-8") == stub_text(), "run `python tools/technique_stubs.py`"


def test_every_technique_has_its_parameters_and_docstring():
    namespace = {}
    exec(stub_text(), namespace)
    assert {name for name in namespace if not name.startswith("__")} == set(dir(techniques))
    for name in dir(techniques):
        function, stub = getattr(techniques, name), namespace[name]
        assert list(inspect.signature(stub).parameters) == list(inspect.signature(function).parameters)
        assert inspect.getdoc(stub) == inspect.getdoc(function)
        for real, written in zip(inspect.signature(function).parameters.values(),
                                 inspect.signature(stub).parameters.values(), strict=True):
            assert real.kind == written.kind and written.default in (real.default, ...)


@pytest.mark.parametrize("code, names", [
    ("from course_utils.techniques import grad_c", ["grad_cam"]),
    ("from course_utils.techniques import checker", ["checkers"]),
    ("from course_utils.techniques import no_such_thing", []),
])
def test_an_editor_completes_techniques(code, names):
    assert [completion.name for completion in jedi.Script(code).complete()] == names


def test_an_editor_shows_the_parameters_of_a_technique():
    signature, = jedi.Script("from course_utils.techniques import grad_cam\ngrad_cam(").get_signatures()
    assert [parameter.name for parameter in signature.params] == ["model", "x", "target", "layer", "relu"]
