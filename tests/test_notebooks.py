"""Every notebook is built as the course promises, and the rules that say so notice when one is not."""

import base64
import re
import subprocess
import sys

import nbformat
import notebook_rules as rules
import pytest
from execute_notebooks import clean, execute
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course_utils import techniques

LESSONS = rules.lesson_paths()
SOLUTIONS = rules.lesson_paths(rules.ROOT / "notebooks" / "solutions")
DECKS = rules.deck_paths()


def name_of(value):
    return getattr(value, "__name__", None) or f"{value.parent.name}-{value.stem}"


# --- the notebooks of the course


@pytest.mark.parametrize("name", ["00_start_here", "01_vanilla_backprop", "06_grad_cam"])
def test_notebook_exists(name):
    assert rules.ROOT / "notebooks" / f"{name}.ipynb" in LESSONS


def test_lessons_have_solutions_and_numbers_of_their_own():
    assert [path.name for path in LESSONS] == [path.name for path in SOLUTIONS]
    numbers = [path.name[:2] for path in LESSONS]
    assert sorted(set(numbers)) == numbers


@pytest.mark.parametrize("rule", rules.LESSON_RULES, ids=name_of)
@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_lesson(path, rule):
    assert rule(rules.read(path), path) == []


@pytest.mark.parametrize("rule", rules.ANATOMY_RULES, ids=name_of)
@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_anatomy(path, rule):
    assert rule(rules.read(path), path) == []


@pytest.mark.parametrize("rule", rules.SOLUTION_RULES, ids=name_of)
@pytest.mark.parametrize("path", SOLUTIONS, ids=name_of)
def test_solution(path, rule):
    assert rule(rules.read(path), path) == []


@pytest.mark.parametrize("name", ["seeing", "doubting"])
def test_deck_exists(name):
    assert rules.ROOT / "lectures" / f"{name}.ipynb" in DECKS


@pytest.mark.parametrize("rule", rules.DECK_RULES, ids=name_of)
@pytest.mark.parametrize("path", DECKS, ids=name_of)
def test_deck(path, rule):
    assert rule(rules.read(path), path) == []


def test_no_picture_is_left_over():
    made = {file for path in LESSONS for file in rules.filed_pictures(rules.read(path), path)}
    assert set((rules.ROOT / "notebooks" / "pictures").glob("*")) == made


def test_no_technique_is_defined_twice():
    assert rules.repeated_techniques() == []


@pytest.mark.slow
def test_every_code_cell_of_every_notebook_is_executed():
    # As `pytest` alone does it, but for the unit tests, which take long to collect.
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--ignore=tests"]
    listing = subprocess.run(command, cwd=rules.ROOT, capture_output=True, text=True, encoding="utf-8").stdout
    for path in rules.files(".ipynb"):
        name, cells = path.relative_to(rules.ROOT).as_posix(), rules.code_cells(rules.read(path))
        collected = re.findall(rf"^{re.escape(name)}::(.+)$", listing, flags=re.MULTILINE)
        assert path in LESSONS + SOLUTIONS + DECKS, f"{name} is neither a lesson nor a solution nor a deck"
        assert len(collected) == len(cells) > 0, f"pytest collects {len(collected)} of {len(cells)} cells of {name}"


def run(*cells):
    namespace = {"__name__": "exercise"}
    for cell in cells:
        exec(rules.python(cell), namespace)
    return namespace


def verdict(capsys, checker, function):
    """What the checker says, printed or returned."""
    result = checker(function)
    return f"{capsys.readouterr().out}\n{result or ''}"


@pytest.mark.slow
@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_checkers(path, capsys):
    """A checker knows an untouched stub, accepts the solution, and explains what is wrong with the mistake."""
    lesson, answers = rules.read(path), rules.read(path.parent / "solutions" / path.name)
    stubs = run(*rules.code_cells(lesson, "imports"), *rules.code_cells(lesson, "exercise"))
    solved = run(*rules.code_cells(answers, "imports"), *rules.code_cells(answers, "solution", "mistake"))
    checks = techniques.checkers(path.name[:2])
    for name in rules.functions(rules.code_cells(lesson, "exercise")):
        check = getattr(checks, f"check_{name}")
        assert "not attempted yet" in verdict(capsys, check, stubs[name])
        assert re.search("^correct", verdict(capsys, check, solved[name]), flags=re.MULTILINE | re.IGNORECASE)
        with pytest.raises(AssertionError) as rejection:
            check(solved[f"wrong_{name}"])
        assert len(str(rejection.value).split()) >= 3, f"check_{name} does not say what is wrong"


