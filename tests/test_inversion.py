"""Inverting a layer: the terms by hand, and what a run promises."""

import pytest
import torch

from course_utils import evaluation_mode, preprocess, run_to, sample_image, to_input
from course_utils.techniques import alpha_norm, data_term, inversion_terms, invert_representation, total_variation


def test_terms_are_what_the_hand_finds():
    x = torch.tensor([[[[1.0, 2.0, 0.0], [0.0, 4.0, 0.0], [5.0, 5.0, 5.0]]]])
    # Steps (down, right) at the four pixels that have both neighbours: (-1, 1), (2, -2), (5, 4), (1, -4).
    torch.testing.assert_close(total_variation(x), torch.tensor([(2 + 8 + 41 + 17) / 4]))
    roots = torch.tensor([2.0, 8.0, 41.0, 17.0]).sqrt()
    torch.testing.assert_close(total_variation(x, beta=1), roots.mean()[None])
    torch.testing.assert_close(alpha_norm(x, alpha=2, bound=2), torch.tensor([(1 + 4 + 16 + 75) / 4 / 9]))
    torch.testing.assert_close(alpha_norm(-x, alpha=3, bound=1), torch.tensor([(1 + 8 + 64 + 375) / 9]))
    torch.testing.assert_close(data_term(3 * x, x), torch.tensor([4.0]))
    assert not data_term(torch.zeros(1, 2), torch.zeros(1, 2)).isnan()      # a dead layer


def test_terms_are_one_value_a_row():
    x = torch.rand(3, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    for term in (alpha_norm, total_variation):
        torch.testing.assert_close(term(x)[1:2], term(x[1:2]))


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["features.1", "features.3", "features.4"])
def test_shallow_layers_are_matched_to_a_fifth(squeezenet, layer):
    x = preprocess(sample_image("macaw"), squeezenet)
    steps = list(invert_representation(squeezenet, x, layer, steps=120))
    assert [step.number for step in steps] == list(range(1, 121))
    assert steps[-1].objective.item() < steps[0].objective.item()
    with evaluation_mode(squeezenet), torch.no_grad():
        phi_0 = run_to(squeezenet, x, layer)[layer]
        data, _, _ = inversion_terms(squeezenet, to_input(steps[-1].image, squeezenet), layer, phi_0)
    assert data.item() < 0.2


def test_a_walk_may_start_at_a_picture(squeezenet):
    x, other = preprocess([sample_image("macaw"), sample_image("coffee")], squeezenet).split(1)
    free = {"alpha_weight": 0, "tv_weight": 0, "steps": 1}
    first = next(invert_representation(squeezenet, x, "features.4", start=x, **free))
    assert first.objective.item() == 0      # nothing is better than the photograph, where no prior is asked
    first = next(invert_representation(squeezenet, x, "features.4", start=other, **free))
    assert first.objective.item() > 1
    torch.testing.assert_close(to_input(first.image, squeezenet), other, rtol=0, atol=1e-5)


def test_what_is_wrong_is_told(squeezenet):
    with pytest.raises(ValueError, match="features.4"):
        next(invert_representation(squeezenet, torch.zeros(1, 3, 64, 64), "feature.4"))
    with pytest.raises(ValueError, match="accepted"):
        next(invert_representation(squeezenet, torch.zeros(3, 64, 64), "features.4"))
