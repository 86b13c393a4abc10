"""What SmoothGrad, integrated gradients, Guided Grad-CAM and Score-CAM promise, in closed form and on photographs."""

import pytest
import torch
from torch import nn
from toys import Toy, network, toy_pictures

from course_utils import class_score, evaluation_mode, preprocess, record, relu_rule, sample_image, sample_images
from course_utils.techniques import (
    channel_masks,
    channels_to_try,
    grad_cam,
    grad_times_image,
    guided_backprop,
    guided_grad_cam,
    guided_rule,
    integrated_gradients,
    negative_saliency,
    positive_saliency,
    quadrature,
    score_cam,
    smooth_grad,
    vanilla_gradient,
)


def score(model, x, target):
    with evaluation_mode(model), torch.no_grad():
        return class_score(model, x, target)


# --- positive and negative saliency


def test_saliencies_scale_each_row_and_leave_nothing_where_there_is_nothing():
    gradient = toy_pictures(rows=2)
    gradient[1] = -gradient[1].abs()
    positive, negative = positive_saliency(gradient), negative_saliency(gradient)
    torch.testing.assert_close(positive[0], gradient[0].clamp(min=0) / gradient[0].max())
    assert not positive[1].any()
    assert negative[1].max() == 1 and negative.min() == 0
    assert not positive_saliency(torch.zeros(1, 3, 4, 4)).isnan().any()


# --- guided backprop


def test_guided_signal_is_not_negative_at_any_relu(squeezenet):
    signals = []

    def rule(f, R):
        signals.append(guided_rule(f, R))
        return signals[-1]

    x = preprocess(sample_image("red_panda"), squeezenet)
    with relu_rule(squeezenet, rule):
        vanilla_gradient(squeezenet, x, 387)
    assert len(signals) == sum(isinstance(module, nn.ReLU) for module in squeezenet.modules())
    assert all(signal.min() >= 0 for signal in signals) and any(signal.max() > 0 for signal in signals)


# --- SmoothGrad


class Square(nn.Module):
    """S(x) = sum of x²: its gradient 2x makes every statistic of SmoothGrad known."""

    def forward(self, x):
        return x.square().sum(dim=(1, 2, 3))[:, None]


def test_smooth_grad_of_a_square_is_known():
    x, n, noise = toy_pictures(rows=2), 7, 0.2
    generator = torch.Generator().manual_seed(3)
    epsilon = torch.stack([torch.randn(x.shape[1:], generator=generator) for _ in range(n)]).double()
    for i, row in enumerate(x):
        samples = 2 * (row + noise * (row.max() - row.min()) * epsilon)
        expected = {"mean": samples.mean(0), "square": samples.square().mean(0),
                    "variance": samples.var(0, correction=0)}
        for statistic, value in expected.items():
            ours = smooth_grad(Square(), x, 0, noise=noise, n=n, statistic=statistic, seed=3, batch_size=3)
            torch.testing.assert_close(ours[i], value)


@pytest.mark.parametrize("method", [vanilla_gradient, guided_backprop, integrated_gradients])
def test_square_is_the_squared_mean_plus_the_variance(method):
    model, x = Toy(), toy_pictures(rows=2)
    mean, square, variance = (
        smooth_grad(model, x, 1, method=method, n=5, statistic=name) for name in ("mean", "square", "variance")
    )
    assert variance.max() > 0
    torch.testing.assert_close(square, mean * mean + variance)


def test_smooth_grad_without_noise_is_the_gradient():
    model, x = Toy(), toy_pictures()
    torch.testing.assert_close(smooth_grad(model, x, 1, noise=0, n=3), vanilla_gradient(model, x, 1))


def test_smooth_grad_does_not_depend_on_batch_size_but_on_seed():
    model, x = Toy(), toy_pictures(rows=2)
    one, many, other = (
        smooth_grad(model, x, n=6, batch_size=size, seed=seed) for size, seed in ((1, 0), (4, 0), (4, 1))
    )
    torch.testing.assert_close(one, many, rtol=1e-6, atol=1e-9)
    assert (one - other).abs().max() > 1e-3 * one.abs().max()


def test_noise_does_not_change_the_class_that_is_explained():
    """With target=None the class is the clean picture's own, for every noisy copy."""
    model, x = Toy(), toy_pictures(rows=3)
    own = model(x).argmax(dim=1)
    torch.testing.assert_close(smooth_grad(model, x, noise=2.0, n=4), smooth_grad(model, x, own, noise=2.0, n=4))


