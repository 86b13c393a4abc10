"""Attribution techniques: what all of them promise, then what each one computes."""

import copy

import pytest
import torch
from captum import attr as captum
from torch import nn
from toys import Toy, network, raising, state_of, toy_pictures

from course_utils import last_spatial_layer, preprocess, sample_image, techniques
from course_utils.hooks import layer_names
from course_utils.measures import cosine
from course_utils.models import BUNDLED

# Every technique that explains a network's answer, as `call(f, model, x, target)`. Where it takes many passes, a few.
CALLS = {
    "vanilla_gradient": lambda f, model, x, target: f(model, x, target),
    "guided_backprop": lambda f, model, x, target: f(model, x, target),
    "deconvnet": lambda f, model, x, target: f(model, x, target),
    "smooth_grad": lambda f, model, x, target: f(model, x, target, n=3, batch_size=2),
    "integrated_gradients": lambda f, model, x, target: f(model, x, target, steps=3, batch_size=2),
    "grad_times_image": lambda f, model, x, target: f(model, x, target),
    "grad_cam": lambda f, model, x, target: f(model, x, target),
    "guided_grad_cam": lambda f, model, x, target: f(model, x, target),
    "layer_cam": lambda f, model, x, target: f(model, x, target),
    # Without the outer ReLU, because no cell may speak for the class.
    "hires_cam": lambda f, model, x, target: f(model, x, target, relu=False),
    # By probability, because no map is then zero: an increase may be negative for every channel.
    "score_cam": lambda f, model, x, target: f(model, x, target, weights="probability", channels=3, batch_size=2),
    "layer_activation_gradient": lambda f, model, x, target: f(model, x, last_spatial_layer(model, x), 2),
    # By a composite for networks with linear bottlenecks, too.
    "lrp": lambda f, model, x, target: f(model, x, target, composite="gamma"),
    "occlusion": lambda f, model, x, target: f(model, x, target, patch=x.shape[-1] // 3, stride=x.shape[-1] // 5),
    "rise": lambda f, model, x, target: f(model, x, target, masks=6, cells=3, batch_size=4),
}
# Of maps that have one channel, the size for pictures of 8 by 11: a layer's, a grid of patches, the picture's.
ONE_CHANNEL = {"grad_cam": (3, 5), "layer_cam": (3, 5), "hires_cam": (3, 5), "score_cam": (3, 5), "occlusion": (4, 5),
               "rise": (8, 11)}
WITHOUT_TARGET = {"layer_activation_gradient"}
WITHOUT_GRADIENT = {"score_cam", "occlusion", "rise"}
WITH_LAYER = {"grad_cam", "guided_grad_cam", "layer_cam", "hires_cam", "score_cam"}      # take layer=
NEED_RELUS = {"guided_backprop", "deconvnet", "guided_grad_cam", "layer_activation_gradient"}


def attribution(name, model, x, target=None):
    return CALLS[name](getattr(techniques, name), model, x, target)


def every(names):
    return pytest.mark.parametrize("name", [name for name in CALLS if name in names])


every_technique = every(CALLS)
with_target = every(set(CALLS) - WITHOUT_TARGET)


def assert_same_map(found, expected, within):
    """Equal to a fraction of the expected map's maximum, which must not be zero."""
    largest = expected.abs().max().item()
    assert largest > 0, "a map of zeros proves nothing"
    assert found.shape == expected.shape
    assert (found - expected).abs().max().item() <= within * largest


# What all of them promise -------------------------------------------------------------------------------------


@every_technique
def test_the_map_has_the_promised_shape_and_is_detached(name):
    model, x = Toy(), toy_pictures(2)
    found = attribution(name, model, x, 1)
    assert found.shape == ((2, 1, *ONE_CHANNEL[name]) if name in ONE_CHANNEL else (2, 3, 8, 11))
    assert not found.requires_grad and not found.is_inference()
    assert found.dtype == x.dtype and found.device == x.device
    assert found.abs().amax(dim=(1, 2, 3)).min() > 0


@every_technique
@pytest.mark.parametrize("make", [
    lambda x: x, lambda x: x.requires_grad_(), lambda x: x.requires_grad_() * 1,
    lambda x: x.to(memory_format=torch.channels_last),
], ids=["plain", "leaf", "in a graph", "channels_last"])
def test_the_picture_is_left_as_it_is_in_whatever_state(name, make):
    model, x = Toy(), make(toy_pictures(2))
    values, state = x.detach().clone(), (x.requires_grad, x.grad_fn, x._version, x.stride())
    found = attribution(name, model, x, 1)
    torch.testing.assert_close(x.detach(), values, rtol=0, atol=0)
    assert state == (x.requires_grad, x.grad_fn, x._version, x.stride())
    assert x.is_leaf is False or x.grad is None
    assert_same_map(found, attribution(name, Toy(), toy_pictures(2), 1), 1e-9)
    found.fill_(7)                                        # the map shares no memory with the picture
    torch.testing.assert_close(x.detach(), values, rtol=0, atol=0)


@every_technique
@pytest.mark.parametrize("target", [None, 2, torch.tensor([2, 0, 1])], ids=["own", "one", "one each"])
def test_a_row_of_a_batch_is_what_the_row_alone_gives(name, target):
    model, x = Toy(), toy_pictures(3)
    batch = attribution(name, model, x, target)
    for i in range(3):
        alone = attribution(name, model, x[i:i + 1], target[i:i + 1] if isinstance(target, torch.Tensor) else target)
        assert_same_map(batch[i:i + 1], alone, 1e-6)


@with_target
def test_the_target_may_be_an_int_a_tensor_or_each_rows_own_class(name):
    model, x = Toy(), toy_pictures(6)
    own = model(x).argmax(dim=1)
    assert len(own.unique()) > 1
    assert_same_map(attribution(name, model, x), attribution(name, model, x, own), 1e-12)
    one = attribution(name, model, x, torch.full((6,), 2))
    assert_same_map(attribution(name, model, x, 2), one, 1e-12)
    assert (one - attribution(name, model, x, 0)).abs().max() > 0.01 * one.abs().max()


@every_technique
def test_two_calls_give_the_same(name):
    model, x = Toy(), toy_pictures(2)
    first = attribution(name, model, x, 1)
    torch.rand(1)
    torch.testing.assert_close(attribution(name, model, x, 1), first, rtol=0, atol=0)


def used_model():
    """A toy in the midst of other people's work: training, partly frozen, with a gradient and hooks of its own."""
    model = Toy().train()
    model.features[1].eval()
    model.head.weight.requires_grad_(False)
    model.features[0].weight.grad = torch.ones_like(model.features[0].weight)
    model.calls = []
    model.features[2].register_forward_hook(lambda module, inputs, output: model.calls.append(output.shape))
    model.features[3].register_forward_pre_hook(lambda module, inputs: None)
    return model


@every_technique
def test_the_model_is_left_as_it_was_found(name):
    model, x = used_model(), toy_pictures(2)
    before = state_of(model)
    expected = attribution(name, Toy(), x, 1)
    assert_same_map(attribution(name, model, x, 1), expected, 1e-12)
    assert model.calls                        # its own hooks have fired
    model.calls.clear()
    assert state_of(model) == before


@every_technique
@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_the_map_is_the_same_under_no_grad_and_inference_mode(name, around):
    model, x = Toy(), toy_pictures(2)
    expected = attribution(name, model, x, 1)
    with around():
        assert_same_map(attribution(name, model, x, 1), expected, 1e-12)
        made_here = x * 1
    assert_same_map(attribution(name, model, made_here, 1), expected, 1e-12)


ERRORS = pytest.mark.parametrize("error", [RuntimeError("on purpose"), KeyboardInterrupt()], ids=["error", "interrupt"])


@every_technique
@ERRORS
def test_the_model_is_left_as_it_was_after_an_error_in_any_forward_pass(name, error):
    model, x = used_model(), toy_pictures(2)
    attribution(name, model, x, 1)            # the first time, some look for the last spatial layer
    model.calls.clear()
    attribution(name, model, x, 1)
    passes = len(model.calls)
    model.calls.clear()
    for call in range(1, passes + 1):
        with raising(model.features[4], error, call):
            before = state_of(model)
            with pytest.raises(type(error)):
                attribution(name, model, x, 1)
            model.calls.clear()
            before["features.4"] = state_of(model)["features.4"]      # the state of the hook that raises
            assert state_of(model) == before


@every(set(CALLS) - WITHOUT_GRADIENT)
@ERRORS
def test_the_model_is_left_as_it_was_after_an_error_in_the_backward_pass(name, error):
    model, x = used_model(), toy_pictures(2)
    raised = []

    def raise_on_the_way_back(module, inputs, output):
        def hook(gradient):
            raised.append(module)
            raise error
        if output.requires_grad:
            output.register_hook(hook)

    for module in (model.features[0], model.head):      # a technique may stop at a layer, or begin at one
        module.register_forward_hook(raise_on_the_way_back)
    before = state_of(model)
    with pytest.raises(type(error)):
        attribution(name, model, x, 1)
    model.calls.clear()
    assert raised
    assert state_of(model) == before


@every_technique
def test_in_place_and_reused_relus_of_a_real_network_are_left_as_they_were(name):
    model, x = copy.deepcopy(network("resnet18")).train().requires_grad_(True), half_size_picture()
    before = state_of(model)
    found = attribution(name, model, x, 5)
    assert state_of(model) == before
    plain = copy.deepcopy(network("resnet18"))
    for module in plain.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    assert_same_map(found, attribution(name, plain, x, 5), 1e-6)


def half_size_picture():
    """A photograph of 112 by 112, which is enough for a network of random weights."""
    x = preprocess(sample_image("red_panda"), network("resnet18"))[..., ::2, ::2]
    return x.contiguous(memory_format=torch.channels_last)


WRONG_INPUTS = {
    "a list": ([[0.0]], "x is a list"),
    "no batch": (torch.zeros(3, 8, 11, dtype=torch.float64), r"x is \(3, 8, 11\)"),
    "one channel": (torch.zeros(1, 1, 8, 11, dtype=torch.float64), r"x is \(1, 1, 8, 11\)"),
    "no picture": (torch.zeros(0, 3, 8, 11, dtype=torch.float64), r"x is \(0, 3, 8, 11\)"),
    "integers": (torch.zeros(1, 3, 8, 11, dtype=torch.long), "torch.int64"),
    "another device": (torch.zeros(1, 3, 8, 11, dtype=torch.float64, device="meta"), "x is on meta, the model on cpu"),
}


@every_technique
@pytest.mark.parametrize("x, message", WRONG_INPUTS.values(), ids=WRONG_INPUTS)
def test_a_wrong_input_is_refused_in_words(name, x, message):
    model = Toy()
    # The layer is named, because looking for the last one needs a picture that fits.
    call = {"layer_activation_gradient": lambda f: f(model, x, "features", 1)}.get(name, lambda f: f(model, x, 1))
    before = state_of(model)
    with pytest.raises(ValueError, match=message):
        call(getattr(techniques, name))
    assert state_of(model) == before


@with_target
@pytest.mark.parametrize("target, error, message", [
    (3, IndexError, "class 3: the network's classes are 0 to 2"), (-1, IndexError, "class -1"),
    (torch.tensor([0, 1, 2]), ValueError, r"shape \(3,\); 2 pictures"), (0.5, ValueError, "torch.float32"),
])
def test_a_wrong_target_is_refused_in_words(name, target, error, message):
    model = Toy()
    before = state_of(model)
    with pytest.raises(error, match=message):
        attribution(name, model, toy_pictures(2), target)
    assert state_of(model) == before


@every(WITH_LAYER)
def test_a_layer_may_be_a_name_or_a_module_and_an_unknown_one_is_refused(name):
    model, x, technique = Toy(), toy_pictures(), getattr(techniques, name)
    expected = technique(model, x, 1, layer="features.3")
    assert_same_map(technique(model, x, 1, layer=model.features[3]), expected, 1e-12)
    assert_same_map(technique(model, x, 1), technique(model, x, 1, layer=last_spatial_layer(model)), 1e-12)
    before = state_of(model)
    for layer, message in (("features.33", r"no layer 'features\.33'.*features\.3"), ("head", r"'head' gives \(1, 3\)"),
                           (nn.Conv2d(1, 1, 1), "not part of the Toy")):
        with pytest.raises(ValueError, match=message):
            technique(model, x, 1, layer=layer)
    assert state_of(model) == before


@every(NEED_RELUS)
def test_a_network_without_relu_modules_is_refused_in_words(name):
    model = Toy(activation=nn.SiLU)
    before = state_of(model)
    with pytest.raises(ValueError, match="this Toy meets no ReLU.*2 silu"):
        attribution(name, model, toy_pictures(), 1)
    assert state_of(model) == before


@every(set(CALLS) - NEED_RELUS - {"lrp"})
def test_the_others_explain_a_network_without_relu_modules(name):
    assert attribution(name, Toy(activation=nn.SiLU), toy_pictures(), 1).abs().max() > 0


@every_technique
def test_a_dead_network_and_a_constant_picture_give_zeros_and_no_nan(name):
    model = Toy()
    if name == "rise":      # a mean of scores: of a network that always says the same, just that
        model.head.bias.data.zero_()
    for parameter in (model.features[3].weight, model.features[3].bias, model.head.weight):
        parameter.data.zero_()
    for x in (toy_pictures(2), torch.zeros_like(toy_pictures(2))):
        assert attribution(name, model, x, 1).abs().max() == 0


@every_technique
@pytest.mark.parametrize("network_name", BUNDLED)
def test_a_row_of_photographs_is_what_the_photograph_alone_gives(name, network_name):
    model = network(network_name, "pretrained")
    x = preprocess([sample_image(image) for image in ("red_panda", "kingfisher")], model)
    batch = attribution(name, model, x)
    for i in range(2):
        assert_same_map(batch[i:i + 1], attribution(name, model, x[i:i + 1]), 1e-2)


# Closed forms -------------------------------------------------------------------------------------------------


def linear_network(classes=3, height=4, width=5, bias=False):
    """S_c(x) = w_c · x + b_c: the gradient is w_c wherever one looks."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * height * width, classes, bias=bias)).double()
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model, model[1].weight.detach().reshape(classes, 3, height, width)


def test_the_gradient_of_a_linear_network_is_its_weights():
    model, w = linear_network(bias=True)
    found = techniques.vanilla_gradient(model, toy_pictures(3, 4, 5), torch.tensor([2, 0, 1]))
    torch.testing.assert_close(found, w[[2, 0, 1]], rtol=0, atol=0)


def test_the_gradient_equals_finite_differences():
    model, x, step = Toy(), toy_pictures(), 1e-6
    nudges = step * torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *x.shape[1:])
    with torch.no_grad():
        expected = (model(x + nudges)[:, 1] - model(x - nudges)[:, 1]) / (2 * step)
    assert_same_map(techniques.vanilla_gradient(model, x, 1), expected.reshape(x.shape), 1e-7)


def test_the_saliency_map_is_the_largest_absolute_value_over_colours():
    gradient = torch.tensor([[[[1.0, -2.0]], [[-3.0, 0.5]], [[2.0, 0.0]]], [[[0.0, 0.1]], [[0.0, -0.2]], [[0.0, 0.0]]]])
    before = gradient.clone()
    torch.testing.assert_close(techniques.saliency_map(gradient), torch.tensor([[[[3.0, 2.0]]], [[[0.0, 0.2]]]]))
    torch.testing.assert_close(gradient, before, rtol=0, atol=0)


class Pooled(nn.Module):
    """A = ReLU(V x) by a 1×1 convolution, S_c = Σ_k w_ck mean(A^k): CAM's own architecture."""

    def __init__(self, channels=4, classes=3):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, channels, 1, bias=False), nn.ReLU(inplace=True))
        self.head = nn.Linear(channels, classes, bias=False)
        generator = torch.Generator().manual_seed(5)
        for parameter in self.double().parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)

    def activations(self, x):
        return torch.einsum("kc,nchw->nkhw", self.layer[0].weight[:, :, 0, 0], x).clamp(min=0).detach()

    def forward(self, x):
        return self.head(self.layer(x).mean(dim=(2, 3)))


