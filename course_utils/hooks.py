"""Watch and change what happens inside a network, and leave it as it was found.

Everything here is a context manager: what it attaches is taken off when the `with` block ends, also when
it ends in an exception or an interrupt.
"""

import contextlib
import difflib
import functools
import threading
import weakref
from collections import Counter

import torch
from torch import nn

_locks = weakref.WeakKeyDictionary()      # one lock per model: a slider's thread and a cell must not mix
_spatial_layers = weakref.WeakKeyDictionary()
_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_PASSING_ON = (nn.Dropout, nn.Dropout2d, nn.Identity)      # in evaluation mode their output is their input
_NORMALIZATIONS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d)


@contextlib.contextmanager
def evaluation_mode(model):
    """Hold a model in evaluation mode with frozen parameters, gradients enabled, for one thread at a time.

    Training flags, `requires_grad` and `.grad` of every parameter are restored at the end. Parameters are
    frozen because the techniques need gradients of activations only: that saves a third of a backward
    pass. A no_grad or inference_mode around the block does not reach into it. Re-entrant, so a technique
    may call another one.
    """
    with _locks.setdefault(model, threading.RLock()):
        # Only what has to change is touched: a prepared model costs next to nothing here.
        training = [module for module in model.modules() if module.training]
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        try:
            for module in training:
                module.training = False
            for parameter in trainable:
                parameter.requires_grad_(False)
            with torch.inference_mode(False), torch.enable_grad():
                yield model
        finally:
            for module in training:
                module.training = True
            for parameter in trainable:
                parameter.requires_grad_(True)


class Recording(dict):
    """Outputs of the watched layers by dotted name; a module works as a key too.

    A layer that was called several times holds the list of its outputs, in order.
    """

    def __init__(self, model):
        super().__init__()
        self._names = {module: name for name, module in model.named_modules()}

    def __missing__(self, key):
        name = self._names.get(key, key) if isinstance(key, nn.Module) else key
        if name in self:
            return self[name]
        raise KeyError(f"no output of layer {name!r} was recorded: recorded so far {sorted(self)}")

    def spatial(self, layer):
        """The output `(N, C, h, w)` of a layer; of its last call, where it was called several times.

        Raises ValueError for an output of another shape.
        """
        output = self[layer]
        output = output[-1] if isinstance(output, list) else output
        if output.dim() != 4:
            raise ValueError(f"layer {layer!r} gives {tuple(output.shape)}; accepted is a layer with (N, C, h, w)")
        return output

    def _add(self, name, output):
        if name not in self:
            self[name] = output
        elif isinstance(self[name], list):
            self[name].append(output)
        else:
            self[name] = [self[name], output]


@contextlib.contextmanager
def record(model, *layers):
    """Record the outputs of layers while the block runs, each still in the autograd graph.

    layers: modules or dotted names. Yields a `Recording`: after a forward pass `recording[layer]` is the
    layer's output, whatever its shape, or the list of outputs of a layer called several times. The network
    itself goes on with a clone, so a later in-place layer cannot overwrite what was recorded. Where nothing
    before the layer requires gradients (frozen parameters, plain input), the recorded output does: the
    graph then begins at the layer, and a backward pass stops there.

    Raises ValueError for an unknown layer (naming the nearest) and for a layer that does not give one
    tensor.
    """
    names = [layer_name(model, layer) for layer in layers]
    recording = Recording(model)

    def keep(name):
        def hook(module, inputs, output):
            if not isinstance(output, torch.Tensor):
                raise ValueError(
                    f"layer {name!r} gives a {type(output).__name__}, not one tensor: "
                    f"record a layer inside it, for instance one of {_inside(model, name)}"
                )
            if torch.is_grad_enabled() and not output.requires_grad:
                output = output.detach().requires_grad_()
            recording._add(name, output)
            return output.clone()
        return hook

    with contextlib.ExitStack() as stack:
        for name in dict.fromkeys(names):
            handle = model.get_submodule(name).register_forward_hook(keep(name))
            stack.callback(handle.remove)
        yield recording


def forward(model, x):
    """The network's output for x, which an in-place first layer spares. Raises ValueError for too small a picture."""
    try:
        return model(x.clone())
    except RuntimeError as error:
        if "too small" in str(error) or "Kernel size can't be greater" in str(error):
            size = "×".join(map(str, x.shape[2:]))
            raise ValueError(f"pictures of {size} are too small for this {type(model).__name__}: {error}") from error
        raise


class _Reached(Exception):
    """Everything that was asked for is recorded: the rest of the network need not run."""