@pytest.mark.parametrize("options", [{"n": 0}, {"noise": -0.1}, {"noise": float("nan")}, {"statistic": "median"},
                                     {"batch_size": 0}])
def test_smooth_grad_refuses_options_in_words(options):
    (name, value), = options.items()
    with pytest.raises(ValueError, match=name):
        smooth_grad(Toy(), toy_pictures(), **options)


# --- integrated gradients


def completeness_gap(model, x, target, baseline, **options):
    """How far the attributions miss the score difference, as a fraction of it."""
    attributions = integrated_gradients(model, x, target, baseline=baseline, **options)
    difference = score(model, x, target) - score(model, torch.zeros_like(x) + baseline, target)
    return ((attributions.sum() - difference) / difference).abs().item()


@pytest.mark.slow
@pytest.mark.parametrize("photograph", sample_images())
@pytest.mark.parametrize("baseline", ["mean", "black"])
def test_integrated_gradients_are_complete_on_photographs(squeezenet, photograph, baseline):
    x = preprocess(sample_image(photograph), squeezenet)
    target = int(squeezenet(x).argmax())
    start = torch.zeros(3, 1, 1) if baseline == "mean" else torch.tensor([-2.1179, -2.0357, -1.8044])[:, None, None]
    assert completeness_gap(squeezenet, x, target, start) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("photograph", ["crab", "cat_dog"])
@pytest.mark.parametrize("baseline", [0.0, -2.0])
def test_integrated_gradients_are_complete_to_two_percent_at_300_steps(squeezenet, photograph, baseline):
    x = preprocess(sample_image(photograph), squeezenet)
    target = int(squeezenet(x).argmax())
    assert completeness_gap(squeezenet, x, target, torch.full((3, 1, 1), baseline), steps=300) < 0.02


@pytest.mark.parametrize("rule", ["gauss-legendre", "midpoint", "trapezoid"])
def test_quadratures_integrate_what_they_should(rule):
    points, weights = quadrature(rule, 5)
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close((weights * points).sum(), torch.tensor(0.5, dtype=torch.float64))
    assert 0 <= points.min() and points.max() <= 1
    ninth_power = (weights * points**9).sum().item()      # exact for Gauss-Legendre with 5 points only
    assert (abs(ninth_power - 0.1) < 1e-12) == (rule == "gauss-legendre")


@pytest.mark.parametrize("rule", ["gauss-legendre", "midpoint", "trapezoid"])
def test_integrated_gradients_of_a_square_are_known(rule):
    """S = Σx² has IG = x² - x'² + (x - x')·0 along a straight path: every rule here integrates a line exactly."""
    x, start = toy_pictures(rows=2), toy_pictures(seed=9)
    ours = integrated_gradients(Square(), x, 0, baseline=start, steps=4, rule=rule)
    torch.testing.assert_close(ours, x.square() - start.square())
    average = integrated_gradients(Square(), x, 0, baseline=start[0], steps=4, rule=rule, multiply_by_inputs=False)
    torch.testing.assert_close(average, x + start)


def test_integrated_gradients_do_not_depend_on_batch_size():
    model, x = Toy(), toy_pictures(rows=2)
    torch.testing.assert_close(
        integrated_gradients(model, x, 1, batch_size=3), integrated_gradients(model, x, 1, batch_size=50),
        rtol=1e-6, atol=1e-9,
    )


@pytest.mark.parametrize("options, word", [
    ({"baseline": torch.zeros(2, 5, 5)}, "broadcast"), ({"steps": 0}, "steps"), ({"rule": "simpson"}, "simpson"),
    ({"steps": 1, "rule": "trapezoid"}, "trapezoid"), ({"batch_size": 0}, "batch_size"),
])
def test_integrated_gradients_refuse_options_in_words(options, word):
    with pytest.raises(ValueError, match=word):
        integrated_gradients(Toy(), toy_pictures(), **options)


# --- gradient times image


def test_grad_times_image_multiplies_any_gradient():
    model, x = Toy(), toy_pictures(rows=2)
    torch.testing.assert_close(grad_times_image(model, x, 2), x * vanilla_gradient(model, x, 2))
    def average(*inputs):
        return integrated_gradients(*inputs, multiply_by_inputs=False)
    torch.testing.assert_close(grad_times_image(model, x, 2, method=average), integrated_gradients(model, x, 2))


# --- Guided Grad-CAM and Score-CAM