@pytest.mark.parametrize("path", sorted(rules.files(".md")), ids=lambda path: path.relative_to(rules.ROOT).as_posix())
def test_links_of_texts(path):
    assert rules.missing_links(path.read_text(encoding="utf-8"), path.parent) == []


@pytest.mark.parametrize("path", sorted((rules.ROOT / "course_utils").glob("*.py")), ids=lambda path: path.name)
def test_package_draws_without_pyplot_and_with_fair_colours(path):
    code = path.read_text(encoding="utf-8")
    assert rules.pyplot_complaints(code) + rules.colour_map_complaints(code) == []


# --- the rules themselves, on a course of two lessons

STUBS = ["add", "double", "negate"]
PIXELS = b"a picture"


def code(source, *tags):
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {})


def picture(pixels=PIXELS, alt="a cat", kind="image/png"):
    data = {kind: base64.b64encode(pixels).decode()}
    return new_output("display_data", data=data, metadata={kind: {"alt": alt}})


def shown(source, *tags):
    return new_code_cell(source, metadata={"tags": list(tags)}, outputs=[picture()])


def lesson(path, neighbour):
    here = path.stem[3:]
    cells = [
        new_markdown_cell(
            f"# {here}\n\n[map](../README.md#map) · [neighbour]({neighbour.name})\n\n![A](pictures/{path.stem}.png)"
        ),
        code("import math\nfrom course_utils import setup", "imports"),
        code("setup(0)"),
        new_markdown_cell("A [photograph](../input_images/cat.jpg) and $[a](b)$."),
        code(f'def {here}(x):\n    """The root of x."""\n    return math.sqrt(x)', "method"),
    ]
    for name in STUBS:
        cells += [
            new_markdown_cell("Try it.\n\n<details>a hint</details>"),
            code(f"def {name}(x):\n    raise NotImplementedError", "exercise"),
            code(f"def check_{name}(function):\n    return 'not attempted yet'", "checker"),
            new_markdown_cell("What the checker says:"),
            code(f"check_{name}({name})"),
        ]
    cells += [new_markdown_cell(f"[See](solutions/{path.name})." if here == "second" else "See."),
              code("show(cat)", "answer-picture")]
    cells[-1].outputs = [picture()]
    return new_notebook(cells=cells)


def solution(name):
    cells = [
        new_markdown_cell(f"# Solutions\n\n[Back](../{name}.ipynb)"),
        code("from course_utils.techniques import checkers", "imports"),
        code("checks = checkers('01')"),
    ]
    for stub in STUBS:
        cells += [
            code(f"def {stub}(x):\n    return x", "solution"),
            code(f"def wrong_{stub}(x):\n    return x", "mistake"),
            code(f"checks.check_{stub}({stub})\nchecks.check_{stub}(wrong_{stub})"),
        ]
    return new_notebook(cells=cells)


def store(notebook, path):
    for count, cell in enumerate(rules.code_cells(notebook), 1):
        cell.execution_count = count
    clean(notebook, path)
    nbformat.write(notebook, path)


@pytest.fixture
def course(tmp_path):
    """Paths of a first lesson, a second lesson and the second one's solutions, with nothing wrong in them."""
    folder = tmp_path / "notebooks"
    (folder / "solutions").mkdir(parents=True)
    (tmp_path / "input_images").mkdir()
    (tmp_path / "input_images" / "cat.jpg").touch()
    (tmp_path / "README.md").touch()
    first, second, answers = folder / "01_first.ipynb", folder / "02_second.ipynb", folder / "solutions/02_second.ipynb"
    (folder / "pictures").mkdir()
    for path in (first, second):
        (folder / "pictures" / f"{path.stem}.png").write_bytes(PIXELS)
    notebooks = {
        first: lesson(first, second),
        second: lesson(second, first),
        answers: solution("02_second"),
    }
    for path, notebook in notebooks.items():
        nbformat.write(notebook, path)
    for path, notebook in notebooks.items():
        store(notebook, path)
    return first, second, answers


def complaints(path, notebook=None):
    rules.technique_cells.cache_clear()
    rules.technique_homes.cache_clear()
    chosen = rules.SOLUTION_RULES if rules.is_solution(path) else rules.LESSON_RULES
    return [c for rule in chosen for c in rule(notebook or rules.read(path), path)]


def test_a_good_course_has_no_complaints(course):
    assert [complaints(path) for path in course] == [[], [], []]


