"""Watch and change what happens inside a network, and leave it as it was found.

Whatever attaches or changes something is a context manager: it is put back when the `with` block ends, also when
it ends in an exception or an interrupt.
"""

import contextlib
import difflib
import threading
import time
import warnings
import weakref
from collections import Counter
from itertools import chain

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_locks = weakref.WeakKeyDictionary()      # one lock per model: a slider's thread and a cell must not mix
_held = weakref.WeakSet()                 # models in evaluation mode, each by the thread that has its lock
INPUT = ":input"      # after a layer's name: what enters it, not what it gives


def lock(model):
    """The model's re-entrant lock, to be held while hooks hang on it."""
    return _locks.setdefault(model, threading.RLock())


class NetworkError(ValueError, RuntimeError):
    """What went wrong inside a network, in one sentence: for torch a RuntimeError, for the caller a wrong value."""


@contextlib.contextmanager
def evaluation_mode(model):
    """Hold a model in evaluation mode with frozen parameters, gradients enabled, for one thread at a time.

    Training flags, `requires_grad` and `.grad` of every parameter are restored at the end. Parameters are
    frozen because the techniques need gradients of activations only: that saves a third of a backward
    pass. A no_grad or inference_mode around the block does not reach into it. Re-entrant, so a technique
    may call another one.

    Raises ValueError for a network that cannot be watched or gives no gradients: TorchScript, quantized, made in
    inference mode.
    """
    with lock(model), contextlib.ExitStack() as stack:
        if model not in _held:      # only what has to change is touched: a prepared model costs next to nothing here
            modules = list(model.modules())
            check_modules(model, modules)
            training = [module for module in modules if module.training]
            trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
            stack.callback(_restore, model, training, trainable)
            _held.add(model)
            for module in training:
                module.training = False
            for parameter in trainable:
                parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield model


def _restore(model, training, trainable):
    _held.discard(model)
    for module in training:
        module.training = True
    for parameter in trainable:
        parameter.requires_grad_(True)


def check_modules(model, modules):
    """Raise ValueError for a model whose modules cannot be watched or give no gradients."""
    instead = "give the float network that it was made of"
    for module in modules:
        if isinstance(module, torch.jit.ScriptModule):
            raise NetworkError(f"this {module.original_name} is TorchScript, whose layers cannot be watched: {instead}")
        if ".quantized" in type(module).__module__:
            raise NetworkError(f"this {type(model).__name__} is quantized and has no gradients: {instead}")
        if any(parameter is not None and parameter.is_inference() for parameter in module._parameters.values()):
            raise NetworkError(f"the parameters of this {type(model).__name__} were made in torch.inference_mode, "
                               "which allows no gradients: make the network, or a deepcopy of it, outside")


def forward(model, x):
    """The network's output for pictures x, which an in-place first layer spares.

    x: float `(N, 3, H, W)` of the model's kind, on its device. Call it inside `evaluation_mode`.
    Raises ValueError for another x, and with the network's own words where it does not take such pictures.
    """
    check_pictures(model, x)
    try:
        return model(x.clone())
    except NetworkError:
        raise
    except (RuntimeError, AssertionError) as error:
        size = "×".join(map(str, x.shape))
        raise NetworkError(f"this {type(model).__name__} fails on pictures {size}: {_first_line(error)}") from error


def check_pictures(model, x):
    """Raise ValueError unless x is a float tensor `(N, 3, H, W)` of the model's kind, on its device."""
    if not isinstance(x, torch.Tensor):
        raise ValueError(f"x is a {type(x).__name__}; accepted is a tensor (N, 3, H, W), as preprocess gives it")
    if x.dim() != 4 or x.shape[1] != 3 or 0 in x.shape or not x.is_floating_point():
        raise ValueError(f"x is {tuple(x.shape)} of {x.dtype}; accepted is a float tensor (N, 3, H, W)")
    device, dtype = home(model, x)
    if device != x.device:
        raise ValueError(f"x is on {x.device}, the model on {device}: move one with .to(…)")
    if dtype != x.dtype:
        raise ValueError(f"x is {x.dtype}, the model {dtype}: convert one with .to(…)")