@pytest.mark.parametrize("relu", [True, False])
def test_grad_cam_of_an_averaged_layer_is_the_class_weighted_sum_of_its_channels(relu):
    model, x, target = Pooled(), toy_pictures(3, 6, 7), torch.tensor([2, 0, 1])
    w = model.head.weight.detach()[target]
    cam = torch.einsum("nk,nkhw->nhw", w, model.activations(x))[:, None] / (6 * 7)      # α_k = w_ck / Z
    assert cam.min() < 0 < cam.max()
    found = techniques.grad_cam(model, x, target, layer="layer", relu=relu)
    assert_same_map(found, cam.clamp(min=0) if relu else cam, 1e-12)


def test_grad_cam_by_hand():
    # One channel that is the red of the picture, one that is its green: S = 2 mean(A⁰) - mean(A¹), Z = 2.
    model = Pooled(channels=2, classes=1)
    model.layer[0].weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]], dtype=torch.float64).reshape(2, 3, 1, 1)
    model.head.weight.data = torch.tensor([[2.0, -1.0]], dtype=torch.float64)
    x = torch.tensor([[[[3.0, 1.0]], [[4.0, 4.0]], [[9.0, 9.0]]]], dtype=torch.float64)
    # α = (1, -1/2): 1·3 - 4/2 = 1 and 1·1 - 4/2 = -1
    expected = torch.tensor([[[[1.0, -1.0]]]], dtype=torch.float64)
    torch.testing.assert_close(techniques.grad_cam(model, x, 0, layer="layer", relu=False), expected)
    torch.testing.assert_close(techniques.grad_cam(model, x, 0, layer="layer"), expected.clamp(min=0))


