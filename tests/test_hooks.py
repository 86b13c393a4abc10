"""Hooks: what they see, what they change, and that they leave nothing behind."""

import contextlib
import copy
import threading

import pytest
import torch
from torch import nn
from toys import Toy, network, raising, state_of, toy_pictures

from course_utils import (
    count_passes,
    evaluation_mode,
    last_spatial_layer,
    load_model,
    record,
    relu_rule,
    run_to,
)
from course_utils.hooks import layer_names, randomized
from course_utils.layers import layers_of
from course_utils.scores import class_score

ERRORS = [RuntimeError("on purpose"), KeyboardInterrupt()]
def GUIDED(f, R):
    return R.clamp(min=0) * (f > 0)
def DECONVNET(f, R):
    return R.clamp(min=0)
def BACKPROP(f, R):
    return R * (f > 0)


def picture(height=64, width=64):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(2))


def without_in_place(model):
    model = copy.deepcopy(model)
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return model


def gradient(model, x, target=0):
    with evaluation_mode(model):
        x = x.detach().clone().requires_grad_()
        return torch.autograd.grad(class_score(model, x, target).sum(), x)[0]


# record ------------------------------------------------------------------------------------------------------


def test_record_gives_the_layers_output_by_name_and_by_module():
    model, x = Toy(), toy_pictures()
    with record(model, model.features[0], "features.3") as outputs:
        model(x)
    expected = model.features[0](x)
    torch.testing.assert_close(outputs["features.0"], expected, rtol=0, atol=0)
    assert outputs[model.features[0]] is outputs["features.0"]
    assert outputs[model.features[3]] is outputs["features.3"]
    assert list(outputs) == ["features.0", "features.3"]


def test_what_was_not_recorded_is_said():
    model = Toy()
    with record(model, "features.0") as outputs:
        model(toy_pictures())
        with pytest.raises(KeyError, match=r"head.*recorded so far \['features.0'\]"):
            outputs[model.head]


@pytest.mark.parametrize("name, layer", [("squeezenet1_1", "features.12.squeeze"), ("resnet18", "layer3.0.bn1")])
def test_in_place_relus_do_not_overwrite_what_is_recorded(name, layer):
    model = network(name)
    plain = without_in_place(model)
    found = []
    for one in (model, plain):
        with evaluation_mode(one), record(one, layer) as outputs:
            score = class_score(one, picture(), 3).sum()
            found.append((outputs[layer].detach(), torch.autograd.grad(score, outputs[layer])[0]))
    (activation, derivative), (expected_activation, expected_derivative) = found
    assert (expected_activation < 0).any() and expected_derivative.abs().max() > 0
    torch.testing.assert_close(activation, expected_activation, rtol=0, atol=0)
    torch.testing.assert_close(derivative, expected_derivative, rtol=0, atol=0)


def test_a_network_gives_the_same_while_it_is_recorded():
    model, x = network("resnet18"), picture()
    with evaluation_mode(model):
        with record(model, *layer_names(model)):
            watched = model(x)
        torch.testing.assert_close(watched, model(x), rtol=0, atol=0)


def test_a_reused_layer_gives_the_list_of_its_outputs():
    model = network("resnet18")
    with evaluation_mode(model), record(model, "layer1.0.relu", "layer1.0") as outputs:
        model(picture())
    first, second = outputs["layer1.0.relu"]
    assert not torch.equal(first, second)
    torch.testing.assert_close(second, outputs["layer1.0"], rtol=0, atol=0)


def test_the_graph_of_a_frozen_network_begins_at_the_recorded_layer():
    model = Toy().requires_grad_(False)
    with record(model, "features.0") as outputs:
        scores = model(toy_pictures())
    assert outputs["features.0"].is_leaf and outputs["features.0"].requires_grad
    assert torch.autograd.grad(scores.sum(), outputs["features.0"])[0].abs().max() > 0


def test_the_graph_goes_through_the_layer_where_the_picture_requires_gradients():
    model, x = Toy(), toy_pictures().requires_grad_()
    with record(model, "features.0") as outputs:
        scores = model(x)
    assert not outputs["features.0"].is_leaf
    watched = torch.autograd.grad(scores.sum(), x)[0]
    torch.testing.assert_close(watched, torch.autograd.grad(model(x).sum(), x)[0], rtol=0, atol=0)


