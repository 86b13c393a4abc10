"""A checker tells an untouched stub, a forgotten return and a wrong answer apart, each in one line."""

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from course_utils.exercises import Rejected, attempted, checker


@checker
def check_double(function):
    """Accepts twice."""
    found = attempted(function, torch.ones(2))
    if found is None:
        return
    assert found.tolist() == [2, 2], f"twice 1 is 2, not {found[0]:.0f}"
    print("correct: twice")


def untouched(x):
    raise NotImplementedError


def without_return(x):
    x * 2


def in_numpy(x):
    return 2 * x.numpy()


def one_of_two_in_numpy(x):
    return 2 * x, x.numpy()


def number(x):
    return 2.0


def all_in_a_list(x):
    return [2 * x]


def wrong(x):
    return 3 * x


def unfinished(x):
    return untouched(x)


def misspelt(x):
    return x.doubble()


def not_for_this_type(x):
    raise NotImplementedError("no kernel for this type")


def test_a_right_answer_is_accepted_and_the_checker_keeps_its_name(capsys):
    check_double(lambda x: 2 * x)
    assert capsys.readouterr().out == "correct: twice\n"
    assert (check_double.__name__, check_double.__doc__) == ("check_double", "Accepts twice.")


def test_a_stub_is_not_attempted_yet(capsys):
    assert check_double(untouched) is None
    assert capsys.readouterr().out == "not attempted yet: untouched\n"


@pytest.mark.parametrize("function, expected", [
    (wrong, "twice 1 is 2, not 3"), (without_return, "returns nothing"), (in_numpy, "gives a NumPy array"),
    (one_of_two_in_numpy, "gives a NumPy array"), (number, "something else .* 'float' object"),
    (all_in_a_list, "something else .* 'list' object"),
])
def test_a_wrong_answer_is_told_in_one_line_and_never_not_attempted(function, expected, capsys):
    with pytest.raises(Rejected, match=expected):
        check_double(function)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("function", [unfinished, not_for_this_type])
def test_an_error_inside_the_answer_is_not_taken_for_an_untouched_stub(function):
    with pytest.raises(NotImplementedError):
        check_double(function)


def test_an_error_of_the_function_itself_stays_as_it_is():
    with pytest.raises(AttributeError, match="doubble"):
        check_double(misspelt)


def test_jupyter_shows_a_rejection_as_one_line(capsys):
    shell = InteractiveShell()
    shell.push({"check_double": check_double, "wrong": wrong})
    assert shell.run_cell("check_double(wrong)").error_in_exec is not None
    shown = capsys.readouterr().out
    assert shown.startswith("not yet: twice 1 is 2, not 3\n")      # pytest itself adds its lines to an assertion's text
    assert "Traceback" not in shown and "check_double" not in shown
