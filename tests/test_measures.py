"""Measures of maps against closed forms and NumPy; boxes that hide exactly what they name."""

import numpy as np
import pytest
import torch

from course_utils.measures import cosine, covered, edge_map, enlarge, rank_correlation


def maps(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_cosine_is_that_of_each_row():
    a, b = maps(0, 3, 1, 4, 5), maps(1, 3, 1, 4, 5)
    expected = [np.dot(u, v) / np.linalg.norm(u) / np.linalg.norm(v)
                for u, v in zip(a.flatten(1).numpy(), b.flatten(1).numpy(), strict=True)]
    np.testing.assert_allclose(cosine(a, b), expected, rtol=1e-5)
    torch.testing.assert_close(cosine(a, b[:1])[2], cosine(a[2:], b[:1])[0])
    assert cosine(a, 3 * a).tolist() == pytest.approx([1, 1, 1]) and not cosine(a, 0 * a).any()


def test_the_rank_correlation_knows_only_the_order():
    a = maps(0, 2, 3, 6, 6)
    assert rank_correlation(a, a.exp()).tolist() == pytest.approx([1, 1])
    assert rank_correlation(a, -a**3).tolist() == pytest.approx([-1, -1])


def test_equal_values_share_their_ranks():
    a, b = torch.tensor([[1.0, 2, 2, 5]]), torch.tensor([[0.0, 0, 3, 7]])
    ranks = [0.5, 2, 2, 3.5], [1, 1, 2.5, 3.5]
    assert rank_correlation(a, b).item() == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-6)
    assert rank_correlation(a, torch.ones(1, 4)).item() == 0


def test_enlarging_keeps_a_constant_and_a_slope():
    assert torch.equal(enlarge(torch.full((1, 2, 3, 3), 0.5), (12, 9)), torch.full((1, 2, 12, 9), 0.5))
    slope = enlarge(torch.arange(4.0).expand(1, 1, 4, 4), (8, 8))[0, 0, 4]
    torch.testing.assert_close(slope[1:-1].diff(), torch.full((5,), 0.5))


def test_edges_are_where_brightness_changes():
    image = torch.zeros(2, 3, 8, 8)
    image[0, :, :, 4:] = 1          # a vertical border
    edges = edge_map(image)
    assert edges.shape == (2, 1, 8, 8) and not edges[1].any()
    assert edges[0, 0].amax(dim=0).tolist() == [0, 0, 0, 4, 4, 0, 0, 0]
    torch.testing.assert_close(edge_map(image.mT), edges.mT)


def test_a_box_hides_what_it_names_and_nothing_else():
    x = maps(0, 2, 3, 8, 10)
    before = x.clone()
    hidden = covered(x, (1, 2, 3, 4))
    inside = torch.zeros(8, 10, dtype=torch.bool)
    inside[1:4, 2:6] = True
    assert not hidden[..., inside].any() and torch.equal(hidden[..., ~inside], x[..., ~inside])
    assert torch.equal(x, before)


def test_a_box_is_filled_with_a_number_a_colour_or_a_picture_and_may_reach_over_the_edge():
    x, other = maps(0, 2, 3, 6, 6), maps(1, 2, 3, 6, 6)
    assert (covered(x, (-2, -2, 4, 4), fill=1.5)[..., :2, :2] == 1.5).all()
    assert torch.equal(covered(x, (4, 4, 9, 9), fill=other)[..., 4:, 4:], other[..., 4:, 4:])
    colour = torch.tensor([1.0, 2, 3])[:, None, None]
    assert covered(x, (0, 0, 1, 1), colour)[1, :, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("box", [(6, 0, 2, 2), (-3, 0, 2, 2), (0, 0, 0, 2)])
def test_a_box_without_a_pixel_is_refused(box):
    with pytest.raises(ValueError, match="hides nothing of"):
        covered(maps(0, 1, 3, 6, 6), box)
