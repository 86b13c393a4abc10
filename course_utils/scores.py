"""What every technique asks of a network, checked in one place: scores of classes, and sums over changed pictures."""

import torch

from .hooks import NetworkError, check_pictures, evaluation_mode, forward
from .steps import progress


def class_scores(model, x):
    """The scores before the softmax, `(N, K)`, in the autograd graph where x requires gradients.

    x: preprocessed `(N, 3, H, W)`. One forward pass in evaluation mode with frozen parameters.
    Raises ValueError for a wrong x, for a network that does not take it, and for an output that is not one row of
    scores for each picture, or whose rows are probabilities already.
    """
    with evaluation_mode(model):
        scores = forward(model, x)
    given = tuple(scores.shape) if isinstance(scores, torch.Tensor) else f"a {type(scores).__name__}"
    if not isinstance(scores, torch.Tensor) or scores.dim() != 2 or len(scores) != len(x):
        raise NetworkError(f"the network gives {given} for {len(x)} pictures; accepted is a classifier with scores "
                           "(N, K): wrap it in a module that returns them")
    values, rounding = scores.detach(), 1e-2 if scores.dtype.itemsize < 4 else 1e-4
    if values.shape[1] > 1 and ((values.sum(dim=1) - 1).abs() < rounding).all() and (values > 0).all():
        raise NetworkError("the network gives probabilities, each row of which adds up to 1; accepted are the scores "
                           "before the softmax: leave its last layer out")
    return scores


def class_score(model, x, target=None):
    """The scores $S_c(x)$ before the softmax, in the autograd graph: a tensor `(N,)`.

    x: preprocessed `(N, 3, H, W)`. target: a class for all rows, integers `(N,)` for one each, None for each row's
    own top class. One forward pass, as in `class_scores`, whose errors are raised; besides IndexError for a class
    that the network does not have, ValueError for another shape or type of target.
    """
    scores = class_scores(model, x)
    with evaluation_mode(model):
        return scores.gather(1, classes_in(scores, target)[:, None])[:, 0]


def classes_in(scores, target=None):
    """One class per row of scores `(N, K)`: a LongTensor `(N,)`. target and errors: as for `class_score`."""
    classes = scores.detach().argmax(dim=1) if target is None else _one_per_row(target, scores)
    wrong = classes[(classes < 0) | (classes >= scores.shape[1])]
    if len(wrong):
        raise IndexError(f"class {wrong[0].item()}: the network's classes are 0 to {scores.shape[1] - 1}")
    return classes


def target_classes(model, x, target=None):
    """One class per row, decided on x itself, for techniques that show the network changed copies of x.

    target: as in `class_score`, whose errors are raised; the range of a given class is left to `class_score`.
    Returns a LongTensor `(N,)` on x's device. Runs the network only for target=None.
    """
    check_pictures(model, x)
    return class_scores(model, x).detach().argmax(dim=1) if target is None else _one_per_row(target, x)


def _one_per_row(target, rows):
    given = as_indices(target=target).to(rows.device)
    if len(given) != len(rows) and not (isinstance(target, int) or getattr(target, "ndim", 1) == 0):
        raise ValueError(f"target has shape {tuple(given.shape)}; {len(rows)} pictures need an int or one class each")
    return given.expand(len(rows))


def as_indices(**given):
    """What an option names, one or several, as a LongTensor `(n,)`: `as_indices(target=[56, 130])`.

    Accepted: an int, a sequence or a tensor. Raises ValueError for what holds no whole numbers, such as a name.
    """
    ((name, value),) = given.items()
    try:
        # On the CPU whatever the default device is; a clone, because autograd keeps no tensor of inference_mode's.
        found = torch.as_tensor(value, device=getattr(value, "device", "cpu")).clone()
    except (TypeError, ValueError, RuntimeError) as error:
        hint = f"; find_class({value!r}) finds classes by name" if isinstance(value, str) else ""
        raise ValueError(f"{name}={value!r}; accepted are indices: an int or a LongTensor{hint}") from error
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise ValueError(f"{name} holds {found.dtype}; accepted are indices: an int or a LongTensor")
    if found.dim() > 1:
        raise ValueError(f"{name} has shape {tuple(found.shape)}; accepted are an int or one index for each picture")
    return found.long().reshape(-1)


def probabilities(scores):
    """The softmax of scores `(N, K)`. Raises ValueError for a single class, which is no choice."""
    if scores.shape[1] == 1:
        raise NetworkError("the network gives one score, which is no choice between classes: it has no probability")
    return scores.softmax(dim=1)


def sum_over(batches, terms, classes, *, total=None):
    """For each picture the sum of terms over all batches of samples: `(N, …)`, with memory flat in their number.

    terms(i, c, batch): rows to be added up, for picture number i and its class c, a tensor `()`. batches: whatever
    terms takes, total of them, for the bar. classes: `(N,)`, as `target_classes` gives them.
    """
    sums = [0] * len(classes)
    for batch in progress(batches, total):
        for i, c in enumerate(classes):
            sums[i] = sums[i] + terms(i, c, batch).sum(dim=0)
    return torch.stack(sums)


def filled_like(x, **given):
    """A tensor in the shape of x, from an option that broadcasts to it, or None for zeros: `filled_like(x, fill=fill)`.

    Raises ValueError where it does not broadcast.
    """
    ((name, value),) = given.items()
    if value is None:
        return torch.zeros_like(x)
    value = torch.as_tensor(value, dtype=x.dtype, device=x.device).detach()
    try:
        return value.expand_as(x)
    except RuntimeError as error:
        raise ValueError(f"{name} {tuple(value.shape)} does not broadcast to x {tuple(x.shape)}") from error


def choose(accepted, **given):
    """The entry of a dict that an option names: `choose({"mean": …, "square": …}, statistic=statistic)`.

    Raises ValueError for a name that is not there, with those that are.
    """
    ((name, value),) = given.items()
    if value not in accepted:
        raise ValueError(f"{name}={value!r}: accepted are {', '.join(map(repr, accepted))}")
    return accepted[value]


def at_least(smallest, **given):
    """Raise ValueError unless every option is a number from `smallest`: `at_least(1, n=n, batch_size=batch_size)`."""
    for name, value in given.items():
        if not value >= smallest:
            raise ValueError(f"{name}={value}: accepted is a number from {smallest}")
