"""Techniques are loaded from the notebooks that define them: those cells, and nothing else."""

import inspect
import json
import os
import pickle
import traceback
from pathlib import Path

import pytest

from course_utils import techniques

IMPORTS, METHOD, CHECKER = ["imports"], ["method"], ["checker"]
USES_ONE = IMPORTS, "from course_utils.techniques import one"


@pytest.fixture
def course(monkeypatch, tmp_path):
    """An empty folder of notebooks, and a function that writes one: `course("06_cam", (tags, source), …)`."""
    monkeypatch.setattr(techniques, "NOTEBOOKS", tmp_path)
    ticks = iter(range(10**9, 10**12, 1000))

    def write(name, *cells, padding=0):
        notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": ["# def title(): a notebook of the course"]},
            *({"cell_type": "code", "metadata": {"tags": tags}, "source": source.splitlines(keepends=True),
               "outputs": [], "execution_count": None} for tags, source in cells),
            {"cell_type": "raw", "metadata": {"tags": ["method"]}, "source": "x" * padding},
        ]}
        path = tmp_path / f"{name}.ipynb"
        path.write_text(json.dumps(notebook), encoding="utf-8")
        # Two versions written within one tick of the clock are told apart all the same.
        os.utime(path, ns=(tick := next(ticks), tick))
        return path

    return write


def constant(name, value):
    return METHOD, f"def {name}():\n    return {value}\n"


def test_only_imports_and_method_cells_run(course):
    course(
        "01_first",
        (IMPORTS, "import math\nfrom pathlib import Path"),
        ([], "raise RuntimeError('an untagged cell ran')"),
        (["nbval-check-output"], "raise RuntimeError('a cell with another tag ran')"),
        (["nbval-skip", "method"], "def area(r):\n    return half(math.tau) * r**2\n"),
        (METHOD, "def half(x):\n    return x / 2\n\n\ndef kind():\n    return Path\n"),
        (CHECKER, "raise RuntimeError('a checker cell ran')"),
    )
    from course_utils.techniques import area, kind
    assert area(2) == pytest.approx(12.566370614)
    assert kind() is Path
    assert dir(techniques) == ["area", "checkers", "half", "kind"]


def test_a_later_notebook_uses_an_earlier_one(course):
    course("01_first", constant("one", 1))
    course("02_second", USES_ONE, (METHOD, "def two():\n    return one() + 1"))
    assert techniques.two() == 2


def test_an_edited_notebook_is_loaded_again_and_so_are_the_later_ones(course):
    course("01_first", constant("one", 1))
    course("02_second", USES_ONE, (METHOD, "def two():\n    return one() + 1"))
    course("03_third", constant("three", 3))
    assert techniques.two() == 2
    one, two, three = techniques.one, techniques.two, techniques.three
    assert (techniques.one, techniques.two, techniques.three) == (one, two, three)      # not edited: the same functions
    course("02_second", USES_ONE, (METHOD, "def two():\n    return one() + 7"))
    assert techniques.two() == 8
    assert techniques.one is one
    course("01_first", constant("one", 100))
    assert techniques.one() == 100 and techniques.two() == 107


def test_a_function_that_moved_to_another_notebook_is_found_there(course):
    course("01_first", constant("one", 1))
    course("02_second", constant("two", 2))
    assert techniques.one() == 1
    course("01_first")
    course("02_second", constant("two", 2), constant("one", 11))
    assert techniques.one() == 11


def test_a_missing_name_is_answered_with_those_that_there_are(course):
    course("01_first", constant("one", 1), ([], "def local():\n    pass"))
    course("02_second", constant("two", 2))
    for name in ("three", "local", "title"):
        with pytest.raises(ImportError, match=f"no technique '{name}'; the notebooks define one, two"):
            exec(f"from course_utils.techniques import {name}")


def test_a_name_of_two_notebooks_is_an_error(course):
    course("01_first", constant("one", 1))
    course("02_second", constant("one", 2))
    with pytest.raises(ImportError, match=r"'one' is defined by several notebooks: 01_first\.ipynb, 02_second\.ipynb"):
        from course_utils.techniques import one  # noqa: F401


@pytest.mark.parametrize("tags, source, line", [
    (METHOD, "def one():\n    return 1\n\nprint('a side effect')", 4),
    (METHOD, "def one():\n    return 1\nTWO = 2", 3),
    (METHOD, "class Two:\n    def one(self):\n        return 1\ndef one():\n    return 1", 1),
    (IMPORTS, "import math\nx = math.pi", 2),
    (IMPORTS, "import math\ndef helper():\n    return 1", 2),
])
def test_statements_are_refused_in_words(course, tags, source, line):
    course("01_first", constant("one", 1) if tags == IMPORTS else ([], ""), (tags, source))
    with pytest.raises(ImportError, match=rf"01_first\.ipynb, cell 2, line {line}: only \w+( and \w+)? may stand"):
        techniques.one  # noqa: B018


def test_a_refused_cell_has_not_run(course, capsys):
    course("01_first", (METHOD, "print('a side effect')\ndef one():\n    return 1"))
    with pytest.raises(ImportError):
        techniques.one  # noqa: B018
    assert capsys.readouterr().out == ""


