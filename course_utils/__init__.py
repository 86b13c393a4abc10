"""Support package of the course: hooks, models, pictures and controls. The techniques are in the notebooks."""

from .drawing import heatmap, image_grid, normalize_map, overlay, show
from .environment import setup
from .hooks import count_passes, evaluation_mode, last_spatial_layer, layer_names, record, relu_rule, run_to
from .images import (
    load_image,
    preprocess,
    sample_image,
    sample_images,
    save_animation,
    save_image,
    to_image,
    to_input,
)
from .models import (
    available_models,
    best_device,
    check_input,
    class_indices,
    class_name,
    class_score,
    find_class,
    load_model,
    predict,
    resolve_targets,
    same_layout,
    targets_of,
)
from .progress import progress
from .steps import Step, last_step
from .widgets import class_picker, drawing_picker, explore, image_picker, layer_picker, model_picker, play

__all__ = [
    "Step", "available_models", "best_device", "check_input", "class_indices", "class_name", "class_picker",
    "class_score", "count_passes", "drawing_picker", "evaluation_mode", "explore", "find_class", "heatmap",
    "image_grid", "image_picker", "last_spatial_layer", "last_step", "layer_names", "layer_picker", "load_image",
    "load_model", "model_picker", "normalize_map", "overlay", "play", "predict", "preprocess", "progress", "record",
    "relu_rule", "resolve_targets", "run_to", "same_layout", "sample_image", "sample_images", "save_animation",
    "save_image", "setup", "show", "targets_of", "to_image", "to_input",
]
