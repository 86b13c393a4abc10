"""Controls beside a live picture: `explore` for what is quick, `play` for what grows step by step."""

from .explorer import explore
from .pickers import Drawing, class_picker, drawing_picker, image_picker, layer_picker, model_picker
from .player import play

__all__ = [
    "Drawing", "class_picker", "drawing_picker", "explore", "image_picker", "layer_picker", "model_picker", "play",
]
