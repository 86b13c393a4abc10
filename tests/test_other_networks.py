"""Networks of other people: each technique gives a right map, or one sentence; the network is left as it was found."""

import pytest
import torch
import torch.nn.functional as F
from test_attribution import CALLS, NEED_RELUS, attribution
from torch import nn
from torch.utils.checkpoint import checkpoint
from toys import network, state_of

from course_utils import class_score, class_scores, last_spatial_layer, predict, run_to, spatial_layer, techniques
from course_utils.layers import entering
from course_utils.scores import probabilities


def picture(side=32):
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Two convolutions and a linear head; `end` changes what comes out of it."""

    def __init__(self, classes=10, channels=3, end=None):
        super().__init__()
        torch.manual_seed(0)
        self.c1, self.r1 = nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU()
        self.c2, self.r2 = nn.Conv2d(8, 12, 3, padding=1), nn.ReLU()
        self.fc, self.end = nn.Linear(12, classes), end or (lambda scores: scores)

    def forward(self, x):
        return self.end(self.fc(self.r2(self.c2(self.r1(self.c1(x)))).mean(dim=(2, 3))))


# The smallest network of each family of torchvision's, and a size of pictures that it takes.
FAMILIES = {
    "alexnet": 224, "vgg11": 64, "vgg11_bn": 64, "resnet18": 64, "resnext50_32x4d": 64, "wide_resnet50_2": 64,
    "squeezenet1_1": 64, "densenet121": 64, "googlenet": 64, "inception_v3": 96, "mobilenet_v2": 64,
    "mobilenet_v3_small": 64, "shufflenet_v2_x0_5": 64, "mnasnet0_5": 64, "efficientnet_b0": 64,
    "efficientnet_v2_s": 64, "efficientnet_lite0": 64, "regnet_x_400mf": 64, "regnet_y_400mf": 64, "convnext_tiny": 64,
    "vit_b_32": 224, "swin_t": 64, "swin_v2_t": 64, "maxvit_t": 224,
}
IMAGE_MAKERS = {
    "visualize_filter": lambda f, model, x: f(model, last_spatial_layer(model, x), 1, steps=1, size=x.shape[-1]),
    "invert_representation": lambda f, model, x: f(model, x, last_spatial_layer(model, x), steps=1),
    "deep_dream": lambda f, model, x: f(model, x, last_spatial_layer(model, x), octaves=1, steps=1),
    "generate_class_image": lambda f, model, x: f(model, 1, steps=1, size=x.shape[-1]),
    "fooling_image": lambda f, model, x: f(model, 1, steps=1, size=x.shape[-1]),
    "adversarial_ascent": lambda f, model, x: f(model, x, 1, steps=1),
    "evolve_fooling_image": lambda f, model, x: f(model, evaluations=2, keep=1),
}
# Where features are no maps these work all the same.
ALWAYS = {"vanilla_gradient", "smooth_grad", "integrated_gradients", "grad_times_image", "occlusion", "rise"} | set(
    IMAGE_MAKERS) - {
    "visualize_filter", "invert_representation", "deep_dream"}
NO_MAPS = {"vit_b_32"}      # its features are tokens
NO_RELUS = {"efficientnet_b0", "efficientnet_v2_s", "convnext_tiny", "maxvit_t", "swin_t", "swin_v2_t"} | NO_MAPS

# In which something has no rule, so that lrp refuses them.
WITHOUT_RULES = {"densenet121", "mobilenet_v3_small", "regnet_y_400mf"} | NO_RELUS


def made(name, model, x):
    """What a technique makes of a network, or the sentence that refuses it; any other error is raised."""
    try:
        if name in IMAGE_MAKERS:
            return [*IMAGE_MAKERS[name](getattr(techniques, name), model, x)][-1].image
        return attribution(name, model, x, 1)
    except ValueError as error:
        assert "\n" not in str(error)
        return str(error)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*keep their own derivative")
@pytest.mark.parametrize("name", FAMILIES)
def test_every_technique_works_on_every_family_or_says_why_not(name):
    model, x = network(name), picture(FAMILIES[name])
    before = state_of(model)
    answers = {technique: made(technique, model, x) for technique in (*CALLS, *IMAGE_MAKERS)}
    assert state_of(model) == before
    works = {technique for technique, answer in answers.items() if isinstance(answer, torch.Tensor)}
    assert all(answers[technique].isfinite().all() for technique in works)
    expected = ALWAYS if name in NO_MAPS else set(answers) - (NEED_RELUS if name in NO_RELUS else set())
    assert works == expected - ({"lrp"} if name in WITHOUT_RULES else set()), answers


@pytest.mark.parametrize("name, count", [("mobilenet_v3_small", "hardswish"), ("regnet_y_400mf", "sigmoid")])
def test_what_the_rule_does_not_reach_is_counted_in_a_warning(name, count):
    with pytest.warns(UserWarning, match=rf"ReLUs of this .* obey the rule; .*\d+ {count}.* keep their own derivative"):
        techniques.guided_backprop(network(name), picture(64), 1)


# ReLUs called as functions ------------------------------------------------------------------------------------


class Functional(Net):
    """As `Net`, but its ReLU modules lie about unused."""

    def forward(self, x):
        return self.fc(F.relu(self.c2(F.relu(self.c1(x)))).mean(dim=(2, 3)))


@pytest.mark.parametrize("name", sorted(NEED_RELUS - {"layer_activation_gradient"}))
def test_a_network_that_calls_functions_is_explained_as_one_of_modules(name):
    found, expected = (attribution(name, model, picture(), 0) for model in (Functional(), Net()))
    plain = techniques.vanilla_gradient(Net(), picture(), 0)
    assert torch.cosine_similarity(expected.flatten(), plain.flatten(), dim=0) < 0.9
    if name != "guided_grad_cam":      # whose layer=None is the last module, and here a ReLU is none
        torch.testing.assert_close(found, expected)


# Layers -------------------------------------------------------------------------------------------------------


class Order(nn.Module):
    """Modules are defined in another order than they are called, and weight_norm adds one that gives weights."""

    def __init__(self):
        super().__init__()
        self.c1, self.c2, self.r1, self.r2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.ReLU(inplace=True)
        self.fc = nn.Linear(8, 10)
        nn.utils.parametrizations.weight_norm(self.c2)

    def forward(self, x):
        return self.fc(self.r2(self.c2(self.r1(self.c1(x)))).mean(dim=(2, 3)))


@pytest.mark.parametrize("build, layer, expected", [
    (Order, "r1", "c1"), (Order, "r2", "c2"),
    (lambda: network("resnet18"), "layer1.1.relu", "layer1.1.relu:input"), (lambda: network("resnet18"), "relu", "bn1"),
    (lambda: network("regnet_x_400mf"), "trunk_output.block1.block1-0.activation",
     "trunk_output.block1.block1-0.activation:input"),
], ids=["defined elsewhere", "weight_norm", "reused ReLU after a sum", "BatchNorm", "RegNet's sum"])
def test_what_enters_a_relu_is_what_a_forward_pass_shows(build, layer, expected):
    model, x, seen = build().eval(), picture(64), []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    with torch.no_grad():
        model(x)
    handle.remove()
    assert entering(model, layer, x) == expected
    with torch.no_grad():
        torch.testing.assert_close(run_to(model, x, expected)[expected], seen[-1], rtol=0, atol=0)
    assert seen[-1].min() < 0


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.p, self.mlp = nn.Conv2d(3, 24, 8, 8), nn.Linear(24, 24)
        self.norm, self.fc = nn.LayerNorm(24), nn.Linear(24, 10)

    def forward(self, x):
        x = self.p(x).permute(0, 2, 3, 1)
        return self.fc(self.norm(x + self.mlp(x)).mean(dim=(1, 2)))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.p, self.qkv = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 24)
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 10)

    def forward(self, x):
        tokens = self.p(x).flatten(2).mT
        mixed = F.scaled_dot_product_attention(*self.qkv(tokens).chunk(3, -1))
        return self.fc(self.norm(tokens + mixed).mean(dim=1))


class Attention(Net):
    """A map of one channel that weighs the features is called last."""

    def __init__(self):
        super().__init__()
        self.attention = nn.Sequential(nn.Conv2d(12, 1, 1), nn.Sigmoid())

    def forward(self, x):
        x = self.r2(self.c2(self.r1(self.c1(x))))
        return self.fc((x * self.attention(x)).mean(dim=(2, 3)))


class SideBranch(Net):
    """A convolution that the scores do not depend on is called last."""

    def __init__(self):
        super().__init__()
        self.aside = nn.Conv2d(12, 4, 1)

    def forward(self, x):
        x = self.r2(self.c2(self.r1(self.c1(x))))
        self.aside(x)
        return self.fc(x.mean(dim=(2, 3)))


class Prototypes(nn.Module):
    """A head without parameters in a module: similarity to prototypes in a buffer."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.register_buffer("prototypes", torch.randn(10, 8))

    def forward(self, x):
        return F.normalize(self.body(x)) @ F.normalize(self.prototypes).T


