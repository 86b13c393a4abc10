"""The panels and pickers without a browser: values are set, buttons clicked, and what they show is compared."""

import base64
import io
import json
import re
import threading
import time
import urllib.error
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18

from course_utils import (
    Step,
    class_name,
    class_picker,
    class_score,
    count_passes,
    drawing_picker,
    environment,
    evaluation_mode,
    explore,
    find_class,
    heatmap,
    image_grid,
    image_picker,
    last_spatial_layer,
    layer_picker,
    load_model,
    model_picker,
    overlay,
    play,
    preprocess,
    progress,
    record,
    sample_image,
    sample_images,
    to_image,
)
from course_utils.hooks import layer_names
from course_utils.images import INPUT_IMAGES, OUTPUT, encoded
from course_utils.layers import layers_of
from course_utils.widgets import Drawing, panel, pickers

SECONDS = 20      # how long a test waits for a thread before it fails


@pytest.fixture(scope="module")
def model():
    return load_model(device="cpu")


@pytest.fixture(autouse=True)
def nothing_left_running():
    """No test leaves a thread behind, and no exception was lost in one."""
    lost = []
    threading.excepthook, hook = lost.append, threading.excepthook
    yield
    threading.excepthook = hook
    deadline = time.monotonic() + SECONDS
    while left := [thread.name for thread in threading.enumerate() if thread.name.startswith("course")]:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.01)
    assert lost == []


def plain(level):
    """A picture of one gray level."""
    return np.full((6, 8), level, dtype=np.uint8)


def slider(value=10):
    return ipywidgets.IntSlider(value, 0, 255)


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def grad_cam(model, image, target, layer, drawing):
    """A panel's function: Grad-CAM, drawn on what the network sees."""
    x = preprocess(image, model)
    with evaluation_mode(model), record(model, layer) as activations:
        score = class_score(model, x, target)
        gradient, = torch.autograd.grad(score.sum(), activations[layer])
        weighted = gradient.mean(dim=(2, 3), keepdim=True) * activations[layer]
    return drawing(to_image(x, model), weighted.sum(dim=1, keepdim=True).relu().detach())


# explore


def test_the_first_picture_is_there_at_once_and_is_the_function_s():
    shown = explore(plain, level=slider(10))
    assert shown.image.value == encoded(plain(10))
    assert shown.image.format == "jpeg" and shown.image.layout.display is None


def test_a_change_of_a_control_changes_the_picture():
    level = slider()
    shown = explore(plain, level=level)
    level.value = 200
    shown.wait(SECONDS)
    assert shown.image.value == encoded(plain(200)) != encoded(plain(10))


def test_plain_values_are_passed_as_they_are():
    received = {}

    def function(**values):
        received.update(values)
        return plain(values["level"])

    model, tensor = nn.Identity(), torch.zeros(2)
    explore(function, level=slider(3), model=model, tensor=tensor, name="x", size=4)
    assert received["model"] is model and received["tensor"] is tensor
    assert {**received, "model": 0, "tensor": 0} == {"level": 3, "model": 0, "tensor": 0, "name": "x", "size": 4}


@pytest.mark.parametrize("picture", [
    Image.new("RGBA", (5, 4), "red"), torch.rand(1, 3, 5, 4), torch.rand(5, 4), np.random.rand(5, 4, 3),
])
def test_pictures_of_every_kind_are_shown(picture):
    assert Image.open(io.BytesIO(explore(lambda: picture).image.value)).size == ((5, 4) if isinstance(
        picture, Image.Image) else (4, 5))


def test_the_picture_loses_nothing_that_can_be_seen():
    photograph = sample_image("cat_dog")
    shown = np.asarray(Image.open(io.BytesIO(encoded(photograph))), dtype=float)
    assert np.abs(shown - np.asarray(photograph)).mean() < 2


def test_an_error_in_the_first_picture_is_raised_and_leaves_nothing_that_observes():
    level, calls = slider(), []

    def broken(level):
        calls.append(level)
        raise ValueError("no picture")

    with pytest.raises(ValueError, match="no picture"):
        explore(broken, level=level)
    level.value = 20
    assert calls == [10]


def test_a_later_error_is_told_in_words_the_picture_stays_and_the_next_one_comes():
    def picky(level):
        if level == 13:
            raise ValueError("13 is <not> accepted")
        return plain(level)

    level = slider()
    shown = explore(picky, level=level)
    level.value = 13
    shown.wait(SECONDS)
    assert shown.status == "13 is <not> accepted"
    assert shown.image.value == encoded(plain(10))
    line = next(part for part in shown.children[0].children[0].children if isinstance(part, panel.Line))
    assert "13 is &lt;not&gt; accepted" in line.value      # as text, not as markup
    level.value = 14
    shown.wait(SECONDS)
    assert shown.image.value == encoded(plain(14)) and "accepted" not in shown.status


def test_what_is_no_picture_is_told_too():
    level = slider()
    shown = explore(lambda level: plain(level) if level == 10 else "picture", level=level)
    level.value = 11
    shown.wait(SECONDS)
    assert shown.status.startswith("no picture of shape ()") and shown.image.value == encoded(plain(10))


def test_of_many_changes_only_the_newest_counts():
    started, go_on, calls = threading.Event(), threading.Event(), []

    def slow(level):
        calls.append(level)
        if level == 1:
            started.set()
            assert go_on.wait(SECONDS)
        return plain(level)

    level = slider()
    shown = explore(slow, level=level)
    pictures = []
    shown.image.observe(lambda change: pictures.append(change.new), "value")
    level.value = 1
    assert started.wait(SECONDS)
    for newer in (2, 3, 4):
        level.value = newer
    go_on.set()
    shown.wait(SECONDS)
    assert calls == [10, 1, 4]                      # 2 and 3 were never computed
    assert pictures == [encoded(plain(4))]          # and 1 was computed, but never shown


