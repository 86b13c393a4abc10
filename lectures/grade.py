"""Mark exercises that were handed in: python lectures/grade.py FOLDER > marks.csv

One row for each student, notebook and exercise: student, notebook, exercise, state, what the checker said, file.

A student is the first folder below FOLDER (FOLDER/ada/06_grad_cam.ipynb) or, for files that lie in FOLDER itself, what
the name has beside the lesson's (FOLDER/06_grad_cam_ada.ipynb). A notebook is known by the lesson's name or number in
its own name. Two files of one student and lesson give rows for both. Folders named solutions are left out.

    correct         the course's checker accepts the function
    wrong           it rejects it, and says why
    error           the function, or what it needs, raises an error
    unfinished      there is code, and it still raises the stub's NotImplementedError
    not attempted   the function is the lesson's stub
    missing         no function of this name, or the stub beside a check of a function of another name
    timed out       no verdict within the time limit
    crashed         the process ended without a verdict, or took more memory than it may
    unreadable      no notebook, or none whose lesson can be told, or the function stands in a cell that is no Python

Each notebook runs in a process of its own, which is ended at the limits; the exercises after the one that hung or
crashed run in a new one. Of the notebook, imports, functions and classes run, in their order, and the assignments of
names that the answers use; nothing else does, so that a cell that fails hides nothing. The checkers are those of this
clone, and stored outputs are not looked at.

What this cannot see: an answer that depends on other statements, such as a loop that fills a list (it is called an
error); whether two students wrote the same, or copied the solution; an answer made to please the checker, which tries
a few cases; the texts that a learner wrote. And it is no sandbox: what was handed in runs with your rights. Mark the
notebooks of strangers in a container.
"""

import argparse
import ast
import contextlib
import csv
import dis
import functools
import io
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import CodeType

import psutil
from IPython.core.inputtransformer2 import TransformerManager

from course_utils.environment import available_memory, cpu_cores
from course_utils.exercises import Rejected
from course_utils.techniques import checkers

LESSONS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("[0-9][0-9]_*.ipynb"))
COLUMNS = "student", "notebook", "exercise", "state", "said", "file"
START = 120                         # seconds until torch is imported, on a busy machine
READY = "ready"
ENDED = "timed out", "crashed"      # states after which the process is gone
SAID = 300                          # characters: what is longer is cut
DEFINITIONS = ast.FunctionDef, ast.ClassDef
ASSIGNMENTS = ast.Assign, ast.AnnAssign, ast.AugAssign


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the notebooks that were handed in are")
    parser.add_argument("--seconds", type=float, default=120, help="time limit of an exercise (default: %(default)s)")
    parser.add_argument("--memory", type=float, default=3, help="limit of a notebook in GB (default: %(default)s)")
    options = parser.parse_args()
    files = handed_in(options.folder)
    if not files:
        parser.error(f"there is no notebook in {options.folder}")
    # The processes inherit this. One thread each: threads that wait for each other's cores spin.
    os.environ.update(OMP_NUM_THREADS="1", CPU_LIMIT="1", COURSE_DEVICE="cpu", TQDM_DISABLE="1")
    workers = max(1, min(cpu_cores(), int(available_memory() / (1e9 * options.memory))))
    sys.stdout.reconfigure(encoding="utf-8", errors="replace", newline="")
    table = csv.writer(sys.stdout)
    table.writerow(COLUMNS)
    with ThreadPoolExecutor(workers) as pool:
        verdicts = pool.map(lambda path: mark(path, options.seconds, options.memory), files)
        for path, found in zip(files, verdicts, strict=True):
            name, lesson = path.relative_to(options.folder), lesson_of(path)
            student = student_of(name) or options.folder.resolve().name
            for verdict in found:
                table.writerow(map(as_text, (student, lesson.stem if lesson else "?", *verdict, name)))
            print(f"{name}: {', '.join(state for _, state, _ in found)}", file=sys.stderr, flush=True)


def handed_in(folder):
    """The notebooks in a folder, without the course's solutions and Jupyter's copies."""
    return [path for path in sorted(folder.rglob("*.ipynb"))
            if not {"solutions", ".ipynb_checkpoints"} & set(path.relative_to(folder).parts[:-1])]


