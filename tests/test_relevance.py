"""Layer-wise relevance propagation: by hand, by autograd, against zennit, and what it refuses."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from toys import Toy, network, state_of, toy_pictures
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlusFlat, LayerMapComposite, SpecialFirstLayerMapComposite, layer_map_base
from zennit.layer import Sum
from zennit.rules import AlphaBeta, Epsilon, Gamma, ZBox, ZPlus
from zennit.torchvision import ResNetCanonizer
from zennit.types import Convolution, Linear

from course_utils import preprocess, sample_image, to_input
from course_utils.networks import Bottleneck
from course_utils.relevance import Layer, layer_rules, linear_layers
from course_utils.techniques import (
    alpha_beta_rule,
    box_rule,
    epsilon_rule,
    flat_rule,
    gamma_rule,
    grad_times_image,
    lrp,
    returning_rule,
    z_plus_rule,
)

# --- rules


def unit(bias=0.0):
    """One unit with the contributions 6, 2 and -4 of its inputs."""
    w = torch.tensor([[2.0, 1.0, -4.0]], dtype=torch.float64)
    return Layer(w, torch.tensor([bias], dtype=torch.float64), nn.functional.linear), w.new_tensor([[3.0, 2.0, 1.0]])


@pytest.mark.parametrize("rule, bias, expected", [
    (epsilon_rule, 0, [6, 2, -4]), (epsilon_rule, 4, [3, 1, -2]),
    (returning_rule, 0, [6, 2, -4]), (returning_rule, 4, [3 + 1, 1 + 1 / 3, -2 + 2 / 3]),
    (returning_rule, -2, [12 - 2, 4 - 2 / 3, -8 - 4 / 3]),
    (z_plus_rule, 4, [3, 1, 0]), (lambda *args: z_plus_rule(*args, biases=True), 4, [2, 2 / 3, 0]),
    (gamma_rule, 4, [5, 5 / 3, -8 / 3]), (alpha_beta_rule, 4, [6, 2, -4]), (flat_rule, 4, [4 / 3, 4 / 3, 4 / 3]),
])
def test_rules_by_hand(rule, bias, expected):
    # The contributions add up to 4. γ counts 1.25 · 8 - 4 = 6.
    layer, a = unit(bias)
    found = rule(layer, a, torch.tensor([[4.0]], dtype=torch.float64))
    torch.testing.assert_close(found, a.new_tensor([expected]), atol=1e-5, rtol=0)


def test_the_box_rule_counts_from_the_lowest_and_the_highest_value_by_hand():
    layer, a = unit()
    low, high = torch.full_like(a, -1.0), torch.full_like(a, 5.0)
    found = box_rule(layer, a, torch.tensor([[27.0]], dtype=torch.float64), low, high)
    # (3 + 1) · 2, (2 + 1) · 1 and (1 - 5) · -4 add up to 27.
    torch.testing.assert_close(found, a.new_tensor([[8.0, 3.0, 16.0]]), atol=1e-4, rtol=0)


def test_signed_inputs_count_where_their_product_is_positive():
    layer, a = unit()
    a[0, 2] = -1      # contributes 4
    R = torch.tensor([[12.0]], dtype=torch.float64)
    torch.testing.assert_close(z_plus_rule(layer, a, R), a.new_tensor([[6.0, 2.0, 4.0]]), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="negative inputs"):
        returning_rule(layer, a, R)


# --- conservation, and what the rules are equal to


@pytest.mark.parametrize("composite", ["mixed", "gamma"])
def test_without_biases_in_the_shares_the_map_adds_up_to_the_score(composite):
    model, x = Toy(), toy_pictures(4)
    score = model(x).detach().amax(dim=1)
    torch.testing.assert_close(lrp(model, x, composite=composite).sum(dim=(1, 2, 3)), score, rtol=1e-3, atol=0)


def test_what_the_biases_keep_is_missing():
    model, x = Toy(), toy_pictures(4)
    convolution, norm, _, last = model.features[:4]
    for bias in (convolution.bias, norm.bias, norm.running_mean, last.bias):
        bias.data.zero_()
    score = model(x)[:, 1].detach()
    found = lrp(model, x, 1, composite="epsilon").sum(dim=(1, 2, 3))
    torch.testing.assert_close(found, score - model.head.bias[1].item(), rtol=1e-3, atol=1e-4)


def test_the_epsilon_rule_is_gradient_times_image():
    model, x, target = Toy(), toy_pictures(3), torch.tensor([2, 0, 1])
    expected = grad_times_image(model, x, target)
    found = lrp(model, x, target, composite="epsilon")
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()


@pytest.mark.parametrize("composite", ["mixed", "alpha_beta", "epsilon_plus_flat"])
def test_a_batch_norm_belongs_to_the_convolution_before_it(composite):
    model, x = Toy(), toy_pictures(2)
    folded = copy.deepcopy(model)
    folded.features[0] = fuse_conv_bn_eval(folded.features[0], folded.features[1])
    folded.features[1] = nn.Identity()
    torch.testing.assert_close(lrp(model, x, 1, composite=composite), lrp(folded, x, 1, composite=composite))


class Shortcut(nn.Module):
    """Two ways that are added, in place or not, then an average: S is the mean of (a w + a) v."""

    def __init__(self, inplace):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False)
        self.head, self.inplace = nn.Linear(3, 2, bias=False), inplace
        generator = torch.Generator().manual_seed(0)
        for parameter in self.double().parameters():
            parameter.data = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)

    def forward(self, x):
        a = torch.relu(self.first(x))
        b = self.second(a)
        b = b.add_(a) if self.inplace else b + a
        return self.head(b.mean(dim=(2, 3)))


@pytest.mark.parametrize("inplace", [True, False])
def test_sums_and_averages_share_out_in_proportion_to_their_terms(inplace):
    model, x = Shortcut(inplace).eval(), toy_pictures(2).abs()
    table = dict.fromkeys(linear_layers(model, x), z_plus_rule)
    # All is positive and nothing has a bias: then z⁺ is gradient × image.
    torch.testing.assert_close(lrp(model, x, 1, composite=table), grad_times_image(model, x, 1), rtol=1e-4, atol=0)


# --- zennit


def summed(self, x):
    return self.total(torch.stack([x, self.block(x)], dim=-1)) if self.shortcut else self.block(x)


def by_zennit(model, x, target, composite):
    """zennit's map: it wants no ReLUs in place, and sums as modules."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
        if isinstance(module, Bottleneck):
            module.total, module.forward = Sum(), summed.__get__(module)
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        fold(model)
    with Gradient(model, composite) as attributor:
        _, found = attributor(x.clone(), lambda scores: torch.zeros_like(scores).index_copy_(
            1, torch.tensor([target]), scores.detach()[:, [target]]))
    return found.detach()


