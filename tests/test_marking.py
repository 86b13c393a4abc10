"""Marking what was handed in: the right verdict on each exercise, and a broken hand-in costs only itself."""

import csv
import io
import os
import subprocess
import sys

import grade
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebook_rules import ROOT, code_cells, functions, lesson_paths, read

from course_utils.techniques import checkers

LESSON = ROOT / "notebooks" / "06_grad_cam.ipynb"
FIRST, SECOND, THIRD = grade.stubs(LESSON)
SOLVED = {name: cell.source for cell in code_cells(read(LESSON.parent / "solutions" / LESSON.name), "solution")
          for name in functions([cell])}
IMPORTS = code_cells(read(LESSON), "imports")[0].source
STUB = f"def {FIRST}(A, weight, bias):\n    "


def handed_in(path, *sources):
    """A notebook with these cells, and right answers to the second and third exercise."""
    cells = [new_code_cell(source) for source in (IMPORTS, *sources, SOLVED[SECOND], SOLVED[THIRD])]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def states(path, seconds=60, memory=3):
    return [state for _, state, _ in grade.mark(path, seconds, memory)]


def marks(folder, *options):
    command = [sys.executable, str(ROOT / "lectures" / "grade.py"), str(folder), *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=env, capture_output=True, text=True, encoding="utf-8", check=True)
    return list(csv.DictReader(io.StringIO(result.stdout)))


def states_by_student(rows):
    students = dict.fromkeys(row["student"] for row in rows)
    return {student: [row["state"] for row in rows if row["student"] == student] for student in students}


# --- the verdict on one function, in this process


def first_verdict(*sources):
    answers = grade.Answers([([], source) for source in (IMPORTS, *sources)], [FIRST])
    state, said = answers.verdict(FIRST, getattr(checkers("06"), f"check_{FIRST}"), grade.stubs(LESSON)[FIRST])
    return state, str(said)


RENAMED = SOLVED[FIRST].replace(f"def {FIRST}(", "def mine(")


@pytest.mark.parametrize("sources, state, said", [
    ([SOLVED[FIRST]], "correct", "correct: every map"),
    ([STUB + "raise NotImplementedError"], "not attempted", f"not attempted yet: {FIRST}"),
    ([STUB + "# I do not know\n    raise NotImplementedError"], "not attempted", "not attempted"),
    ([STUB + "M = A * weight\n    raise NotImplementedError"], "error", "RuntimeError"),
    ([STUB + "M = A.relu()\n    raise NotImplementedError"], "unfinished", "not attempted yet"),
    ([STUB + "raise NotImplementedError", RENAMED, f"check_{FIRST}(mine)"], "missing", "checks mine in the place"),
    ([STUB + "return A"], "wrong", ""),
    ([STUB + "print('correct: trust me')\n    return A"], "wrong", ""),
    ([STUB + "return unknown"], "error", "NameError: name 'unknown'"),
    ([STUB + "raise SystemExit"], "error", "SystemExit"),
    (["1 / 0", SOLVED[FIRST], "nonsense("], "correct", ""),
    ([STUB + "return A +* 2"], "unreadable", "SyntaxError"),
    ([STUB + "raise NotImplementedError", STUB + "return A +* 2"], "unreadable", "SyntaxError"),
    ([STUB + "return A +* 2", SOLVED[FIRST]], "correct", ""),
    ([RENAMED, f"{FIRST} = mine"], "correct", ""),
    ([f"way = 'c'\nA = 1 / 0\n{STUB}return missing_helper(A)"], "error", "missing_helper"),
    (["%time 1\nimport torch", "!ls", SOLVED[FIRST], f"{FIRST}?"], "correct", ""),
    ([], "missing", f"no function {FIRST}"),
    (["@nobody\n" + SOLVED[FIRST]], "error", "nobody"),
])
def test_verdict(sources, state, said):
    found = first_verdict(*sources)
    assert found[0] == state and said in found[1], found


def test_a_global_that_an_answer_uses_is_there_and_other_assignments_do_not_run(tmp_path):
    file = tmp_path / "ran"
    scaled = f"{STUB}return mine(A * factor, weight, bias)"
    elsewhere = f"A = open({str(file)!r}, 'w')"      # A is a local name in the answer
    assert first_verdict("one = 1.0", "factor = one", elsewhere, RENAMED, scaled)[0] == "correct"
    assert not file.exists()


# --- students and lessons