def test_nested_recordings_see_the_same():
    model, x = Toy(), toy_pictures()
    with record(model, "features.0") as outer, record(model, "features.0", "features.0") as inner:
        model(x)
    torch.testing.assert_close(outer["features.0"], inner["features.0"], rtol=0, atol=0)
    assert isinstance(inner["features.0"], torch.Tensor)       # named twice, recorded once


def test_a_layer_that_gives_a_tuple_is_refused_in_words():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.left = nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.left(x), x

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = Pair()

        def forward(self, x):
            return self.pair(x)[0]

    model = Model()
    before = state_of(model)
    with pytest.raises(ValueError, match=r"'pair' gives a tuple.*pair\.left"), record(model, "pair"):
        model(picture())
    assert state_of(model) == before


def test_an_unknown_layer_is_answered_with_the_nearest():
    model = network("squeezenet1_1")
    with pytest.raises(ValueError, match=r"'features\.99'.*'features\.9'"), record(model, "features.99"):
        pass
    with pytest.raises(ValueError, match="ReLU module is not part of the SqueezeNet"), record(model, nn.ReLU()):
        pass
    for no_layer in ("", ":input", "features.", "features.0.weight"):
        with pytest.raises(ValueError, match="no layer"), record(model, no_layer):
            pass


def test_a_layer_of_a_sequence_may_be_named_by_its_number():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with record(model, 0) as activations:
        model(picture())
    assert activations[0] is activations["0"] and activations[0].shape[1] == 4


def test_no_hook_stays_where_a_later_layer_is_unknown():
    model = Toy()
    before = state_of(model)
    with pytest.raises(ValueError, match="nowhere"), record(model, "features.0", "nowhere"):
        pass
    assert state_of(model) == before


def test_layer_names_are_in_the_order_of_definition():
    assert layer_names(Toy()) == ["features", *(f"features.{i}" for i in range(6)), "head"]


# relu_rule ---------------------------------------------------------------------------------------------------


def hand_network(inplace):
    """f = (-1, 4, 2), then (2, 6), then the score -10, for x = (1, 2)."""
    model = nn.Sequential(
        nn.Linear(2, 3, bias=False), nn.ReLU(inplace), nn.Linear(3, 2, bias=False), nn.ReLU(inplace),
        nn.Linear(2, 1, bias=False),
    )
    model[0].weight.data = torch.tensor([[1.0, -1.0], [2.0, 1.0], [0.0, 1.0]])
    model[2].weight.data = torch.tensor([[5.0, -1.0, 3.0], [1.0, 2.0, -1.0]])
    model[4].weight.data = torch.tensor([[1.0, -2.0]])
    return model


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("rule, expected", [
    (BACKPROP, [-10.0, 0.0]),      # R = (1, -2), then (3, -5, 5), of which f > 0 lets (0, -5, 5) through
    (GUIDED, [0.0, 3.0]),          # R = (1, 0), then (5, -1, 3), of which f > 0 and R > 0 leave (0, 0, 3)
    (DECONVNET, [5.0, -2.0]),      # R = (1, 0), then (5, -1, 3), of which R > 0 leaves (5, 0, 3)
])
def test_the_three_rules_on_a_network_computed_by_hand(rule, expected, inplace):
    model, x = hand_network(inplace), torch.tensor([[1.0, 2.0]], requires_grad=True)
    with relu_rule(model, rule):
        score = model(x)
        assert score.item() == -10
        found, = torch.autograd.grad(score.sum(), x)
    torch.testing.assert_close(found, torch.tensor([expected]))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("rule", [BACKPROP, GUIDED, DECONVNET], ids=["backprop", "guided", "deconvnet"])