def test_what_the_panel_of_grad_cam_draws(squeezenet):
    def drawn(kind, layer=None):
        photograph = sample_image("cat_dog")
        return techniques.draw_grad_cam(squeezenet, photograph, 281, layer, lambda pixels, cam, signed: cam, kind)[0]

    x = preprocess(sample_image("cat_dog"), squeezenet)
    tabby, shepherd = (techniques.grad_cam(squeezenet, x, c, relu=False) for c in (281, 235))      # the strongest rival
    assert_same_map(drawn("for and against"), tabby, 1e-6)
    assert_same_map(drawn("for the class"), tabby.clamp(min=0), 1e-6)
    assert_same_map(drawn("minus the strongest rival"), (tabby - shepherd).clamp(min=0), 1e-4)
    alike = [cosine(drawn("for the class", layer), drawn("not averaged", layer))
             for layer in ("features.12", "features.3")]
    assert alike[0] > 0.999 and alike[1] < 0.9      # at the last layer nothing cancels in the mean


def test_grad_cam_before_an_in_place_relu_uses_what_the_layer_gave():
    model, x = Toy(), toy_pictures()
    plain = copy.deepcopy(model)
    plain.features[4].inplace = False
    A = plain.features[:4](x).requires_grad_()
    gradient, = torch.autograd.grad(plain.head(plain.features[4:](A).mean(dim=(2, 3)))[0, 1], A)
    expected = (gradient.mean(dim=(2, 3), keepdim=True) * A).sum(dim=1, keepdim=True).detach()
    assert (A < 0).any()
    assert_same_map(techniques.grad_cam(model, x, 1, layer="features.3", relu=False), expected, 1e-12)