def add(*cells):
    return lambda notebook: notebook.cells.extend(cells)


def add_output(*arguments, **fields):
    return lambda notebook: notebook.cells[2].outputs.append(new_output(*arguments, **fields))


def display(data):
    return add_output("display_data", data=data)


def drop(index):
    return lambda notebook: notebook.cells.pop(index)


def replace(index, old, new):
    def change(notebook):
        assert old in notebook.cells[index].source
        notebook.cells[index].source = notebook.cells[index].source.replace(old, new)

    return change


BAD_LESSONS = [
    (add_output("error", ename="ValueError", evalue="no", traceback=[]), "an error: ValueError: no"),
    (add_output("stream", name="stderr", text="beware"), "text on stderr: beware"),
    (add_output("stream", name="stdout", text="<object at 0x7f>"), "a memory address"),
    (add_output("stream", name="stdout", text="read /home/ada/cat.jpg"), "a path of the machine"),
    (display({"text/plain": r"C:\Users\Ada"}), "a path of the machine"),
    (display({"text/html": "<b>no</b>"}), "an output of type text/html"),
    (display({rules.WIDGET_VIEW: {}}), "a widget"),
    (display({"image/png": "iVBO"}), "without alternative text"),
    (lambda notebook: notebook.cells[-1].update(outputs=[picture(alt=" ")]), "without alternative text"),
    (lambda notebook: notebook.cells[-1].update(outputs=[picture(b"x")]), "is another picture"),
    (lambda notebook: notebook.cells[-1].update(outputs=[]), "0 pictures come from"),
    (replace(0, "pictures/02_second.png", "../README.md"), "does not show pictures/02_second.png"),
    (add(shown("show(table)", "page")), "pictures/02_second_page.png is another picture"),
    (add(shown("show(table)", "page")), "no link to pictures/02_second_page.png"),
    (lambda notebook: notebook.metadata.update(widgets={}), "widget state"),
    (lambda notebook: notebook.metadata.update(authors=["Ada"]), "metadata other than"),
    (lambda notebook: notebook.metadata.kernelspec.update(name="conda"), "metadata other than"),
    (lambda notebook: notebook.cells[0].metadata.update(editable=False), "metadata beside its tags"),
    (lambda notebook: notebook.cells[2].metadata.update(tags=["exercize"]), "unknown tag exercize"),
    (replace(2, "setup(0)", "setup(1)"), "older sources"),
    (lambda notebook: notebook.cells[2].update(execution_count=7), "execution counts are not"),
    (add(new_markdown_cell("[gone](../gone.md)")), "a link to ../gone.md"),
    (add(new_markdown_cell("![gone](gone.png)")), "a link to gone.png"),
    (add(new_markdown_cell('<img src="gone.png" alt="">')), "a link to gone.png"),
    (add(new_markdown_cell("[outside](../../)")), "a link to ../../"),
    (add(new_markdown_cell("1. Why? 2. How? 3. When?")), "runs the items of a list together: 1. Why?"),
    (add(new_markdown_cell("# Another title")), "a title (#) belongs"),
    (replace(0, "# ", "## "), "a title (#) belongs"),
    (replace(0, "../README.md", "https://example.org"), "no link to ../README.md"),
    (replace(0, "01_first.ipynb", "https://example.org"), "no link to 01_first.ipynb"),
    (replace(-2, "solutions/02_second.ipynb", "https://example.org"), "no link to solutions/02_second.ipynb"),
    (add(code("a = 1"), code("b = 2")), "in a row, without prose"),
    (add(code("\n".join("abcdefghijklmnopqrstuvwxyz"))), "has 26 lines"),
    (add(code("")), "is empty"),
    (drop(1), "0 cells are tagged imports"),
    (replace(1, "import math", "import math; print(math)"), "more than imports: print(math)"),
    (replace(1, "import math", "import os\n" * 11 + "import math"), "the set-up has 14 lines"),
    (drop(2), "0 cells call setup"),
    (add(code("constant = 1", "method")), "more than functions: constant = 1"),
    (replace(4, '"""The root of x."""', "pass"), "second has no docstring"),
    (replace(1, "import math\n", ""), "F821"),
    (add(code("def math(x):\n    'Again.'", "method")), "F811"),
    (add(code("def check_sub(f):\n    return second(f)", "checker")), "F821"),
    (add(code("from course_utils.techniques import second")), "second comes from 02_second.ipynb"),
    (add(code("from course_utils.techniques import third")), "third is no technique"),
    (add(code("heatmap(x, 'jet_r')")), "the colour map jet_r"),
    (add(code("matplotlib.cm.hsv(x)")), "the colour map hsv"),
    (add(code("import matplotlib.pyplot as plt")), "matplotlib.pyplot is used"),
    (add(code("from matplotlib import pyplot")), "pyplot is used"),
    (add(code("%matplotlib widget")), "%matplotlib is used"),
    (add(code("play(draw)")), "shows a panel and stores no picture"),
    (add(code("explore(draw, leak=widgets.FloatSlider(1), seed=IntSlider(0))")), "the slider leak of a panel has no"),
    (add(new_markdown_cell("It lies in /tmp/cats.")), "names a path of some machine"),
    (drop(6), "2 exercises"),
    (drop(7), "no checker check_add"),
    (drop(8), "cell 9 is code cell number 3 in a row"),
    (drop(9), "nothing calls check_add(add)"),
    (drop(5), "without a hint"),
]