def test_relu6_is_closed_below_0_as_the_rule_says_and_from_6_on_whatever_it_says(rule, inplace):
    f = torch.tensor([-1.0, 0.0, 2.0, 5.9, 6.0, 7.0])
    for R in (torch.full((6,), 3.0), torch.full((6,), -3.0)):
        x = f.clone().requires_grad_()
        model = nn.Sequential(nn.Identity(), nn.ReLU6(inplace))
        with relu_rule(model, rule):
            output = model(1 * x)
            found, = torch.autograd.grad(output, x, R)
        torch.testing.assert_close(output, f.clamp(0, 6))
        torch.testing.assert_close(found, rule(f, R) * (f < 6))


@pytest.mark.parametrize("name, weights", [
    ("resnet18", "random"), ("squeezenet1_1", "random"), ("efficientnet_lite0", "pretrained"),
])
def test_the_ordinary_rule_gives_the_ordinary_gradient(name, weights):
    model, x = network(name, weights), picture()
    expected = gradient(model, x)
    with relu_rule(model, BACKPROP):
        found = gradient(model, x)
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * expected.abs().max().item())


def test_every_call_of_a_reused_relu_obeys_the_rule():
    model = network("resnet18")
    assert sum(isinstance(module, nn.ReLU) for module in model.modules()) == 9
    seen = []
    with relu_rule(model, lambda f, R: seen.append((f, R)) or R * (f > 0)):
        gradient(model, picture())
    assert len(seen) == 17
    assert all(f.shape == R.shape and f.min() < 0 for f, R in seen)      # f is what came in, not what went out


def test_guided_signals_are_nowhere_negative():
    model, signals = network("resnet18"), []
    with relu_rule(model, lambda f, R: signals.append(GUIDED(f, R)) or signals[-1]):
        gradient(model, picture())
    assert len(signals) == 17 and all(signal.min() >= 0 for signal in signals)
    assert signals[-1].max() > 0


def test_the_inner_of_two_rules_counts_and_the_outer_comes_back():
    model, x = hand_network(True), torch.tensor([[1.0, 2.0]], requires_grad=True)
    guided = torch.tensor([[0.0, 3.0]])
    with relu_rule(model, GUIDED):
        with relu_rule(model, DECONVNET):
            torch.testing.assert_close(torch.autograd.grad(model(x).sum(), x)[0], torch.tensor([[5.0, -2.0]]))
        torch.testing.assert_close(torch.autograd.grad(model(x).sum(), x)[0], guided)
        with pytest.raises(RuntimeError, match="on purpose"), relu_rule(model, DECONVNET):
            raise RuntimeError("on purpose")
        torch.testing.assert_close(torch.autograd.grad(model(x).sum(), x)[0], guided)