CELL_BY_CELL = {      # what each map adds up, from activations and gradients (N, C, h, w)
    "layer_cam": lambda A, g: (g.clamp(min=0) * A).sum(dim=1, keepdim=True),
    "hires_cam": lambda A, g: (g * A).sum(dim=1, keepdim=True),
}
cell_by_cell = pytest.mark.parametrize("name", CELL_BY_CELL)


@cell_by_cell
def test_maps_cell_by_cell_by_hand(name):
    # As for Grad-CAM above, but one weight for each cell: S = 2·3 - 1·1 of the red and 1·4 - 4·4 of the green.
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(6, 1, bias=False)).double()
    model[2].weight.data = torch.tensor([[2.0, -1.0, 1.0, -4.0, 0.0, 0.0]], dtype=torch.float64)
    x = torch.tensor([[[[3.0, 1.0]], [[4.0, -4.0]], [[9.0, 9.0]]]], dtype=torch.float64)
    expected = {"layer_cam": [2 * 3 + 4, 0], "hires_cam": [2 * 3 + 4, -1 + 16]}[name]
    found = getattr(techniques, name)(model, x, 0, layer="0", relu=False)
    assert found.flatten().tolist() == expected
    assert techniques.hires_cam(model, x, 0, layer="0", relu=False).sum() == model(x)[0, 0]
    against = getattr(techniques, name)(model, -x, 0, layer="0")
    assert against.flatten().tolist() == [0, 0]      # the outer ReLU


