"""Every attribution technique and attack on one picture, beside its bare passes and beside Captum."""

import functools

import torch

from benchmarks import bare, captum_calls
from benchmarks.measure import median_times, peak_memory
from course_utils import last_spatial_layer, load_model, predict, preprocess, record, sample_image, techniques, to_image
from course_utils.measures import edge_map
from course_utils.techniques import channels_to_try

NETWORKS = {
    "squeezenet1_1": "pretrained", "efficientnet_lite0": "pretrained", "alexnet": "random", "resnet18": "random",
}
OPTIONS = {"lrp": {"composite": "epsilon_plus_flat"}}      # where the defaults do not fit every network
MEASURES = {"deletion_curve"}      # which judge a map: here that of edges, which costs next to nothing
HEADER = (
    "technique", "ours", "bare passes", "ours / bare", "Captum, same network", "Captum, as documented",
    "our memory", "largest difference",
)


def rows(name, device):
    """One row per technique for a network: times in ms, memory in MB, difference as a fraction of the maximum."""
    torch.manual_seed(0)
    model = load_model(name, weights=NETWORKS[name], device=device)
    x = preprocess(sample_image("cat_dog"), model)
    target = predict(model, x, k=1)[0].index
    plain = load_model(name, weights=NETWORKS[name], device=device).to(memory_format=torch.contiguous_format)
    plain.load_state_dict(model.state_dict())
    plain.requires_grad_(True)
    edges = edge_map(to_image(x, model))
    for technique, passes in bare_passes(model, x, target).items():
        given, options = (edges, target) if technique in MEASURES else (target,), OPTIONS.get(technique, {})
        ours = functools.partial(getattr(techniques, technique), model, x, *given, **options)
        prepared, documented = captum_contenders(technique, model, plain, x, target)
        memory = peak_memory(ours, device)
        times = median_times({"ours": ours, "bare": passes, "prepared": prepared, "documented": documented}, device)
        yield (
            technique, times["ours"] * 1e3, times["bare"] * 1e3, times["ours"] / times["bare"],
            _milliseconds(times["prepared"]), _milliseconds(times["documented"]), memory,
            difference(ours(), prepared()) if prepared else None,
        )


def bare_passes(model, x, target):
    """What each technique has to do at least, as functions to time."""
    layer = last_spatial_layer(model)
    with torch.inference_mode(), record(model, layer) as activations:
        model(x)
    channels = len(channels_to_try(activations.spatial(layer)))
    once = functools.partial(bare.gradient, model, x, target)
    fifty = functools.partial(bare.gradient, model, x, target, pictures=50)
    cam = functools.partial(bare.gradient_of_layer, model, x, target, layer)
    return {
        "vanilla_gradient": once, "guided_backprop": once, "deconvnet": once, "grad_times_image": once,
        "lrp": lambda: (bare.forward(model, x, pictures=1), once()),      # forward; forward and back by the rules
        "smooth_grad": fifty, "integrated_gradients": fifty, "grad_cam": cam, "layer_cam": cam, "hires_cam": cam,
        "guided_grad_cam": lambda: (once(), cam()),
        "score_cam": functools.partial(bare.forward, model, x, pictures=channels + 2),
        # Its class is given: one pass for the whole picture, one for each of 13 × 13 patches; one for each mask.
        "occlusion": functools.partial(bare.forward, model, x, pictures=170),
        "rise": functools.partial(bare.forward, model, x, pictures=400),
        # One for each of 28 steps, and the whole picture.
        "deletion_curve": functools.partial(bare.forward, model, x, pictures=29),
        "fast_gradient_sign": once, "projected_gradient": lambda: [once() for _ in range(10)],
    }


def captum_contenders(technique, model, plain, x, target):
    """Captum's call on the prepared network with batches of 8, and on a network as loaded with Captum's defaults."""
    call = captum_calls.CALLS.get(technique)
    if call is None:
        return None, None
    if technique in ("guided_backprop", "deconvnet", "guided_grad_cam"):
        model, plain = captum_calls.without_inplace(model), captum_calls.without_inplace(plain)
    prepared = functools.partial(call, model, x, target, batch_size=8)
    documented = functools.partial(call, plain, x.contiguous(), target)
    return prepared, documented


def difference(ours, theirs):
    """The largest difference of two maps or pictures, as a fraction of the larger maximum."""
    scale = max(ours.abs().max().item(), theirs.abs().max().item())
    return (ours - theirs.detach()).abs().max().item() / scale if scale else 0.0


def _milliseconds(seconds):
    return None if seconds is None else seconds * 1e3