@pytest.mark.parametrize("name, student, lesson", [
    ("ada/06_grad_cam.ipynb", "ada", "06_grad_cam"), ("ada/work/06.ipynb", "ada", "06_grad_cam"),
    ("06_grad_cam_ada.ipynb", "ada", "06_grad_cam"), ("ada 06_grad_cam.ipynb", "ada", "06_grad_cam"),
    ("06_grad_cam.ipynb", "", "06_grad_cam"), ("ada.ipynb", "ada", None), ("061 ada.ipynb", "061 ada", None),
])
def test_who_and_which_lesson(name, student, lesson):
    path = type(LESSON)(name)
    found = grade.lesson_of(path)
    assert (grade.student_of(path), found and found.stem) == (student, lesson)


def test_solutions_and_copies_of_jupyter_are_left_out(tmp_path):
    for name in ("ada/06_grad_cam.ipynb", "ada/solutions/06_grad_cam.ipynb", "ada/.ipynb_checkpoints/06.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in grade.handed_in(tmp_path)] == ["06_grad_cam.ipynb"]


def test_a_spreadsheet_takes_no_row_for_a_formula():
    assert grade.as_text("=1+1") == "'=1+1" and grade.as_text("a\nb") == "a b"
    assert len(grade.as_text("x" * 1000)) == grade.SAID


# --- processes


@pytest.mark.slow
@pytest.mark.parametrize("answer, options, state", [
    ("while True:\n        pass", {"seconds": 20}, "timed out"),
    ("return input('Really? ')", {}, "error"),
    ("import os\n    os._exit(3)", {}, "crashed"),
    ("import ctypes\n    return ctypes.string_at(0)", {}, "crashed"),
    ("hoard = []\n    while True:\n        hoard.append(bytearray(10**8))", {"memory": 2}, "crashed"),
    ("print(10**6 * 'correct\\n')\n    return A", {}, "wrong"),
    ("import subprocess, sys\n    subprocess.run([sys.executable, '-c', 'import time; time.sleep(1000)'])",
     {"seconds": 20}, "timed out"),
], ids=["hangs", "asks", "exits", "segfaults", "hoards", "prints", "waits"])
def test_a_hand_in_that_breaks_costs_its_exercise(tmp_path, answer, options, state):
    found = grade.mark(handed_in(tmp_path / "06.ipynb", STUB + answer), **{"seconds": 60, "memory": 3, **options})
    assert [name for name, *_ in found] == [FIRST, SECOND, THIRD]
    assert [state for _, state, _ in found] == [state, "correct", "correct"], found


@pytest.mark.slow
def test_a_hang_among_the_assignments_is_ended_too(tmp_path):
    waits = f"import time\nlong = time.sleep(1000)\n{STUB}return long"
    assert states(handed_in(tmp_path / "06.ipynb", waits), seconds=20) == ["timed out", "correct", "correct"]


@pytest.mark.slow
def test_files_that_are_no_notebooks_get_rows_and_the_others_their_marks(tmp_path):
    broken = {"a": b"", "b": b"[]", "c": b"no notebook", "d": b"\xff\xfe\x00", "e": b'{"cells": [{}]}',
              "f": b"[" * 100_000}
    for student, content in broken.items():
        (tmp_path / f"06_grad_cam_{student}.ipynb").write_bytes(content)
    (tmp_path / "ada").mkdir()
    handed_in(tmp_path / "ada" / "06_grad_cam.ipynb", SOLVED[FIRST])
    (tmp_path / "homework.ipynb").write_bytes(b"{}")
    rows = marks(tmp_path)
    assert all(tuple(row) == grade.COLUMNS for row in rows)
    unreadable = {student: ["unreadable"] * 3 for student in broken}
    assert states_by_student(rows) == {**unreadable, "ada": ["correct"] * 3, "homework": ["unreadable"]}


@pytest.mark.slow
def test_solutions_are_correct_and_lessons_not_attempted(tmp_path):
    for number in ("01", "16"):      # quick ones; `python lectures/grade.py notebooks/solutions` marks all
        lesson = next(path for path in lesson_paths() if path.name.startswith(number))
        for student, path in ("ada", lesson.parent / "solutions" / lesson.name), ("bob", lesson):
            (tmp_path / student).mkdir(exist_ok=True)
            (tmp_path / student / lesson.name).write_bytes(path.read_bytes())
    assert states_by_student(marks(tmp_path)) == {"ada": ["correct"] * 6, "bob": ["not attempted"] * 6}