@pytest.mark.parametrize("build, expected", [(Attention, "r2"), (SideBranch, "r2"), (Prototypes, "body.1")])
def test_the_last_spatial_layer_lies_on_the_way_of_the_score_and_has_channels(build, expected):
    model = build().eval()
    assert last_spatial_layer(model, picture()) == expected
    assert techniques.grad_cam(model, picture(), 0, relu=False).abs().max() > 0


@pytest.mark.parametrize("build, message", [
    (ChannelsLast, r"ChannelsLast gives its features channels-last: \(1, 4, 4, 24\) at 'norm'"),
    (Tokens, "Tokens is a transformer: after 'p' its features are rows of tokens"),
])
def test_features_that_are_no_maps_are_refused_in_words(build, message):
    model = build().eval()
    for technique in ("grad_cam", "layer_cam", "hires_cam", "score_cam"):
        with pytest.raises(ValueError, match=message):
            attribution(technique, model, picture(), 0)


@pytest.mark.parametrize("layer", ["mlp", "norm"])
def test_a_layer_with_channels_last_is_never_read_the_wrong_way_round(layer):
    with pytest.raises(ValueError, match=rf"layer '{layer}' gives \(1, 4, 4, 24\).*channels first"):
        techniques.grad_cam(ChannelsLast(), picture(), 0, layer=layer)
    assert techniques.grad_cam(ChannelsLast(), picture(), 0, layer="p").shape == (1, 1, 4, 4)


