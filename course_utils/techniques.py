"""Techniques, loaded from the notebooks that derive them: `from course_utils.techniques import grad_cam`.

The name is looked up in `notebooks/NN_….ipynb`. Of the notebook that defines it, the cell tagged `imports`
(import statements only) and the cells tagged `method` (functions only) run, and nothing else. The source
shown by `grad_cam??` and by tracebacks is the notebook's. An edited notebook is loaded again at the next
import.
"""

import ast
import json
import linecache
import re
import threading
from pathlib import Path
from types import SimpleNamespace

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
_loaded = {}      # (notebook, tag) → (modification time, namespace)
_texts = {}       # notebook → (modification time, raw text)
_lock = threading.RLock()


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    with _lock:
        return _namespace(_notebook_that_defines(name), "method")[name]


def __dir__():
    return sorted(name for path in _notebooks() for name in _functions(path, "method"))


def checkers(notebook):
    """The exercise checkers of a notebook as one object: `checkers("06").check_…(your_function)`.

    notebook: its number, as in "06". Raises ImportError where there is no such notebook.
    """
    paths = [path for path in _notebooks() if path.name.startswith(f"{notebook}_")]
    if len(paths) != 1:
        raise ImportError(f"no notebook {notebook!r} in {NOTEBOOKS}")
    with _lock:
        namespace = _namespace(paths[0], "checker")
    return SimpleNamespace(**{name: namespace[name] for name in _functions(paths[0], "checker")})


def _notebooks():
    # By full name: Jupyter's temporary files and copies would match a looser pattern.
    found = sorted(path for path in NOTEBOOKS.glob("*.ipynb") if re.fullmatch(r"\d\d_\w+\.ipynb", path.name))
    if not found:
        raise ImportError(f"no notebooks in {NOTEBOOKS}: techniques need a clone of the course (pip install -e .)")
    return found


def _notebook_that_defines(name):
    quoted = rf"def {name}("
    found = [path for path in _notebooks() if quoted in _text(path) and name in _functions(path, "method")]
    if not found:
        raise AttributeError(f"no technique {name!r}; the notebooks define {', '.join(__dir__())}")
    if len(found) > 1:
        raise ImportError(f"{name!r} is defined by several notebooks: {', '.join(path.name for path in found)}")
    return found[0]


def _text(path):
    modified = path.stat().st_mtime_ns
    if _texts.get(path, (None,))[0] != modified:
        _texts[path] = modified, path.read_text(encoding="utf-8")
    return _texts[path][1]


def _cells(path, *tags):
    """(number, source) of the code cells with one of these tags."""
    try:
        cells = json.loads(_text(path))["cells"]
    except (ValueError, KeyError) as error:
        raise ImportError(f"{path.name} is not a readable notebook: {error}") from error
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code" and set(tags) & set(cell.get("metadata", {}).get("tags", [])):
            yield number, "".join(cell["source"])


def _functions(path, tag):
    return [node.name for _, source in _cells(path, tag) for node in ast.parse(source).body
            if isinstance(node, ast.FunctionDef)]


def _namespace(path, tag):
    modified = path.stat().st_mtime_ns
    if _loaded.get((path, tag), (None,))[0] != modified:
        namespace = {"__name__": __name__}      # so that the functions pickle
        for number, source in _cells(path, "imports"):
            _run(path, number, source, namespace, (ast.Import, ast.ImportFrom))
        for number, source in _cells(path, tag):
            _run(path, number, source, namespace, (ast.FunctionDef,))
        _loaded[path, tag] = modified, namespace
    return _loaded[path, tag][1]


def _run(path, number, source, namespace, allowed):
    file = f"{path} · cell {number}"
    for node in ast.parse(source, file).body:
        if not isinstance(node, allowed):
            kinds = " and ".join(kind.__name__ for kind in allowed)
            raise ImportError(f"{path.name}, cell {number}, line {node.lineno}: only {kinds} may stand in this cell")
    # With no modification time linecache keeps these lines for good, and tracebacks show them.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), namespace)
