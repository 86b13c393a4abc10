"""Techniques, loaded from the notebooks that derive them: `from course_utils.techniques import grad_cam`.

The name is looked up in `notebooks/NN_….ipynb`. Of the notebook that defines it, the cell tagged `imports`
(import statements only) and the cells tagged `method` (functions only) run, and nothing else. The source
shown by `grad_cam??` and by tracebacks is the notebook's. An edited notebook is loaded again at the next
import, and so are the later ones, which may use its functions.
"""

import ast
import json
import linecache
import re
import threading
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
_lock = threading.RLock()


class Notebook(NamedTuple):
    """A notebook as it stands. An edit changes the time of modification, and what is remembered is out of date."""

    path: Path
    modified: int


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    with _lock:
        return _namespace(_up_to_the_one_that_defines(name, _notebooks()), "method")[name]


def __dir__():
    return sorted(["checkers", *_names()])


def _names():
    return [name for notebook in _notebooks() for name in _functions(notebook, "method")]


def checkers(number):
    """The exercise checkers of a notebook as one object: `checkers("06").check_…(your_function)`.

    number: the notebook's, as in "06". Raises ImportError where there is no such notebook.
    """
    notebooks = _notebooks()
    found = [i for i, notebook in enumerate(notebooks) if notebook.path.name.startswith(f"{number}_")]
    if len(found) != 1:
        raise ImportError(f"no notebook {number!r} in {NOTEBOOKS}")
    with _lock:
        namespace = _namespace(notebooks[:found[0] + 1], "checker")
    return SimpleNamespace(**{name: namespace[name] for name in _functions(notebooks[found[0]], "checker")})


def _notebooks():
    # By full name: Jupyter's temporary files and copies would match a looser pattern.
    found = sorted(path for path in NOTEBOOKS.glob("*.ipynb") if re.fullmatch(r"\d\d_\w+\.ipynb", path.name))
    if not found:
        raise ImportError(f"no notebooks in {NOTEBOOKS}: techniques need a clone of the course (pip install -e .)")
    return tuple(Notebook(path, path.stat().st_mtime_ns) for path in found)


@lru_cache
def _up_to_the_one_that_defines(name, notebooks):
    found = [i for i, notebook in enumerate(notebooks)
             if name in _mentioned(notebook) and name in _functions(notebook, "method")]
    if not found:
        # Not an AttributeError: `from … import` would put other words in its place.
        raise ImportError(f"no technique {name!r}; the notebooks define {', '.join(sorted(_names()))}")
    if len(found) > 1:
        files = ", ".join(notebooks[i].path.name for i in found)
        raise ImportError(f"{name!r} is defined by several notebooks: {files}")
    return notebooks[:found[0] + 1]


@lru_cache
def _mentioned(notebook):
    """Every name after a `def`, in whatever cell: most notebooks are then out of the question without parsing."""
    return frozenset(re.findall(r"def (\w+)\(", notebook.path.read_text(encoding="utf-8")))


@lru_cache
def _cells(notebook):
    """(number, tags, source) of the code cells that have tags."""
    try:
        cells = json.loads(notebook.path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError) as error:
        raise ImportError(f"{notebook.path.name} is not a readable notebook: {error}") from error
    tagged = [(number, cell.get("metadata", {}).get("tags"), cell) for number, cell in enumerate(cells)]
    return [(number, tags, "".join(cell["source"])) for number, tags, cell in tagged
            if tags and cell["cell_type"] == "code"]


def _functions(notebook, tag):
    return [node.name for _, tags, source in _cells(notebook) if tag in tags
            for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]


@lru_cache
def _namespace(notebooks, tag):
    """What the last of the notebooks defines; the earlier ones are those that it may import from."""
    namespace = {"__name__": __name__}      # so that the functions pickle
    for allowed_tag, allowed in (("imports", (ast.Import, ast.ImportFrom)), (tag, (ast.FunctionDef,))):
        for number, tags, source in _cells(notebooks[-1]):
            if allowed_tag in tags:
                _run(notebooks[-1].path, number, source, namespace, allowed)
    return namespace


def _run(path, number, source, namespace, allowed):
    file = f"{path} · cell {number}"
    for node in ast.parse(source, file).body:
        if not isinstance(node, allowed):
            kinds = " and ".join(kind.__name__ for kind in allowed)
            raise ImportError(f"{path.name}, cell {number}, line {node.lineno}: only {kinds} may stand in this cell")
    # With no modification time linecache keeps these lines for good, and tracebacks show them.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), namespace)
