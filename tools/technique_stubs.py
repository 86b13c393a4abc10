"""Signatures and docstrings of all techniques in one stub file, for editors and type checkers.

    python tools/technique_stubs.py             writes course_utils/techniques.pyi, as `make notebooks` does
"""

import ast
import textwrap
from pathlib import Path

from course_utils import techniques

STUBS = Path(techniques.__file__).with_suffix(".pyi")
HEADING = '"""What the notebooks define; their code is there. Written by `make notebooks`."""'


def stub_text():
    """The text of the stub file: the functions of all `method` cells, and `checkers`."""
    loader = STUBS.with_suffix(".py").read_text(encoding="utf-8")
    stubs = [stub for name, stub in _stubs(loader) if name == "checkers"]
    for notebook in techniques._notebooks():
        for _, tags, source in techniques._cells(notebook):
            if "method" in tags:
                stubs += [stub for _, stub in _stubs(source)]
    return "\n\n\n".join([HEADING, *stubs]) + "\n"


def _stubs(source):
    for function in ast.parse(source).body:
        if isinstance(function, ast.FunctionDef):
            arguments = function.args
            arguments.defaults = [_literal(default) for default in arguments.defaults]
            arguments.kw_defaults = [default and _literal(default) for default in arguments.kw_defaults]
            head = f"def {function.name}({ast.unparse(arguments)}):"
            head = textwrap.fill(head, 120, subsequent_indent=" " * (len(function.name) + 5), break_long_words=False)
            body = ast.get_source_segment(source, function.body[0]) if ast.get_docstring(function) else "..."
            yield function.name, f"{head}\n    {body}"


def _literal(default):
    """A default as it stands, or `...` where it is computed or is itself a function."""
    try:
        ast.literal_eval(default)
    except ValueError:
        return ast.Constant(...)
    return default


def write_stubs():
    STUBS.write_text(stub_text(), encoding="utf-8")


if __name__ == "__main__":
    write_stubs()
