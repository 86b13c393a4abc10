"""The report and the sheet of notebook 21, on networks that can be explained and on those that cannot."""

import contextlib
import json
import re
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from toys import network, raising, state_of

from course_utils import last_step, preprocess, sample_image, sheets, techniques, to_image
from course_utils.images import as_picture
from course_utils.measures import rank_correlation
from course_utils.steps import Stopped
from course_utils.techniques import own_maps, own_sheet, report, sheet_techniques, vanilla_gradient

LABELS = list(techniques.report_lines())
# What is quick enough to be made for every network.
QUICK = ("gradient", "guided backprop", "LRP, mixed rules", "LRP, ε⁺ flat", "Grad-CAM", "LayerCAM", "blob")


def picture(size=64):
    """Another picture than our photographs, with edges and no flat regions."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, 8, 8, generator=generator)
    return as_picture(nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1))


def quick(names=QUICK):
    return {name: sheet_techniques()[name] for name in names}


class Colours(nn.Module):
    """The score of each class is a weighted mean of a colour, rectified; by hand everything is known of it."""

    def __init__(self, *weights):
        super().__init__()
        self.mix = nn.Conv2d(3, len(weights), 1, bias=False)
        self.mix.weight.data = torch.tensor(weights)[..., None, None]
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(len(weights), len(weights), bias=False)
        self.head.weight.data = torch.eye(len(weights))

    def forward(self, x):
        return self.head(self.relu(self.mix(x)).mean(dim=(2, 3)))


def halves(red=1.0, blue=0.9):
    """A network of two colours, and a picture of 8 by 8 that it sees red on the left and blue on the right."""
    model = Colours([red, 0.0, 0.0], [0.0, 0.0, blue]).eval()
    x = -torch.ones(1, 3, 8, 8)
    x[:, 0, :, :4] = x[:, 2, :, 4:] = 1
    model.course_input = {"mean": [0.5] * 3, "std": [0.5] * 3, "size": [8, 8]}
    return model, x


# The report ---------------------------------------------------------------------------------------------------


def test_the_report_of_a_network_known_by_hand():
    model, x = halves()
    lines = report(model, x)
    assert list(lines) == LABELS
    assert lines["output"] == "2 scores from 0.45 to 0.5, before a softmax"
    assert lines["answer"].startswith("0 class 0 0.512, then 1 class 1 0.488")      # 1 / (1 + exp(-0.05))
    assert lines["state"] == "evaluation mode, 1 layers overwrite their input"
    assert lines["repeatable"] == "two passes agree"
    assert lines["activations"] == "1 ReLU; the ReLU rule reaches 1"
    assert lines["last map"] == "relu (8×8)"
    assert lines["gradient"] == "83.3% of it are zero; a tiny step does 1.00 of what it promises"
    assert " 1.000 of" in lines["completeness"] and " 1.000 of" in lines["conservation"]
    assert lines["same answer"].count("yes") == 4 and "NO" not in lines["same answer"]
    assert lines["other answer"] == "one step of 16 gray levels away"      # red must fall by a tenth: 12.75 levels


@pytest.mark.parametrize("blue, levels", [(0.99, "2"), (0.9, "16"), (0.7, "more than 32")])
def test_the_smallest_step_is_the_first_size_above_the_true_one(blue, levels):
    model, x = halves(blue=blue)      # red must fall by 1 − blue of a range of 127.5 levels
    assert report(model, x)["other answer"] == f"one step of {levels} gray levels away"


def test_the_target_is_the_class_that_is_asked_about():
    model, x = halves()
    model.mix.weight.data[0] = 1.0      # the first class sees white, the second, whose weights are negative, nothing
    model.mix.weight.data[1] = -1.0
    white = torch.ones_like(x)
    assert report(model, white)["gradient"].startswith("0.0% of it are zero")
    assert report(model, white, target=1)["gradient"] == "NO: nothing moves this score: it, or its gradient, is zero"


class Noisy(Colours):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x) + 1, 0.5)


class Softmax(Colours):
    def forward(self, x):
        return super().forward(x).softmax(dim=1)


class Detached(Colours):
    def forward(self, x):
        return super().forward(x).detach()


class OneScore(Colours):
    def forward(self, x):
        return super().forward(x)[:, :1]


class Broken(Colours):
    def forward(self, x):
        raise KeyError("this network's own fault")


@pytest.mark.parametrize("kind, label, said", [
    (Noisy, "repeatable", "two passes differ by"), (Softmax, "output", "NO: the network gives probabilities"),
    (Detached, "gradient", "NO: no gradient comes back"), (OneScore, "answer", "NO: the network gives one score"),
    (Broken, "output", "NO: KeyError: \"this network's own fault\""),
])
def test_what_cannot_be_asked_is_said_in_the_line(kind, label, said):
    _, x = halves()
    model = kind([1.0, 0.0, 0.0], [0.0, 0.0, 0.9], [0.3, 0.3, 0.3]).eval()
    torch.manual_seed(0)
    before = state_of(model)
    lines = report(model, x)
    assert list(lines) == LABELS and lines[label].startswith(said)
    assert lines["state"].startswith("evaluation mode")
    assert state_of(model) == before


def test_a_reason_is_told_once():
    _, x = halves()
    lines = report(Softmax([1.0, 0, 0], [0, 0, 0.9], [0.3, 0.3, 0.3]).eval(), x)
    assert sum("probabilities" in said for said in lines.values()) == 1
    assert list(lines.values()).count("NO, for the reason above") >= 7


@pytest.mark.parametrize("name", ["squeezenet1_1", "efficientnet_lite0"])
def test_the_bundled_networks_are_asked_everything_and_left_as_they_were(name):
    model = network(name, "pretrained")
    x = preprocess(sample_image("coffee"), model)
    before, seen = state_of(model), x.clone()
    lines = report(model, x)
    assert state_of(model) == before and torch.equal(x, seen)
    relus = {"squeezenet1_1": "26 ReLU", "efficientnet_lite0": "33 ReLU6"}[name]
    assert lines["activations"] == f"{relus}; the ReLU rule reaches {relus.split()[0]}"
    assert lines["answer"].startswith("967 espresso")
    assert 0.95 < float(re.search(r"does (\S+) of", lines["gradient"])[1]) < 1.05
    declined = [label for label, said in lines.items() if said.startswith("NO")]
    assert declined == ([] if name == "squeezenet1_1" else ["conservation"])


@pytest.mark.parametrize("name, activations, last, declined", [
    ("resnet18", "17 ReLU; the ReLU rule reaches 17", "layer4 (2×2); finer: layer3 (4×4), layer2 (8×8)", []),
    ("vgg11", "10 ReLU; the ReLU rule reaches 10", "features.19 (4×4)", []),
    ("mobilenet_v2", "35 ReLU6; the ReLU rule reaches 35", "features.18 (2×2)", ["conservation"]),
    ("googlenet", "57 ReLU; the ReLU rule reaches 57", "inception5b (2×2)", []),
    ("densenet121", "121 ReLU; the ReLU rule reaches 121", "features (2×2)", ["conservation"]),
    ("efficientnet_b0", "the ReLU rule reaches 0", "features.8 (2×2)", ["conservation"]),
    ("mobilenet_v3_small", "the ReLU rule reaches 14", "features.12 (2×2)", ["conservation"]),
    ("convnext_tiny", "18 GELU; the ReLU rule reaches 0", "features.7 (2×2)", ["conservation"]),
])
def test_families_of_networks_are_described_in_words(name, activations, last, declined):
    model = network(name)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = state_of(model)
    lines = report(model, x)
    assert state_of(model) == before
    assert activations in lines["activations"] and lines["last map"].startswith(last)
    assert [label for label, said in lines.items() if said.startswith("NO")] == declined


def test_a_transformer_has_no_layer_with_positions():
    model = network("vit_b_32")
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="VisionTransformer is a transformer"):
        techniques.say_last_map(model, x, None)
    with pytest.raises(ValueError, match="nothing moves this score"):      # torchvision begins with a head of zeros
        techniques.say_gradient(model, x, None)
    assert techniques.say_repeatable(model, x, None) == "two passes agree"


def test_training_mode_is_told_and_left():
    model, x = halves()
    model.train()
    assert report(model, x)["state"].startswith("4 modules in training mode")
    assert model.training and model.relu.training


# Maps and their twins -----------------------------------------------------------------------------------------


def test_a_map_is_that_of_a_plain_call_and_its_twin_that_of_a_shuffled_copy(squeezenet):
    x = preprocess(sample_image("crab"), squeezenet)
    before = state_of(squeezenet)
    (name, values, twin, words), = own_maps(squeezenet, x, techniques=quick(["gradient"]), seed=4)
    assert state_of(squeezenet) == before and (name, words) == ("gradient", "")
    torch.testing.assert_close(values, vanilla_gradient(squeezenet, x, 121), rtol=0, atol=1e-4)
    with sheets.shuffled_copy(squeezenet, seed=4) as other:
        torch.testing.assert_close(twin, vanilla_gradient(other, x, 121), rtol=0, atol=1e-4)      # of the same class
    assert techniques.survived(values, values).item() == pytest.approx(1, abs=1e-5)
    ranks = rank_correlation(values.sum(1, keepdim=True), twin.sum(1, keepdim=True))
    torch.testing.assert_close(techniques.survived(values, twin), ranks)


def test_one_failure_costs_one_map():
    model, x = halves(red=3.0)

    def broken(model, x, target):
        raise ZeroDivisionError("its own fault")

    def warns(model, x, target):
        warnings.warn("only in part", stacklevel=1)
        return vanilla_gradient(model, x, target)

    found = list(own_maps(model, x, techniques={"broken": broken, "warns": warns, "blob": techniques.middle_blob}))
    assert [values is None for _, values, _, _ in found] == [True, False, False]
    assert [words for *_, words in found] == ["ZeroDivisionError: its own fault", "only in part", ""]
    assert found[0][2] is None and found[2][2].shape == (1, 1, 8, 8)
    assert techniques.say_map(*found[1][1:]).startswith("0 to 0.0469, in part, shuffled ")


def test_a_stop_of_a_panel_is_no_failure():
    model, x = halves()

    def stopped(*arguments):
        raise Stopped

    with pytest.raises(Stopped):
        list(own_maps(model, x, techniques={"stopped": stopped}))


def test_a_network_that_cannot_be_copied_has_maps_and_no_twins():
    model, x = halves()
    model.register_buffer("made", torch.ones(1, requires_grad=True) * 2)      # copy.deepcopy refuses it
    (_, values, twin, words), = own_maps(model, x, techniques=quick(["gradient"]))
    assert values.any() and twin is None and words == ""


def test_the_network_is_left_alone_also_when_the_generator_is_dropped_and_after_an_error(squeezenet):
    x = preprocess(picture(), squeezenet, size=64)
    before = state_of(squeezenet)
    maps = own_maps(squeezenet, x, techniques=quick(["gradient", "blob"]))
    next(maps)
    assert state_of(squeezenet) == before      # in the middle of it
    maps.close()
    with raising(squeezenet.features[3], KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        list(own_maps(squeezenet, x, 0, techniques=quick(["gradient"])))
    assert state_of(squeezenet) == before


@pytest.mark.parametrize("name, missing", [
    ("resnet18", set()), ("mobilenet_v2", {"LRP, mixed rules"}),
    ("efficientnet_b0", {"guided backprop", "LRP, mixed rules", "LRP, ε⁺ flat"}),
    ("densenet121", {"LRP, mixed rules", "LRP, ε⁺ flat"}),
    ("vit_b_32", {"guided backprop", "LRP, mixed rules", "LRP, ε⁺ flat", "Grad-CAM", "LayerCAM"}),
])
def test_what_a_family_cannot_be_asked_is_said_in_its_place(name, missing):
    model = network(name)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    maps = own_maps(model, x, techniques=quick(), shuffle=False)
    found = {title: (values, words) for title, values, _, words in maps}
    assert {title for title, (values, _) in found.items() if values is None} == missing
    assert all(len(found[title][1]) > 20 for title in missing)
    assert all(values.isfinite().all() for values, _ in found.values() if values is not None)


# The sheet ----------------------------------------------------------------------------------------------------


def test_every_technique_has_its_place_on_the_sheet_of_a_small_network():
    model, _ = halves()
    before = state_of(model)
    steps = list(own_sheet(model, picture(8)))
    assert [step.number for step in steps] == list(range(1, len(sheet_techniques()) + 2))
    assert len({step.image.shape for step in steps}) == 1 and all(step.objective is None for step in steps)
    assert steps[0].image.shape[:2] == (1, 3) and 0 <= steps[-1].image.min() and steps[-1].image.max() <= 1
    ink = [(step.image < 0.95).sum().item() for step in steps]
    assert all(b > a for a, b in zip(ink, ink[1:], strict=False))      # each adds something
    assert state_of(model) == before


def test_a_map_stands_on_its_place_and_words_where_there_is_none():
    model, x = halves()
    page = sheets.Page(to_image(x, model), "label: said", ["a", "b"])
    empty = page.picture()
    values = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    page.put("b", values, None, "0 to 1")
    drawn = as_picture(page.picture())
    tile = np.asarray(drawn.crop((230, drawn.height - 224, 454, drawn.height)))
    assert np.array_equal(tile, np.asarray(page.tiles["b"])) and page.picture().shape == empty.shape
    page.put("a", None, None, "there is no rule for this")
    assert (page.picture() != empty).any() and page.tiles["a"].size == (224, 224)


@pytest.mark.parametrize("kind", [Softmax, Detached, Broken])
def test_a_network_that_can_be_asked_nothing_has_a_sheet_of_sentences(kind):
    model = kind([1.0, 0.0, 0.0], [0.0, 0.0, 0.9], [0.3, 0.3, 0.3]).eval()
    last = last_step(own_sheet(model, picture(), techniques=quick(["gradient", "Grad-CAM"]), shuffle=False))
    assert last.number == 3 and (last.image < 0.5).any()


def test_export_writes_each_map_with_its_recipe_and_the_report(tmp_path, squeezenet):
    names = ["gradient", "LRP, ε⁺ flat", "blob"]
    folder = tmp_path / "new" / "folder"
    for step in own_sheet(squeezenet, sample_image("coffee"), 967, folder=str(folder), techniques=quick(names)):
        assert len(list(folder.glob("*.png"))) == step.number - 1      # saved as they come, so that Stop keeps them
    assert sorted(file.name for file in folder.iterdir()) == [
        "01_gradient.png", "02_LRP_flat.png", "03_blob.png", "report.txt"]
    text = (folder / "report.txt").read_text(encoding="utf-8")
    assert [line.split(":")[0] for line in text.splitlines()] == LABELS and "967 espresso" in text
    with Image.open(folder / "02_LRP_flat.png") as file:
        recipe = json.loads(file.text["recipe"])
        assert file.size == (454, 224)      # a map and its twin
    image = sample_image("coffee")
    assert recipe == {"map": "LRP, ε⁺ flat", "technique": "lrp", "options": {"composite": "epsilon_plus_flat"},
                      "target": 967, "model": squeezenet.course_name, "picture": f"{image.width}×{image.height}",
                      "preprocessing": "its own", "seed of the twin": 0}


def test_a_stopped_sheet_keeps_what_was_made(tmp_path):
    model, _ = halves()
    with contextlib.closing(own_sheet(model, picture(8), folder=str(tmp_path))) as steps:
        for step in steps:
            if step.number == 3:
                break
    assert len(list(tmp_path.glob("*.png"))) == 2 and (tmp_path / "report.txt").exists()


def test_wrong_pictures_are_refused_in_words(tmp_path):
    model, _ = halves()
    with pytest.raises(ValueError, match="50"):
        next(own_sheet(model, Image.new("RGB", (600, 10))))


def test_classes_that_are_not_there_are_told_in_every_place():
    model, x = halves()
    assert any("class 7: the network's classes are 0 to 1" in said for said in report(model, x, target=7).values())
    found = list(own_maps(model, x, 7, techniques=quick(["gradient"])))
    assert found[0][1] is None and "class 7" in found[0][3]
