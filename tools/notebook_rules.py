"""How a notebook of this course is built, as functions that read one and return what is wrong with it.

A rule is called with the notebook and its path, and returns a list of complaints, one sentence each.
`execute_notebooks.py` refuses to store what breaks the rule for outputs; the tests apply all rules.
"""

import ast
import base64
import functools
import hashlib
import os
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parent.parent
# By the full name: copies and Jupyter's temporaries match a plain glob.
NAME = re.compile(r"\d\d_\w+\.ipynb")

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
IMAGE_SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif"}
IMAGE_TYPES = set(IMAGE_SUFFIXES)
TEXT_TYPES = {"text/plain", "text/markdown", "text/latex"}

TAGS = {"imports", "method", "exercise", "checker", "solution", "mistake", "answer-picture", "page", "hide-output",
        "nbval-check-output"}
# Tags of cells whose picture is a file, too, in the folder pictures: by tag, what is added to the lesson's name.
FILED = {"answer-picture": "", "page": "_page"}
# What JupyterLab folds, by tag.
FOLDED = {"hide-output": {"outputs_hidden": True}, "checker": {"source_hidden": True}}
COLOUR_MAPS_TO_AVOID = {
    name + end
    for name in ("jet", "hsv", "turbo", "rainbow", "gist_rainbow", "gist_ncar", "nipy_spectral", "prism", "flag")
    for end in ("", "_r")
}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}

SELF_EXPLAINING = {"count", "seed", "size", "steps"}      # sliders that need no word of help
LINES_PER_CELL = 25
LINES_OF_SETUP = 12
CODE_CELLS_IN_A_ROW = 2
EXERCISES = 3
MEGABYTES, MEGABYTES_WITH_ANIMATION = 1.5, 2.5

# The anatomy of a lesson.
MAIN_LINE, MAIN_HEADINGS, CURIOUS, ALL_CELLS = (35, 45), 10, 12, 75
LAST_SECTIONS = "For the curious", "Exercises", "Five questions", "Summary", "References"
METHOD_LINES, TILE = 15, 150
SLIDES, WORDS = (12, 18), 80      # of a deck; on one slide, without its notes

MACHINE_PATH = re.compile(
    r"(?<![\w.~/-])/(?:home|Users|root|tmp|private|work|workspace|mnt|media|opt|srv|var)/|\b[A-Z]:\\\w"
)


def lesson_paths(folder=ROOT / "notebooks"):
    return sorted(path for path in folder.glob("*.ipynb") if NAME.fullmatch(path.name))


def notebook_paths(folder=ROOT / "notebooks"):
    """Every lesson, each followed by its solutions."""
    found = lesson_paths(folder) + lesson_paths(folder / "solutions")
    return sorted(found, key=lambda path: (path.name, path.parent != folder))


def deck_paths(folder=ROOT / "lectures"):
    return sorted(folder.glob("*.ipynb"))


def is_solution(path):
    return path.parent.name == "solutions"


def is_deck(path):
    return path.parent.name == "lectures"


def lesson_folder(path):
    if is_deck(path):
        return path.parent.parent / "notebooks"
    return path.parent.parent if is_solution(path) else path.parent


def read(path):
    return nbformat.read(path, as_version=4)


def tags(cell):
    return cell.metadata.get("tags", [])


def only(cells, *wanted):
    """Those of the cells that carry one of the wanted tags."""
    return [cell for cell in cells if set(wanted) & set(tags(cell))]


