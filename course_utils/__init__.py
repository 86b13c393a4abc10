"""Support package of the course: hooks, models, pictures and controls. The techniques are in the notebooks."""

from .drawing import heatmap, image_grid, normalize_map, overlay, show
from .environment import setup
from .hooks import count_passes, evaluation_mode, gradient_of, home, leaf, record, relu_rule
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
from .layers import last_spatial_layer, run_to, spatial_layer
from .models import class_name, find_class, load_model, predict
from .scores import as_indices, class_score, class_scores, probabilities, sum_over, target_classes
from .steps import Step, last_step, progress
from .widgets import class_picker, drawing_picker, explore, image_picker, layer_picker, model_picker, play

__all__ = [
    "Step", "as_indices", "class_name", "class_picker", "class_score", "class_scores", "count_passes", "drawing_picker",
    "evaluation_mode", "explore", "find_class", "gradient_of", "heatmap", "home", "image_grid", "image_picker",
    "last_spatial_layer", "last_step", "layer_picker", "leaf", "load_image", "load_model", "model_picker",
    "normalize_map", "overlay", "play", "predict", "preprocess", "probabilities", "progress", "record", "relu_rule",
    "run_to",
    "sample_image", "sample_images", "save_animation", "save_image", "setup", "show", "spatial_layer", "sum_over",
    "target_classes", "to_image", "to_input",
]
