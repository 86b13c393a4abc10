"""The bar of a slow plain call: when it is shown, and when nothing is."""

import contextlib
import threading
import time
from types import SimpleNamespace

import nbformat
import notebook_rules as rules
import pytest
from execute_notebooks import execute
from nbformat.v4 import new_code_cell, new_notebook
from tqdm import tqdm
from tqdm.notebook import tqdm as tqdm_notebook

from course_utils import progress
from course_utils import steps as module

# A loop that takes longer than the bar's patience, between two printed lines.
SLOW_CELL = """
import time

from course_utils import steps

steps.PATIENCE = 0.1
print("before")
for _ in steps.progress(range(5)):
    time.sleep(0.1)
print("after")
""".strip()


@pytest.fixture
def shown(monkeypatch, capsys):
    """What a bar that waits for 0.05 s has written, as a function; the environment of the tests allows none."""
    def bar(*arguments, **options):
        return tqdm(*arguments, **options, disable=False, mininterval=0, ascii=True, ncols=60)

    monkeypatch.setattr(module, "tqdm", bar)
    monkeypatch.setattr(module, "PATIENCE", 0.05)

    def written():
        out, err = capsys.readouterr()
        assert out == ""
        return err

    return written


def slowly(items):
    for item in items:
        time.sleep(0.03)
        yield item


def test_the_items_are_those_of_the_iterable():
    assert list(progress(iter("abc"))) == ["a", "b", "c"]
    loop = progress(range(3))
    assert next(loop) == 0
    loop.close()


def test_a_quick_call_shows_nothing_and_a_slow_one_how_far_it_is(shown):
    assert module.PATIENCE < 0.1
    for _ in progress(range(100)):
        pass
    assert shown() == ""
    for _ in progress(range(6)):
        time.sleep(0.03)
    assert "/6 " in shown()
    for _ in progress(slowly("abcdef"), total=12):
        pass
    assert "/12 " in shown()


def test_of_loops_inside_loops_only_the_outermost_has_a_bar(shown):
    for _ in progress(range(3)):
        for _ in progress(range(5)):
            time.sleep(0.02)
    text = shown()
    assert "/3 " in text and "/5 " not in text


@pytest.mark.parametrize("end", [lambda: None, lambda: 1 / 0], ids=["break", "error"])
def test_a_loop_that_ends_early_leaves_the_bar_to_the_next(shown, end):
    with contextlib.suppress(ZeroDivisionError):
        for _ in progress(range(10)):
            end()
            break
    for _ in progress(range(6)):
        time.sleep(0.03)
    assert "/6 " in shown()


@pytest.fixture
def cell(monkeypatch):
    """IPython's `pre_run_cell` and `post_run_cell`, as functions, and the bars of a notebook that are made between."""
    told, bars = {}, []

    def bar(*arguments, **options):
        bars.append(tqdm_notebook(*arguments, **options, disable=False, display=False, mininterval=0))
        return bars[-1]

    monkeypatch.setattr(module, "tqdm", bar)
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    monkeypatch.setattr(module, "get_ipython", lambda: SimpleNamespace(events=SimpleNamespace(
        register=told.__setitem__)))
    module.follow_cells()
    yield lambda: told["pre_run_cell"](None), lambda: told["post_run_cell"](None), bars
    module._cell.end()


def test_the_short_loops_of_a_slow_cell_follow_each_other_in_one_bar(cell):
    begin, end, bars = cell
    begin()
    made = []
    for length in (8, 8, 7, 6):      # none is as long as the patience, nor are two
        for _ in progress(range(length)):
            time.sleep(0.02)
        made.append(len(bars))
    assert made == [0, 0, 1, 1] or made == [0, 1, 1, 1]      # a machine at work is slower
    assert bars[0].n == bars[0].total == 6 and bars[0].format_dict["elapsed"] > 6 * 0.02
    end()
    assert bars[0].container.comm is None and module._cell.bar is None
    begin()
    for _ in progress(range(6)):
        time.sleep(0.02)
    assert len(bars) == 1      # the next cell is quick


def test_an_unknown_length_has_a_bar_of_its_own(cell):
    begin, end, bars = cell
    begin()
    time.sleep(0.3)
    for items in (range(7), iter(range(7)), range(7)):
        for _ in progress(items):
            time.sleep(0.03)
    assert [bar.n for bar in bars] == [7, 7, 7] and bars[0].container.comm is bars[1].container.comm is None


def test_of_a_loop_that_ends_early_no_red_bar_stays(cell):
    begin, end, bars = cell
    begin()
    time.sleep(0.3)
    for number in progress(range(100)):
        time.sleep(0.03)
        if number == 6:
            break
    assert 0 < bars[0].n < 100
    end()
    assert bars[0].container.children[1].bar_style != "danger" and bars[0].container.comm is None


def test_other_threads_print_nothing(shown):
    thread = threading.Thread(target=lambda: list(slowly(progress(range(6)))))
    thread.start()
    thread.join()
    assert shown() == ""


@pytest.mark.slow
def test_stored_outputs_have_no_bar(tmp_path, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE")
    path = tmp_path / "01_first.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(SLOW_CELL)]), path)
    execute(path)
    cell, = rules.code_cells(rules.read(path))
    assert [output.text for output in cell.outputs] == ["before\nafter\n"]