def code_cells(notebook, *wanted):
    """The code cells; with tags named, those that carry one of them."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return only(cells, *wanted) if wanted else cells


def prose(cells):
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def python(cell):
    """The cell as plain Python: magics and question marks become function calls."""
    return TransformerManager().transform_cell(cell.source)


def headings(cells):
    """The second-level headings of these cells, each with the index of its cell."""
    return [
        (index, heading) for index, cell in enumerate(cells) if cell.cell_type == "markdown"
        for heading in re.findall(r"^## +(.+?) *$", without_code(cell.source), flags=re.MULTILINE)
    ]


def functions(cells):
    """The names of the functions that these cells define."""
    nodes = [node for cell in cells for node in ast.parse(python(cell)).body]
    return [node.name for node in nodes if isinstance(node, ast.FunctionDef)]


def imported_techniques(cells):
    """The names that these cells take `from course_utils.techniques`."""
    return [
        alias.name
        for cell in cells
        for node in ast.walk(ast.parse(python(cell)))
        if isinstance(node, ast.ImportFrom) and node.module == "course_utils.techniques"
        for alias in node.names
    ]


@functools.cache
def technique_cells(folder):
    """Lesson -> the cells that `course_utils.techniques` runs of it."""
    return {path: code_cells(read(path), "imports", "method") for path in lesson_paths(folder)}


@functools.cache
def technique_homes(folder):
    """Technique -> the lesson that defines it."""
    cells = technique_cells(folder)
    return {name: lesson for lesson in cells for name in functions(only(cells[lesson], "method"))}


def sources_hash(notebook, path):
    """A hash of all course code behind a notebook's outputs: its own cells and the method cells that it imports from.

    The techniques that those import in their turn belong to it, and to a solution the checkers of its lesson.
    """
    folder = lesson_folder(path)
    lessons, home = technique_cells(folder), technique_homes(folder)
    cells = code_cells(notebook)
    if is_solution(path):
        cells = cells + code_cells(read(folder / path.name), "imports", "checker")

    texts, used, found = [cell.source for cell in cells], set(), imported_techniques(cells)
    while found:
        lesson = home.get(found.pop())
        if lesson and lesson not in used:
            used.add(lesson)
            found += imported_techniques(lessons[lesson])
    for lesson in sorted(used):
        texts += [cell.source for cell in only(lessons[lesson], "method")]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


# --- outputs


def output_complaints(notebook):
    """What must not be stored in a notebook's outputs."""
    complaints = []
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            complaints += [f"cell {number}: {complaint}" for complaint in _output_complaints(output)]
    return complaints


def _output_complaints(output):
    if output.output_type == "error":
        return [f"an error: {output.ename}: {output.evalue}"]
    if output.output_type == "stream":
        complaints = [f"text on stderr: {output.text.strip()[:200]}"] if output.name == "stderr" else []
        return complaints + _text_complaints(output.text)
    if WIDGET_VIEW in output.data:
        return ["a widget, which GitHub cannot show"]
    complaints = [f"an output of type {kind}" for kind in sorted(set(output.data) - IMAGE_TYPES - TEXT_TYPES)]
    for kind in sorted(set(output.data) & IMAGE_TYPES):
        if not output.metadata.get(kind, {}).get("alt", "").strip():
            complaints.append(f"{kind} without alternative text; use course_utils.show(…, alt=…)")
    for kind in sorted(set(output.data) & TEXT_TYPES):
        complaints += _text_complaints(output.data[kind])
    return complaints


def _text_complaints(text):
    complaints = []
    if " at 0x" in text:
        complaints.append("a memory address, which differs from run to run")
    if MACHINE_PATH.search(text) or str(ROOT) in text:
        complaints.append("a path of the machine that ran it")
    return complaints


def storable_outputs(notebook, path):
    widgets = ["the notebook's metadata hold widget state"] if "widgets" in notebook.metadata else []
    return widgets + output_complaints(notebook)


def outputs_of_these_sources(notebook, path):
    if notebook.metadata.get("course", {}).get("sources") == sources_hash(notebook, path):
        return []
    return [f"the outputs belong to older sources: make notebooks NB={path.name[:2]}"]


def execution_counts(notebook, path):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    expected = list(range(1, len(counts) + 1))
    return [] if counts == expected else [f"execution counts are not 1…{len(counts)}: {counts}"]