def test_a_stale_picture_is_given_up_in_the_midst_of_its_loop():
    started, given_up = threading.Event(), []

    def slow(level):
        try:
            for _ in progress(range(10_000) if level == 1 else range(1)):
                started.set()
                time.sleep(0.01 if level == 1 else 0)
        finally:
            given_up.append(level)
        return plain(level)

    level = slider()
    shown = explore(slow, level=level)
    started.clear()
    level.value = 1
    assert started.wait(SECONDS)
    level.value = 2
    shown.wait(SECONDS)      # 100 s, were it not given up
    assert given_up == [10, 1, 2] and shown.image.value == encoded(plain(2))


def test_the_status_tells_time_passes_and_the_function_s_own_words(model):
    x = torch.rand(2, 3, 64, 64)

    def function(model, times):
        with evaluation_mode(model):
            for _ in range(times):
                torch.autograd.grad(class_score(model, x.requires_grad_()).sum(), x)
        return plain(0), "two pictures"

    times = slider(1)
    shown = explore(function, model=model, times=times)
    assert re.fullmatch(r"two pictures · \d\.\d\d s · 2 forward, 2 backward passes", shown.status)
    times.value = 0
    shown.wait(SECONDS)
    assert shown.status.endswith(" s")


def test_one_pass_is_a_pass_and_a_network_given_twice_counts_once(model):
    def function(model, again, third):
        with torch.no_grad():
            third(torch.rand(1, 3, 64, 64))
        return plain(0)

    assert explore(function, model=model, again=model, third=model).status.endswith(" s · 1 forward pass")


def test_a_panel_waits_no_longer_than_it_is_told():
    go_on = threading.Event()
    level = slider()
    shown = explore(lambda level: plain(level) if level == 10 or go_on.wait(SECONDS) else None, level=level)
    level.value = 11
    with pytest.raises(TimeoutError, match="0.05 s"):
        shown.wait(0.05)
    go_on.set()
    shown.wait(SECONDS)


def test_controls_are_labelled_lined_up_and_can_be_found():
    shown = explore(lambda noise_level, size, image: image, noise_level=slider(), image=image_picker("cat"),
                    size=ipywidgets.FloatText(1, description="size in pixels"))
    noise, image, size = (shown.controls[name] for name in ("noise_level", "image", "size"))
    assert noise.description == "noise level" and size.description == "size in pixels"
    assert not noise.continuous_update and not size.continuous_update
    assert noise.style.description_width == size.style.description_width == image.menu.style.description_width
    assert "course-noise-level" in noise._dom_classes and "course-image" in image._dom_classes
    assert "course-picture" in shown.image._dom_classes


def test_explore_saves_the_picture_that_it_shows_with_its_recipe(monkeypatch, tmp_path):
    monkeypatch.setattr(panel, "OUTPUT", tmp_path)
    level = slider(10)
    shown = explore(plain, level=level)
    level.value = 20
    shown.wait(SECONDS)
    shown.saves[".png"].click()
    saved = Image.open(tmp_path / "plain_01.png")
    assert pixels_equal(saved, Image.fromarray(plain(20)).convert("RGB"))
    assert json.loads(saved.text["recipe"]) == {"technique": "plain", "level": 20}
    assert shown.status.startswith(f"Saved {tmp_path / 'plain_01.png'}")


def test_reset_puts_every_control_back():
    level, drawing, target, image = slider(10), drawing_picker("gray", 98), class_picker(281), image_picker("cat")
    shown = explore(lambda image, **values: image, level=level, drawing=drawing, target=target, image=image)
    level.value, drawing.percentile.value, drawing.style_menu.value = 20, 95, "colour"
    target.field.value, image.menu.value = "snake", "dog"
    shown.wait(SECONDS)
    shown.reset.click()
    shown.wait(SECONDS)
    assert (level.value, drawing.value, target.value) == (10, Drawing("gray", 98), 281) and image.text == "cat"
    assert target.field.value == "281 tabby" and shown.image.value == encoded(sample_image("cat"))


def test_six_controls_are_in_sight_and_the_rest_under_more():
    controls = {f"control_{number}": slider(number) for number in range(8)}
    shown = explore(lambda **values: plain(values["control_7"]), **controls)
    left = shown.children[0].children[0].children
    more, = (part for part in left if isinstance(part, ipywidgets.Accordion))
    assert list(left[:6]) == list(controls.values())[:6] and more.selected_index is None      # it is folded
    assert list(more.children[0].children) == list(controls.values())[6:] and more.titles == ("more",)
    controls["control_7"].value = 70
    shown.wait(SECONDS)
    assert shown.image.value == encoded(plain(70))


def test_the_alternative_text_follows_what_the_picture_shows():
    level = slider(10)
    shown = explore(lambda level: (plain(level), f"gray {level}"), level=level)
    assert shown.image.tooltip == "gray 10"
    level.value = 20
    shown.wait(SECONDS)
    assert shown.image.tooltip == "gray 20"
    grows = play(growing, steps=3)
    grows.run.click()
    grows.wait(SECONDS)
    assert grows.image.tooltip == "step 3 of 3 · objective 0"


def stored(shown):
    """What a panel leaves in a notebook for readers without a kernel: its picture, and that in words."""
    data, metadata = shown._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    content = base64.b64decode(data["image/jpeg"])
    assert len(content) < 60_000 and metadata["image/jpeg"]["alt"] == data["text/plain"]
    return np.asarray(Image.open(io.BytesIO(content)), dtype=float), data["text/plain"]


def test_beside_the_live_panel_stands_a_picture_of_it_for_readers_without_a_kernel():
    channels = ipywidgets.Dropdown(options=[("all", 512), ("8", 8)])
    shown = explore(lambda image, target, channels, size: (image, "a cat"), image=image_picker("cat_dog"),
                    target=class_picker(), channels=channels, size=ipywidgets.FloatSlider(0.5))
    before, words = stored(shown)
    assert words == ("A panel with the controls photograph cat_dog, class the network's top class, channels all, "
                     "size 0.5: a cat")
    square = sample_image("cat_dog").resize((336, 336), Image.Resampling.LANCZOS)
    assert np.abs(before[:336, 340:] - np.asarray(square)).mean() < 5
    shown.controls["image"].menu.value, shown.controls["target"].field.value = "dog", "tabby"
    shown.wait(SECONDS)
    after, words = stored(shown)
    assert "photograph dog, class 281 tabby" in words
    for x, y in (slice(340, 600), slice(0, 200)), (slice(110, 328), slice(30, 50)):      # the picture, the class
        assert np.abs(after[y, x] - before[y, x]).max() > 50


