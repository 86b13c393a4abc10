"""Numbers about maps, and boxes that hide a part of a picture: what several lessons measure with."""

import torch
from torch.nn.functional import conv2d, cosine_similarity, interpolate, pad


def cosine(a, b):
    """Cosine of the angle between two maps, row by row: `(N,)`, between -1 and 1; 0 where one of them is zero.

    a, b: `(N, …)` of one shape; a single row is compared with all of the other's.
    """
    return cosine_similarity(a.flatten(1), b.flatten(1))


def rank_correlation(a, b):
    """Rank correlation (Spearman's) of two maps, row by row: `(N,)`, between -1 and 1; 0 where one is constant.

    a, b: `(N, …)` of one shape. Equal values share the mean of their ranks.
    """
    ranks = _ranks(a.flatten(1)), _ranks(b.flatten(1))
    return cosine_similarity(*(r - r.mean(dim=1, keepdim=True) for r in ranks))


def _ranks(values):
    ordered = values.sort(dim=1).values.contiguous()
    # How many are smaller, and how many are not larger: equal values stand between the two.
    first, last = (torch.searchsorted(ordered, values.contiguous(), right=right) for right in (False, True))
    return (first + last).float() / 2


def enlarge(values, size):
    """A map `(N, C, h, w)`, enlarged bilinearly to size (height, width)."""
    return interpolate(values, size=tuple(size), mode="bilinear", align_corners=False)


def edge_map(image):
    """How steep brightness is at every pixel, by Sobel's filters: `(N, 1, H, W)`, not negative, without any network.

    image: `(N, 3, H, W)` in [0, 1].
    """
    gray = pad(image.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=gray.dtype, device=gray.device)
    kernels = torch.stack([across, across.T])[:, None]
    return conv2d(gray, kernels).norm(dim=1, keepdim=True)


def covered(x, box, fill=0.0):
    """The pictures with one box hidden; x itself stays as it is.

    x: `(N, C, H, W)`. box: (top, left, height, width) in pixels; what lies outside the picture is left out. fill: what
    the box shows: a number (0, as the network sees it, is the mean colour), or a tensor that fits x, such as a blurred
    copy. Raises ValueError for a box without a pixel of the picture.
    """
    top, left, height, width = box
    rows, columns = slice(max(top, 0), max(top + height, 0)), slice(max(left, 0), max(left + width, 0))
    if 0 in x[..., rows, columns].shape[-2:]:
        raise ValueError(f"box={tuple(box)} (top, left, height, width) hides nothing of {tuple(x.shape[-2:])} pixels")
    hidden = x.clone()
    hidden[..., rows, columns] = torch.as_tensor(fill, dtype=x.dtype, device=x.device).expand_as(x)[..., rows, columns]
    return hidden