def answer_picture(notebook, path):
    """The file at the top of a lesson is the output of its cell tagged answer-picture."""
    pictures = filed_pictures(notebook, path, "answer-picture")
    if len(pictures) != 1:
        return [f"{len(pictures)} pictures come from cells tagged answer-picture; there must be one"]
    (file,) = pictures
    linked = f"pictures/{file.name}" in link_targets(notebook.cells[0].source)
    return _other_files(pictures) + ([] if linked else [f"the first cell does not show pictures/{file.name}"])


def page(notebook, path):
    """A page to print is the output of the cell tagged page, and the lesson links its file."""
    pictures = filed_pictures(notebook, path, "page")
    linked = link_targets(prose(notebook.cells))
    return _other_files(pictures) + [
        f"no link to pictures/{file.name}" for file in pictures if f"pictures/{file.name}" not in linked]


def _other_files(pictures):
    return [f"pictures/{file.name} is another picture" for file, data in pictures.items()
            if not file.is_file() or file.read_bytes() != data]


def filed_pictures(notebook, path, *wanted):
    """File -> bytes of what cells with these tags show, of all in FILED unless named."""
    return {
        path.parent / "pictures" / f"{path.stem}{FILED[tag]}.{IMAGE_SUFFIXES[kind]}": base64.b64decode(data)
        for tag in wanted or FILED for cell in code_cells(notebook, tag) for output in cell.outputs
        for kind, data in output.get("data", {}).items() if kind in IMAGE_SUFFIXES
    }


def cell_metadata(cell, path):
    """What is stored of a cell's metadata: its tags, and what JupyterLab folds because of them.

    In a deck also what kind of slide the cell is; all code is folded there.
    """
    folded = {key: value for tag in tags(cell) for key, value in FOLDED.get(tag, {}).items()}
    kept = {"tags": tags(cell)} if tags(cell) else {}
    if is_deck(path):
        folded |= {"source_hidden": True} if cell.cell_type == "code" else {}
        kept |= {"slideshow": {"slide_type": slide_type(cell)}} if slide_type(cell) else {}
    return kept | ({"jupyter": folded} if folded else {})


def slide_type(cell):
    return cell.metadata.get("slideshow", {}).get("slide_type")


def reduced_metadata(notebook, path):
    expected = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    found = {key: value for key, value in notebook.metadata.items() if key not in ("course", "widgets")}
    complaints = [] if found == expected else [f"metadata other than kernel and language: {found}"]
    for number, cell in enumerate(notebook.cells, 1):
        if cell.metadata != (wanted := cell_metadata(cell, path)):
            complaints.append(f"cell {number} has metadata beside its tags: {cell.metadata}, expected {wanted}")
        complaints += [f"cell {number} has an unknown tag {tag}" for tag in sorted(set(tags(cell)) - TAGS)]
    return complaints


def size_on_disk(notebook, path):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    animated = any("image/gif" in output.get("data", {}) for output in outputs)
    limit, size = MEGABYTES_WITH_ANIMATION if animated else MEGABYTES, path.stat().st_size / 2**20
    return [] if size <= limit else [f"{size:.2f} MB on disk; the limit is {limit} MB"]


# --- text


def without_code(text):
    """Markdown without its code and its formulas, in which brackets and hashes mean something else."""
    return re.sub(r"```.*?```|~~~.*?~~~|``.*?``|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$", "", text, flags=re.DOTALL)


def link_targets(text):
    text = without_code(text)
    found = re.findall(r"\]\(\s*<?([^)\s>]+)", text)                         # [text](target) and ![alt](target)
    found += re.findall(r"^\s*\[[^\]]+\]:\s*<?([^\s>]+)", text, flags=re.MULTILINE)      # [label]: target
    return found + re.findall(r"""\b(?:src|href)\s*=\s*["']([^"']+)""", text)


def missing_links(text, folder, root=ROOT):
    """Links and pictures that lead to no file of the repository."""
    complaints = []
    for target in link_targets(text):
        if re.match(r"[a-z][a-z+.-]*:|#", target):      # another site, or a heading of this page
            continue
        file = (folder / urllib.parse.unquote(target.split("#")[0])).resolve()
        if not file.is_relative_to(root.resolve()) or not file.exists():
            complaints.append(f"a link to {target}, which is not there")
        elif file.is_relative_to(root.resolve() / "output"):
            complaints.append(f"a link to {target}, which git ignores")
    return complaints