@cell_by_cell
@pytest.mark.parametrize("layer", ["features.0", "features.2", "features.3", "features.4"])
def test_maps_cell_by_cell_equal_three_lines_of_autograd(name, layer):
    # features.3 stands before an in-place ReLU; features.2 and 4 are such ReLUs; features.0 comes before one, too.
    model, x, target = Toy(), toy_pictures(3), torch.tensor([2, 0, 1])
    plain = copy.deepcopy(model)
    plain.features[2].inplace = plain.features[4].inplace = False
    number = int(layer[-1]) + 1
    A = plain.features[:number](x).detach().requires_grad_()
    scores = plain.head(plain.features[number:](A).mean(dim=(2, 3)))
    g, = torch.autograd.grad(scores.gather(1, target[:, None]).sum(), A)
    expected = CELL_BY_CELL[name](A, g).detach()
    assert_same_map(getattr(techniques, name)(model, x, target, layer=layer, relu=False), expected, 1e-12)
    if expected.max() > 0:
        assert_same_map(getattr(techniques, name)(model, x, target, layer=layer), expected.clamp(min=0), 1e-12)


@cell_by_cell
@pytest.mark.parametrize("network_name, layer", [
    ("squeezenet1_1", "features.4"), ("squeezenet1_1", "features.12"), ("efficientnet_lite0", "features.8"),
])
def test_maps_cell_by_cell_equal_autograd_on_a_photograph(name, network_name, layer):
    model = network(network_name, "pretrained")
    x, number = preprocess(sample_image("cat_dog"), model), int(layer.split(".")[1]) + 1
    with torch.no_grad():
        A = model.features[:number](x).clone().requires_grad_()
    rest = [*model.features[number:], *([model.avgpool, nn.Flatten()] if network_name == "efficientnet_lite0" else []),
            model.classifier, nn.Flatten()]
    g, = torch.autograd.grad(nn.Sequential(*rest)(A.clone())[0, 281], A)
    expected = CELL_BY_CELL[name](A, g).detach()
    assert_same_map(getattr(techniques, name)(model, x, 281, layer=layer, relu=False), expected, 1e-3)


