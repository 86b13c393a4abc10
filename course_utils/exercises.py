"""What the checkers of the exercises have in common."""

import functools
import traceback

import numpy as np


class Rejected(AssertionError):
    """A checker's verdict, which Jupyter shows as one line."""

    def _render_traceback_(self):      # IPython asks an exception for this before it prints a traceback
        return [f"not yet: {self}"]


def checker(check):
    """A checker whose failed assertions reach the learner as one line: what is wrong, without a traceback.

    So does what a check cannot read, such as a number or a list in place of a tensor.
    """

    @functools.wraps(check)
    def checked(function):
        try:
            return check(function)
        except AssertionError as wrong:
            raise Rejected(*wrong.args) from None
        except (AttributeError, TypeError) as error:
            if error.__traceback__.tb_next.tb_next:      # raised deeper than in the check: the function's own fault
                raise
            raise Rejected(f"{function.__name__} gives something else than what is asked for: {error}") from None

    return checked


def attempted(function, *arguments, **options):
    """What a learner's function gives; None, after a line that says so, for a stub that nobody has touched.

    An untouched stub raises NotImplementedError, itself and without a message. Raises AssertionError for a function
    that returns nothing, or NumPy arrays; errors inside the function stay as they are.
    """
    try:
        result = function(*arguments, **options)
    except NotImplementedError as error:
        innermost = traceback.extract_tb(error.__traceback__)[-1]
        if str(error) or innermost.name != function.__name__:
            raise
        return print(f"not attempted yet: {function.__name__}")
    assert result is not None, f"{function.__name__} returns nothing: is there a `return`?"
    parts = result if isinstance(result, tuple | list) else [result]
    assert not any(isinstance(part, np.ndarray) for part in parts), \
        f"{function.__name__} gives a NumPy array, and the course works with tensors: torch.from_numpy(…)"
    return result