def test_rows_of_a_layer_are_rows_of_the_picture():
    class Crops(Net):
        def forward(self, x):
            return super().forward(torch.cat([x[..., :16], x[..., 16:]])).reshape(2, len(x), -1).mean(dim=0)

    with pytest.raises(ValueError, match="one row a picture"):
        spatial_layer(Crops(), picture(), "c2")


def test_a_layer_that_the_scores_do_not_depend_on_is_told():
    with pytest.raises(ValueError, match="the score does not depend on this layer"):
        techniques.grad_cam(SideBranch(), picture(), 0, layer="aside")


# Outputs ------------------------------------------------------------------------------------------------------

OUTPUTS = {
    "a dict": (lambda scores: {"logits": scores}, "gives a dict.*scores"),
    "a tuple": (lambda scores: (scores, scores), "gives a tuple"),
    "one number a picture": (lambda scores: scores[:, 0], r"gives \(1,\) for 1 pictures"),
    "maps": (lambda scores: scores[..., None, None], r"gives \(1, 10, 1, 1\)"),
    "probabilities": (lambda scores: scores.softmax(dim=1), "probabilities.*before the softmax"),
}


@pytest.mark.parametrize("end, message", OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("call", [
    lambda model: predict(model, picture()), lambda model: techniques.vanilla_gradient(model, picture(), 0),
    lambda model: techniques.grad_cam(model, picture(), 0), lambda model: techniques.score_cam(model, picture(), 0),
    lambda model: [*techniques.generate_class_image(model, 0, steps=1, size=32)],
], ids=["predict", "vanilla_gradient", "grad_cam", "score_cam", "generate_class_image"])
def test_an_output_that_is_not_scores_is_refused_in_words(call, end, message):
    with pytest.raises(ValueError, match=message):
        call(Net(end=end))


def test_one_score_has_a_gradient_and_no_probability():
    model = Net(classes=1)
    assert techniques.vanilla_gradient(model, picture(), 0).abs().max() > 0
    assert [*techniques.generate_class_image(model, 0, steps=1, size=32)][-1].objective.isfinite().all()
    for refused in (lambda: predict(model, picture()), lambda: probabilities(class_scores(model, picture())),
                    lambda: techniques.score_cam(model, picture(), 0, weights="probability")):
        with pytest.raises(ValueError, match="one score, which is no choice"):
            refused()


# Networks without a gradient, and what they cannot take -------------------------------------------------------


class NoGrad(Net):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class Reentrant(Net):
    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=True)


