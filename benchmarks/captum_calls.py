"""The course's attribution techniques and attacks as Captum calls them: `CALLS[name](model, x, target, batch_size)`.

Each gives what our function of the same name gives, where the two are defined alike. batch_size=None leaves Captum's
own default, which for averages over many passes is all of them at once.
"""

import copy
import warnings
from unittest.mock import patch

import captum.attr
import captum.robust
import torch
from torch import nn

from course_utils import last_spatial_layer, to_image, to_input


def vanilla_gradient(model, x, target, batch_size=None):
    return captum.attr.Saliency(model).attribute(x.detach().requires_grad_(), target=target, abs=False)


def without_inplace(model):
    """A copy that Captum's backward hooks accept: they refuse ReLUs that work in place, and know no ReLU6.

    A ReLU6 becomes what it is by definition, the ReLU of min(f, 6): Captum's rule then acts on that ReLU.
    """
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, nn.Sequential(nn.Hardtanh(-torch.inf, 6), nn.ReLU()))
            elif isinstance(child, nn.ReLU):
                child.inplace = False
    return model


def guided_backprop(model, x, target, batch_size=None):
    return _quietly(captum.attr.GuidedBackprop(model), x, target)


def deconvnet(model, x, target, batch_size=None):
    return _quietly(captum.attr.Deconvolution(model), x, target)


def _quietly(method, x, target):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")      # Captum says on every call that it sets hooks
        return method.attribute(x.detach().requires_grad_(), target=target)


def smooth_grad(model, x, target, batch_size=None):
    with patch("torch.normal", Noise(x).next):
        return captum.attr.NoiseTunnel(captum.attr.Saliency(model)).attribute(
            x.detach().requires_grad_(), nt_type="smoothgrad", nt_samples=50, nt_samples_batch_size=batch_size,
            stdevs=float(0.15 * (x.max() - x.min())), target=target, abs=False,
        )


class Noise:
    """The noise pictures of our `smooth_grad`, in their order, in the place of Captum's own draws."""

    def __init__(self, x, seed=0):
        self.shape, self.generator = x.shape[1:], torch.Generator().manual_seed(seed)

    def next(self, mean, std):
        pictures = [torch.randn(self.shape, generator=self.generator) for _ in range(len(std))]
        return mean + std * torch.stack(pictures).to(std)


def integrated_gradients(model, x, target, batch_size=None):
    return captum.attr.IntegratedGradients(model).attribute(
        x, target=target, n_steps=50, method="gausslegendre", internal_batch_size=batch_size,
    )


def grad_times_image(model, x, target, batch_size=None):
    return captum.attr.InputXGradient(model).attribute(x.detach().requires_grad_(), target=target)


def grad_cam(model, x, target, batch_size=None):
    layer = model.get_submodule(last_spatial_layer(model))
    return captum.attr.LayerGradCam(model, layer).attribute(x, target=target).relu()


def hires_cam(model, x, target, batch_size=None):
    layer = model.get_submodule(last_spatial_layer(model))
    products = captum.attr.LayerGradientXActivation(model, layer).attribute(x, target=target)
    return products.sum(dim=1, keepdim=True).relu()


def guided_grad_cam(model, x, target, batch_size=None):
    layer = model.get_submodule(last_spatial_layer(model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return captum.attr.GuidedGradCam(model, layer).attribute(
            x.detach().requires_grad_(), target=target, interpolate_mode="bilinear",
        )


def fast_gradient_sign(model, x, target, batch_size=None, targeted=False):
    return _perturbed(captum.robust.FGSM, model, x, target, epsilon=2 / 255, targeted=targeted)


def projected_gradient(model, x, target, batch_size=None, targeted=False, steps=10):
    return _perturbed(captum.robust.PGD, model, x, target, radius=2 / 255, step_size=5 / 255 / steps, step_num=steps,
                      targeted=targeted)


def _perturbed(attack, model, x, target, **options):
    """Captum steps in the units of its input: it gets pixels, and a network that takes pixels."""
    method = attack(lambda image: model(to_input(image, model)), nn.CrossEntropyLoss(reduction="none"), 0, 1)
    target = torch.as_tensor(target, device=x.device).expand(len(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")      # Captum says at each step that the picture needed no gradient before
        return to_input(method.perturb(to_image(x, model), target=target, **options), model).detach()


CALLS = {
    function.__name__: function
    for function in (
        vanilla_gradient, guided_backprop, deconvnet, smooth_grad, integrated_gradients, grad_times_image, grad_cam,
        hires_cam, guided_grad_cam, fast_gradient_sign, projected_gradient,
    )
}