@pytest.mark.parametrize("change, expected", BAD_LESSONS, ids=[expected for _, expected in BAD_LESSONS])
def test_a_bad_lesson_is_noticed(course, change, expected):
    notebook = rules.read(course[1])
    change(notebook)
    found = complaints(course[1], notebook)
    assert any(expected in complaint for complaint in found), found


def text(*lines):
    return new_markdown_cell("\n\n".join(lines))


def anatomical():
    """A lesson whose anatomy is right: 36 cells of main line, then the rest."""
    method = code('def f(x):\n    """Three lines\n\n    of text."""\n' + "    x = x + 1\n" * 14 + "    return x",
                  "method")
    cells = [text("# Title"), text("## The idea"), method, text("Predict before you run: up or down?"),
             shown("show(x)", "hide-output")]
    cells += [cell for _ in range(15) for cell in (text("Look."), shown("show(x, width=150)"))] + [text("## Panel")]
    cells += [text("## For the curious"), code("def helper():\n    pass"), text("## Exercises"),
              text("## Five questions", *["1. Why?\n<details>Because.</details>"] * 5), text("## Summary"),
              text("## References")]
    return new_notebook(cells=cells)


def anatomy_complaints(notebook):
    return [complaint for rule in rules.ANATOMY_RULES for complaint in rule(notebook, None)]


def test_a_good_anatomy_has_no_complaints():
    assert anatomy_complaints(anatomical()) == []


@pytest.mark.parametrize("change, expected", [
    (drop(36), "no section ## For the curious"),
    (lambda notebook: notebook.cells.__delitem__(slice(5, 9)), "the main line has 32 cells"),
    (lambda notebook: notebook.cells.__setitem__(slice(6, 6), [text("More.")] * 10), "the main line has 46 cells"),
    (lambda notebook: notebook.cells[35].update(source="\n\n".join(f"## {i}" for i in range(10))), "11 second-level"),
    (lambda notebook: notebook.cells.__setitem__(slice(37, 37), [text("More.")] * 11), "13 cells are for the curious"),
    (add(*[text("More.")] * 34), "76 cells; the limit is 75"),
    (drop(-1), "the last sections are"),
    (replace(-3, "<details>", "", ), "0 of five questions"),
    (lambda notebook: notebook.cells[6].update(outputs=[]), "cell 7 shows nothing"),
    (replace(6, "150", "149"), "pictures 149 pixels wide"),
    (replace(2, "    return x", "    x = 2 * x\n    return x"), "f has 16 lines of code"),
    (lambda notebook: notebook.cells[4].metadata.update(tags=[]), "cell 4 asks for a prediction"),
])
def test_a_bad_anatomy_is_noticed(change, expected):
    notebook = anatomical()
    change(notebook)
    assert any(expected in complaint for complaint in anatomy_complaints(notebook)), anatomy_complaints(notebook)


BAD_SOLUTIONS = [
    (drop(3), "no solution add"),
    (drop(4), "no mistake wrong_add"),
    (drop(5), "nothing calls check_add(wrong_add)"),
    (replace(0, "../02_second.ipynb", "02_second.ipynb"), "no link to ../02_second.ipynb"),
]


@pytest.mark.parametrize("change, expected", BAD_SOLUTIONS, ids=[expected for _, expected in BAD_SOLUTIONS])
def test_a_bad_solution_is_noticed(course, change, expected):
    notebook = rules.read(course[2])
    change(notebook)
    assert any(expected in complaint for complaint in complaints(course[2], notebook))


