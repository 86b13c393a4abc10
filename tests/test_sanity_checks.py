"""The cascade of randomizations and the structural similarity of notebook 19, by hand and against other code."""

import pytest
import torch
from torch import nn

from course_utils import load_model
from course_utils.hooks import randomized
from course_utils.measures import rank_correlation
from course_utils.scores import target_classes
from course_utils.techniques import cascade, grad_cam, guided_backprop, ssim, vanilla_gradient


def toy():
    """Two hidden units with positive weights; seed 1 lets the two classes of the last layer trade places."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    model.requires_grad_(False)
    model[1].weight.copy_(torch.tensor([[1.0, 2, 3], [1, 4, 6]]))
    model[3].weight.copy_(torch.tensor([[3.0, -2], [-2, 3]]))
    return model, torch.tensor([1.0, 4, 16]).view(1, 3, 1, 1)


def difference(a, b):
    return (b - a).flatten(1)


def test_the_toy_by_hand():
    model, x = toy()
    found = cascade(model, x, vanilla_gradient, [["3"]], 0, measure=difference, seed=1)
    assert found.tolist() == [[[0, 10, 15]]]                   # (1, -2, -3) becomes (1, 8, 12)
    found = cascade(model, x, guided_backprop, [["3"]], 0, measure=difference, seed=1)
    assert found.tolist() == [[[0, 6, 9]]]                     # (3, 6, 9) becomes (3, 12, 18)
    assert cascade(model, x, vanilla_gradient, [["3"]], 0, seed=1).item() == pytest.approx(-1)


@pytest.fixture(scope="module")
def network():
    return load_model("resnet18", weights="random", device="cpu")


def pictures():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


PARTS = [["fc"], ["layer4", "layer3"], ["conv1"]]


@pytest.mark.parametrize("alone", [False, True])
def test_parts_are_shuffled_together_or_alone(network, alone):
    x = pictures()
    before, classes = x.clone(), target_classes(network, x)
    found = cascade(network, x, grad_cam, PARTS, alone=alone, seed=4)
    for k, row in enumerate(found):
        with randomized(network, *(PARTS[k] if alone else sum(PARTS[:k + 1], [])), seed=4):
            after = grad_cam(network, x, classes)
        torch.testing.assert_close(row, rank_correlation(grad_cam(network, x, classes), after))
    assert found.shape == (3, 2) and torch.equal(x, before)


def test_a_map_that_does_not_look_at_the_network_stays(network):
    found = cascade(network, pictures(), lambda model, x, classes: x, PARTS)
    torch.testing.assert_close(found, torch.ones(3, 2))


def test_each_row_is_asked_about_its_class(network):
    asked = []

    def explain(model, x, classes):
        asked.append(classes.tolist())
        return x

    cascade(network, pictures(), explain, PARTS, torch.tensor([3, 5]))
    assert asked == [[3, 5]] * 4
    with pytest.raises(IndexError, match="1000"):
        cascade(network, pictures(), grad_cam, PARTS, 1000)


@pytest.mark.parametrize("error", [RuntimeError("on purpose"), KeyboardInterrupt()])
def test_the_network_is_left_as_found_also_after_an_error(network, error):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    calls = []

    def explain(model, x, classes):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return x

    with pytest.raises(type(error)):
        cascade(network, pictures(), explain, PARTS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(ValueError, match="nearest names"):
        cascade(network, pictures(), grad_cam, [["layer5"]])


def ssim_by_loops(a, b):
    """The mean of the index over all windows, one window after another."""
    window = torch.tensor([[-((i - 5) ** 2 + (j - 5) ** 2) / 4.5 for j in range(11)] for i in range(11)]).to(a).exp()
    window /= window.sum()
    values = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            p, q = (picture[top:top + 11, left:left + 11] for picture in (a, b))
            m, n = (window * p).sum(), (window * q).sum()
            v, w = (window * (p - m) ** 2).sum(), (window * (q - n) ** 2).sum()
            c = (window * (p - m) * (q - n)).sum()
            values.append((2 * m * n + 1e-4) * (2 * c + 9e-4) / ((m * m + n * n + 1e-4) * (v + w + 9e-4)))
    return torch.stack(values).mean()


def test_structural_similarity_against_loops_and_by_hand():
    a, b = torch.rand(2, 3, 1, 16, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    b = (a + b) / 2
    found = ssim(a, b)
    torch.testing.assert_close(found, torch.stack([ssim_by_loops(p[0], q[0]) for p, q in zip(a, b, strict=True)]))
    torch.testing.assert_close(found, ssim(b, a))
    torch.testing.assert_close(found[1:2], ssim(a[1:2], b[1:2]))
    torch.testing.assert_close(ssim(a, a), torch.ones(3, dtype=torch.float64))
    plain = torch.full((1, 1, 12, 12), 0.2, dtype=torch.float64)
    torch.testing.assert_close(ssim(plain, 3 * plain), torch.tensor([0.2401 / 0.4001], dtype=torch.float64))
