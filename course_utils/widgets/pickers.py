"""Pickers: controls that belong together and give one `value`. What is wrong is said in words beneath them."""

import contextlib
import os
import re
import threading

import ipywidgets as widgets
import traitlets

from ..drawing import STYLES, Drawing
from ..environment import available_memory
from ..hooks import layer_name
from ..images import ACCEPTED, load_image, preprocess, sample_image, sample_images
from ..layers import last_spatial_layer, layers_of
from ..models import (
    BUNDLED,
    DEFAULT,
    available_models,
    cached_file,
    class_name,
    find_class,
    load_model,
    must_be_fetched,
    published_weights,
)
from .panel import Line, in_words


class Picker(widgets.VBox):
    """Base of the pickers: `value`, and beside it `text` (the value in words), `message` and `refusal`.

    refusal: why the value is not what the fields show, or "". Until it is, nothing runs on it.
    """

    value = traitlets.Any()
    refusal = ""

    def __init__(self, *fields):
        self._filling = False
        self._line = Line()
        self._line.add_class("course-message")
        super().__init__([*fields, self._line])

    @property
    def text(self):
        """The value in words, for the recipe of a saved picture."""
        return str(self.value)

    @property
    def message(self):
        """What stands beneath the picker."""
        return self._line.text

    def _follow(self, menu):
        menu.observe(lambda change: self._filling or self._pick(change.new), "value")

    def _fill(self, menu, options, chosen):
        """Give a menu new options. It passes through the first one, which is nobody's business."""
        with self._unheard():
            menu.options = options
            menu.value = chosen
        self._pick(chosen)

    @contextlib.contextmanager
    def _unheard(self):
        """Fields that change while the block runs were not changed by the user."""
        self._filling = True
        yield
        self._filling = False

    def _pick(self, chosen):
        """The user chose from a menu."""
        self.refusal = ""
        self.value = chosen
        self._line.say("")

    def _refuse(self, why, error=True):
        """The fields show what cannot be taken, or not yet: the value stays."""
        self.refusal = why
        self._line.say(f"{why}. Still in use: {self.text}.", error)


class ImagePicker(Picker):
    """A menu of the course's photographs, and an upload; `value` is an upright RGB `PIL.Image`."""

    def __init__(self, name="red_panda", *, label="photograph"):
        self._uploaded = {}
        self.menu = widgets.Dropdown(description=label)
        # Larger files never reach the kernel, and Jupyter says nothing: only a warning beforehand helps.
        hint = widgets.Label(f"under {os.environ.get('COURSE_UPLOAD_MB', 10)} MB")
        self.upload = widgets.FileUpload(accept="image/*", tooltip=f"{ACCEPTED}, {hint.value}: else scale it down")
        super().__init__(self.menu, widgets.HBox([self.upload, hint]))
        sample_image(name)      # an unknown name is told in better words than the menu's
        self._fill(self.menu, sample_images(), name)
        self._follow(self.menu)
        self.upload.observe(self._received, "value")

    @property
    def text(self):
        return self.menu.value

    def _pick(self, chosen):
        super()._pick(self._uploaded[chosen] if chosen in self._uploaded else sample_image(chosen))

    def _received(self, change):
        for file in change.new:      # none, when the upload is emptied below
            try:
                self._uploaded[file["name"]] = load_image(file["content"])
            except Exception as error:      # whatever it is: raised in a callback, nobody would see it
                self._line.say(f"{file['name']}: {in_words(error)}", error=True)
            else:
                self._fill(self.menu, [*sample_images(), *self._uploaded], file["name"])
        self.upload.value = ()