def run_to(model, x, *layers):
    """The outputs of layers for x, as a `Recording`; what comes after the last of them is not computed.

    x and layers as in `record`, whose errors are raised. A layer that is called several times gives its first
    output. Call it inside `evaluation_mode`.
    """
    names = {layer_name(model, layer) for layer in layers}
    with record(model, *names) as recording, contextlib.ExitStack() as stack:
        def stop(module, inputs, output):
            if len(recording) == len(names):
                raise _Reached

        for name in names:
            stack.callback(model.get_submodule(name).register_forward_hook(stop).remove)
        with contextlib.suppress(_Reached):
            forward(model, x)
    return recording


class _RuledReLU(torch.autograd.Function):
    """A ReLU whose backward pass is `rule(f, R)`; with a ceiling, as ReLU6 has, only where f is below it."""

    @staticmethod
    def forward(ctx, f, rule, ceiling):
        ctx.rule, ctx.ceiling = rule, ceiling
        ctx.save_for_backward(f)
        return f.clamp(0, ceiling)

    @staticmethod
    def backward(ctx, R):
        f, = ctx.saved_tensors
        below = ctx.rule(f, R)
        return below if ctx.ceiling is None else below * (f < ctx.ceiling), None, None


@contextlib.contextmanager
def relu_rule(model, rule):
    """Replace the backward rule of every ReLU and ReLU6 module by `rule(f, R)` while the block runs.

    f: the ReLU's input; R: the signal from above, of the same shape; the rule returns the signal below. A ReLU6 is
    closed from 6 on as well: there the signal below is 0, whatever the rule.
    Acts on each call of a ReLU, so modules that are used several times or in place are safe: the input is
    kept apart and nothing is overwritten. The forward pass is unchanged. Nested blocks: the inner rule
    counts. Other activations, and ReLUs called as functions, keep their own backward rule.

    Raises ValueError for a network without a ReLU module, and in a forward pass whose gradient meets none.
    """
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU | nn.ReLU6)]
    if not relus:
        raise ValueError(_why_no_relu(model))
    met = []      # the ReLUs of a forward pass that the gradient will come through

    def ruled(ceiling, input):
        met.append(input.requires_grad)
        return _RuledReLU.apply(input, rule, ceiling)

    def check(module, inputs, output):
        if isinstance(output, torch.Tensor) and output.requires_grad and met and not any(met):
            raise ValueError(
                f"the gradient of this {type(model).__name__} comes through none of its {len(relus)} nn.ReLU "
                "modules: the rule would change nothing"
            )
        met.clear()

    with _locks.setdefault(model, threading.RLock()):
        before = [(relu, relu.__dict__.get("forward")) for relu in relus]
        handle = model.register_forward_hook(check)
        try:
            for relu in relus:
                relu.forward = functools.partial(ruled, 6 if isinstance(relu, nn.ReLU6) else None)
            yield model
        finally:
            handle.remove()
            for relu, forward in before:
                relu.__dict__.pop("forward", None)
                if forward is not None:
                    relu.forward = forward


class Passes:
    """How many pictures went through a model, `forward` and `backward`."""

    def __init__(self):
        self.forward = 0
        self.backward = 0


@contextlib.contextmanager
def count_passes(model):
    """Count the pictures that go forward and backward through a model while the block runs.

    Yields a `Passes`. A batch of 8 counts as 8.
    """
    passes = Passes()

    def count(module, inputs, output):
        rows = len(output)
        passes.forward += rows
        if output.requires_grad:
            def backward(gradient):
                passes.backward += rows
            output.register_hook(backward)

    handle = model.register_forward_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


def layer_names(model):
    """Dotted names of all modules inside a model, in the order in which they were defined."""
    return [name for name, _ in model.named_modules() if name]


def layer_name(model, layer):
    """The dotted name of a layer given as a module of the model or as its name.

    Raises ValueError for a layer that the model does not have, naming the nearest ones.
    """
    if isinstance(layer, nn.Module):
        for name, module in model.named_modules():
            if module is layer:
                return name
        raise ValueError(f"this {type(layer).__name__} module is not part of the {type(model).__name__}")
    names = layer_names(model)
    if layer not in names:
        near = difflib.get_close_matches(str(layer), names, n=5, cutoff=0.3) or names[-5:]
        raise ValueError(f"no layer {layer!r} in {type(model).__name__}; the nearest names are {near}")
    return layer