def lesson_of(path):
    """The lesson that the name of a file tells, or None."""
    named = [lesson for lesson in LESSONS if lesson.stem in path.stem]
    numbered = [lesson for lesson in LESSONS if re.match(rf"{lesson.name[:2]}(?!\d)", path.stem)]
    return next(iter(named + numbered), None)


def student_of(name):
    """Who handed in a file of this name below the folder; empty where the name does not tell."""
    if len(name.parts) > 1:
        return name.parts[0]
    lesson = lesson_of(name)
    return name.stem.replace(lesson.stem if lesson else "", "").strip(" _-")


def as_text(value):
    """One line that a spreadsheet takes for text, and not for a formula."""
    line = one_line(value)
    return f"'{line}" if line[:1] in tuple("=+-@") else line


def one_line(value):
    text = " ".join(str(value).split())
    return text if len(text) <= SAID else f"{text[:SAID - 1]}…"


# --- a process, and what may happen to it


def mark(path, seconds, memory):
    """(exercise, state, what was said) for each exercise of the file's lesson; seconds for each, memory in GB."""
    lesson = lesson_of(path)
    if not lesson:
        return [("?", "unreadable", "the name of the file does not tell the lesson: 06_grad_cam.ipynb, for example")]
    exercises, verdicts = list(stubs(lesson)), []
    while left := exercises[len(verdicts):]:
        verdicts += [(name, *verdict) for name, verdict in
                     zip(left, verdicts_of_a_process(path, lesson, left, seconds, memory), strict=False)]
    return verdicts


def verdicts_of_a_process(path, lesson, exercises, seconds, memory):
    """Yield (state, what was said) for the exercises, up to the one that ends the process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = context.Process(target=work, args=(sender, path.resolve(), lesson, exercises, folder), daemon=True)
        process.start()
        sender.close()
        try:
            for limit in [START, *[seconds] * len(exercises)]:
                state, said = wait(receiver, process, limit, memory)
                if state != READY:
                    yield state, said
                if state in ENDED:
                    break
        finally:
            for one in family(process.pid):
                with contextlib.suppress(psutil.Error):
                    one.kill()
            process.join()


def wait(receiver, process, seconds, memory):
    """The next verdict that a process sends, or what kept it from sending one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if receiver.poll(0.1):
            try:
                return json.loads(receiver.recv_bytes())
            except (OSError, EOFError, ValueError):
                process.join(5)
                return "crashed", f"the process ended with exit status {process.exitcode}"
        if sum(resident(one) for one in family(process.pid)) > 1e9 * memory:
            return "crashed", f"took more than {memory:g} GB of memory"
    return "timed out", f"no verdict after {seconds:g} s"


def family(pid):
    """A process and those that it started."""
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def resident(process):
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


# --- inside the process


def work(sender, path, lesson, exercises, folder):
    """Send word that the work begins, then the verdict on each exercise of a notebook."""
    send(sender, READY, "")
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):      # what is handed in may print without end, and there is nobody to answer its questions
        os.dup2(quiet, stream)
    os.chdir(folder)
    try:
        answers = Answers(code_cells(path), exercises)
    except Exception as error:      # whatever a file that is no notebook makes json say
        for _ in exercises:
            send(sender, "unreadable", f"no notebook: {type(error).__name__}: {error}")
        return
    checks, untouched = checkers(lesson.name[:2]), stubs(lesson)
    for name in exercises:
        send(sender, *answers.verdict(name, getattr(checks, f"check_{name}"), untouched[name]))


def send(sender, state, said):
    """As JSON, which harms nobody, whoever writes into the pipe."""
    sender.send_bytes(json.dumps([state, one_line(said)]).encode())


def code_cells(path):
    """(tags, source) of the code cells of a notebook, from whatever version of Jupyter."""
    cells = json.loads(path.read_text(encoding="utf-8-sig"))["cells"]
    return [(cell.get("metadata", {}).get("tags", []), "".join(cell["source"])) for cell in cells
            if cell["cell_type"] == "code"]


def parsed(source):
    """The statements of a cell; raises SyntaxError for what is no Python."""
    tree = ast.parse(TransformerManager().transform_cell(source))
    compile(tree, "handed in", "exec")      # finds more faults, such as a return outside of functions
    return tree.body