def files(suffix, root=ROOT):
    """The files of the course with this ending, without what tools left behind."""
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(n for n in inner if n[0] != "." and n not in ("build", "output", "node_modules"))
        yield from (Path(folder) / name for name in sorted(names) if name.endswith(suffix))


def links(notebook, path):
    return missing_links(prose(notebook.cells), path.parent, lesson_folder(path).parent)


def title(notebook, path):
    titles = [
        number
        for number, cell in enumerate(notebook.cells, 1)
        for _ in re.findall(r"^# ", without_code(prose([cell])), flags=re.MULTILINE)
    ]
    return [] if titles == [1] else [f"a title (#) belongs in the first cell and nowhere else, found in {titles}"]


def navigation(notebook, path):
    """Previous lesson, course map, next lesson, the solution; from a solution back to its lesson."""
    if is_solution(path):
        wanted = [f"../{path.name}"]
    else:
        names = [lesson.name for lesson in lesson_paths(path.parent)]
        here = names.index(path.name)
        wanted = [*names[max(here - 1, 0):here], "../README.md", *names[here + 1:here + 2]]
    found = {target.split("#")[0] for target in link_targets(prose(notebook.cells[:2]))}
    complaints = [f"the first two cells have no link to {target}" for target in wanted if target not in found]
    solution = f"solutions/{path.name}"
    if (path.parent / solution).is_file() and solution not in link_targets(prose(notebook.cells)):
        complaints.append(f"no link to {solution}")
    return complaints


def numbered_lists(notebook, path):
    """Each item of a numbered list begins a line."""
    return [
        f"cell {number} runs the items of a list together: {paragraph[:40]} …"
        for number, cell in enumerate(notebook.cells, 1) if cell.cell_type == "markdown"
        for paragraph in re.split(r"\n\s*\n", cell.source)
        if paragraph.startswith("1. ") and re.search(r"\S 2\. .*\s3\. ", paragraph, re.DOTALL)
    ]


def prose_between_code(notebook, path):
    complaints, run = [], 0
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type != "code":
            run = 0
        else:
            run += 1
            if run > CODE_CELLS_IN_A_ROW:
                complaints.append(f"cell {number} is code cell number {run} in a row, without prose")
    return complaints


# --- code


def cell_length(notebook, path):
    lines = {number: len(cell.source.splitlines()) for number, cell in enumerate(notebook.cells, 1)
             if cell.cell_type == "code"}
    long = [f"cell {n} has {k} lines; the limit is {LINES_PER_CELL}" for n, k in lines.items() if k > LINES_PER_CELL]
    return long + [f"cell {n} is empty" for n, k in lines.items() if not k]


def imports_cell(notebook, path):
    cells = code_cells(notebook, "imports")
    if len(cells) != 1:
        return [f"{len(cells)} cells are tagged imports; there must be one"]
    body = ast.parse(python(cells[0])).body
    return [
        f"the imports cell holds more than imports: {ast.unparse(node)}"
        for node in body if not isinstance(node, ast.Import | ast.ImportFrom)
    ]


def only_functions(notebook, path):
    """Cells that other code loads hold functions and nothing else."""
    complaints = []
    for tag in ("method", "checker", "exercise", "solution", "mistake"):
        for cell in code_cells(notebook, tag):
            for node in ast.parse(python(cell)).body:
                if not isinstance(node, ast.FunctionDef):
                    complaints.append(f"a {tag} cell holds more than functions: {ast.unparse(node)}")
                elif tag == "method" and not ast.get_docstring(node):
                    complaints.append(f"{node.name} has no docstring")
    return complaints