def test_a_panel_that_has_not_run_is_stored_without_a_picture():
    picture, words = stored(play(growing, steps=slider(5), broken=ipywidgets.Checkbox(description="wildly")))
    assert words == "A panel with the controls steps 5, ☐ wildly: Press Run." and picture.shape[1] == 340


# explore with a button


def counted(level, n):
    """A slow technique."""
    for _ in progress(range(n)):
        time.sleep(0.01)
    return plain(level)


def test_with_a_button_nothing_is_computed_before_the_click():
    level = slider()
    shown = explore(counted, button="Compute", level=level, n=3)
    level.value = 20
    shown.wait(SECONDS)
    assert shown.image.value == b"" and shown.status == "Press Compute."
    assert shown.run.description == "Compute"
    shown.run.click()
    shown.wait(SECONDS)
    assert shown.image.value == encoded(plain(20)) and shown.bar.value == 1
    level.value = 30
    shown.wait(SECONDS)
    assert shown.image.value == encoded(plain(20))


def test_the_bar_moves_and_stop_ends_the_work_and_keeps_the_picture():
    level = slider()
    shown = explore(counted, button="Compute", level=level, n=(n := ipywidgets.IntText(2)))
    shown.run.click()
    shown.wait(SECONDS)
    bar = []
    shown.bar.observe(lambda change: bar.append(change.new), "value")
    level.value, n.value = 20, 500
    shown.run.click()
    assert shown.run.disabled and not shown.stop.disabled and shown.bar.value < 0.5
    until(lambda: len(bar) > 3)
    stopped = time.monotonic()
    shown.stop.click()
    shown.wait(SECONDS)
    assert time.monotonic() - stopped < 1      # 5 s, had it gone on
    assert bar[0] == 0 and bar == sorted(bar) and bar[-1] < 0.5
    assert shown.status == "Stopped." and shown.image.value == encoded(plain(10))
    assert not shown.run.disabled and shown.stop.disabled


def test_a_click_while_it_runs_changes_nothing():
    calls, go_on = [], threading.Event()

    def function(level):
        calls.append(level)
        assert go_on.wait(SECONDS)
        return plain(level)

    shown = explore(function, button="Compute", level=slider())
    shown.run.click()
    shown.run.click()
    go_on.set()
    shown.wait(SECONDS)
    assert calls == [10] and shown.image.value == encoded(plain(10))


def test_an_error_after_the_click_is_told_and_the_button_works_again():
    level = slider()
    shown = explore(lambda level: plain(255 // level), button="Compute", level=level)
    level.value = 0
    shown.run.click()
    shown.wait(SECONDS)
    assert shown.status.startswith("ZeroDivisionError: ") and not shown.run.disabled
    level.value = 5
    shown.run.click()
    shown.wait(SECONDS)
    assert shown.image.value == encoded(plain(51))


# progress


def test_of_nested_loops_the_outer_one_moves_the_bar():
    def function():
        for _ in progress(range(2)):
            for _ in progress(range(10)):
                pass
            for _ in progress(range(10)):
                break      # a loop that ends early
        return plain(0)

    shown = explore(function, button="Go")
    bar = []
    shown.bar.observe(lambda change: bar.append(change.new), "value")
    shown.run.click()
    shown.wait(SECONDS)
    assert bar == [0.5, 1]


def test_progress_of_an_iterable_without_length_needs_a_total():
    shown = explore(lambda: [plain(0) for _ in progress(iter(range(4)), total=4)][-1], button="Go")
    bar = []
    shown.bar.observe(lambda change: bar.append(change.new), "value")
    shown.run.click()
    shown.wait(SECONDS)
    assert bar == [0.25, 0.5, 0.75, 1]


# the life of a panel


def in_cell(monkeypatch, cell, execution):
    """Pretend to be in a cell of JupyterLab."""
    parent = {"metadata": {"cellId": cell}, "header": {"msg_id": execution}}
    monkeypatch.setattr(panel, "get_ipython", lambda: SimpleNamespace(get_parent=lambda: parent))


def endless():
    for number in range(1, 10**9):
        time.sleep(0.001)
        yield Step(number, torch.zeros(1), torch.zeros(1, 3, 4, 4))


def test_running_the_cell_again_ends_the_older_panel_s_work_and_no_other(monkeypatch):
    in_cell(monkeypatch, "a", "first")
    older, beside = play(endless), play(endless)
    in_cell(monkeypatch, "b", "second")
    other = play(endless)
    for each in (older, beside, other):
        each.run.click()
    in_cell(monkeypatch, "a", "third")
    newer = play(endless)
    older.wait(SECONDS)
    beside.wait(SECONDS)
    assert older.comm is None and beside.comm is None
    assert other.run.disabled and not newer.run.disabled      # the other one runs on
    other.close()
    other.wait(SECONDS)


def test_without_a_cell_s_id_the_same_function_at_the_same_place_counts_as_the_cell():
    level = slider()
    panels = [explore(plain, level=level) for _ in range(2)]
    other = explore(lambda level: plain(level), level=level)
    level.value = 50
    for each in (*panels, other):
        each.wait(SECONDS)
    assert [each.image.value == encoded(plain(50)) for each in (*panels, other)] == [False, True, True]


def test_close_ends_the_work_and_no_control_wakes_it():
    level = slider()
    shown = explore(counted, button="Compute", level=level, n=10_000)
    shown.run.click()
    shown.close()
    shown.wait(2)      # 100 s, had it gone on
    shown.close()      # twice does no harm
    level.value = 20
    assert shown.image.value == b""


def test_an_idle_panel_has_no_thread():
    level = slider()
    shown = explore(plain, level=level)
    level.value = 20
    shown.wait(SECONDS)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("course")] == []


# pickers


def upload(picker, content, name="mine.png"):
    """What ipywidgets 8 does when a file arrives."""
    picker.upload.value = ({"name": name, "type": "image/png", "size": len(content), "content": memoryview(content),
                            "last_modified": datetime.now(timezone.utc)},)


def as_png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()


def pixels_equal(one, other):
    return np.array_equal(np.asarray(one), np.asarray(other))


def test_the_image_picker_offers_the_course_s_photographs():
    picker = image_picker("cat")
    assert list(picker.menu.options) == sample_images() and picker.text == "cat"
    picker.menu.value = "macaw"
    assert pixels_equal(picker.value, sample_image("macaw"))
    with pytest.raises(ValueError, match="there are cat, "):
        image_picker("no such photograph")


def test_an_upload_is_loaded_offered_and_chosen():
    picker = image_picker("cat")
    values = []
    picker.observe(lambda change: values.append(change.new), "value")
    mine = Image.new("RGBA", (30, 20), (255, 0, 0, 128))
    upload(picker, as_png(mine))
    assert picker.text == "mine.png" and picker.value.mode == "RGB" and picker.value.size == (30, 20)
    assert len(values) == 1                       # it did not pass through another photograph
    assert picker.menu.index == len(sample_images())       # which is what the browser shows
    assert picker.upload.value == ()              # the same file can be uploaded again
    picker.menu.value = "cat"
    assert pixels_equal(picker.value, sample_image("cat"))
    picker.menu.value = "mine.png"
    assert picker.value.size == (30, 20)


@pytest.mark.parametrize("content", [b"not a picture", b"", as_png(sample_image("cat"))[:5000]],
                         ids=["text", "empty", "truncated"])
def test_a_broken_upload_is_told_and_changes_nothing(content):
    picker = image_picker("cat")
    shown = explore(lambda image: image, image=picker)
    before = picker.value
    upload(picker, content, "broken.jpg")
    shown.wait(SECONDS)
    assert picker.message.startswith("broken.jpg: the file is ") and "accepted is JPEG" in picker.message
    assert picker.value is before and picker.text == "cat"
    assert shown.image.value == encoded(sample_image("cat"))
    picker.menu.value = "dog"
    assert picker.message == ""


def test_the_limit_of_an_upload_is_said_before_and_what_arrives_is_taken(monkeypatch):
    monkeypatch.delenv("COURSE_UPLOAD_MB", raising=False)
    picker = image_picker("cat")
    assert "under 10 MB" in picker.upload.tooltip and picker.children[1].children[1].value == "under 10 MB"
    monkeypatch.setenv("COURSE_UPLOAD_MB", "50")
    assert image_picker("cat").children[1].children[1].value == "under 50 MB"
    large = as_png(Image.fromarray(np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)))
    assert len(large) > 10 * 2**20
    upload(picker, large)
    assert picker.value.size == (2000, 2000) and picker.message == ""