def fold(model):
    """Every BatchNorm into the convolution before it: zennit's own merging leaves the ε out."""
    for parent in list(model.modules()):
        children = list(parent.named_children())
        for (name, layer), (next_name, norm) in zip(children, children[1:], strict=False):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(layer, norm))
                setattr(parent, next_name, nn.Identity())


def assert_close_to(expected, found):
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name, weights, dtype", [
    ("squeezenet1_1", "pretrained", torch.float32), ("efficientnet_lite0", "pretrained", torch.float32),
    ("alexnet", "random", torch.float32), pytest.param("vgg16", "random", torch.float32, marks=pytest.mark.slow),
    ("resnet18", "random", torch.float64),      # its sums of two large terms are small: float32 is off by 1e-4
])
def test_epsilon_plus_flat_is_zennits(name, weights, dtype):
    model = copy.deepcopy(network(name, weights)).to(dtype)
    x = preprocess(sample_image("red_panda"), model).to(dtype)
    target = model(x).argmax(dim=1).item()
    found = lrp(model, x, target, composite="epsilon_plus_flat")
    assert_close_to(by_zennit(model, x, target, EpsilonPlusFlat(canonizers=[ResNetCanonizer()])), found)


@pytest.mark.parametrize("ours, theirs, biases", [
    (epsilon_rule, Epsilon(), True), (z_plus_rule, ZPlus(zero_params="bias"), True),
    (alpha_beta_rule, AlphaBeta(2, 1, zero_params="bias"), True),
    # zennit chooses γ's branch by the sign of the output with its bias, also where the shares leave it out.
    (gamma_rule, Gamma(0.25), False),
])
def test_each_rule_is_zennits(ours, theirs, biases):
    # In float64, since γ turns about with the sign of a unit, and units near 0 have none in float32.
    model = copy.deepcopy(network("squeezenet1_1", "pretrained")).double()
    for layer in linear_layers(model).values():
        layer.bias.data *= biases
    x = preprocess(sample_image("cat_dog"), model).double()
    found = lrp(model, x, 281, composite=dict.fromkeys(linear_layers(model, x), ours))
    composite = LayerMapComposite(layer_map=[(Convolution, theirs), (Linear, theirs), *layer_map_base()])
    assert_close_to(by_zennit(model, x, 281, composite), found)