def test_an_error_in_a_cell_is_the_learners_to_read(course):
    course("01_first", (IMPORTS, "import no_such_module"), constant("one", 1))
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as error:
        techniques.one  # noqa: B018
    assert traceback.extract_tb(error.tb)[-1].line == "import no_such_module"
    course("01_first", (METHOD, "def one():\n    retrun 1\n"))
    with pytest.raises(SyntaxError):
        techniques.one  # noqa: B018


DOCUMENTED = '''def shrink(x):
    """Half of x."""
    y = x / 2

    return y / zero()


def zero():
    return 0
'''


def test_getsource_and_tracebacks_show_the_notebook(course):
    path = course("06_cam", (IMPORTS, "import math"), ([], "x = 1"), (METHOD, DOCUMENTED))
    from course_utils.techniques import shrink
    assert inspect.getsource(shrink) == DOCUMENTED[:DOCUMENTED.index("\n\n\n") + 1]
    assert inspect.getsourcefile(shrink) == f"{path} · cell 3"
    assert inspect.getdoc(shrink) == "Half of x."
    with pytest.raises(ZeroDivisionError) as error:
        shrink(1)
    frame = traceback.extract_tb(error.tb)[-1]
    assert (frame.filename, frame.lineno, frame.line) == (f"{path} · cell 3", 5, "return y / zero()")
    assert inspect.getsource(shrink)      # a traceback makes linecache check its files: ours are kept


def test_an_edit_shows_in_the_source(course):
    course("06_cam", constant("one", 1))
    assert "return 1" in inspect.getsource(techniques.one)
    course("06_cam", constant("one", 2))
    assert "return 2" in inspect.getsource(techniques.one)


def test_functions_pickle(course):
    course("01_first", constant("one", 1))
    function = pickle.loads(pickle.dumps(techniques.one))
    assert function is techniques.one and function.__module__ == "course_utils.techniques"


def test_jupyters_temporaries_and_other_files_are_not_read(course):
    course("01_first", constant("one", 1))
    for name in ("01_first-Copy1", ".~01_first", "Untitled", "1_first", "001_first", "01_first-checkpoint"):
        course(name, constant("one", 2))
    (techniques.NOTEBOOKS / "01_first.ipynb.tmp").write_text("{", encoding="utf-8")
    (techniques.NOTEBOOKS / "solutions").mkdir()
    (techniques.NOTEBOOKS / "solutions" / "01_first.ipynb").write_text("{", encoding="utf-8")
    assert techniques.one() == 1
    assert dir(techniques) == ["checkers", "one"]


@pytest.mark.parametrize("content", ["{'cells': def one(", '{"def one(": 1}', "<<<<<<< HEAD def one("])
def test_an_unreadable_notebook_is_named(course, content):
    course("01_first").write_text(content, encoding="utf-8")
    with pytest.raises(ImportError, match=r"01_first\.ipynb is not a readable notebook"):
        techniques.one  # noqa: B018


def test_without_notebooks_the_import_says_so(course):
    message = "no notebooks in .*techniques need a clone of the course"
    with pytest.raises(ImportError, match=message):
        from course_utils.techniques import grad_cam  # noqa: F401
    with pytest.raises(ImportError, match=message):
        techniques.checkers("06")


def test_names_that_python_asks_for_are_not_looked_up_in_notebooks(course):
    assert not hasattr(techniques, "__path__")
    assert not hasattr(techniques, "__wrapped__")


def test_checkers_are_one_object_and_no_techniques(course):
    course(
        "06_cam", (IMPORTS, "import math"), constant("one", 1),
        (CHECKER, "def check_tau(f):\n    return f() == math.tau"),
        (CHECKER, "def check_two(f):\n    return f() == 2"),
    )
    checks = techniques.checkers("06")
    assert checks.check_two(lambda: 2) and not checks.check_two(lambda: 3)
    assert sorted(vars(checks)) == ["check_tau", "check_two"]
    assert not hasattr(checks, "one") and dir(techniques) == ["checkers", "one"]
    with pytest.raises(ImportError, match="no technique 'check_two'"):
        techniques.check_two  # noqa: B018
    for number in ("6", "07", ""):
        with pytest.raises(ImportError, match=f"no notebook '{number}'"):
            techniques.checkers(number)


def test_of_a_large_course_only_the_notebook_in_question_is_parsed_and_only_once(course, monkeypatch):
    for number in range(25):
        course(f"{number:02}_lesson", constant(f"technique_{number}", number), padding=100_000)
    parsed, read = [], []
    loads, read_text = json.loads, Path.read_text
    monkeypatch.setattr(json, "loads", lambda text: parsed.append(text) or loads(text))
    monkeypatch.setattr(Path, "read_text", lambda path, **options: read.append(path) or read_text(path, **options))
    assert techniques.technique_13() == 13
    assert len(parsed) == 1 and "technique_13" in parsed[0] and len(read) == 25 + 1
    assert techniques.technique_13() == 13
    assert len(parsed) == 1 and len(read) == 25 + 1
    assert techniques.technique_14() == 14
    assert len(parsed) == 2 and len(read) == 25 + 2
    course("13_lesson", constant("technique_13", -13))
    assert techniques.technique_13() == -13
    assert len(parsed) == 3 and len(read) == 25 + 4