class ClassPicker(Picker):
    """A text field for a class: a name, a part of one, or an index; `value` is an index, or None if empty.

    None stands for the network's own top class. Of several classes that match, a menu offers the choice.
    classes: how many the network has; only ImageNet's thousand have names.
    """

    def __init__(self, target=None, *, classes=1000, label="class"):
        self._classes = classes
        self.field = widgets.Combobox(
            options=[self._words(index) for index in range(classes)], description=label, continuous_update=False,
            value="" if target is None else self._words(target), placeholder="the network's top class",
        )
        self.menu = widgets.Dropdown(description="matches", layout={"display": "none"})
        super().__init__(self.field, self.menu)
        self.value = target
        self._follow(self.menu)
        self.field.observe(lambda change: self._filling or self._typed(change.new.strip()), "value")

    @property
    def text(self):
        return self._words(self.value)

    def _words(self, index):
        if index is None:
            return "top class"
        name = class_name(index, self._classes)
        return name if name.startswith("class ") else f"{index} {name}"

    def _pick(self, chosen):
        super()._pick(chosen)
        with self._unheard():      # what was typed becomes the whole name
            self.field.value = "" if chosen is None else self.text

    def _typed(self, typed):
        try:
            matches = self._matches(typed)
        except (ValueError, IndexError) as error:
            self._refuse(in_words(error))
            return
        self._fill(self.menu, [(self._words(i), i) for i in matches], matches[0])
        self.menu.layout.display = None if len(matches) > 1 else "none"
        if len(matches) > 1:
            self._line.say(f"{len(matches)} classes match.")

    def _matches(self, typed):
        number = re.match(r"(?:class )?(\d+)\b", typed)
        if number:
            class_name(number[1], self._classes)      # raises IndexError where there is no such class
            return [int(number[1])]
        if typed and self._classes != 1000:
            raise ValueError(f"the network's {self._classes} classes have no names: type a number")
        return find_class(typed) if typed else [None]


class LayerPicker(Picker):
    """A menu of the layers with a spatial output; `value` is a dotted name, at first the last spatial layer's.

    model: a network, or a `model_picker`, which is then followed. value: the layer to begin with. image: a picture,
    or an `image_picker`, for a network that does not take 224 by 224 pixels.
    """

    def __init__(self, model, value=None, *, image=None, label="layer"):
        self.menu = widgets.Dropdown(description=label)
        super().__init__(self.menu)
        self._model, self._image = model, image
        self._chosen = {}      # the layers of a network -> the one that was chosen last
        self._offer(value)
        self._follow(self.menu)
        for picker in (model, image):
            if isinstance(picker, Picker):
                picker.observe(self._changed, "value")

    def _pick(self, chosen):
        self._chosen[self.menu.options] = chosen
        super()._pick(chosen)

    def _offer(self, value=None):
        model, image = (getattr(given, "value", given) for given in (self._model, self._image))
        x = None if image is None else preprocess(image, model)
        names, value = tuple(layers_of(model, x).menu), value and layer_name(model, value)
        if value and value not in names:
            raise ValueError(f"layer {value!r} has no spatial output (N, C, h, w); those that have are "
                             f"{', '.join(names)}")
        # The same network with other weights: the layer stays, so that the two can be compared.
        self._fill(self.menu, names, value or self._chosen.get(names) or last_spatial_layer(model, x))

    def _changed(self, change):
        try:
            self._offer()
        except Exception as error:
            self._refuse(in_words(error))