def test_the_last_lesson_gets_a_link_when_another_follows(course):
    nbformat.write(rules.read(course[1]), course[1].with_name("03_third.ipynb"))
    assert "the first two cells have no link to 03_third.ipynb" in complaints(course[1])
    assert rules.repeated_techniques(course[1].parent) == ["second is defined twice"]


def test_a_later_lesson_cannot_be_imported(course):
    notebook = rules.read(course[0])
    add(code("from course_utils.techniques import second"))(notebook)
    assert any("second comes from 02_second.ipynb" in complaint for complaint in complaints(course[0], notebook))


def test_a_large_notebook_is_noticed_and_an_animation_may_be_larger(course):
    notebook = rules.read(course[1])
    notebook.cells[2].outputs = [picture(bytes(3 * 2**19))]
    nbformat.write(notebook, course[1])
    assert ["the limit is 1.5 MB" in complaint for complaint in complaints(course[1])] == [True]
    notebook.cells[2].outputs.append(picture(kind="image/gif"))
    nbformat.write(notebook, course[1])
    assert complaints(course[1]) == []


def test_tags_say_what_jupyterlab_folds(course):
    notebook = rules.read(course[1])
    add(code("show(x)", "hide-output"), code("def check_f(f):\n    pass", "checker"))(notebook)
    clean(notebook, course[1])
    assert [cell.metadata.get("jupyter") for cell in notebook.cells[-2:]] == [
        {"outputs_hidden": True}, {"source_hidden": True}]
    notebook.cells[-2].metadata.tags = []
    assert any("metadata beside its tags" in found for found in rules.reduced_metadata(notebook, course[1]))


def test_outputs_become_old_with_the_techniques_behind_them(course):
    """Also when a technique two lessons back has changed."""
    first, second, _ = course
    third = second.with_name("03_third.ipynb")
    import_of = "from course_utils.techniques import "

    def save(path, change):
        notebook = rules.read(path)
        change(notebook)
        nbformat.write(notebook, path)

    save(second, replace(1, "import math", f"import math\n{import_of}first"))
    nbformat.write(new_notebook(cells=[code(f"{import_of}second", "imports")]), third)
    rules.technique_cells.cache_clear()
    rules.technique_homes.cache_clear()
    store(rules.read(third), third)
    assert rules.outputs_of_these_sources(rules.read(third), third) == []

    save(first, replace(2, "setup(0)", "setup(1)"))
    assert not any("older sources" in complaint for complaint in complaints(third))
    save(first, replace(4, "math.sqrt(x)", "math.cos(x)"))
    assert any("older sources" in complaint for complaint in complaints(third))


# --- the executor


def written(path, *sources):
    nbformat.write(new_notebook(cells=[code(source) for source in sources]), path)
    return path


@pytest.mark.slow
def test_two_runs_give_the_same_file(tmp_path):
    path = written(tmp_path / "01_first.ipynb", "import ipywidgets", "print('here'); ipywidgets.IntSlider()")
    execute(path)
    once = path.read_bytes()
    execute(path)
    assert path.read_bytes() == once
    notebook = rules.read(path)
    assert [output.get("text") for output in notebook.cells[1].outputs] == ["here\n"]
    assert [*rules.execution_counts(notebook, path), *rules.reduced_metadata(notebook, path)] == []


@pytest.mark.slow
def test_of_a_panel_the_picture_is_stored(tmp_path):
    path = written(tmp_path / "01_first.ipynb", "import numpy\nfrom ipywidgets import IntSlider\n"
                   "from course_utils import explore", "def draw(level):\n    return numpy.full((6, 8), level / 255)",
                   "explore(draw, level=IntSlider(7))")
    execute(path)
    notebook = rules.read(path)
    output, = notebook.cells[2].outputs
    assert set(output.data) == {"image/jpeg", "text/plain"}
    assert output.metadata["image/jpeg"]["alt"] == "A panel with the controls level 7: draw"
    assert rules.storable_outputs(notebook, path) == []


@pytest.mark.slow
@pytest.mark.parametrize("last, complaint", [("1 / 0", "(?s)cell 2 failed.*ZeroDivisionError"),
                                             ("print(object())", "cell 2: a memory address")])
def test_a_failed_run_leaves_the_notebook_as_it_was(tmp_path, last, complaint):
    path = written(tmp_path / "01_first.ipynb", "print('here')", last)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=complaint):
        execute(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name] and path.read_bytes() == before