def unit(activation):
    """A hand network with another way to call its ReLUs."""
    class Unit(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(layer for layer in hand_network(False) if isinstance(layer, nn.Linear))

        def forward(self, x):
            for layer in self.layers[:-1]:
                x = activation(layer(x))
            return self.layers[-1](x)

    return Unit()


WAYS_TO_CALL_A_RELU = {
    "F.relu": nn.functional.relu, "F.relu in place": lambda f: nn.functional.relu(f, inplace=True),
    "torch.relu": torch.relu, "torch.relu_": torch.relu_,
    "x.relu()": lambda f: f.relu(), "x.relu_()": lambda f: f.relu_(),
    "x.clamp(min=0)": lambda f: f.clamp(min=0), "x.clamp_(0)": lambda f: f.clamp_(0),
    "x.clamp_min(0)": lambda f: f.clamp_min(0),
    "F.threshold": lambda f: nn.functional.threshold(f, 0, 0), "by keyword": lambda f: nn.functional.relu(input=f),
    "nn.Threshold": nn.Threshold(0, 0), "F.hardtanh": lambda f: nn.functional.hardtanh(f, 0, 100),
}


@pytest.mark.parametrize("activation", WAYS_TO_CALL_A_RELU.values(), ids=WAYS_TO_CALL_A_RELU)
def test_a_relu_called_as_a_function_obeys_the_rule(activation):
    model, x = unit(activation), torch.tensor([[1.0, 2.0]], requires_grad=True)
    with relu_rule(model, GUIDED):
        score = model(x)
        assert score.item() == -10
        torch.testing.assert_close(torch.autograd.grad(score.sum(), x)[0], torch.tensor([[0.0, 3.0]]))


@pytest.mark.parametrize("name", ["googlenet", "densenet121", "resnet18", "shufflenet_v2_x0_5", "mobilenet_v2"])
def test_the_ordinary_rule_is_autograds_wherever_relus_are_called(name):
    model, x = network(name), picture()
    expected = gradient(model, x)
    with relu_rule(model, BACKPROP):
        found = gradient(model, x)
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


class Shortcut(nn.Module):
    """What enters the in-place ReLU goes on beside it, changed by it."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Linear(4, 2)

    def forward(self, x):
        x = self.conv(x)
        y = self.relu(x)
        return self.head((x + y).mean(dim=(2, 3)))


class Doubled(nn.ReLU):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("model", [Shortcut(), nn.Sequential(nn.Conv2d(3, 4, 1), Doubled(), nn.Conv2d(4, 2, 1))],
                         ids=["in-place shortcut", "subclass of ReLU"])
def test_the_forward_pass_is_unchanged_and_the_ordinary_rule_autograds(model):
    x = picture(8, 8).requires_grad_()
    expected = model(x)
    slope, = torch.autograd.grad(expected.sum(), x)
    with relu_rule(model, BACKPROP):
        found = model(x)
        torch.testing.assert_close(torch.autograd.grad(found.sum(), x)[0], slope)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("build, found", [
    (lambda: network("efficientnet_b0"), r"\d+ silu"),
    (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU(), nn.Conv2d(4, 2, 1)), "1 gelu"),
    (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), "none seen"),
], ids=["SiLU", "GELU", "linear"])
def test_a_network_without_relus_is_refused_in_words(build, found):
    model = build()
    before = state_of(model)
    with pytest.raises(ValueError, match=rf"meets no ReLU.*{found}.*not defined.*Choose") as error:
        with evaluation_mode(model), relu_rule(model, GUIDED):
            model(picture().requires_grad_())
    assert type(model).__name__ in str(error.value)
    assert state_of(model) == before


def test_other_activations_beside_the_relus_are_counted_in_a_warning():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU(), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.SiLU())
    with pytest.warns(UserWarning, match="1 ReLUs of this Sequential obey the rule; 2 silu on the way"):
        with relu_rule(model, GUIDED):
            model(picture().requires_grad_())


def test_a_relu_that_cannot_be_reached_is_told():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.rnn = nn.Conv2d(3, 4, 1), nn.ReLU(), nn.RNN(4, 2, nonlinearity="relu")

        def forward(self, x):      # an RNN calls its ReLUs in C++, one for each of three steps
            return self.rnn(self.relu(self.conv(x)).mean(dim=3).permute(2, 0, 1))[0][-1]

    model, x = Recurrent(), picture(3, 3).requires_grad_()
    with pytest.raises(ValueError, match="3 of the 4 ReLUs of this Recurrent cannot be reached"):
        with relu_rule(model, GUIDED):
            model(x)


def test_the_rule_of_a_part_leaves_the_rest_of_the_network_alone():
    model, x = hand_network(True), torch.tensor([[1.0, 2.0]], requires_grad=True)
    with relu_rule(model[3], GUIDED):      # R = (1, 0) below it, then (5, -1, 3), of which f > 0 leaves (0, -1, 3)
        torch.testing.assert_close(torch.autograd.grad(model(x).sum(), x)[0], torch.tensor([[-2.0, 2.0]]))


# evaluation_mode ---------------------------------------------------------------------------------------------


def mixed_model():
    """Some modules train and some do not, some parameters are frozen, and one has a gradient."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3), nn.Dropout()
    )
    model[1].eval()
    model[3].weight.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    return model


def test_evaluation_mode_holds_and_restores_every_flag():
    model = mixed_model()
    before = state_of(model)
    with evaluation_mode(model) as held:
        assert held is model
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        with evaluation_mode(model):
            model(picture())
        assert not model.training
    assert state_of(model) == before
    assert model.training and not model[1].training and model[0].weight.requires_grad


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_gradients_are_there_whatever_is_around(around):
    model, x = Toy(), toy_pictures()
    expected = gradient(model, x)
    with around():
        torch.testing.assert_close(gradient(model, x), expected, rtol=0, atol=0)
        x = x.clone()                                # under inference_mode: one that cannot require gradients
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(gradient(model, x), expected, rtol=0, atol=0)