def last_spatial_layer(model, x=None):
    """Name of the last module before the classifier head whose output `(N, C, h, w)` has several positions.

    x: a preprocessed batch to probe the network with; without it, a black picture of 224 by 224. Pooling,
    dropout and the head itself do not count. Where several modules give the same tensor the outermost is
    named, but not a container of the whole trunk. The answer is remembered per model and picture size.

    Raises ValueError for a network without such a layer, and for a transformer, whose features are no maps.
    """
    size = None if x is None else tuple(x.shape[2:])
    structure = tuple((name, id(module)) for name, module in model.named_modules())
    before, found = _spatial_layers.get(model, (None, None))
    if before != structure:      # a model not seen yet, or a part of it was exchanged
        found = {}
        _spatial_layers[model] = structure, found
    if size not in found:
        found[size] = _find_last_spatial_layer(model, x)
    return found[size]


def spatial_layers(model, x=None):
    """Names of the layers that can be watched as maps: called once, with an output `(N, C, h, w)`, h·w > 1.

    x: as in `last_spatial_layer`. Pooling, dropout and the like are left out. The order is that of the
    definitions, so that a container stands before what is inside it.
    """
    calls = _probe(model, x)
    times = Counter(name for name, _, _ in calls)
    spatial = {name for name, module, output in calls if _is_spatial(output) and times[name] == 1
               and not isinstance(module, _POOLING + _PASSING_ON)}
    return [name for name in layer_names(model) if name in spatial]


def _probe(model, x):
    """(name, module, output) of every call in a forward pass, in the order in which the calls end."""
    if x is None:
        parameter = next(model.parameters(), torch.empty(0))
        x = torch.zeros(1, 3, 224, 224, device=parameter.device, dtype=parameter.dtype)
    calls = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(torch.no_grad())
        for name, module in model.named_modules():
            if name:
                hook = lambda module, inputs, output, name=name: calls.append((name, module, output))
                stack.callback(module.register_forward_hook(hook).remove)
        forward(model, x[:1])
    return calls


def _is_spatial(output):
    return isinstance(output, torch.Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1


def _find_last_spatial_layer(model, x):
    calls = _probe(model, x)
    weighted = [name for name, module, _ in calls if len(module._parameters)]
    head = _head(weighted) if weighted else None
    end = next((i for i, (name, _, _) in enumerate(calls) if _is_inside(name, head)), len(calls))
    body = calls[:end]
    pooled = [output for _, module, output in body if isinstance(module, _POOLING)]
    spatial = [
        (name, module, output) for name, module, output in body
        if _is_spatial(output) and not isinstance(module, _PASSING_ON)
        and not any(output is other for other in pooled)
    ]
    if not weighted or not spatial:
        raise ValueError(
            f"{type(model).__name__} has no layer with a spatial output (N, C, h, w) before its classifier: "
            "name one yourself with layer="
        )
    last = max(i for i, (_, _, output) in enumerate(body) if output is spatial[-1][2])
    if any(isinstance(module, nn.MultiheadAttention) for _, module, _ in calls[last:]):
        raise ValueError(
            f"{type(model).__name__} is a transformer: after {spatial[-1][0]!r} its features are rows of tokens, not "
            "maps (N, C, h, w). Choose a convolutional network, or name a layer yourself with layer="
        )
    same = [(name, module) for name, module, output in spatial if output is spatial[-1][2]]
    stages = [
        name for name, module in same
        if not _is_inside(weighted[0], name) and not isinstance(module, _NORMALIZATIONS)
    ]
    candidates = stages or [name for name, _ in same]
    shallowest = min(name.count(".") for name in candidates)
    return [name for name in candidates if name.count(".") == shallowest][-1]


def _head(weighted):
    """The container of the last layer with parameters, as far out as possible without taking in the trunk."""
    prefix = ""
    while True:
        children = dict.fromkeys(_child(name, prefix) for name in weighted if name.startswith(prefix))
        last = _child(weighted[-1], prefix)
        if len(children) > 1 or last == weighted[-1]:
            return last
        prefix = last + "."


def _child(name, prefix):
    return prefix + name[len(prefix):].split(".")[0]


def _is_inside(name, container):
    return name == container or name.startswith(f"{container}.")


def _inside(model, name):
    inner = [f"{name}.{child}" for child in layer_names(model.get_submodule(name))]
    return inner[:5] or "(it has none)"


def _why_no_relu(model):
    kinds = [type(module) for module in model.modules()]
    activations = Counter(kind.__name__ for kind in kinds if kind.__module__ == "torch.nn.modules.activation")
    found = ", ".join(f"{count} {name}" for name, count in activations.items()) or "no activation modules at all"
    return (
        f"{type(model).__name__} has no nn.ReLU module (found: {found}). Guided backprop and the deconvnet change "
        "the backward rule of ReLUs: on another activation they are not defined, and a ReLU called as a function "
        "(torch.relu, F.relu) cannot be reached. Choose a network with ReLU modules, such as squeezenet1_1, "
        "efficientnet_lite0 or resnet18, or replace the functional calls by nn.ReLU modules."
    )
