"""The forward and backward passes that a technique cannot do without, and nothing else."""

import torch


def gradient(model, x, target, pictures=1, batch_size=8):
    """Forward and backward down to the pixels for so many pictures."""
    for size in _batches(pictures, batch_size):
        batch = x.expand(size, -1, -1, -1).clone(memory_format=torch.preserve_format).requires_grad_()
        torch.autograd.grad(model(batch)[:, target].sum(), batch)


def gradient_of_layer(model, x, target, layer):
    """Forward, and backward down to the output of a layer."""
    kept = []

    def keep(module, inputs, output):
        kept.append(output.requires_grad_())
        return output.clone()

    handle = model.get_submodule(layer).register_forward_hook(keep)
    score = model(x)[0, target]
    handle.remove()
    torch.autograd.grad(score, kept[0])


def forward(model, x, pictures, batch_size=8):
    """Forward for so many pictures, without a graph."""
    with torch.inference_mode():
        for size in _batches(pictures, batch_size):
            model(x.expand(size, -1, -1, -1).clone(memory_format=torch.preserve_format))


def _batches(pictures, batch_size):
    return [min(batch_size, pictures - start) for start in range(0, pictures, batch_size)]