def home(model, otherwise=None):
    """Device and precision of a model: those of its first float parameter or buffer, else of `otherwise`."""
    tensors = (tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.is_floating_point())
    first = next(tensors, torch.empty(0, device="cpu") if otherwise is None else otherwise)
    return first.device, first.dtype


def _first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def leaf(x):
    """A copy of a tensor at which a gradient can be taken, in the same layout; x itself stays as it is."""
    if not isinstance(x, torch.Tensor) or not (x.is_floating_point() or x.is_complex()):
        given = f"a tensor of {x.dtype}" if isinstance(x, torch.Tensor) else f"a {type(x).__name__}"
        raise ValueError(f"x is {given}; accepted is a float tensor (N, 3, H, W), as preprocess gives it")
    with torch.inference_mode(False):
        return x.detach().clone().requires_grad_()


def gradient_of(value, x):
    """Gradient of `value`, added up over its rows, with respect to a tensor x in its graph; of the shape of x.

    Call it inside `evaluation_mode`. Raises ValueError where no gradient can flow.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            (found,) = torch.autograd.grad(value.sum(), x, allow_unused=True) if value.requires_grad else [None]
    except NetworkError:
        raise
    except RuntimeError as error:
        raise NetworkError(f"no gradient can be taken through this network: {_first_line(error)}") from error
    if found is None:
        raise NetworkError("no gradient comes back: the score does not depend on this layer or picture, or the network "
                           "computes under torch.no_grad or detaches what it computes")
    return found


class Recording(dict):
    """Outputs of the watched layers by dotted name; a module works as a key too.

    A layer that was called several times holds the list of its outputs, in order.
    """

    def __init__(self, model):
        super().__init__()
        self._names = {module: name for name, module in model.named_modules()}

    def __missing__(self, key):
        name = self._names.get(key, key) if isinstance(key, nn.Module) else str(key)
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

    layers: modules or dotted names; a name with ":input" after it stands for what enters the layer. Yields a
    `Recording`: after a forward pass `recording[layer]` is the layer's output, whatever its shape, or the list of
    outputs of a layer called several times. The network itself goes on with a clone, so a later in-place layer
    cannot overwrite what was recorded. Where nothing before the layer requires gradients (frozen parameters, plain
    input), the recorded output does: the graph then begins at the layer, and a backward pass stops there.

    Raises ValueError for an unknown layer (naming the nearest) and for a layer that does not give one
    tensor.
    """
    names = [layer_name(model, layer) for layer in layers]
    recording = Recording(model)

    def kept(name, tensor):
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(
                f"layer {name!r} gives a {type(tensor).__name__}, not one tensor: "
                f"record a layer inside it, for instance one of {_inside(model, name)}"
            )
        if torch.is_grad_enabled() and not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()
        recording._add(name, tensor)
        return tensor.clone()

    def keep(name):
        if name.endswith(INPUT):
            return lambda module, inputs: (kept(name, inputs[0]), *inputs[1:])
        return lambda module, inputs, output: kept(name, output)

    with lock(model), contextlib.ExitStack() as stack:
        for name in dict.fromkeys(names):
            stack.callback(hang(model, name, keep(name)).remove)
        yield recording


def hang(model, name, hook):
    """Register a forward hook at a layer, or a forward pre-hook where the name ends in ":input"; returns its handle."""
    module = model.get_submodule(name.removesuffix(INPUT))
    return (module.register_forward_pre_hook if name.endswith(INPUT) else module.register_forward_hook)(hook)


class _RuledReLU(torch.autograd.Function):
    """A ReLU, cut off at a ceiling, whose backward pass is `rule(f, R)` below the ceiling and zero above."""

    @staticmethod
    def forward(ctx, f, rule, ceiling, inplace):
        ctx.rule, ctx.ceiling = rule, ceiling
        ctx.save_for_backward(f.clone() if inplace else f)
        if inplace:
            ctx.mark_dirty(f)
        if ceiling is None:      # torch.relu is faster than a clamp
            return f.relu_() if inplace else f.relu()
        return f.clamp_(0, ceiling) if inplace else f.clamp(0, ceiling)

    @staticmethod
    def backward(ctx, R):
        (f,) = ctx.saved_tensors
        signal = ctx.rule(f, R)
        return (signal if ctx.ceiling is None else signal * (f < ctx.ceiling)), None, None, None