class ModelPicker(Picker):
    """A menu of all classification networks, pretrained or random; `value` is the loaded network.

    Weights that must be fetched are fetched only after a click, and their size is said before.
    """

    def __init__(self, name=DEFAULT, weights="pretrained", *, label="model"):
        first = [*BUNDLED, "alexnet", "vgg16", "vgg19"]
        others = [other for other in available_models() if other not in first]
        value = load_model(name, weights=weights)
        self.menu = widgets.Dropdown(options=[*first, *others], value=name, description=label)
        self.weights = widgets.Dropdown(options=["pretrained", "random"], value=weights, description="weights")
        self.fetch = widgets.Button(icon="download", layout={"display": "none"})
        super().__init__(self.menu, self.weights, self.fetch)
        self.value = value
        self._in_use = name, weights
        self._thread = None
        for menu in (self.menu, self.weights):
            menu.observe(lambda change: self._filling or self._chosen(), "value")
        self.fetch.on_click(lambda _: self._load())

    @property
    def text(self):
        return "{}, {} weights".format(*self._in_use)

    def wait(self, timeout=None):
        """Block until the network is loaded; TimeoutError after so many seconds."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
            if thread.is_alive():
                raise TimeoutError(f"{self.menu.value} is not loaded after {timeout} s")

    def _chosen(self):
        self._thread = None      # what is being loaded is not wanted any more
        name, weights = self.menu.value, self.weights.value
        size = published_weights(name).meta["_file_size"]
        absent = weights == "pretrained" and must_be_fetched(name)
        # The file's tensors, the network, its copy in another memory layout, and what a picture needs.
        needed, free = 4 * size, available_memory() / 2**20
        warnings = []
        if absent:
            warnings.append(f"The weights of {name} must be fetched first, once: {size:.0f} MB")
        if needed > free:
            warnings.append(f"{name} may need {needed:.0f} MB of memory, {free:.0f} MB are free: the kernel may die")
        self.fetch.description = "Fetch and use" if absent else "Use all the same"
        self.fetch.layout.display = None if warnings else "none"
        if warnings:
            self._refuse(". ".join(warnings), error=needed > free)
        else:
            self._load()

    def _load(self):
        self.fetch.layout.display = "none"
        self._refuse(f"Loading {self.menu.value}", error=False)
        arguments = self.menu.value, self.weights.value
        self._thread = threading.Thread(target=self._loading, args=arguments, name="course model", daemon=True)
        self._thread.start()

    def _loading(self, name, weights):
        with self._fetching_watched(name):
            try:
                model, failure = load_model(name, weights=weights), ""
            except Exception as error:      # whatever it is: here it can only be told
                model, failure = None, in_words(error)
        if threading.current_thread() is not self._thread:
            return
        if failure:
            with self._unheard():
                self.menu.value, self.weights.value = self._in_use
            self.refusal = ""
            self._line.say(f"{failure}. Still in use: {self.text}.", error=True)
        else:
            self._in_use = name, weights
            self._pick(model)

    @contextlib.contextmanager
    def _fetching_watched(self, name):
        """While the block runs, say how much of the weights has arrived."""
        published = published_weights(name)
        file, size = cached_file(published), published.meta["_file_size"]
        loading, done = threading.current_thread(), threading.Event()

        def watch():
            while not done.wait(0.5):
                # torch.hub writes beside the file, and renames at the end.
                arrived = [part.stat().st_size / 2**20 for part in file.parent.glob(f"{file.name}.*.partial")]
                if arrived and loading is self._thread:
                    self._line.say(f"Fetching {name}: {max(arrived):.0f} of {size:.0f} MB …")

        watcher = threading.Thread(target=watch, name="course fetch", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


class DrawingPicker(Picker):
    """How a map is drawn; `value` is a `Drawing`: `drawing(image, map, signed=False)` gives the picture."""

    def __init__(self, style="overlay", percentile=100, opacity=0.75):
        self.style_menu = widgets.Dropdown(options=list(STYLES), value=style, description="drawing")
        self.percentile = widgets.FloatSlider(
            value=percentile, min=90, max=100, step=0.5, description="percentile", readout_format=".1f",
            tooltip="The share of the map's values below the one drawn brightest; 100: only the largest is")
        self.opacity = widgets.FloatSlider(value=opacity, min=0, max=1, step=0.05, description="opacity",
                                           tooltip="0: only the photograph, 1: only the map")
        super().__init__(self.style_menu, self.percentile, self.opacity)
        self._choose()
        for field in (self.style_menu, self.percentile, self.opacity):
            field.observe(self._choose, "value")

    def _choose(self, change=None):
        self.opacity.disabled = self.style_menu.value not in STYLES[:2]
        self._pick(Drawing(self.style_menu.value, self.percentile.value, self.opacity.value))
        words = {"gray": "black: none, white: most; of signed maps black: against, white: for",
                 "colour": "dark: none, yellow: most; of signed maps blue: against, red: for"}
        self._line.say(words.get(self.style_menu.value, words["colour"].replace("dark", "gray")))