@pytest.mark.parametrize("layer", ["0", "1", "3"])
def test_without_biases_hires_cam_adds_up_to_the_score_at_every_layer(layer):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(inplace=True), nn.MaxPool2d(2),
                          nn.Conv2d(4, 5, 2, bias=False), nn.Flatten(), nn.Linear(5 * 2 * 3, 3, bias=False)).double()
    x = toy_pictures(4)
    found = techniques.hires_cam(model, x, 1, layer=layer, relu=False)
    torch.testing.assert_close(found.sum(dim=(1, 2, 3)), model(x)[:, 1].detach())
    assert (techniques.layer_cam(model, x, 1, layer="1", relu=False).sum(dim=(1, 2, 3)) > model(x)[:, 1]).all()


@pytest.mark.parametrize("relu", [True, False])
def test_hires_cam_of_an_averaged_layer_is_grad_cam(relu):
    model, x, target = Pooled(), toy_pictures(3, 6, 7), torch.tensor([2, 0, 1])
    found, expected = (getattr(techniques, name)(model, x, target, layer="layer", relu=relu)
                       for name in ("hires_cam", "grad_cam"))
    assert_same_map(found, expected, 1e-12)
    positive = torch.einsum("nk,nkhw->nhw", model.head.weight.detach()[target].clamp(min=0), model.activations(x))
    assert_same_map(techniques.layer_cam(model, x, target, layer="layer"), positive[:, None] / (6 * 7), 1e-12)


def test_at_a_layer_called_several_times_the_last_call_counts():
    model, x = network("resnet18"), half_size_picture()
    for technique in (techniques.grad_cam, techniques.layer_cam, techniques.hires_cam):
        last = technique(model, x, 3, relu=False)
        assert_same_map(technique(model, x, 3, layer="layer4.1.relu", relu=False), last, 1e-6)


@pytest.mark.parametrize("technique", ["grad_cam", "layer_cam", "hires_cam"])
@pytest.mark.parametrize("name", layer_names(Toy().features))
def test_every_spatial_layer_of_a_network_has_a_map(name, technique):
    found = getattr(techniques, technique)(Toy(), toy_pictures(), 1, layer=f"features.{name}", relu=False)
    assert found.abs().max() > 0


