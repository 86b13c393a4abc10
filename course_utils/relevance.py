"""Hand a score down through a network, layer by layer: the plumbing of layer-wise relevance propagation.

The rules are in notebook 17. What enters a ReLU leaves it on the way down as it is; a maximum, and whatever only moves
values, is left to autograd, which sends everything to where the value came from.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode

from .hooks import RELUS, NetworkError, forward_under, layer_name, lock
from .layers import layers_of

_AVERAGES = {"avg_pool2d", "adaptive_avg_pool2d", "mean", "sum"}
# Nodes of autograd that hand on what they get: what only moves values, maxima, and the clone of a recorded layer.
_MOVING = {
    "AccumulateGrad", "AdaptiveMaxPool2D", "Alias", "AsStrided", "Cat", "Clone", "ConstantPadNd", "Copy", "CopySlices",
    "Expand", "MaxPool2DWithIndices", "Permute", "ReshapeAlias", "Select", "Slice", "Split", "SplitWithSizes",
    "Squeeze", "Stack", "T", "Transpose", "Unbind", "UnsafeSplit", "UnsafeView", "Unsqueeze", "View",
    "_PassedOn", "_Shared",
}


class Layer(NamedTuple):
    """What a rule sees of a layer: `layer(a, w)` gives its outputs for inputs a and weights w, without the bias.

    A BatchNorm after a convolution is in its weight and bias. Without a bias, bias is a zero; for an average or a sum
    the weight is None.
    """

    weight: torch.Tensor | None
    bias: torch.Tensor
    apply: Callable

    def __call__(self, a, w):
        return self.apply(a, w)


def linear_layers(model, x=None):
    """The convolutions and linear layers of a network, name → module, in the order in which they are called for x.

    Raises ValueError for a network without any, and as `layers_of` does for a wrong x.
    """
    modules = {name: model.get_submodule(name) for name in layers_of(model, x).times}
    layers = {name: module for name, module in modules.items() if _is_linear(module)}
    if not layers:
        raise NetworkError(f"this {type(model).__name__} calls no Conv2d and no Linear module, to which a rule belongs")
    return layers


def _is_linear(module):
    return type(module).forward in (nn.Conv2d.forward, nn.Linear.forward)      # no subclass that does something else


@contextlib.contextmanager
def layer_rules(model, rules, averages):
    """On the way back through a model, hand relevance down by rules while the block runs.

    rules: layer → `rule(layer, a, R)`, which gets a `Layer`, its inputs a and the relevance R of its outputs, and
    returns that of its inputs, of a's shape. averages: the rule of averages and sums, whose terms are stacked in a's
    first dimension. ReLUs hand on what they get. The forward pass is unchanged; the gradient with respect to any
    recorded layer, taken inside `evaluation_mode`, is its relevance.

    Raises ValueError for an unknown layer, and in a forward pass for a network in which something has no rule.
    """
    def hand_down(rule, module, inputs, output):
        if inputs and inputs[0].requires_grad:
            result = _Shared.apply(lambda a: output.detach(), rule, _layer(module), inputs[0])
            result.made_by = module, rule, inputs[0], result._version      # for a BatchNorm that comes next
            return result

    def fold(norm, inputs, output):
        module, rule, a, version = getattr(inputs[0], "made_by", (None, None, None, None))
        if module is not None and version == inputs[0]._version and not norm.training and norm.running_mean is not None:
            return _Shared.apply(lambda a: output.detach(), rule, _layer(module, norm), a)

    with lock(model), contextlib.ExitStack() as stack:
        for layer, rule in rules.items():
            module = model.get_submodule(layer_name(model, layer))
            if not _is_linear(module):
                raise ValueError(f"layer {layer!r} is a {type(module).__name__}; rules are for Conv2d and Linear")
            hook = module.register_forward_hook(
                lambda module, inputs, output, rule=rule: hand_down(rule, module, inputs, output), prepend=True)
            stack.callback(hook.remove)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                stack.callback(module.register_forward_hook(fold, prepend=True).remove)
        stack.enter_context(forward_under(model, _Propagation(averages), _check_graph))
        yield model


def _layer(module, norm=None):
    w = module.weight.detach()
    b = w.new_zeros(len(w)) if module.bias is None else module.bias.detach()
    if norm is not None:
        w, b = (tensor.detach() for tensor in fuse_conv_bn_weights(
            w, b, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias))
    if isinstance(module, nn.Linear):
        return Layer(w, b, nn.functional.linear)
    return Layer(w, b[:, None, None], lambda a, w: module._conv_forward(a, w, None))


class _Shared(torch.autograd.Function):
    """A linear function of one tensor, whose backward pass is a rule."""

    @staticmethod
    def forward(ctx, value, rule, layer, a):
        ctx.rule, ctx.layer = rule, layer
        ctx.save_for_backward(a)
        return value(a)

    @staticmethod
    def backward(ctx, R):
        with torch.enable_grad():      # rules may use autograd
            return None, None, None, ctx.rule(ctx.layer, *ctx.saved_tensors, R).detach()


class _PassedOn(torch.autograd.Function):
    """A ReLU, cut off at a ceiling, whose backward pass changes nothing."""

    @staticmethod
    def forward(ctx, f, ceiling, inplace):
        if not inplace:
            return f.clamp(0, ceiling)
        ctx.mark_dirty(f)
        return f.clamp_(0, ceiling)

    @staticmethod
    def backward(ctx, R):
        return R, None, None


class _Propagation(TorchFunctionMode):
    """Gives ReLUs, averages and sums of two tensors, in modules or not, their way back."""

    def __init__(self, averages):
        super().__init__()
        self.averages = averages

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        kind = name.strip("_")
        relu = RELUS[kind](*args, **kwargs) if kind in RELUS else None
        if relu and relu[0].requires_grad:
            f, ceiling, inplace = relu
            return _PassedOn.apply(f, ceiling, inplace or name.endswith("_"))
        if kind in _AVERAGES and args and args[0].requires_grad:
            return self.shared(lambda a: function(a, *args[1:], **kwargs), args[0])
        if kind == "add" and not kwargs and _are_terms(args):
            total = self.shared(lambda a: a.sum(dim=0), torch.stack(args))
            return args[0].copy_(total) if name.endswith("_") else total
        return function(*args, **kwargs)

    def shared(self, function, a):
        return _Shared.apply(function, self.averages, Layer(None, a.new_zeros(()), lambda a, w: function(a)), a)


def _are_terms(args):
    return all(isinstance(a, torch.Tensor) and a.requires_grad and a.shape == args[0].shape for a in args)


def _check_graph(model, nodes_on_the_way, mode):
    kinds = [re.sub(r"^.*:|Backwards?\d*$", "", node.name()) for node in nodes_on_the_way]
    unknown = Counter(kind for kind in kinds if kind not in _MOVING)
    if unknown:
        met = ", ".join(f"{count} {kind}" for kind, count in unknown.items())
        raise NetworkError(
            f"relevance cannot be handed down through this {model}: there is no rule for {met}. There are rules for "
            "Conv2d (with a BatchNorm after it) and Linear modules named in the table, ReLUs, maxima, averages and "
            "sums: choose a network of these, such as squeezenet1_1, vgg16 or resnet18")