class NonReentrant(Net):
    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=False)


def quantized():
    return torch.ao.quantization.quantize_dynamic(Net().eval(), {nn.Linear}, dtype=torch.qint8)


def made_in_inference_mode():
    with torch.inference_mode():
        return Net()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("build, message", [
    (NoGrad, "no gradient comes back"), (lambda: Net(end=torch.Tensor.detach), "no gradient comes back"),
    (Reentrant, "no gradient can be taken|meets no ReLU|no layer with"),
    (quantized, "is quantized"), (made_in_inference_mode, "inference_mode"),
    (lambda: torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(7200, 4))),
     "is TorchScript"),
    (lambda: Net(channels=1), r"this Net fails on pictures \d×3×32×32: "),
], ids=["no_grad", "detach", "reentrant checkpoint", "quantized", "inference weights", "scripted", "gray"])
@pytest.mark.parametrize("name", ["vanilla_gradient", "guided_backprop", "grad_cam", "integrated_gradients"])
def test_a_network_that_gives_no_gradient_is_refused_in_words(name, build, message):
    model = build()
    with pytest.raises(ValueError, match=message):
        getattr(techniques, name)(model, picture(), 0)


def test_checkpointing_without_reentrance_is_explained_as_ever():
    for name in ("vanilla_gradient", "guided_backprop", "grad_cam"):
        found, expected = (attribution(name, model, picture(), 0) for model in (NonReentrant(), Net()))
        torch.testing.assert_close(found, expected)


def test_a_size_that_a_network_does_not_take_is_told_in_its_own_words():
    for name in ("vanilla_gradient", "grad_cam"):
        with pytest.raises(ValueError, match="fails on pictures 1×3×64×64: Wrong image height! Expected 224"):
            attribution(name, network("vit_b_32"), picture(64), 1)


# Precision, modes and devices ---------------------------------------------------------------------------------


def test_images_are_made_in_half_precision_too():
    model, x = Net().half(), picture().half()
    for steps in (techniques.invert_representation(model, x, "r2", steps=3),
                  techniques.deep_dream(model, x, "r2", octaves=2, steps=2),
                  techniques.visualize_filter(model, "r2", [0, 1], steps=2, size=32),
                  techniques.generate_class_image(model, 0, steps=2, size=32)):
        assert all(step.image.isfinite().all() and step.objective.isfinite().all() for step in steps)


@pytest.mark.parametrize("name", IMAGE_MAKERS)
def test_images_are_made_inside_inference_mode(name):
    model = Net()

    def last(x):
        return [*IMAGE_MAKERS[name](getattr(techniques, name), model, x)][-1]

    expected = last(picture())
    with torch.inference_mode():
        found = last(picture())
    torch.testing.assert_close(found.image, expected.image)
    torch.testing.assert_close(found.objective, expected.objective)


@pytest.mark.parametrize("name", [*CALLS, *IMAGE_MAKERS])
def test_another_default_device_than_the_models_changes_nothing(name):
    model, x = Net(), picture()
    expected = made(name, model, x)
    torch.set_default_device("meta")
    try:
        found = made(name, model, x)
    finally:
        torch.set_default_device(None)
    torch.testing.assert_close(found, expected)


def test_class_score_of_a_deeper_head_is_its_last_map():
    model = network("squeezenet1_1")
    model = type(model)(version="1_1", num_classes=10).eval()
    model.classifier = nn.Sequential(nn.Conv2d(512, 16, 1), nn.ReLU(), nn.Conv2d(16, 10, 1), nn.AdaptiveAvgPool2d(1))
    x = picture(64)
    torch.testing.assert_close(techniques.class_evidence(model, x, 3), class_score(model, x, 3))