def test_a_class_is_found_by_name_part_of_a_name_index_and_alias():
    picker = class_picker(281)
    assert picker.value == 281 and picker.field.value == "281 tabby" and picker.text == "281 tabby"
    meant = {"king snake": 56, " Flamingo ": 130, "red panda": 387, "243": 243, "72 black and gold": 72}
    for typed, value in meant.items():
        picker.field.value = typed
        assert (picker.value, picker.message) == (value, "")
        assert picker.menu.layout.display == "none"


def test_of_several_classes_that_match_one_is_picked():
    picker = class_picker(281)
    picker.field.value = "snake"
    found = find_class("snake")
    assert len(found) > 5 and picker.message == f"{len(found)} classes match."
    assert picker.menu.layout.display is None and picker.value == found[0]
    assert list(picker.menu.options) == [(f"{index} {class_name(index)}", index) for index in found]
    picker.menu.value = 56
    assert picker.value == 56
    picker.field.value = "tabby"
    assert picker.value == 281 and picker.menu.layout.display == "none"


def test_an_empty_field_is_the_top_class():
    picker = class_picker(281)
    picker.field.value = " "
    assert picker.value is None and picker.text == "top class"
    assert class_picker().value is None and class_picker().field.value == ""


@pytest.mark.parametrize("typed, said", [("kingsnake", "king snake"), ("1000", "0 to 999"), ("xyzzyx", "nearest")])
def test_an_unknown_class_names_the_nearest_and_changes_nothing(typed, said):
    picker = class_picker(281)
    picker.field.value = typed
    assert said in picker.message and not set("[]") & set(picker.message) and "Error" not in picker.message
    assert picker.value == 281
    picker.field.value = "56"
    assert picker.message == "" and picker.value == 56


@pytest.mark.parametrize("typed, completed", [("85", "85 quail"), ("macaw", "88 macaw"), (" Flamingo", "130 flamingo")])
def test_what_was_typed_becomes_the_whole_name(typed, completed):
    picker = class_picker(281)
    picker.field.value = typed
    assert picker.field.value == picker.text == completed and picker.message == ""


def test_of_several_classes_the_field_shows_the_one_that_is_taken():
    picker = class_picker(281)
    picker.field.value = "snake"
    assert picker.field.value == picker.text == f"{find_class('snake')[0]} {class_name(find_class('snake')[0])}"
    picker.menu.value = 56
    assert picker.field.value == "56 king snake" and len(picker.menu.options) > 5


@pytest.mark.parametrize("make", [lambda **controls: play(growing, steps=5, **controls),
                                  lambda **controls: explore(counted, button="Run", n=3, **controls)],
                         ids=["play", "explore"])
def test_nothing_runs_on_a_class_that_is_not_the_one_in_the_field(make):
    shown = make(level=(picker := class_picker(88)))
    picker.field.value = "kingsnake"
    assert picker.message.endswith("Still in use: 88 macaw.")
    shown.run.click()
    shown.wait(SECONDS)
    assert shown.image.value == b"" and not shown.run.disabled
    assert shown.status.startswith("Not run, because of level: ") and "king snake" in shown.status
    picker.field.value = "king snake"
    shown.run.click()
    shown.wait(SECONDS)
    assert shown.image.value and "Not run" not in shown.status