def stubs(lesson):
    """Exercise -> its stub, as a syntax tree."""
    return {node.name: node for tags, source in code_cells(lesson) if "exercise" in tags
            for node in parsed(source) if isinstance(node, ast.FunctionDef)}


class Answers:
    """What the code cells of a notebook define, as far as the exercises need it."""

    def __init__(self, cells, exercises):
        self.namespace = {"__name__": "handed_in"}
        self.failed, self.defined, self.checked = {}, {}, set()
        statements = []
        for _, source in cells:
            try:
                statements += parsed(source)
            except (SyntaxError, ValueError) as error:
                statements.append({name: error for name in re.findall(r"^[ \t]*def\s+(\w+)", source, re.MULTILINE)})
        used = names_used({*exercises}, [one for one in statements if isinstance(one, ast.AST)])
        for statement in statements:
            if isinstance(statement, dict):
                self.failed.update({name: ("unreadable", error) for name, error in statement.items()})
            elif isinstance(statement, (ast.Import, ast.ImportFrom, *DEFINITIONS)) or bound(statement) & used:
                self.run(statement)
            self.checked |= checks_of_names(statement) if isinstance(statement, ast.AST) else set()

    def run(self, statement):
        for name in (names := bound(statement)):
            self.failed.pop(name, None)
            self.defined[name] = statement
        try:
            exec(compiled(statement), self.namespace)
        except BaseException as error:      # sys.exit() is one, too
            self.failed.update({name: ("error", error) for name in names})

    def verdict(self, name, check, stub):
        """(state, what was said) about one exercise; check: the course's checker, stub: the lesson's function."""
        if name in self.failed:
            state, error = self.failed[name]
            return state, f"{type(error).__name__}: {error}"
        untouched = name not in self.defined or same_body(self.defined[name], stub)
        others = sorted(other for checked, other in self.checked if checked == name != other)
        if untouched and others:
            return "missing", f"the notebook checks {', '.join(others)} in the place of {name}"
        if name not in self.namespace:
            return "missing", f"no function {name}"
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                check(muted(self.namespace[name]))
        except Rejected as rejection:
            return "wrong", rejection
        except BaseException as error:
            return "error", f"{type(error).__name__}: {error}"
        if right := re.search("^correct.*", said.getvalue(), flags=re.MULTILINE | re.IGNORECASE):
            return "correct", right[0]
        return ("not attempted" if untouched else "unfinished"), said.getvalue()


def bound(statement):
    """The names that a definition or an assignment binds."""
    if isinstance(statement, DEFINITIONS):
        return {statement.name}
    if isinstance(statement, ASSIGNMENTS):
        names = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
        return {name.id for name in names if isinstance(name.ctx, ast.Store)}
    return set()


def names_used(names, statements):
    """These names, and those that what binds them uses, and so on; not the local ones of functions."""
    uses = [(bound(one), global_names(compiled(one))) for one in statements]
    before = None
    while before != names:
        before = names
        names = names.union(*(used for bound_here, used in uses if bound_here & names))
    return names


def compiled(statement):
    return compile(ast.Module([statement], []), "handed in", "exec")


def global_names(code):
    """The names that code, and what is nested in it, looks up outside of functions."""
    found = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return found.union(*(global_names(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def checks_of_names(statement):
    """(exercise, name of a function) for each call of a checker in a statement."""
    calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call) and node.args]
    found = [(getattr(call.func, "attr", getattr(call.func, "id", "")), call.args[0]) for call in calls]
    return {(checker.removeprefix("check_"), argument.id) for checker, argument in found
            if checker.startswith("check_") and isinstance(argument, ast.Name)}


def same_body(statement, stub):
    """Whether a function does what the stub does, whatever its docstring and comments say."""
    def code(function):
        body = function.body[1:] if ast.get_docstring(function) is not None else function.body
        return [ast.dump(node) for node in body]

    return isinstance(statement, ast.FunctionDef) and code(statement) == code(stub)


def muted(function):
    """The function, whose own printing is not taken for the checker's."""
    @functools.wraps(function)
    def quiet(*arguments, **options):
        with contextlib.redirect_stdout(sys.__stdout__):
            return function(*arguments, **options)

    return quiet


if __name__ == "__main__":
    main()