def setup_lines(notebook, path):
    def calls_setup(cell):
        calls = [node.func for node in ast.walk(ast.parse(python(cell))) if isinstance(node, ast.Call)]
        return any(isinstance(function, ast.Name) and function.id == "setup" for function in calls)

    cells = [cell for cell in code_cells(notebook) if calls_setup(cell)]
    if len(cells) != 1:
        return [f"{len(cells)} cells call setup(…); there must be one"]
    cells += code_cells(notebook, "imports")
    lines = sum(1 for cell in cells for line in cell.source.splitlines() if line.strip())
    return [] if lines <= LINES_OF_SETUP else [f"the set-up has {lines} lines; the limit is {LINES_OF_SETUP}"]


def technique_order(notebook, path):
    """Techniques come from earlier lessons; a solution may also use those of its own."""
    complaints, homes = [], technique_homes(lesson_folder(path))
    for name in imported_techniques(code_cells(notebook)):
        home = homes.get(name)
        if not home and name != "checkers":
            complaints.append(f"{name} is no technique of any lesson")
        elif home and not (is_deck(path) or home.name < path.name or is_solution(path) and home.name == path.name):
            complaints.append(f"{name} comes from {home.name}, which is not an earlier lesson")
    return complaints


def resolved_names(notebook, path):
    """What is loaded elsewhere may use only what the imports cell and its own kind of cells define."""
    complaints = []
    for tag in ("method", "checker"):
        code = "\n\n".join(python(cell) for cell in code_cells(notebook, "imports", tag))
        command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,F811",
                   "--output-format", "concise", "--stdin-filename", f"{tag}.py", "-"]
        result = subprocess.run(command, input=code, capture_output=True, text=True, encoding="utf-8")
        if result.returncode:
            complaints.append(f"{tag} cells: {result.stdout}{result.stderr}")
    return complaints


def colour_maps(notebook, path):
    return [complaint for cell in code_cells(notebook) for complaint in colour_map_complaints(python(cell))]


