"""Run notebooks from the top and store their outputs in place, clean and the same on every run.

    python tools/execute_notebooks.py             all lessons, solutions and decks
    python tools/execute_notebooks.py 06          lesson 06 and its solutions
    python tools/execute_notebooks.py PATH…       these files

A notebook that fails, or whose outputs are unfit to be stored, stays as it was.
"""

import hashlib
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from notebook_rules import (
    IMAGE_TYPES,
    KERNEL,
    ROOT,
    WIDGET_VIEW,
    cell_metadata,
    deck_paths,
    filed_pictures,
    is_solution,
    notebook_paths,
    output_complaints,
    read,
    sources_hash,
)
from technique_stubs import write_stubs

CELL_TIMEOUT = 600      # seconds


def execute(path):
    """Run one notebook and replace the file; returns the seconds and the kernel's peak memory in MB."""
    notebook = read(path)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_TIMEOUT,
        record_timing=False,        # times of day would differ from run to run,
        coalesce_streams=True,      # and so would the pieces in which printed text arrives
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=ERROR"],
    )
    running, memory = [0], [0.0]
    client.on_cell_start = lambda cell, cell_index: running.append(cell_index + 1)
    client.on_cell_executed = lambda **_: memory.append(peak_memory(client.km.provisioner.pid))

    start = time.perf_counter()
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise ValueError(f"cell {running[-1]} failed.\n{error}") from None
    seconds = time.perf_counter() - start

    clean(notebook, path)
    if complaints := output_complaints(notebook):
        raise ValueError("its outputs are unfit to be stored:\n  " + "\n  ".join(complaints))
    partial = path.with_name(f".{path.name}.partial")
    nbformat.write(notebook, partial)
    os.replace(partial, path)
    if not is_solution(path):
        for file, data in filed_pictures(notebook, path).items():
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
    return seconds, memory[-1]


def peak_memory(pid):
    """The most memory that a process has held, in MB. Linux keeps this number; elsewhere it is unknown."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return float("nan")
    return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024


def clean(notebook, path):
    """Keep what a reader needs: sources, tags, counts, text and pictures."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict({
        "kernelspec": KERNEL,
        "language_info": {"name": "python"},
        "course": {"sources": sources_hash(notebook, path)},
    })
    used = set()
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(cell_metadata(cell, path))
        # An id made from the text stays the same when the notebook is written anew from a script.
        cell.id = digest = hashlib.sha256(f"{cell.cell_type}\0{cell.source}".encode()).hexdigest()[:12]
        while cell.id in used:
            cell.id = f"{digest}-{len(used)}"
        used.add(cell.id)
        if cell.cell_type == "code":
            cell.outputs = list(without_widgets(cell.outputs))


def without_widgets(outputs):
    """The outputs without live widgets, of which the picture stays that a panel brings along."""
    for output in outputs:
        live = output.get("data", {}).pop(WIDGET_VIEW, None)
        if live is None or IMAGE_TYPES & set(output.data):
            yield output


def chosen(arguments):
    paths = []
    for argument in arguments:
        if re.fullmatch(r"\d+", argument):
            found = [path for path in notebook_paths() if path.name.startswith(f"{argument:0>2}_")]
        else:
            found = [Path(argument).resolve()] if Path(argument).is_file() else []
        if not found:
            sys.exit(f"There is no notebook {argument}.")
        paths += found
    return paths or notebook_paths() + deck_paths()


def main():
    os.environ.setdefault("COURSE_DEVICE", "cpu")       # outputs should not depend on who has a GPU
    failed = 0
    for path in chosen(sys.argv[1:]):
        name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
        try:
            seconds, memory = execute(path)
            size = path.stat().st_size / 2**20
            print(f"{name:60} {seconds:6.1f} s  {memory:6.0f} MB memory  {size:5.2f} MB on disk", flush=True)
        except ValueError as error:
            failed += 1
            print(f"{name} is left as it was: {error}", file=sys.stderr, flush=True)
    write_stubs()
    sys.exit(f"{failed} failed." if failed else 0)


if __name__ == "__main__":
    main()