def test_guided_backprop_and_deconvnet_follow_their_rules_by_hand():
    # The network and the three rules of test_hooks, as 1×1 convolutions on one position.
    model = nn.Sequential(
        nn.Conv2d(3, 3, 1, bias=False), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(inplace=True),
        nn.Flatten(), nn.Linear(2, 1, bias=False),
    )
    model[0].weight.data = torch.tensor([[1.0, -1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 1.0, 0.0]]).reshape(3, 3, 1, 1)
    model[2].weight.data = torch.tensor([[5.0, -1.0, 3.0], [1.0, 2.0, -1.0]]).reshape(2, 3, 1, 1)
    model[5].weight.data = torch.tensor([[1.0, -2.0]])
    x = torch.tensor([1.0, 2.0, 0.0]).reshape(1, 3, 1, 1)
    rules = {"vanilla_gradient": [-10, 0, 0], "guided_backprop": [0, 3, 0], "deconvnet": [5, -2, 0]}
    for name, expected in rules.items():
        assert getattr(techniques, name)(model, x, 0).flatten().tolist() == expected, name


@pytest.mark.parametrize("rule", ["gauss-legendre", "midpoint", "trapezoid"])
def test_integrated_gradients_of_a_linear_network_are_its_terms(rule):
    model, w = linear_network(bias=True)
    x, baseline = toy_pictures(2, 4, 5), toy_pictures(1, 4, 5, seed=9)
    options = {"rule": rule, "steps": 4, "batch_size": 3}
    torch.testing.assert_close(techniques.integrated_gradients(model, x, 1, **options), w[1] * x)
    options["baseline"] = baseline
    torch.testing.assert_close(techniques.integrated_gradients(model, x, 1, **options), w[1] * (x - baseline))
    average = techniques.integrated_gradients(model, x, 1, multiply_by_inputs=False, **options)
    torch.testing.assert_close(average, w[1].expand_as(x))


def test_grad_times_image_of_a_linear_network_adds_up_to_its_score():
    model, w = linear_network()
    x = toy_pictures(2, 4, 5)
    found = techniques.grad_times_image(model, x, 1)
    torch.testing.assert_close(found, w[1] * x)
    torch.testing.assert_close(found.sum(dim=(1, 2, 3)), model(x)[:, 1].detach())


@pytest.mark.parametrize("rule", ["guided", "plain"])
@pytest.mark.parametrize("position", [None, (2, 4)])
def test_layer_activation_gradient_is_the_gradient_of_that_channel_or_unit(rule, position):
    model, x = Toy(), toy_pictures(2).requires_grad_()
    A = model.features[:4](x)
    signal = A[:, 2].mean(dim=(1, 2)) if position is None else A[:, 2, 2, 4]
    expected, = torch.autograd.grad(signal.sum(), x)
    found = techniques.layer_activation_gradient(model, x, "features.3", 2, position=position, rule=rule)
    if rule == "plain":
        assert_same_map(found, expected, 1e-12)
    else:
        assert (found - expected).abs().max() > 0      # one ReLU lies below: its negative signals are stopped


# Captum -------------------------------------------------------------------------------------------------------

def assert_equals_captum(name, model, x, target):
    layer = model.get_submodule(last_spatial_layer(model))
    if name == "grad_cam":
        ours = techniques.grad_cam(model, x, target, relu=False)
        theirs = captum.LayerGradCam(model, layer).attribute(x.clone(), target, relu_attributions=False)
    elif name == "hires_cam":
        ours = techniques.hires_cam(model, x, target, relu=False)
        theirs = captum.LayerGradientXActivation(model, layer).attribute(x.clone(), target).sum(dim=1, keepdim=True)
    else:
        ours = techniques.vanilla_gradient(model, x, target)
        theirs = captum.Saliency(model).attribute(x.clone().requires_grad_(), target, abs=False)
    assert_same_map(ours, theirs.detach(), 1e-3)


every_one = pytest.mark.parametrize("name", ["vanilla_gradient", "grad_cam", "hires_cam"])


@every_one
@pytest.mark.parametrize("photograph, target", [("red_panda", 387), ("cat_dog", 281), ("macaw", 88)])
@pytest.mark.parametrize("network_name", BUNDLED)
def test_maps_of_photographs_equal_captums(name, network_name, photograph, target):
    model = network(network_name, "pretrained")
    x = preprocess(sample_image(photograph), model)
    assert model(x)[0, target] > 0            # a live class
    assert_equals_captum(name, model, x, target)


@pytest.mark.slow
@every_one
@pytest.mark.parametrize("network_name", ["alexnet", "vgg16", "resnet18", "googlenet"])
def test_maps_of_other_networks_equal_captums(name, network_name):
    model, x = network(network_name), half_size_picture()
    assert_equals_captum(name, model, x, model(x).argmax(dim=1))