def colour_map_complaints(code):
    nodes = list(ast.walk(ast.parse(code)))
    found = [node.value for node in nodes if isinstance(node, ast.Constant)]
    found += [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    found = {name for name in found if isinstance(name, str)} & COLOUR_MAPS_TO_AVOID
    return [f"the colour map {name} shows edges that are not in the data" for name in sorted(found)]


def pyplot_complaints(code):
    """Pyplot keeps global state that a control's callback, on another thread, corrupts."""
    nodes = list(ast.walk(ast.parse(code)))
    found = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    found |= {alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
    found &= {"matplotlib.pyplot", "pyplot", "pylab", "matplotlib.pylab"}
    found |= {"%matplotlib"} if "run_line_magic('matplotlib'" in code else set()
    return [f"{name} is used; give a matplotlib.figure.Figure to course_utils.show" for name in sorted(found)]


def pyplot(notebook, path):
    return [complaint for cell in code_cells(notebook) for complaint in pyplot_complaints(python(cell))]


def panels(cell):
    """The calls of `explore` and `play` in a cell."""
    calls = [node for node in ast.walk(ast.parse(python(cell))) if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("explore", "play")]


def slider_help(notebook, path):
    """Sliders of panels have a word of help, but for those whose name says it all."""
    return [
        f"the slider {control.arg} of a panel has no tooltip"
        for cell in code_cells(notebook) for panel in panels(cell) for control in panel.keywords
        if isinstance(control.value, ast.Call) and ast.unparse(control.value.func).endswith("Slider")
        and control.arg not in SELF_EXPLAINING and not any(one.arg == "tooltip" for one in control.value.keywords)
    ]


def pictured_panels(notebook, path):
    """A panel's cell stores its picture, for readers without a kernel."""
    return [
        f"cell {number} shows a panel and stores no picture of it: make notebooks"
        for number, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code" and panels(cell)
        and not any(IMAGE_TYPES & set(output.get("data", {})) for output in cell.outputs)
    ]


def machine_paths(notebook, path):
    return [
        f"cell {number} names a path of some machine: {found[0]}…"
        for number, cell in enumerate(notebook.cells, 1) if (found := MACHINE_PATH.search(cell.source))
    ]


# --- exercises


def exercises(notebook, path):
    """Each stub has a hint, a checker, and a cell that applies the one to the other."""
    stubs, code = functions(code_cells(notebook, "exercise")), "\n".join(map(python, code_cells(notebook)))
    checkers = functions(code_cells(notebook, "checker"))
    complaints = [f"no checker check_{name}" for name in stubs if f"check_{name}" not in checkers]
    complaints += [f"nothing calls check_{name}({name})" for name in stubs if f"check_{name}({name})" not in code]
    if len(stubs) < EXERCISES:
        complaints.append(f"{len(stubs)} exercises; there must be {EXERCISES}")
    if prose(notebook.cells).count("<details") < len(stubs):
        complaints.append("an exercise without a hint in <details>")
    return complaints


def solutions(notebook, path):
    """Each exercise of the lesson is solved, and a mistake in it shown and rejected."""
    lesson, code = lesson_folder(path) / path.name, "\n".join(map(python, code_cells(notebook)))
    if not lesson.exists():
        return ["there is no lesson of this name"]
    right, wrong = (functions(code_cells(notebook, tag)) for tag in ("solution", "mistake"))
    complaints = []
    for name in functions(code_cells(read(lesson), "exercise")):
        complaints += [] if name in right else [f"no solution {name}"]
        complaints += [] if f"wrong_{name}" in wrong else [f"no mistake wrong_{name}"]
        complaints += [
            f"nothing calls check_{name}({argument})"
            for argument in (name, f"wrong_{name}") if f".check_{name}({argument})" not in code
        ]
    return complaints


# --- the anatomy of the second edition


def main_line(notebook, path):
    """One story of 35 to 45 cells, then what may be skipped, in at most twelve; 75 cells in all."""
    places = {heading: index for index, heading in headings(notebook.cells)}
    end = places.get("For the curious")
    if end is None:
        return ["no section ## For the curious"]
    complaints, (least, most) = [], MAIN_LINE
    if not least <= end <= most:
        complaints.append(f"the main line has {end} cells; {least} to {most} are asked for")
    first = [heading for heading, index in places.items() if index < end]
    if len(first) > MAIN_HEADINGS:
        complaints.append(f"the main line has {len(first)} second-level headings; the limit is {MAIN_HEADINGS}")
    curious = places.get("Exercises", len(notebook.cells)) - end
    if curious > CURIOUS:
        complaints.append(f"{curious} cells are for the curious; the limit is {CURIOUS}")
    if len(notebook.cells) > ALL_CELLS:
        complaints.append(f"{len(notebook.cells)} cells; the limit is {ALL_CELLS}")
    return complaints


def last_sections(notebook, path):
    """What comes after the story, in the same order everywhere; the five questions with folded answers."""
    found = [heading for _, heading in headings(notebook.cells)]
    complaints = []
    if found[-len(LAST_SECTIONS):] != list(LAST_SECTIONS):
        complaints.append(f"the last sections are {found[-len(LAST_SECTIONS):]}, not {list(LAST_SECTIONS)}")
    for index, heading in headings(notebook.cells):
        if heading == "Five questions" and (answers := notebook.cells[index].source.count("<details")) != 5:
            complaints.append(f"{answers} of five questions have a folded answer")
    return complaints


def visible_results(notebook, path):
    """A cell shows something, unless it defines, imports, or opens a panel."""
    def silent(cell):
        body = ast.parse(python(cell)).body
        defines = all(isinstance(node, ast.FunctionDef | ast.Import | ast.ImportFrom) for node in body)
        panel = any(isinstance(node, ast.Name) and node.id in ("explore", "play") for node in ast.walk(ast.parse(
            python(cell))))
        return not (cell.outputs or defines or panel)

    return [f"cell {number} shows nothing" for number, cell in enumerate(notebook.cells, 1)
            if cell.cell_type == "code" and silent(cell)]


def large_tiles(notebook, path):
    """No picture in a figure is narrower than 150 pixels."""
    calls = [node for cell in code_cells(notebook) for node in ast.walk(ast.parse(python(cell)))
             if isinstance(node, ast.Call)]
    widths = [word.value.value for call in calls for word in call.keywords
              if word.arg == "width" and isinstance(word.value, ast.Constant)
              and isinstance(call.func, ast.Name) and call.func.id in ("show", "image_grid")]
    return [f"pictures {width} pixels wide; the least is {TILE}" for width in widths if width < TILE]


def short_methods(notebook, path):
    """A method reads like its equation: 15 lines of code at most, its docstring not counted."""
    complaints = []
    for cell in code_cells(notebook, "method"):
        for node in ast.parse(python(cell)).body:
            lines = len({number for part in node.body[1:] for number in range(part.lineno, part.end_lineno + 1)})
            if lines > METHOD_LINES:
                complaints.append(f"{node.name} has {lines} lines of code; the limit is {METHOD_LINES}")
    return complaints


def folded_predictions(notebook, path):
    """Who is asked to predict does not see the answer: it is folded, as output or in <details>."""
    complaints = []
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "markdown" and re.search(r"\*\*Predict|before you run", cell.source):
            following = [c for c in notebook.cells[number:number + 2] if c.cell_type == "code"]
            if not only(following, "hide-output") and "<details" not in cell.source:
                complaints.append(f"cell {number} asks for a prediction, and the answer stands open below")
    return complaints


def repeated_techniques(folder=ROOT / "notebooks"):
    """Names that the method cells of the course define twice."""
    defined = [name for cells in technique_cells(folder).values() for name in functions(only(cells, "method"))]
    return [f"{name} is defined twice" for name in sorted({name for name in defined if defined.count(name) > 1})]


# --- the decks of the lectures


def slides(notebook, path):
    """Twelve to eighteen slides, each with few words and notes for who speaks, a vote or more among them."""
    found = [[]]
    for cell in notebook.cells:
        if slide_type(cell) == "slide":
            found.append([])
        found[-1].append(cell)
    complaints = []
    if any(slide_type(cell) != "skip" for cell in found[0]):
        complaints.append("something is shown before the first slide")
    if not SLIDES[0] <= len(found) - 1 <= SLIDES[1]:
        complaints.append(f"{len(found) - 1} slides; {SLIDES[0]} to {SLIDES[1]} are asked for")
    if not any("Vote:" in cell.source for cell in notebook.cells):
        complaints.append("no slide lets the room vote")
    for number, cells in enumerate(found[1:], 1):
        seen = prose(cell for cell in cells if slide_type(cell) not in ("notes", "skip"))
        words = len(re.findall(r"\w+", re.sub(r"\]\([^)]*\)|<[^>]+>|\$+[^$]+\$+", "", seen)))
        complaints += [f"slide {number} has {words} words; the limit is {WORDS}"] if words > WORDS else []
        complaints += [] if any(slide_type(cell) == "notes" for cell in cells) else [f"slide {number} has no notes"]
        complaints += [f"slide {number} has a picture without alternative text"
                       for picture in re.findall(r"!\[\s*\]|<img [^>]+>", seen) if not re.search(r'alt="[^"]', picture)]
    return complaints


def no_method_again(notebook, path):
    """A deck takes the techniques from the lessons."""
    return [f"{name} is a technique of {technique_homes(lesson_folder(path))[name].name}, written again"
            for name in functions(code_cells(notebook)) if name in technique_homes(lesson_folder(path))]


COMMON_RULES = (
    storable_outputs, outputs_of_these_sources, execution_counts, reduced_metadata, size_on_disk, links, title,
    cell_length, imports_cell, only_functions, technique_order, resolved_names, colour_maps, pyplot,
    machine_paths, slider_help, pictured_panels, numbered_lists,
)
LESSON_RULES = (*COMMON_RULES, navigation, answer_picture, page, prose_between_code, setup_lines, exercises)
ANATOMY_RULES = (main_line, last_sections, visible_results, large_tiles, short_methods, folded_predictions)
SOLUTION_RULES = (*COMMON_RULES, navigation, solutions)
DECK_RULES = (*COMMON_RULES, setup_lines, slides, no_method_again)