def test_guided_grad_cam_equals_its_factors(squeezenet):
    x = preprocess(sample_image("cat_dog"), squeezenet)
    for layer in (None, "features.7"):
        cam = grad_cam(squeezenet, x, 281, layer=layer)
        where = nn.functional.interpolate(cam, size=x.shape[-2:], mode="bilinear", align_corners=False)
        expected = where * guided_backprop(squeezenet, x, 281)
        assert expected.abs().max() > 0
        torch.testing.assert_close(guided_grad_cam(squeezenet, x, 281, layer=layer), expected)


def test_guided_grad_cam_takes_one_class_for_both_factors():
    model, x = Toy(), toy_pictures(rows=2)
    own = model(x).argmax(dim=1)
    torch.testing.assert_close(guided_grad_cam(model, x), guided_grad_cam(model, x, own))


def masked_scores(model, x, layer):
    """Score-CAM's forward passes one channel at a time, as the paper writes them: masks, rows of scores."""
    with record(model, layer) as activations, torch.no_grad():
        empty = model(torch.zeros_like(x))
        model(x)
    A = activations[layer][-1].detach()      # of the second pass
    live = channels_to_try(A)
    up = nn.functional.interpolate(A[:, live], size=x.shape[-2:], mode="bilinear", align_corners=False)[0]
    masks = [(channel - channel.min()) / (channel.max() - channel.min()) for channel in up]
    torch.testing.assert_close(channel_masks(A[:, live], x.shape[-2:])[:, 0], torch.stack(masks))
    with torch.no_grad():
        return A[:, live], empty, torch.cat([model(x * mask) for mask in masks])


@pytest.mark.parametrize("weights", ["increase", "probability", "softmax"])
def test_score_cam_follows_its_definition(weights):
    model, x, target = Toy(), toy_pictures(height=12, width=12), 2
    A, empty, scores = masked_scores(model, x, "features.4")
    alpha = {
        "increase": scores[:, target] - empty[0, target],
        "probability": scores.softmax(1)[:, target],
        "softmax": scores[:, target].softmax(0),
    }[weights]
    expected = (alpha[:, None, None] * A).sum(1, keepdim=True).relu()
    for batch_size in (1, 3, 8):
        ours = score_cam(model, x, target, layer="features.4", weights=weights, batch_size=batch_size)
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)
    assert weights == "increase" or ours.max() > 0


def test_score_cam_does_not_depend_on_batch_size_on_a_photograph(squeezenet):
    x = preprocess(sample_image("red_panda"), squeezenet)
    one, many = (score_cam(squeezenet, x, 387, channels=20, batch_size=size) for size in (1, 8))
    assert one.max() > 0
    torch.testing.assert_close(one, many, rtol=0, atol=1e-3 * one.max().item())


def test_score_cam_leaves_constant_channels_out():
    A = torch.stack([torch.zeros(4, 4), torch.eye(4), torch.full((4, 4), 2.0), 3 * torch.eye(4)])[None]
    assert channels_to_try(A).tolist() == [3, 1]
    assert channels_to_try(A, channels=1).tolist() == [3]
    assert channels_to_try(A * 0).tolist() == []


class Flat(Toy):
    """A network all of whose channels are constant: there is nothing to mask."""

    def forward(self, x):
        return super().forward(x * 0)


def test_dead_channels_and_dead_classes_give_zero_maps():
    model, x = Flat(), toy_pictures()
    model.features[0] = nn.Conv2d(3, 4, 1).double().requires_grad_(False)      # no padding: constant in, constant out
    assert not score_cam(model, x, 1, layer="features.2").any()
    assert not vanilla_gradient(model, x, 1).any()
    squeezenet = network("squeezenet1_1")
    photograph = preprocess(sample_image("dog"), squeezenet)
    dead = int((squeezenet(photograph)[0] == 0).nonzero()[0])
    for technique in (vanilla_gradient, guided_backprop, grad_cam, guided_grad_cam, grad_times_image):
        result = technique(squeezenet, photograph, dead)
        assert not result.any() and not result.isnan().any()


@pytest.mark.parametrize("options", [{"weights": "loudest"}, {"channels": 0}, {"batch_size": 0}])
def test_score_cam_refuses_options_in_words(options):
    (name, value), = options.items()
    with pytest.raises(ValueError, match=name):
        score_cam(Toy(), toy_pictures(), **options)


def test_score_cam_can_take_part_in_gradients_afterwards():
    result = score_cam(Toy(), toy_pictures(height=12, width=12), 1, layer="features.4")
    assert not result.requires_grad and not result.is_inference()