# ReLUs by the name of the function (a name that ends in "_" works in place): from its arguments its input, its ceiling
# and whether it works in place, or None for a call that is no ReLU.
RELUS = {
    "relu": lambda input, inplace=False: (input, None, inplace),
    "relu6": lambda input, inplace=False: (input, 6, inplace),
    "hardtanh": lambda input, min_val=-1.0, max_val=1.0, inplace=False: min_val == 0 and (input, max_val, inplace),
    "threshold": lambda input, threshold, value, inplace=False: threshold == value == 0 and (input, None, inplace),
    "clamp": lambda input, min=None, max=None: min is not None and max is None and min == 0 and (input, None, False),
    "clamp_min": lambda input, min: isinstance(min, int | float) and min == 0 and (input, None, False),
}
_OTHER_ACTIVATIONS = {
    "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "prelu", "rrelu", "selu",
    "sigmoid", "silu", "softplus", "tanh",
}


class _Ruled(TorchFunctionMode):
    """Sees every call of a torch function, in modules or not, and gives ReLUs another backward rule."""

    def __init__(self, rule):
        super().__init__()
        self.rule, self.others = rule, Counter()

    def __enter__(self):
        self.others = Counter()      # of one forward pass
        return super().__enter__()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        kind = name.strip("_")
        call = RELUS[kind](*args, **kwargs) if kind in RELUS else None
        if call and call[0].requires_grad and torch.is_grad_enabled():
            f, ceiling, inplace = call
            return _RuledReLU.apply(f, self.rule, ceiling, inplace or name.endswith("_"))
        result = function(*args, **kwargs)
        if kind in _OTHER_ACTIVATIONS and result.requires_grad:
            self.others[kind] += 1
        return result


@contextlib.contextmanager
def relu_rule(model, rule):
    """Replace the backward rule of every ReLU in a model by `rule(f, R)` while the block runs.

    f: the ReLU's input; R: the signal from above, of the same shape; the rule returns the signal below.
    Acts on each call, of a module or of a function, in place or not; the forward pass is unchanged. A ReLU6 also
    stops the signal above its ceiling, as its gradient does. Nested blocks: the inner rule counts. Other
    activations keep their own derivative: a warning says how many lie on the way.

    Raises ValueError in a forward pass whose gradient meets no ReLU, or one that cannot be reached (scripted or
    compiled code).
    """
    check_modules(model, model.modules())
    with forward_under(model, _Ruled(rule), _check_graph):
        yield model


@contextlib.contextmanager
def forward_under(model, mode, check):
    """While the block runs, a model's forward passes run under a TorchFunctionMode, of nested blocks the inner one's.

    check(name of the model's class, nodes of the output's graph, mode) may refuse what a pass has made.
    """
    own = model.__dict__.get("forward")
    forward = getattr(model.forward, "without_rule", model.forward)

    def ruled(*args, **kwargs):
        entered = {x.grad_fn for x in args if isinstance(x, torch.Tensor)}
        with mode:
            output = forward(*args, **kwargs)
        if isinstance(output, torch.Tensor) and output.requires_grad:
            check(type(model).__name__, nodes(output.grad_fn, entered), mode)
        return output

    ruled.without_rule = forward
    with lock(model):
        try:
            model.forward = ruled
            yield model
        finally:
            del model.forward
            if own is not None:
                model.forward = own