def test_the_box_rule_is_zennits():
    model = network("squeezenet1_1", "pretrained")
    x = preprocess(sample_image("crab"), model)
    low, high = (to_input(torch.full((1, 3, 1, 1), value), model) for value in (0.0, 1.0))
    first, *others = linear_layers(model, x)
    table = {first: lambda layer, a, R: box_rule(layer, a, R, low, high)} | dict.fromkeys(others, z_plus_rule)
    rule, box = ZPlus(zero_params="bias"), ZBox(low, high, zero_params="bias")
    composite = SpecialFirstLayerMapComposite(
        layer_map=[(Convolution, rule), (Linear, rule), *layer_map_base()], first_map=[(Convolution, box)])
    assert_close_to(by_zennit(model, x, 121, composite), lrp(model, x, 121, composite=table))


# --- what is refused, and that all is put back


@pytest.mark.parametrize("build, message", [
    (lambda: Toy(activation=nn.SiLU), "no rule for 2 Silu"),
    (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, (8, 11)), nn.Flatten()).double(), "no rule for 1 .*Norm"),
    (lambda: nn.Sequential(nn.Flatten(), nn.Softmax(dim=1)).double(), "calls no Conv2d and no Linear"),
])
def test_a_network_in_which_something_has_no_rule_is_refused(build, message):
    model = build().eval()
    before = state_of(model)
    with pytest.raises(ValueError, match=message):
        lrp(model, toy_pictures(), 0)
    assert state_of(model) == before


def test_a_table_may_name_convolutions_and_linear_layers_only():
    model, x = Toy(), toy_pictures()
    with pytest.raises(ValueError, match="layer 'features.1' is a BatchNorm2d"):
        lrp(model, x, composite={"features.1": epsilon_rule})
    with pytest.raises(ValueError, match="epsilon_plus_flat"):
        lrp(model, x, composite="epsilon_plus")
    with pytest.raises(ValueError, match="no rule for 1 .*Conv"):
        lrp(model, x, composite={"features.0": epsilon_rule, "head": epsilon_rule})


def test_linear_bottlenecks_refuse_the_mixture_and_name_another():
    model = network("efficientnet_lite0", "pretrained")
    x = preprocess(sample_image("crab"), model)
    with pytest.raises(ValueError, match="linear bottleneck.*'gamma'"):
        lrp(model, x)
    assert lrp(model, x, composite="gamma").abs().max() > 0


def test_the_forward_pass_is_unchanged_inside_the_block():
    model, x = network("resnet18"), toy_pictures(1, 64, 64).float()
    expected = model(x)
    with layer_rules(model, dict.fromkeys(linear_layers(model, x), epsilon_rule), averages=epsilon_rule):
        torch.testing.assert_close(model(x.clone().requires_grad_()), expected)
