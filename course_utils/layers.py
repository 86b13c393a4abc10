"""The layers of a network in one forward pass: which are maps, which of them is the last, what enters a ReLU."""

import contextlib
import weakref
from collections import Counter
from typing import NamedTuple

import torch
from torch import nn

from .hooks import (
    INPUT,
    check_pictures,
    evaluation_mode,
    forward,
    hang,
    home,
    layer_name,
    layer_names,
    leaf,
    record,
)

_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_PASSING_ON = (nn.Dropout, nn.Dropout2d, nn.Identity)      # in evaluation mode their output is their input
_NORMALIZATIONS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d)
_known = weakref.WeakKeyDictionary()      # model -> (its structure, {picture size: Layers})


class Call(NamedTuple):
    """One call of a module: its name, itself, the module that gave its input (or None), its output."""

    name: str
    module: nn.Module
    source: str | None
    output: object


class Layers(NamedTuple):
    """What one forward pass tells about the layers of a network, without its tensors.

    times: name → number of calls. source: name → the module whose output enters the last call, or None where no
    module gave it (a sum). shapes: name → shape of the output. maps: names with an output `(N, C, h, w)`. menu: those
    to choose from, called once, with several positions, no pooling or dropout; a container stands before what is
    inside it. last: the last spatial layer, or None, and then `why` says why there is none.
    """

    times: Counter
    source: dict
    shapes: dict
    maps: set
    menu: list
    last: str | None
    why: str


def layers_of(model, x=None):
    """The `Layers` of a network for pictures of the size of x (without x: 224 by 224), remembered for each size."""
    if x is not None:
        check_pictures(model, x)
    size = None if x is None else tuple(x.shape[2:])
    structure = tuple((name, id(module)) for name, module in model.named_modules())
    before, found = _known.get(model, (None, None))
    if before != structure:      # a model not seen yet, or a part of it was exchanged
        found = {}
        _known[model] = structure, found
    if size not in found:
        found[size] = _layers(model, *_watched(model, x))
    return found[size]


def last_spatial_layer(model, x=None):
    """Name of the last module before the classifier head whose output `(N, C, h, w)` has several positions.

    x: a preprocessed batch to probe the network with; without it, a black picture of 224 by 224. Pooling,
    dropout and the head itself do not count, nor do layers of one channel or layers that the scores do not
    depend on. Where several modules give the same tensor the outermost is named, but not a container of the
    whole trunk. The answer is remembered per model and picture size.

    Raises ValueError for a network without such a layer, and where its features are tokens or channels-last.
    """
    layers = layers_of(model, x)
    if layers.last is None:
        raise ValueError(layers.why)
    return layers.last


def spatial_layer(model, x, layer=None):
    """The dotted name of a layer that can be read as maps, channels first, one row a picture.

    layer: a module or its dotted name; None for the last spatial layer. Raises ValueError for any other layer.
    """
    if layer is None:
        return last_spatial_layer(model, x)
    name, layers = layer_name(model, layer), layers_of(model, x)
    if name in layers.shapes and name not in layers.maps:
        raise ValueError(f"layer {name!r} gives {layers.shapes[name]}; accepted is a layer with maps (N, C, h, w), "
                         f"channels first, one row a picture, such as one of {layers.menu[-5:]}")
    return name


def entering(model, layer, x=None):
    """Name under which `record` finds what enters a layer at its last call.

    The module whose output it is; where no module gives it, as after a sum, the layer's name and ":input".
    """
    name = layer_name(model, layer)
    source = layers_of(model, x).source.get(name)
    return source if source else name + INPUT


class _Reached(BaseException):
    """Everything that was asked for is recorded: the rest of the network need not run."""


def run_to(model, x, *layers):
    """The outputs of layers for x, as a `Recording`; what comes after the last of them is not computed.

    x and layers as in `record`, whose errors are raised. A layer that is called several times gives its last
    output. Call it inside `evaluation_mode`.
    """
    names = list(dict.fromkeys(layer_name(model, layer) for layer in layers))
    times = layers_of(model, x).times
    due = Counter({name: times[name.removesuffix(INPUT)] for name in names})
    with record(model, *names) as recording, contextlib.ExitStack() as stack:
        def stop(name):
            due[name] -= 1
            if not +due:
                raise _Reached

        for name in names:
            stack.callback(hang(model, name, lambda *_, name=name: stop(name)).remove)
        with contextlib.suppress(_Reached):
            forward(model, x)
    for name, outputs in recording.items():
        recording[name] = outputs[-1] if isinstance(outputs, list) else outputs
    return recording


def _watched(model, x):
    """Every call of a forward pass in the order in which the calls end, and the network's output."""
    if x is None:
        device, dtype = home(model)
        x = torch.zeros(1, 3, 224, 224, device=device, dtype=dtype)
    calls, given, entered = [], {}, {}

    def before(name, inputs):
        # The same tensor at the same version: an in-place layer or sum in between makes it another one.
        tensor = inputs[0] if inputs and isinstance(inputs[0], torch.Tensor) else None
        entered[name] = None if tensor is None else given.get((id(tensor), tensor._version))

    def after(name, module, output):
        if isinstance(output, torch.Tensor):
            given.setdefault((id(output), output._version), name)
        calls.append(Call(name, module, entered[name], output))

    with contextlib.ExitStack() as stack:
        stack.enter_context(evaluation_mode(model))
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_pre_hook(
                    lambda module, inputs, name=name: before(name, inputs)).remove)
                stack.callback(module.register_forward_hook(
                    lambda module, inputs, output, name=name: after(name, module, output)).remove)
        return calls, forward(model, leaf(x[:1]))