def test_evaluation_mode_drops_nothing_and_uses_no_batch_statistics():
    model = mixed_model().train()
    with evaluation_mode(model):
        torch.testing.assert_close(model(picture()), copy.deepcopy(model).eval()(picture()), rtol=0, atol=0)


# What holds for all of them ----------------------------------------------------------------------------------

CONTEXTS = {
    "evaluation_mode": evaluation_mode,
    "record": lambda model: record(model, "0", "2", "3"),
    "relu_rule": lambda model: relu_rule(model, GUIDED),
    "count_passes": count_passes,
}
everywhere = pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)


@everywhere
def test_nothing_is_left_after_a_normal_exit(context):
    model = mixed_model()
    before = state_of(model)
    with context(model):
        assert state_of(model) != before
        model(picture())
    with context(model):      # and a second time
        pass
    assert state_of(model) == before


@everywhere
@pytest.mark.parametrize("error", ERRORS, ids=["exception", "interrupt"])
def test_nothing_is_left_after_an_error_in_the_midst_of_a_forward_pass(context, error):
    model = mixed_model().eval()
    before = state_of(model)
    with pytest.raises(type(error)), raising(model[2], error), context(model):
        model(picture())
    assert state_of(model) == before


@pytest.mark.parametrize("error", ERRORS, ids=["exception", "interrupt"])
def test_nothing_is_left_after_an_error_in_the_midst_of_a_backward_pass(error):
    model, calls = network("resnet18"), []
    before = state_of(model)

    def rule(f, R):
        calls.append(f)
        if len(calls) == 5:
            raise error
        return R

    with pytest.raises(type(error)), evaluation_mode(model), record(model, "layer1"), relu_rule(model, rule):
        gradient(model, picture())
    assert len(calls) == 5
    assert state_of(model) == before


@everywhere
def test_all_of_them_nested_in_each_other(context):
    model = mixed_model().eval()
    before = state_of(model)
    with pytest.raises(RuntimeError, match="on purpose"):
        with context(model), evaluation_mode(model), record(model, "0"), relu_rule(model, GUIDED), context(model):
            x = picture().requires_grad_()
            torch.autograd.grad(model(x).sum(), x)
            raise RuntimeError("on purpose")
    assert state_of(model) == before


@everywhere
def test_hooks_that_were_there_stay_and_fire(context):
    model, fired = mixed_model().eval(), []
    model[2].register_forward_hook(lambda module, inputs, output: fired.append("after"))
    model[2].register_forward_pre_hook(lambda module, inputs: fired.append("before"))
    before = state_of(model)
    with context(model):
        model(picture())
    assert fired == ["before", "after"]
    assert state_of(model) == before
    model(picture())
    assert fired == ["before", "after"] * 2


