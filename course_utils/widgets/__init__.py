"""Controls beside a live picture: `explore` for what is quick, `play` for what grows step by step."""

from ..drawing import Drawing
from .explorer import Explore as explore
from .pickers import ClassPicker as class_picker
from .pickers import DrawingPicker as drawing_picker
from .pickers import ImagePicker as image_picker
from .pickers import LayerPicker as layer_picker
from .pickers import ModelPicker as model_picker
from .player import Play as play

__all__ = [
    "Drawing", "class_picker", "drawing_picker", "explore", "image_picker", "layer_picker", "model_picker", "play",
]