def _layers(model, calls, output):
    times = Counter(call.name for call in calls)
    maps = [call for i, call in enumerate(calls) if _is_map(call.output) and not _is_channels_last(calls, i)]
    menu = {call.name for call in maps if times[call.name] == 1 and call.output[0, 0].numel() > 1
            and not isinstance(call.module, _POOLING + _PASSING_ON)}
    try:
        last, why = _last_spatial_layer(model, calls, output), ""
    except ValueError as error:
        last, why = None, str(error)
    return Layers(
        times, {call.name: call.source for call in calls},
        {call.name: tuple(call.output.shape) for call in calls if isinstance(call.output, torch.Tensor)},
        {call.name for call in maps}, [name for name in layer_names(model) if name in menu], last, why)


def _is_map(output):
    return isinstance(output, torch.Tensor) and output.dim() == 4 and len(output) == 1


def _last_spatial_layer(model, calls, output):
    """Three steps: the body without the head; the last map in it that the scores depend on; its best name."""
    weighted = [call for call in calls if any(p is not None for p in call.module._parameters.values())]
    body = _without_head(calls, weighted, output)
    maps = _maps_of_the_score(body, output)
    if not weighted or not maps:
        raise ValueError(
            f"{type(model).__name__} has no layer with a spatial output (N, C, h, w) before its classifier: "
            "name one yourself with layer="
        )
    tensor = maps[-1].output
    last = max(i for i, call in enumerate(calls) if call.output is tensor)
    _refuse_transformers(type(model).__name__, calls, last)
    return _outermost_name([call for call in maps if call.output is tensor], weighted[0].name)


def _without_head(calls, weighted, output):
    """The calls before the classifier head: the last layer with parameters, where it gives one value for each class."""
    if not weighted or not isinstance(output, torch.Tensor) or output.dim() < 2:
        return calls
    last = weighted[-1].output
    if not isinstance(last, torch.Tensor) or last.dim() < 2 or output.shape[1] not in (last.shape[1], last.shape[-1]):
        return calls      # the head has no parameters of its own, or they are in no module
    head = _head([call.name for call in weighted])
    return calls[:next(i for i, call in enumerate(calls) if _is_inside(call.name, head))]


def _head(weighted):
    """The container of the last layer with parameters, as far out as possible without taking in the trunk."""
    prefix = ""
    while True:
        children = dict.fromkeys(_child(name, prefix) for name in weighted if name.startswith(prefix))
        last = _child(weighted[-1], prefix)
        if len(children) > 1 or last == weighted[-1]:
            return last
        prefix = last + "."


def _maps_of_the_score(body, output):
    """Calls that give maps of several channels and positions, not pooled, not passed on, on the way to the output."""
    pooled = [call.output for call in body if isinstance(call.module, _POOLING)]
    maps = [call for call in body if _is_map(call.output) and call.output.shape[1] > 1 and call.output[0, 0].numel() > 1
            and not isinstance(call.module, _PASSING_ON) and not any(call.output is other for other in pooled)]
    if not isinstance(output, torch.Tensor) or not output.requires_grad:
        return maps      # there is no telling what it depends on
    alive = [call for call in maps if call.output.requires_grad]
    try:
        slopes = torch.autograd.grad(output.sum(), [call.output for call in alive], allow_unused=True) if alive else ()
    except RuntimeError:      # a network that takes no gradients: it is told where one is asked for
        return maps
    return [call for call, slope in zip(alive, slopes, strict=True) if slope is not None]


def _refuse_transformers(model, calls, last):
    """Raise ValueError where the features of the last map, or what comes after, are no maps with channels first."""
    name = calls[last].name
    choose = "Choose a convolutional network, or name a layer yourself with layer="
    if _is_channels_last(calls, last):
        shape = tuple(calls[last].output.shape)
        raise ValueError(f"{model} gives its features channels-last: {shape} at {name!r}, not (N, C, h, w). {choose}")
    for call in calls[last + 1:]:
        tokens = isinstance(call.output, torch.Tensor) and call.output.dim() == 3 and call.output.shape[1] > 1
        if isinstance(call.module, nn.MultiheadAttention) or tokens and _width(call.module):
            raise ValueError(
                f"{model} is a transformer: after {name!r} its features are rows of tokens, not maps (N, C, h, w). "
                + choose
            )


def _is_channels_last(calls, i):
    """Whether an output `(N, a, b, c)` holds c features at a by b positions.

    It does where a layer that acts on the last axis gave it, or where the next such layer is as wide as that axis
    and not as wide as the axis of channels.
    """
    channels, features = calls[i].output.shape[1], calls[i].output.shape[3]
    if isinstance(calls[i].module, nn.Linear):
        return True
    width = next((width for call in calls[i:] if (width := _width(call.module))), None)
    return width == features != channels


def _width(module):
    """How many features a layer that acts on the last axis takes; None for other layers."""
    if isinstance(module, nn.Linear):
        return module.in_features
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        return module.normalized_shape[0]
    return None


def _outermost_name(same, first):
    """Of calls that give the same tensor the outermost one, but no container of the first layer with parameters."""
    stages = [call.name for call in same
              if not _is_inside(first, call.name) and not isinstance(call.module, _NORMALIZATIONS)]
    candidates = stages or [call.name for call in same]
    shallowest = min(name.count(".") for name in candidates)
    return [name for name in candidates if name.count(".") == shallowest][-1]


def _child(name, prefix):
    return prefix + name[len(prefix):].split(".")[0]


def _is_inside(name, container):
    return name == container or name.startswith(f"{container}.")