def test_two_threads_on_one_model_do_not_mix():
    model, x = Toy(), toy_pictures()
    expected = {"plain": gradient(model, x)}
    with relu_rule(model, GUIDED):
        expected["guided"] = gradient(model, x)
    assert not torch.allclose(expected["plain"], expected["guided"])
    before = state_of(model)
    errors, start = [], threading.Barrier(2)

    def plain():
        return gradient(model, x)

    def guided():
        with relu_rule(model, GUIDED):
            return gradient(model, x)

    def work(name, compute):
        start.wait()
        for _ in range(150):
            try:
                torch.testing.assert_close(compute(), expected[name], rtol=0, atol=0)
            except Exception as error:
                errors.append((name, error))

    threads = [threading.Thread(target=work, args=job) for job in (("plain", plain), ("guided", guided))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert state_of(model) == before


# count_passes ------------------------------------------------------------------------------------------------


def test_passes_are_counted_in_pictures():
    model = Toy()
    with count_passes(model) as outer:
        gradient(model, toy_pictures(3))
        with count_passes(model) as inner, torch.inference_mode():
            model(toy_pictures(2))
    model(toy_pictures(7))
    assert (outer.forward, outer.backward) == (5, 3)
    assert (inner.forward, inner.backward) == (2, 0)


# last_spatial_layer ------------------------------------------------------------------------------------------

LAST_SPATIAL_LAYER = {
    "squeezenet1_1": "features.12", "alexnet": "features.11", "vgg16": "features.29", "vgg19": "features.35",
    "resnet18": "layer4", "resnet50": "layer4", "densenet121": "features", "googlenet": "inception5b",
    "mobilenet_v2": "features.18", "efficientnet_b0": "features.8", "convnext_tiny": "features.7",
    "efficientnet_lite0": "features.17",
}


@pytest.mark.parametrize("name, expected", LAST_SPATIAL_LAYER.items())
def test_the_last_spatial_layer_of_known_networks(name, expected):
    model = without_numbers(name)
    before = state_of(model)
    assert last_spatial_layer(model) == expected
    assert state_of(model) == before


def without_numbers(name):
    """A network of shapes only, on the device `meta`: where its layers are does not depend on the weights."""
    with torch.device("meta"):
        return load_model(name, weights="random", device="meta")


def test_the_last_spatial_layer_of_lite0_as_it_is_loaded_has_7_by_7_cells():
    model, x = network("efficientnet_lite0", "pretrained"), torch.zeros(1, 3, 224, 224)
    assert last_spatial_layer(model) == "features.17"
    with evaluation_mode(model):
        assert run_to(model, x, "features.17").spatial("features.17").shape == (1, 1280, 7, 7)


def test_the_last_spatial_layer_is_found_with_real_numbers_and_in_training_mode():
    model = copy.deepcopy(network("resnet18")).train()
    before = state_of(model)
    assert last_spatial_layer(model, picture()) == "layer4"
    assert state_of(model) == before


class Normalize(nn.Module):
    def forward(self, x):
        return (x - 0.5) / 0.25


@pytest.mark.parametrize("between", [
    [], [nn.MaxPool2d(2)], [nn.Dropout()], [nn.Dropout2d()], [nn.Identity()], [nn.AvgPool2d(2), nn.Dropout()],
], ids=lambda modules: "+".join(type(module).__name__ for module in modules) or "nothing")
@pytest.mark.parametrize("inplace", [False, True])
def test_the_last_spatial_layer_of_a_flat_network(between, inplace):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(inplace), *between,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    )
    assert last_spatial_layer(model) == "4"


def test_probing_spares_the_picture():
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), *head)
    x = picture()
    before = x.clone()
    assert last_spatial_layer(model, x) == "1"
    torch.testing.assert_close(x, before, rtol=0, atol=0)


def test_layers_of_the_menu_are_those_called_once_with_several_positions():
    assert layers_of(Toy(), toy_pictures()).menu == ["features", *(f"features.{i}" for i in range(5))]
    names = layers_of(network("resnet18"), picture()).menu
    assert {"conv1", "layer1", "layer1.0", "layer1.0.conv1", "layer4"} <= set(names)
    assert not {"layer1.0.relu", "maxpool", "avgpool", "fc"} & set(names)


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_the_last_spatial_layer_of_a_wrapped_network(name):
    model = nn.Sequential(Normalize(), without_numbers(name))
    assert last_spatial_layer(model) == f"1.{LAST_SPATIAL_LAYER[name]}"


@pytest.mark.parametrize("model", [
    nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 2)),
    nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2, 2)),
    nn.Sequential(nn.Flatten()),
], ids=["no convolution", "one position", "no parameters"])
def test_a_network_without_a_spatial_layer_is_told_so(model):
    with pytest.raises(ValueError, match="no layer with a spatial output.*layer="):
        last_spatial_layer(model)


def test_a_network_that_was_changed_is_probed_anew():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert last_spatial_layer(model) == "1"
    model.insert(2, nn.Conv2d(4, 4, 3))
    assert last_spatial_layer(model) == "2"


def test_the_last_spatial_layer_depends_on_the_size_of_the_picture():
    model = network("resnet18")
    small, large = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 224, 224)
    assert [last_spatial_layer(model, x) for x in (small, large, small)] == ["layer3", "layer4", "layer3"]