def _check_graph(name, nodes, mode):
    kinds = Counter(node.name() for node in nodes if node.name() != "HardtanhBackward0" or node._saved_min_val == 0)
    ruled = kinds["_RuledReLUBackward"]
    missed = kinds["ReluBackward0"] + kinds["ThresholdBackward0"] + kinds["HardtanhBackward0"]
    met = ", ".join(f"{count} {activation}" for activation, count in mode.others.items())
    if missed:
        raise NetworkError(f"{missed} of the {ruled + missed} ReLUs of this {name} cannot be reached, because scripted "
                           "or compiled code calls them: give the network that it was made of")
    if not ruled:
        raise NetworkError(
            f"the gradient of this {name} meets no ReLU that can be reached (other activations: {met or 'none seen'}). "
            "Guided backprop and the deconvnet change the backward rule of ReLUs and are not defined here. Choose a "
            "network with ReLUs, such as squeezenet1_1, vgg16 or resnet18, not scripted and not compiled"
        )
    if mode.others:
        warnings.warn(f"{ruled} ReLUs of this {name} obey the rule; {met} on the way keep their own derivative",
                      stacklevel=2)


def nodes(node, seen):
    """Every node of an autograd graph down to those that were seen before."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [before for before, _ in node.next_functions]


@contextlib.contextmanager
def randomized(model, *layers, seed=0):
    """Permute the weights and the biases of layers while the block runs; every number comes back to its place after.

    layers: modules or dotted names, each with all that is inside it; none named: the whole model. Each tensor keeps its
    values and loses their order, so activations stay of the size that they had. What a seed makes of a tensor does
    not depend on the other layers named, so a cascade changes more and more layers in the same way. Buffers, such as
    the statistics of a BatchNorm, are left alone. (Adebayo et al. 2018, who draw fresh weights.)

    Raises ValueError for an unknown layer (naming the nearest), for layers without weights, and for networks that
    cannot be changed, as `evaluation_mode` does.
    """
    check_modules(model, model.modules())
    inside = [model.get_submodule(layer_name(model, layer)) for layer in layers] or [model]
    chosen = {id(parameter) for module in inside for parameter in module.parameters()}
    if not chosen:
        raise ValueError(f"no weights to permute in {', '.join(map(str, layers)) or type(model).__name__}")
    with lock(model):
        tensors = {i: tensor.detach() for i, tensor in enumerate(model.parameters()) if id(tensor) in chosen}
        before = {i: tensor.clone() for i, tensor in tensors.items()}
        try:
            for i, tensor in tensors.items():
                generator = torch.Generator().manual_seed(1000 * seed + i)
                order = torch.randperm(tensor.numel(), generator=generator, device="cpu").to(tensor.device)
                tensor.copy_(tensor.flatten()[order].view(tensor.shape))
            yield model
        finally:
            for i, tensor in tensors.items():
                tensor.copy_(before[i])


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


@contextlib.contextmanager
def measured(values):
    """Time a block and count the passes through every network among the values; yields a function that says it."""
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        models = dict.fromkeys([value for value in values if isinstance(value, nn.Module)])
        counts = [stack.enter_context(count_passes(model)) for model in models]

        def cost():
            seconds = f"{time.perf_counter() - started:.2f} s"
            passes = {kind: sum(getattr(count, kind) for count in counts) for kind in ("forward", "backward")}
            made = ", ".join(f"{number} {kind}" for kind, number in passes.items() if number)
            return f"{seconds} · {made} pass{'es' if max(passes.values()) > 1 else ''}" if made else seconds

        yield cost


def layer_names(model):
    """Dotted names of all modules inside a model, in the order in which they were defined."""
    return [name for name, _ in model.named_modules() if name]


def layer_name(model, layer):
    """The dotted name of a layer given as a module of the model or as its name, which may end in ":input".

    Raises ValueError for a layer that the model does not have, naming the nearest ones.
    """
    if isinstance(layer, nn.Module):
        for name, module in model.named_modules():
            if module is layer:
                return name
        raise ValueError(f"this {type(layer).__name__} module is not part of the {type(model).__name__}")
    try:
        name = str(layer)
        model.get_submodule(name.removesuffix(INPUT) or "no name")      # lrp asks for every layer: no walk
        return name
    except AttributeError:
        names = layer_names(model)
        near = difflib.get_close_matches(str(layer), names, n=5, cutoff=0.3) or names[-5:]
        raise ValueError(f"no layer {layer!r} in {type(model).__name__}; the nearest names are {near}") from None


def _inside(model, name):
    inner = [f"{name}.{child}" for child in layer_names(model.get_submodule(name))]
    return inner[:5] or "(it has none)"
