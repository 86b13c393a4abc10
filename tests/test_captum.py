"""The techniques give Captum's values, where both mean the same, on real and random networks."""

import pytest
import torch
from toys import network

from benchmarks import captum_calls
from course_utils import last_spatial_layer, preprocess, sample_image, techniques

pytestmark = pytest.mark.slow

NETWORKS = [
    ("squeezenet1_1", "pretrained"), ("efficientnet_lite0", "pretrained"), ("alexnet", "random"), ("vgg16", "random"),
    ("resnet18", "random"),
]
TECHNIQUES = [
    "guided_backprop", "deconvnet", "smooth_grad", "integrated_gradients", "grad_times_image", "guided_grad_cam",
]


def size_of(technique, name):
    """Networks without a fixed grid get a small picture where the 50 passes would take long."""
    slow = name in ("efficientnet_lite0", "vgg16", "resnet18")
    return 64 if technique in ("smooth_grad", "integrated_gradients") and slow else 224


def test_the_copy_for_captum_is_the_same_network():
    model = network("efficientnet_lite0", "pretrained")
    copy, x = captum_calls.without_inplace(model), picture(model, 224)
    assert sum(isinstance(module, torch.nn.ReLU) for module in copy.modules()) == 33
    with torch.no_grad():
        torch.testing.assert_close(copy(x), model(x), rtol=0, atol=1e-5)


def picture(model, size):
    x = preprocess(sample_image("red_panda"), model)
    return torch.nn.functional.interpolate(x, size=(size, size), mode="bilinear", antialias=True)


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("name, weights", NETWORKS, ids=[name for name, _ in NETWORKS])
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_values_are_captums(technique, name, weights):
    model = network(name, weights)
    x = picture(model, size_of(technique, name))
    target = int(model(x).argmax())      # a live class: its score depends on the picture
    ours = getattr(techniques, technique)(model, x, target)
    theirs = captum_calls.CALLS[technique](captum_calls.without_inplace(model), x, target, batch_size=8)
    theirs = theirs.detach().to(ours)      # older releases integrate in float64
    scale = theirs.abs().max().item()
    assert scale > 0
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3 * scale)


@pytest.mark.parametrize("position", [None, (3, 5)])
def test_layer_activations_are_captums(position):
    from captum.attr import NeuronGradient, NeuronGuidedBackprop

    model = captum_calls.without_inplace(network("squeezenet1_1", "pretrained"))
    x = picture(model, 224)
    layer = last_spatial_layer(model)
    activation = model.features(x)
    channel = int(activation.mean(dim=(0, 2, 3)).argmax()) if position is None else int(activation[0, :, 3, 5].argmax())
    unit = (lambda A: A[:, channel].mean(dim=(1, 2))) if position is None else (channel, *position)
    for rule, method in (("guided", NeuronGuidedBackprop), ("plain", NeuronGradient)):
        arguments = (model, model.get_submodule(layer))
        with pytest.warns(UserWarning) if rule == "guided" else torch.enable_grad():
            theirs = method(*arguments).attribute(x.clone().requires_grad_(), unit).detach()
        ours = techniques.layer_activation_gradient(model, x, layer, channel, position, rule)
        scale = theirs.abs().max().item()
        assert scale > 0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3 * scale)
