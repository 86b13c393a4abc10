"""EfficientNet-Lite0: its padding, its normalization, what folding keeps, its pictures, and its head."""

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.ops import Conv2dNormActivation
from toys import network

from course_utils import load_model, preprocess, record, sample_image, sample_images, to_image, to_input
from course_utils.models import _bundled_weights
from course_utils.networks import EfficientNetLite0, convolution, fold_batch_norm
from course_utils.techniques import grad_cam


def lite0():
    """The pretrained network as its file has it: with its BatchNorm."""
    model = EfficientNetLite0()
    model.load_state_dict(_bundled_weights("efficientnet_lite0"))
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def photographs():
    return preprocess([sample_image(name) for name in sample_images()], network("efficientnet_lite0", "pretrained"))


@pytest.mark.parametrize("kernel, before, after", [(3, 0, 1), (5, 1, 2)])
def test_strides_of_two_are_padded_as_tensorflows_same(kernel, before, after):
    layers = convolution(1, 1, kernel, stride=2, activation=None).eval()
    nn.init.ones_(layers[1].weight)
    x = torch.rand(1, 1, 8, 8)
    # The first cell's window begins `before` pixels outside, the last one's ends `after` pixels outside.
    sums = layers[1](layers[0](x))[0, 0]
    assert sums.shape == (4, 4)
    torch.testing.assert_close(sums[0, 0], x[0, 0, :kernel - before, :kernel - before].sum())
    torch.testing.assert_close(sums[-1, -1], x[0, 0, after - kernel:, after - kernel:].sum())


def test_symmetric_padding_would_be_another_network(photographs):
    model = lite0()
    expected = model(photographs).softmax(dim=1)
    for layers in model.modules():
        if isinstance(layers, Conv2dNormActivation) and isinstance(layers[0], nn.ZeroPad2d):
            left, right, _, _ = layers[0].padding
            layers[1].padding = ((left + right + 1) // 2,) * 2
            layers[0] = nn.Identity()
    found = model(photographs).softmax(dim=1)
    assert (found - expected).abs().max() > 0.1      # no error is raised: only the numbers tell


def test_every_batch_norm_has_tensorflows_epsilon():
    assert {module.eps for module in EfficientNetLite0().modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}


def test_folding_keeps_the_scores_and_leaves_no_batch_norm(photographs):
    model, folded = lite0(), network("efficientnet_lite0", "pretrained")
    torch.testing.assert_close(folded(photographs), model(photographs), rtol=0, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert sum(isinstance(module, nn.ReLU6) for module in folded.modules()) == 33


def test_folding_takes_in_what_a_batch_norm_does():
    layers = convolution(3, 4, 3).double().eval()
    for name, values in [*layers[1].named_parameters(), *layers[1].named_buffers()]:
        if values.is_floating_point():
            values.data = torch.rand(values.shape, generator=torch.Generator().manual_seed(len(name))).double() + 0.5
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    expected = layers(x)
    fold_batch_norm(layers)
    assert [type(layer).__name__ for layer in layers] == ["Conv2d", "ReLU6"]
    torch.testing.assert_close(layers(x), expected)


def test_random_and_pretrained_weights_have_the_same_layers():
    random, pretrained = network("efficientnet_lite0"), network("efficientnet_lite0", "pretrained")
    assert [name for name, _ in random.named_modules()] == [name for name, _ in pretrained.named_modules()]


def test_with_random_weights_the_signal_reaches_the_scores(photographs):
    scores = network("efficientnet_lite0")(photographs)
    assert scores.std(dim=0).mean() > 0.01      # between photographs: with torch's own initialization it is 1e-9


def test_its_pictures_are_those_of_squeezenet_in_other_units():
    """Bicubic instead of bilinear, the same crop; 0 and 255 are -127/128 and 1."""
    model = load_model("efficientnet_lite0", device="cpu")
    for value in (0, 127, 255):
        x = preprocess(Image.new("RGB", (300, 260), (value,) * 3), model)
        assert x.shape == (1, 3, 224, 224)
        torch.testing.assert_close(x, torch.full_like(x, (value - 127) / 128), rtol=0, atol=1e-6)
        torch.testing.assert_close(to_input(to_image(x, model), model), x, rtol=0, atol=1e-6)
    lite, squeeze = (to_image(preprocess(sample_image("cat"), other), other)
                     for other in (model, network("squeezenet1_1", "pretrained")))
    assert 0 < (lite - squeeze).abs().mean() < 0.02


@pytest.mark.parametrize("name, target", [("cat_dog", 281), ("cat_dog", 235), ("macaw_dog", 88), ("red_panda", 387)])
def test_cam_is_grad_cam_times_the_number_of_cells(name, target):
    model = network("efficientnet_lite0", "pretrained")
    x = preprocess(sample_image(name), model)
    with torch.no_grad(), record(model, "features.17") as activations:
        scores = model(x)
    A, head = activations["features.17"], model.classifier[1]
    cam = (head.weight[target][:, None, None] * A).sum(dim=1, keepdim=True)
    torch.testing.assert_close(cam.mean() + head.bias[target], scores[0, target], rtol=1e-4, atol=1e-4)
    assert cam.max() > 1
    torch.testing.assert_close(49 * grad_cam(model, x, target, relu=False), cam, rtol=1e-4, atol=1e-4)