def test_nothing_runs_on_the_network_before_while_another_is_loading(monkeypatch, empty_cache):
    models = model_picker()
    shown = play(lambda model: growing(), model=models)
    models.menu.value = "vgg16"
    shown.run.click()
    shown.wait(SECONDS)
    assert shown.status.startswith("Not run, because of model: The weights of vgg16 must be fetched first")
    assert models.message.endswith("Still in use: squeezenet1_1, pretrained weights.") and shown.image.value == b""


def test_the_panel_says_which_class_it_draws_and_what_the_network_says():
    target = class_picker(281)
    shown = explore(lambda image, model, target: image, image=image_picker("cat_dog"),
                    model=load_model(device="cpu"), target=target)
    said = r"map for 281 tabby \(0\.28\) · the network says German shepherd \(0\.39\) · [\d.]+ s"
    assert re.fullmatch(said, shown.status)
    target.field.value = ""
    shown.wait(SECONDS)
    assert re.fullmatch(r"map for 235 German shepherd \(0\.39\) · [\d.]+ s", shown.status)


def test_play_says_for_which_class_it_runs():
    shown = play(lambda target: growing(), target=class_picker(88))
    shown.run.click()
    shown.wait(SECONDS)
    assert shown.status.startswith("88 macaw · step 5 · objective ")


def test_only_imagenets_classes_have_names():
    picker = class_picker(3, classes=10)
    assert picker.text == picker.field.value == "class 3" and len(picker.field.options) == 10
    for typed, value in {"7": 7, "class 4": 4, "": None}.items():
        picker.field.value = typed
        assert (picker.value, picker.message) == (value, "")
    for typed, said in {"10": "0 to 9", "tabby": "10 classes have no names: type a number"}.items():
        picker.field.value = typed
        assert said in picker.message and picker.value is None


def test_layers_of_the_menu_are_those_with_maps():
    network = resnet18(weights=None)
    names = layers_of(network).menu
    assert names == [name for name in layer_names(network) if name in names]
    assert {"conv1", "layer1", "layer4.1.conv2"} <= set(names)
    # Pooling, the classifier, and ReLUs that are called twice give no map of their own.
    assert not {"maxpool", "avgpool", "fc", "layer1.0.relu"} & set(names)


def test_the_layer_picker_begins_with_the_last_spatial_layer(model):
    picker = layer_picker(model)
    assert picker.value == last_spatial_layer(model) == "features.12"
    assert layer_picker(model, "features.4").value == layer_picker(model, model.features[4]).value == "features.4"
    picker.menu.value = "features.9"
    assert picker.value == picker.text == "features.9"
    with pytest.raises(ValueError, match=r"nearest names are .*features\.12"):
        layer_picker(model, "features.120")
    with pytest.raises(ValueError, match="no spatial output"):
        layer_picker(model, "classifier.3")