def test_a_part_that_was_exchanged_is_looked_at_anew():
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), *head)
    assert last_spatial_layer(model) == "1"
    model[1] = nn.AdaptiveMaxPool2d(1)
    assert last_spatial_layer(model) == "0"


def test_a_transformer_has_no_spatial_features():
    model = without_numbers("vit_b_16")
    with pytest.raises(ValueError, match="VisionTransformer is a transformer: after 'conv_proj'"):
        last_spatial_layer(model)


def test_run_to_spares_the_picture_of_an_in_place_first_layer():
    model, x = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3)), picture().requires_grad_()
    before = x.detach().clone()
    with evaluation_mode(model):
        run_to(model, x, "1")["1"].sum().backward()
    assert torch.equal(x, before) and x.grad is not None


class Bypassed(nn.Module):
    """As in Swin version 2: the only ReLU works on something else than the picture."""

    def __init__(self):
        super().__init__()
        self.relu, self.conv = nn.ReLU(), nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.conv(x).mean(dim=(2, 3)) + self.relu(torch.ones(2))


def test_a_rule_that_would_change_nothing_is_refused():
    model, x = Bypassed(), picture().requires_grad_()
    before = state_of(model)
    with pytest.raises(ValueError, match="the gradient of this Bypassed meets no ReLU"):
        with evaluation_mode(model), relu_rule(model, GUIDED):
            model(x)
    assert state_of(model) == before
    with evaluation_mode(model), relu_rule(model, GUIDED), torch.no_grad():
        model(x)      # nobody asks for a gradient


def test_a_relu_may_be_called_by_keyword():
    class Keyword(Bypassed):
        def forward(self, x):
            return self.relu(input=self.conv(x)).mean(dim=(2, 3))

    model, x = Keyword(), picture().requires_grad_()
    with evaluation_mode(model), relu_rule(model, DECONVNET):
        model(x).sum().backward()
    assert x.grad.abs().max() > 0


def values_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(model, before):
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("error", [None, *ERRORS])
def test_randomized_permutes_the_named_layers_and_puts_every_number_back(error):
    model, x = network("resnet18"), picture()
    before, score = values_of(model), model(x)
    flags = [(id(parameter), parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    with contextlib.suppress(type(error) if error else ()), randomized(model, "fc", model.layer4):
        assert {name.split(".")[0] for name in changed(model, before)} == {"fc", "layer4"}
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor.flatten().sort().values, before[name].flatten().sort().values)
        assert not torch.allclose(model(x), score)
        if error:
            raise error
    assert not changed(model, before)
    assert flags == [(id(parameter), parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    assert torch.equal(model(x), score)


def test_a_seed_permutes_a_layer_alike_whatever_else_is_named_and_however_it_lies_in_memory():
    model = network("squeezenet1_1")
    weights = {}
    for layers in [("classifier",), ("features.9", "classifier"), ()]:
        with randomized(model, *layers, seed=3):
            weights[layers] = model.classifier[1].weight.clone()
    with randomized(model.to(memory_format=torch.channels_last), seed=3), randomized(model, "features", seed=4):
        weights["channels_last"] = model.classifier[1].weight.clone()
    first = weights.pop(("classifier",))
    assert all(torch.equal(first, weight) for weight in weights.values())
    with randomized(model, "classifier", seed=4):
        assert not torch.equal(first, model.classifier[1].weight)


def test_randomized_keeps_the_gradient_mode_of_the_caller_and_refuses_in_words():
    model = network("squeezenet1_1")
    with randomized(model):
        assert torch.is_grad_enabled()
    with torch.no_grad(), randomized(model):
        assert not torch.is_grad_enabled()
    for layers, word in [(["features.77"], "nearest names"), (["features.1"], "no weights to permute in features.1")]:
        with pytest.raises(ValueError, match=word), randomized(model, *layers):
            pass
    with torch.inference_mode():
        model = copy.deepcopy(model)
    with pytest.raises(ValueError, match="inference_mode"), randomized(model):
        pass