def test_the_layer_picker_probes_networks_of_other_input_sizes_with_their_picture():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5 * 28 * 28, 10))
    network.eval()
    preprocess(sample_image("cat"), network, size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    for image in (sample_image("cat"), image_picker("cat")):
        picker = layer_picker(network, "0", image=image)
        assert list(picker.menu.options) == ["0", "1", "2"] and picker.value == "0"
    assert layer_picker(network, image=image).value == "2"
    with pytest.raises(Exception, match=r"shape|224|size"):      # without it, 224 by 224 is tried
        layer_picker(network)


def test_the_layer_picker_returns_to_the_layer_chosen_before_with_its_network():
    models = model_picker(weights="random")
    layers = layer_picker(models, "features.4")
    for name, layer in {"alexnet": "features.11", "squeezenet1_1": "features.4"}.items():
        models.menu.value = name
        models.wait(SECONDS)
        assert layers.value == layer


def test_the_layer_picker_follows_the_model_picker(model):
    models = model_picker()
    layers = layer_picker(models, "features.4")
    calls = []

    def function(model, layer):
        calls.append((type(model).__name__, layer))
        return plain(0)

    shown = explore(function, model=models, layer=layers)
    models.weights.value = "random"
    shown.wait(SECONDS)
    assert layers.value == "features.4"      # the same network: the layer stays, so that they can be compared
    models.menu.value = "alexnet"
    shown.wait(SECONDS)
    assert layers.value == "features.11" and layers.menu.index == list(layers.menu.options).index("features.11")
    assert calls == [("SqueezeNet", "features.4")] * 2 + [("AlexNet", "features.11")]
    models.value = nn.Linear(3, 3)           # a network that has no such layer
    assert "no layer" in layers.message or "Linear" in layers.message


def test_the_model_picker_loads_pretrained_and_random_networks():
    picker = model_picker()
    assert list(picker.menu.options[:5]) == ["squeezenet1_1", "efficientnet_lite0", "alexnet", "vgg16", "vgg19"]
    assert "resnet18" in picker.menu.options and len(set(picker.menu.options)) == len(picker.menu.options)
    pretrained = picker.value
    picker.weights.value = "random"
    picker.wait(SECONDS)
    assert picker.text == "squeezenet1_1, random weights" and picker.value is not pretrained
    assert not torch.equal(picker.value.features[0].weight, pretrained.features[0].weight)
    picker.menu.value = "resnet18"
    picker.wait(SECONDS)
    assert type(picker.value).__name__ == "ResNet" and not picker.value.training


def test_the_second_bundled_network_is_loaded_at_once(empty_cache):
    picker = model_picker()
    picker.menu.value = "efficientnet_lite0"
    picker.wait(SECONDS)
    assert type(picker.value).__name__ == "EfficientNetLite0" and picker.message == ""
    assert picker.text == "efficientnet_lite0, pretrained weights"


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


def test_weights_are_fetched_only_after_a_click_and_no_network_is_told(monkeypatch, empty_cache):
    asked = []

    def refuse(*arguments, **options):
        asked.append(arguments)
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    picker = model_picker()
    before = picker.value
    picker.menu.value = "vgg16"
    picker.wait(SECONDS)
    assert "528 MB" in picker.message and asked == []
    assert picker.fetch.layout.display is None and picker.fetch.description == "Fetch and use"
    picker.fetch.click()
    picker.wait(SECONDS)
    assert len(asked) == 1 and "no network here" in picker.message
    assert picker.message.startswith("the weights of vgg16 ")
    assert picker.message.endswith("Still in use: squeezenet1_1, pretrained weights.")
    assert picker.value is before and picker.menu.value == "squeezenet1_1" and picker.fetch.layout.display == "none"
    picker.menu.value = "vgg16"      # to try again
    assert picker.fetch.layout.display is None and picker.refusal
    picker.menu.value = "squeezenet1_1"
    picker.wait(SECONDS)
    assert picker.message == picker.refusal == "" and picker.fetch.layout.display == "none"


def test_a_fetch_says_how_much_has_arrived(monkeypatch, empty_cache):
    go_on = threading.Event()

    def slow(name, **options):
        empty_cache.mkdir()
        (empty_cache / "alexnet-owt-7be5be79.pth.0123.partial").write_bytes(bytes(3 * 2**20))
        assert go_on.wait(SECONDS)
        return nn.Identity()

    picker = model_picker()
    picker.menu.value = "alexnet"
    monkeypatch.setattr(pickers, "load_model", slow)
    picker.fetch.click()
    until(lambda: picker.message == "Fetching alexnet: 3 of 233 MB …")
    go_on.set()
    picker.wait(SECONDS)
    assert picker.message == "" and isinstance(picker.value, nn.Identity)


def test_a_network_that_was_not_waited_for_is_dropped(monkeypatch):
    go_on = threading.Event()

    def load(name, **options):
        assert name == "resnet18" or go_on.wait(SECONDS)
        network = nn.Identity()
        network.name = name
        return network

    picker = model_picker(weights="random")
    monkeypatch.setattr(pickers, "load_model", load)
    picker.menu.value = "alexnet"
    slow = picker._thread
    picker.menu.value = "resnet18"
    picker.wait(SECONDS)
    go_on.set()
    slow.join(SECONDS)
    assert picker.value.name == "resnet18" and picker.message == ""


def test_the_model_picker_warns_where_memory_will_not_do(monkeypatch):
    picker = model_picker(weights="random")
    monkeypatch.setenv("MEM_LIMIT", "0")
    picker.menu.value = "resnet18"
    picker.wait(SECONDS)
    assert "may need 179 MB of memory" in picker.message and type(picker.value).__name__ == "SqueezeNet"
    assert picker.fetch.description == "Use all the same"
    picker.fetch.click()
    picker.wait(SECONDS)
    assert type(picker.value).__name__ == "ResNet"


def test_the_limit_of_a_container_counts(monkeypatch):
    monkeypatch.setenv("MEM_LIMIT", str(2**50))
    free = environment.available_memory()
    assert 0 < free <= environment.psutil.virtual_memory().total
    monkeypatch.setenv("MEM_LIMIT", str(environment.psutil.Process().memory_info().rss + 10 * 2**20))
    assert environment.available_memory() <= 11 * 2**20


def test_the_drawing_picker_gives_a_drawing():
    picker = drawing_picker()
    assert picker.value == Drawing("overlay", 100, 0.75) and not picker.opacity.disabled
    picker.style_menu.value = "gray"
    picker.percentile.value = 99
    assert picker.value == Drawing("gray", 99, 0.75) and picker.opacity.disabled
    assert picker.message.startswith("black: none, white: most")
    picker.style_menu.value = "beside"
    assert picker.message.startswith("gray: none, yellow: most") and not picker.opacity.disabled
    assert all(field.tooltip for field in (picker.percentile, picker.opacity))
    assert drawing_picker("colour", 98, 0.3).value == Drawing("colour", 98, 0.3)


@pytest.mark.parametrize("signed", [False, True])
def test_a_drawing_draws(signed):
    image, values = torch.rand(1, 3, 24, 32), torch.randn(1, 1, 6, 8)
    how = {"signed": signed, "percentile": 95}
    assert pixels_equal(Drawing("overlay", 95, 0.3)(image, values, signed), overlay(image, values, opacity=0.3, **how))
    assert pixels_equal(Drawing("colour", 95)(image, values, signed), heatmap(values, size=(24, 32), **how))
    beside = image_grid([image, overlay(image, values, opacity=0.3, **how)])
    assert pixels_equal(Drawing("beside", 95, 0.3)(image, values, signed), beside)
    gray = Drawing("gray", 95)(image, values, signed)
    assert gray.mode == "L" and gray.size == (32, 24)
    assert pixels_equal(gray.convert("RGB"), heatmap(values, size=(24, 32), cmap="gray", **how))


@pytest.mark.parametrize("style, position, cell", [
    ("colour", "0.25 0.6", (7, 3)), ("overlay", "0 0", (0, 0)), ("gray", "1.000 .99", (12, 12)),
    ("beside", "0.125 0.6", (7, 3)), ("beside", "0.625 0.6", (7, 3)),
])
def test_a_position_of_the_drawn_picture_is_a_cell_of_the_map(style, position, cell):
    assert Drawing(style).cell(position, 13, 13) == cell


@pytest.mark.parametrize("position", ["", "0.5", "0.5 0.5 0.5", "1.5 0.5", "left top"])
def test_another_position_is_refused_in_words(position):
    with pytest.raises(ValueError, match=re.escape(f"position '{position}': click on the picture, or type two")):
        Drawing().cell(position, 13, 13)


def test_a_grad_cam_redraws_through_all_pickers_in_under_three_tenths_of_a_second():
    models = model_picker()
    shown = explore(grad_cam, model=models, image=image_picker("cat_dog"), target=class_picker(281),
                    layer=layer_picker(models), drawing=drawing_picker())
    image, target, layer, drawing = (shown.controls[name] for name in ("image", "target", "layer", "drawing"))
    seconds = []
    for change, called in [
        (lambda: setattr(image.menu, "value", "macaw_dog"), ("macaw_dog", 281, "features.12", Drawing())),
        (lambda: setattr(target.field, "value", "macaw"), ("macaw_dog", 88, "features.12", Drawing())),
        (lambda: setattr(layer.menu, "value", "features.9"), ("macaw_dog", 88, "features.9", Drawing())),
        (lambda: setattr(drawing.style_menu, "value", "gray"), ("macaw_dog", 88, "features.9", Drawing("gray"))),
    ]:
        started = time.perf_counter()
        change()
        shown.wait(SECONDS)
        seconds.append(time.perf_counter() - started)
        name, *rest = called
        assert shown.image.value == encoded(grad_cam(models.value, sample_image(name), *rest))
        assert shown.status.endswith(" s · 1 forward, 1 backward pass")
    assert min(seconds) < 0.3, seconds      # the least: other work on the machine must not fail a test


# play


def growing(level=0, steps=5, broken=None, pause=0.0):
    """A generator of steps; its pictures grow brighter, its second objective falls."""
    for number in range(1, steps + 1):
        time.sleep(pause)
        if number == broken:
            raise ValueError(f"step {number} is broken")
        image = torch.full((2, 3, 4, 6), (level + number) % 256 / 255)
        yield Step(number, torch.tensor([float(number), -float(number)]), image)


def grid(number):
    """The picture of a step of `growing`."""
    return image_grid([torch.full((3, 4, 6), number / 255)] * 2)


def test_nothing_runs_before_run_and_then_everything():
    shown = play(growing, steps=slider(5), level=slider(10))
    assert shown.status == "Press Run." and shown.image.value == b"" == shown.curve.value
    assert shown.saves[".png"].disabled and shown.saves[".gif"].disabled and shown.stop.disabled
    shown.run.click()
    assert shown.run.disabled and not shown.stop.disabled
    shown.wait(SECONDS)
    assert shown.image.value == encoded(grid(15)) and shown.bar.value == 1
    assert shown.status.startswith("step 5 of 5 · objective 0 · done · ")
    assert Image.open(io.BytesIO(shown.curve.value)).size[0] == 800
    assert not shown.run.disabled and shown.stop.disabled and not shown.saves[".png"].disabled


def test_without_an_objective_there_is_no_curve():
    def pictures(steps):
        yield from (step._replace(objective=None) for step in growing(steps=steps))

    shown = play(pictures, steps=3)
    shown.run.click()
    shown.wait(SECONDS)
    assert shown.status.startswith("step 3 of 3 · done · ") and shown.image.value == encoded(grid(3))
    assert shown.curve.layout.display == "none" and shown.curve.value == b""


def test_a_picture_older_than_the_controls_is_marked():
    level = slider(10)
    shown = play(growing, level=level, steps=5)
    shown.run.click()
    shown.wait(SECONDS)
    level.value = 50
    assert shown.status == "The controls changed: press Run." and shown.image.value == encoded(grid(15))
    shown.reset.click()
    assert shown.status.startswith("step 5 of 5 · objective 0 · done")      # the picture is of these controls again
    level.value = 50
    shown.run.click()
    shown.wait(SECONDS)
    assert "changed" not in shown.status and shown.image.value == encoded(grid(55))


@pytest.mark.parametrize("make", [lambda function, **controls: play(function, **controls),
                                  lambda function, **controls: explore(lambda **values: plain(len(list(
                                      function(**values)))), button="Run", **controls)], ids=["play", "explore"])
def test_a_control_that_changes_during_the_run_is_told_at_its_end(make):
    started, go_on = threading.Event(), threading.Event()

    def function(level):
        started.set()
        assert go_on.wait(SECONDS)
        yield from growing(level)

    level = slider(10)
    shown = make(function, level=level)
    shown.run.click()
    assert started.wait(SECONDS)
    level.value = 50
    go_on.set()
    shown.wait(SECONDS)
    assert shown.status.endswith(" s · The controls changed since: press Run.")


def test_a_panel_says_that_it_waits_for_a_long_cell_and_an_interrupt_stops_it(monkeypatch):
    class Kernel:
        """What a panel needs of one."""

    told, kernel = {}, Kernel()
    kernel.shell = SimpleNamespace(events=SimpleNamespace(register=told.__setitem__))
    monkeypatch.setattr(panel, "get_ipython", lambda: SimpleNamespace(get_parent=dict, kernel=kernel))
    shown = play(endless)
    told["pre_run_cell"](None)
    told["post_run_cell"](None)
    time.sleep(1.1)
    assert shown.waiting.text == ""      # a short one
    told["pre_run_cell"](None)
    until(lambda: shown.waiting.text == "A cell is running: the controls are heard when it is done.")
    told["post_run_cell"](None)
    assert shown.waiting.text == "" and shown.waiting.layout.display == "none"
    shown.run.click()
    until(lambda: shown.image.value)
    kernel.saved_sigint_handler(2, None)
    shown.wait(SECONDS)
    assert " · stopped · " in shown.status


def test_a_panel_says_what_to_do_after_a_restart():
    lines = [part.text for part in explore(plain, level=slider()).children[0].children[0].children
             if isinstance(part, panel.Line)]
    assert "restart" in lines[-1] and "Run All Above Selected Cell" in lines[-1]


def test_a_second_run_starts_anew_with_the_values_of_now():
    steps = slider(5)
    shown = play(growing, steps=steps)
    shown.run.click()
    shown.wait(SECONDS)
    steps.value = 3
    shown.run.click()
    shown.wait(SECONDS)
    assert shown.image.value == encoded(grid(3)) and shown.status.startswith("step 3 of 3")


def test_a_click_on_run_while_it_runs_does_not_start_it_again():
    starts = []

    def function(pause):
        starts.append(pause)
        yield from growing(steps=20, pause=pause)

    shown = play(function, pause=0.01)
    shown.run.click()
    shown.run.click()
    shown.wait(SECONDS)
    assert starts == [0.01]


def test_stop_acts_within_one_step_keeps_the_picture_and_closes_the_generator():
    made, closed = [], []

    def function():
        try:
            for step in growing(steps=100_000, pause=0.01):
                made.append(step.number)
                yield step
        finally:
            closed.append(threading.current_thread().name)

    shown = play(function, total=100_000)
    shown.run.click()
    until(lambda: len(made) > 5)
    before = len(made)
    shown.stop.click()
    shown.wait(SECONDS)
    assert len(made) <= before + 1 and closed == ["course panel"]
    assert shown.image.value == encoded(grid(made[-1]))
    assert shown.status.startswith(f"step {made[-1]} of 100000 · ") and " · stopped · " in shown.status
    assert not shown.run.disabled


def test_an_error_in_the_generator_is_told_and_the_picture_made_so_far_stays():
    shown = play(growing, steps=5, broken=4)
    shown.run.click()
    shown.wait(SECONDS)
    assert shown.status == "step 4 is broken"
    assert shown.image.value == encoded(grid(3)) and not shown.run.disabled and not shown.saves[".png"].disabled


@pytest.mark.parametrize("function, error", [
    (lambda: iter([Step(1, torch.zeros(1), "picture")]), "no picture of shape"),      # no picture
    (lambda: 5, "TypeError"),                                            # no generator
    (lambda: (step for step in ()), "no step"),                          # no step
])
def test_what_is_no_generator_of_steps_is_told(function, error):
    shown = play(function)
    shown.run.click()
    shown.wait(SECONDS)
    assert error in shown.status and not shown.run.disabled and shown.image.value == b""


def test_previews_come_at_most_ten_times_a_second():
    shown = play(growing, steps=400, pause=0.001)
    times = []
    shown.image.observe(lambda change: times.append(time.perf_counter()), "value")
    shown.run.click()
    shown.wait(SECONDS)
    assert len(times) > 3
    assert np.diff(times[:-1]).min() > 0.09      # the last one comes when the run ends


def test_the_total_of_the_bar_can_depend_on_the_values():
    shown = play(growing, steps=4, total=lambda steps: 2 * steps)
    shown.run.click()
    shown.wait(SECONDS)
    assert shown.bar.value == 0.5 and shown.status.startswith("step 4 of 8 · ")


def test_the_passes_of_a_run_are_counted(model):
    def function(model):
        for step in growing(steps=3):
            with evaluation_mode(model):
                class_score(model, torch.rand(2, 3, 64, 64))
            yield step

    shown = play(function, model=model)
    shown.run.click()
    shown.wait(SECONDS)
    assert shown.status.endswith(" s · 6 forward passes")
    with count_passes(model) as passes:
        pass
    assert passes.forward == 0 and not model._forward_hooks


def test_controls_that_the_function_cannot_be_called_with_are_refused_at_once():
    def function(level, recipe):
        yield from growing(level)

    with pytest.raises(TypeError, match=r"function cannot be called .*\(level\): missing .* 'recipe'"):
        play(function, level=slider(10), recipe=slider(1))      # recipe is an argument of play itself
    with pytest.raises(TypeError, match=r"grid cannot be called .*\(lever\): "):
        explore(grid, lever=slider(10))


def test_the_picture_is_saved_with_its_recipe(monkeypatch, tmp_path, model):
    monkeypatch.setattr(panel, "OUTPUT", tmp_path)

    def function(model, image, level, style, x, steps=5):
        yield from growing(level, steps)

    shown = play(function, recipe={"seed": 3}, model=model, image=image_picker("cat"), level=slider(10),
                 style=Drawing(), x=torch.zeros(1, 3))
    shown.run.click()
    shown.wait(SECONDS)
    shown.controls["level"].value = 50      # after the run: not in its recipe
    for _ in range(2):
        shown.saves[".png"].click()
        shown.wait(SECONDS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["function_01.png", "function_02.png"]
    assert shown.status == f"Saved {tmp_path / 'function_02.png'} (0.0 MB). " \
                           "· The controls changed since: press Run."
    saved = Image.open(tmp_path / "function_01.png")
    assert pixels_equal(saved, grid(15))
    recipe = json.loads(saved.text["recipe"])
    assert recipe.pop("model").startswith(("SqueezeNet", "squeezenet1_1"))
    assert recipe == {"technique": "function", "seed": 3, "image": "cat", "level": 10, "style": str(Drawing()),
                      "x": "tensor (1, 3)", "step": 5}
    assert not shown.run.disabled and not shown.saves[".png"].disabled


@pytest.mark.parametrize("steps, frames", [(7, 7), (59, 59), (60, 31), (500, 33)])
def test_the_animation_keeps_at_most_sixty_frames_and_the_last(monkeypatch, tmp_path, steps, frames):
    monkeypatch.setattr(panel, "OUTPUT", tmp_path)
    shown = play(growing, steps=steps)
    shown.run.click()
    shown.wait(SECONDS)
    shown.saves[".gif"].click()
    shown.wait(SECONDS)
    saved = Image.open(tmp_path / "growing_01.gif")
    assert saved.n_frames == frames <= 60
    saved.seek(frames - 1)
    last = np.asarray(grid(steps % 256), dtype=int)
    assert np.abs(np.asarray(saved.convert("RGB"), dtype=int) - last).max() < 16      # a GIF has 256 colours


def test_what_cannot_be_saved_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(panel, "OUTPUT", tmp_path / "output")
    (tmp_path / "output").write_text("a file, not a folder")
    shown = play(growing)
    shown.saves[".png"].click()      # nothing was made: nothing happens
    shown.run.click()
    shown.wait(SECONDS)
    shown.saves[".png"].click()
    shown.wait(SECONDS)
    assert "Errno" not in shown.status and str(tmp_path / "output") in shown.status and not shown.saves[".png"].disabled


def test_there_is_one_output_folder_wherever_the_notebook_lies():
    assert OUTPUT == INPUT_IMAGES.parent / "output" == Path(__file__).resolve().parents[1] / "output"


@pytest.mark.parametrize("error, said", [
    (ValueError("a sentence"), "a sentence"), (KeyError("x"), "KeyError: 'x'"), (ValueError(), "ValueError: "),
    (NotADirectoryError(20, "Not a directory", "output"), "Not a directory: output"), (OSError("ours"), "ours"),
])
def test_an_error_is_told_without_python_where_it_has_words(error, said):
    assert panel.in_words(error) == said


def test_closing_the_panel_ends_the_run():
    closed = []

    def function():
        try:
            yield from endless()
        finally:
            closed.append(True)

    shown = play(function)
    shown.run.click()
    until(lambda: shown.image.value)
    shown.close()
    shown.wait(SECONDS)
    assert closed == [True]
