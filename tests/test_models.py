"""Networks and their weights: bundled, fetched, cached, corrupt; names, classes and predictions."""

import hashlib
import http.client
import http.server
import shutil
import threading
import urllib.error

import pytest
import torch
from torch import nn
from toys import Toy, network, state_of, toy_pictures

from course_utils import (
    class_name,
    class_score,
    evaluation_mode,
    find_class,
    load_model,
    models,
    predict,
    run_to,
    target_classes,
)
from course_utils.models import (
    BUNDLED,
    available_models,
    best_device,
    cached_file,
    must_be_fetched,
    published_weights,
)
from course_utils.scores import classes_in

SMALL = "squeezenet1_0"      # a network whose weights are not bundled, small enough to write to disk in a test

# The bundled networks -----------------------------------------------------------------------------------------


def test_the_default_network_is_ready_for_the_course():
    model = load_model(device="cpu")
    assert type(model).__name__ == "SqueezeNet"
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.features[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert model.course_weights is published_weights("squeezenet1_1")


every_bundled = pytest.mark.parametrize("name", BUNDLED)


@every_bundled
def test_a_bundled_network_needs_neither_a_network_nor_a_cache(monkeypatch, tmp_path, name):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    model = load_model(name, device="cpu")
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.course_weights is published_weights(name)
    assert not must_be_fetched(name) and not (tmp_path / "empty").exists()


def test_random_weights_come_from_the_seed():
    def weight(seed):
        torch.manual_seed(seed)
        return load_model(weights="random", device="cpu").features[0].weight

    torch.testing.assert_close(weight(3), weight(3), rtol=0, atol=0)
    assert not torch.equal(weight(3), weight(4))
    assert not torch.equal(weight(3), network("squeezenet1_1", "pretrained").features[0].weight)


@pytest.fixture
def copied_weights(monkeypatch, tmp_path):
    """A copy of the folder with the bundled weights, from which they are loaded."""
    folder = shutil.copytree(models._WEIGHTS, tmp_path / "weights")
    monkeypatch.setattr(models, "_WEIGHTS", folder)
    for name in BUNDLED:
        load_model(name, device="cpu")
    return folder


@every_bundled
def test_a_corrupt_bundled_file_is_detected(copied_weights, name):
    file = copied_weights / f"{name}.pth"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(RuntimeError, match=f"corrupt.*{name}.pth.*git checkout"):
        load_model(name, device="cpu")


@every_bundled
@pytest.mark.parametrize("suffix", [".pth", ".pth.sha256"])
def test_a_missing_bundled_file_is_said(copied_weights, name, suffix):
    (copied_weights / f"{name}{suffix}").unlink()
    with pytest.raises(RuntimeError, match=rf"missing.*{name}{suffix};.*git checkout"):
        load_model(name, device="cpu")


# Weights that are fetched -------------------------------------------------------------------------------------


def no_network(*args, **kwargs):
    raise urllib.error.URLError("Name or service not known")


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory):
    """A file of random weights for the small network, named as torchvision names its own; and its network."""
    model = network(SMALL)
    file = tmp_path_factory.mktemp("published") / "weights.pth"
    torch.save(model.state_dict(), file)
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    return file.rename(file.with_name(f"{SMALL}-{digits}.pth")), model


@pytest.fixture
def cache(monkeypatch, tmp_path, small_weights):
    """An empty cache folder; the small network's entry names our file, at an address without a server."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    publish_at(monkeypatch, "http://127.0.0.1:9", small_weights[0])
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def publish_at(monkeypatch, address, file):
    monkeypatch.setattr(published_weights(SMALL).value, "url", f"{address}/{file.name}")


@pytest.fixture
def server(monkeypatch, cache, small_weights):
    """A server on this computer that has the small network's file, and can be told to break off halfway."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = small_weights[0].read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:len(content) // 2] if self.server.breaks_off else content)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.breaks_off = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    publish_at(monkeypatch, f"http://127.0.0.1:{server.server_port}", small_weights[0])
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def same_weights(found, expected):
    expected = expected.state_dict()
    return all(torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())


def test_weights_are_fetched_once_and_then_come_from_the_cache(server, cache, small_weights, monkeypatch, capsys):
    file, expected = small_weights
    assert same_weights(load_model(SMALL, device="cpu"), expected)
    assert f"fetching 5 MB once, to {cache / file.name}" in capsys.readouterr().err
    assert [path.name for path in cache.iterdir()] == [file.name]
    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    assert same_weights(load_model(SMALL, device="cpu"), expected)
    assert "fetching" not in capsys.readouterr().err


def test_a_cache_filled_by_hand_is_used(cache, small_weights):
    shutil.copy(small_weights[0], cache)
    model = load_model(SMALL, device="cpu")
    assert same_weights(model, small_weights[1])
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


DAMAGE = {"truncated": lambda content: content[:-1000], "preceded": lambda content: b"<html>" + content,
          "empty": lambda content: b""}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_corrupt_cached_file_is_detected(cache, small_weights, damage):
    file = cache / small_weights[0].name
    file.write_bytes(damage(small_weights[0].read_bytes()))
    with pytest.raises(RuntimeError, match="are corrupt: their SHA-256.*Delete the file") as error:
        load_model(SMALL, device="cpu")
    assert str(file) in str(error.value)
    assert file.exists()      # a learner's file is not deleted unasked


def test_an_intact_file_of_another_network_is_not_taken_for_a_missing_one(cache, monkeypatch, tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    digits = hashlib.sha256((tmp_path / "other.pth").read_bytes()).hexdigest()[:8]
    (tmp_path / "other.pth").rename(cache / f"{SMALL}-{digits}.pth")
    publish_at(monkeypatch, "http://127.0.0.1:9", cache / f"{SMALL}-{digits}.pth")
    with pytest.raises(RuntimeError, match="Error.* in loading state_dict for SqueezeNet"):
        load_model(SMALL, device="cpu")


def test_without_a_network_the_error_says_what_to_do(cache, small_weights):
    with pytest.raises(RuntimeError, match="could not be fetched") as error:
        load_model(SMALL, device="cpu")
    message = str(error.value)
    assert f"http://127.0.0.1:9/{small_weights[0].name}" in message
    assert str(cache) in message
    assert "works now without one: squeezenet1_1, efficientnet_lite0, and any model with weights='random'" in message
    assert list(cache.iterdir()) == []


def test_without_a_name_server_too(cache, monkeypatch):
    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    with pytest.raises(RuntimeError, match="vgg16-397923af.pth.*Name or service not known"):
        load_model("vgg16", device="cpu")
    assert list(cache.iterdir()) == []


def test_models_that_were_fetched_before_are_among_those_that_work(cache, small_weights, monkeypatch):
    shutil.copy(small_weights[0], cache)
    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    with pytest.raises(RuntimeError, match=f"works now without one: {', '.join(BUNDLED)}, {SMALL}, and any"):
        load_model("alexnet", device="cpu")


def test_a_download_that_breaks_off_leaves_nothing(server, cache):
    server.breaks_off = True
    with pytest.raises(RuntimeError, match="could not be fetched"):
        load_model(SMALL, device="cpu")
    assert list(cache.iterdir()) == []
    server.breaks_off = False
    load_model(SMALL, device="cpu")


@pytest.mark.parametrize("error, told", [
    (KeyboardInterrupt(), KeyboardInterrupt), (ConnectionResetError("reset"), RuntimeError),
    (TimeoutError("timed out"), RuntimeError), (http.client.IncompleteRead(b""), RuntimeError),
], ids=lambda error: type(error).__name__ if isinstance(error, BaseException) else "")
def test_an_error_in_the_midst_of_a_download_leaves_nothing(server, cache, monkeypatch, error, told):
    open_url = torch.hub.urlopen

    def interrupted(*args, **kwargs):
        response = open_url(*args, **kwargs)
        read, parts = response.read, []

        def read_a_part(size):
            parts.append(size)
            if len(parts) == 3:
                assert len(list(cache.iterdir())) == 1      # a part of the file is there
                raise error
            return read(size)

        response.read = read_a_part
        return response

    monkeypatch.setattr(torch.hub, "urlopen", interrupted)
    with pytest.raises(told, match="could not be fetched" if told is RuntimeError else None):
        load_model(SMALL, device="cpu")
    assert list(cache.iterdir()) == []


def test_an_unknown_model_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="no model 'vgg61'.*'vgg16'"):
        load_model("vgg61")
    with pytest.raises(ValueError, match="no model 'efficientnet_lite'.*'efficientnet_lite0'"):
        load_model("efficientnet_lite")
    with pytest.raises(ValueError, match="weights='imagenet'.*'pretrained' and 'random'"):
        load_model(weights="imagenet")


def test_the_bundled_models_are_the_first_of_all_classifiers():
    names = available_models()
    assert names[:2] == ["squeezenet1_1", "efficientnet_lite0"] and len(names) == len(set(names))
    assert {"alexnet", "vgg16", "vgg19", "resnet18", "googlenet", "densenet121"} <= set(names)
    assert not any("rcnn" in name or name.startswith(("quantized", "deeplab", "raft")) for name in names)
    for name in names:
        published = published_weights(name)
        assert published.transforms().mean and published.meta["categories"] and published.meta["_file_size"] > 1
        assert name in BUNDLED or cached_file(published).suffix == ".pth"


# Devices ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuda, mps, expected", [
    (True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu"),
])
def test_the_best_device_is_chosen_in_order(monkeypatch, cuda, mps, expected):
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device() == torch.device(expected)


def test_the_variable_overrides_the_best_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert best_device() == torch.device("cpu")
    assert next(load_model(weights="random").parameters()).device.type == "cpu"


@pytest.mark.parametrize("wanted", ["cuda:99", "toaster"])
def test_a_device_that_is_not_there_is_refused_in_words(monkeypatch, wanted):
    monkeypatch.setenv("COURSE_DEVICE", wanted)
    with pytest.raises(ValueError, match=f"COURSE_DEVICE='{wanted}' cannot be used here: "):
        best_device()


# Classes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, expected", [
    ("king snake", [56]), ("  King SNAKE ", [56]), ("lesser panda", [387]), ("red panda", [387]), ("worm snake", [52]),
    ("bull mastiff", [243]), ("flamingo", [130]), ("black and gold", [72]), ("mobile phone", [487]),
    ("panda", [387, 388]), ("king sn", [56]),
])
def test_classes_are_found_by_name_alias_and_part(name, expected):
    assert find_class(name) == expected


def test_a_name_that_repeats_gives_all_its_classes(monkeypatch):
    monkeypatch.setattr(models, "_CATEGORIES", ["crane", "tench", "Crane", "crane fly"])
    assert find_class("crane") == [0, 2]
    assert find_class("cra") == [0, 2, 3]


def test_every_alias_leads_to_a_class_that_it_could_mean():
    found = {alias: class_name(index) for alias, index in models._ALIASES.items()}
    assert found["red panda"] == "lesser panda" and found["worm snake"] == "thunder snake"
    assert found["alsatian"] == "German shepherd" and found["orca"] == "killer whale" and found["puma"] == "cougar"
    assert not set(models._ALIASES) & {name.lower() for name in models._CATEGORIES}


@pytest.mark.parametrize("name, near", [("flamigo", "flamingo"), ("red pandda", "red panda"), ("", "none")])
def test_an_unknown_class_is_answered_with_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"no ImageNet class is called '{name}'.*{near}"):
        find_class(name)


def test_class_names():
    assert class_name(0) == "tench" and class_name(999) == "toilet tissue"
    assert class_name(torch.tensor(56)) == "king snake"
    for wrong in (-1, 1000):
        with pytest.raises(IndexError, match=f"class {wrong}: the network's classes are 0 to 999"):
            class_name(wrong)
    assert class_name(3, classes=10) == "class 3"
    with pytest.raises(IndexError, match="class 10: the network's classes are 0 to 9"):
        class_name(10, classes=10)


# Predictions --------------------------------------------------------------------------------------------------


def pictures(rows=1):
    return torch.randn(rows, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def test_predict_gives_one_list_for_one_picture_and_lists_for_a_batch():
    model, x = network("squeezenet1_1"), pictures(3)
    one, batch = predict(model, x[:1], k=4), predict(model, x, k=4)
    assert len(one) == 4 and [len(row) for row in batch] == [4, 4, 4]
    assert [p.index for p in one] == [p.index for p in batch[0]]
    assert [p.probability for p in one] == sorted((p.probability for p in one), reverse=True)
    assert one[0].name == class_name(one[0].index) and len(predict(model, x[:1])) == 5


def test_predict_gives_the_softmax_of_the_scores():
    model, x = network("squeezenet1_1"), pictures()
    with evaluation_mode(model):
        expected = model(x).softmax(dim=1)[0]
    everything = predict(model, x, k=1000)
    assert sum(p.probability for p in everything) == pytest.approx(1, abs=1e-5)
    assert [p.probability for p in everything] == pytest.approx([expected[p.index].item() for p in everything])


def test_predict_leaves_a_model_in_training_mode_as_it_is():
    model = Toy().train()
    expected, before = predict(Toy(), toy_pictures(), k=3), state_of(model)
    assert predict(model, toy_pictures(), k=3) == expected
    assert state_of(model) == before


def test_a_network_of_ones_own_has_numbered_classes():
    assert {p.name for p in predict(Toy(), toy_pictures(), k=3)} == {"class 0", "class 1", "class 2"}


@pytest.mark.parametrize("k", [0, -1, 2.5])
def test_predict_refuses_a_number_that_there_is_not(k):
    with pytest.raises(ValueError, match=f"k={k}: accepted is a whole number from 1; the network has 1000 classes"):
        predict(network("squeezenet1_1"), pictures(), k=k)


def test_predict_gives_all_classes_where_there_are_fewer_than_k():
    assert predict(Toy(), toy_pictures()) == predict(Toy(), toy_pictures(), k=3)


def test_a_device_that_cannot_be_used():
    with pytest.raises(ValueError, match="device='nonsense' cannot be used here"):
        load_model(device="nonsense")


WRONG_INPUTS = {
    "a list": ([[0.0]], "a list.*as preprocess gives it"),
    "no batch": (torch.zeros(3, 64, 64), r"\(3, 64, 64\).*\(N, 3, H, W\)"),
    "one channel": (torch.zeros(1, 1, 64, 64), r"\(1, 1, 64, 64\)"),
    "no picture": (torch.zeros(0, 3, 64, 64), r"\(0, 3, 64, 64\)"),
    "8 bits": (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "torch.uint8.*float"),
    "another precision": (torch.zeros(1, 3, 64, 64).double(), "x is torch.float64, the model torch.float32"),
    "another device": (torch.zeros(1, 3, 64, 64, device="meta"), "x is on meta, the model on cpu"),
}


@pytest.mark.parametrize("x, message", WRONG_INPUTS.values(), ids=WRONG_INPUTS)
def test_a_wrong_input_is_refused_in_words(x, message):
    model = network("squeezenet1_1")
    for refuse in (lambda: predict(model, x), lambda: class_score(model, x, 1), lambda: target_classes(model, x, 1)):
        with pytest.raises(ValueError, match=message):
            refuse()


def test_a_network_that_is_no_classifier_is_refused_in_words():
    with pytest.raises(ValueError, match=r"gives \(1, 4, 62, 62\).*scores \(N, K\)"):
        predict(nn.Conv2d(3, 4, 3), pictures())


# Targets and scores -------------------------------------------------------------------------------------------

SCORES = torch.tensor([[1.0, 5.0, 2.0], [7.0, 0.0, 3.0]])


@pytest.mark.parametrize("target, expected", [
    (None, [1, 0]), (2, [2, 2]), (torch.tensor(2), [2, 2]), (torch.tensor([2, 0]), [2, 0]), ([0, 1], [0, 1]),
    (torch.tensor([2, 0], dtype=torch.int32), [2, 0]),
])
def test_one_class_per_row(target, expected):
    found = classes_in(SCORES, target)
    assert found.dtype == torch.long and found.tolist() == expected


@pytest.mark.parametrize("target, error, message", [
    (3, IndexError, "class 3: the network's classes are 0 to 2"),
    (-1, IndexError, "class -1: the network's classes are 0 to 2"),
    (torch.tensor([0, 17]), IndexError, "class 17: the network's classes are 0 to 2"),
    (torch.tensor([0, 1, 2]), ValueError, r"shape \(3,\); 2 pictures need an int or one class each"),
    (torch.tensor([[0], [1]]), ValueError, r"shape \(2, 1\)"),
    (1.0, ValueError, "torch.float32.*an int or a LongTensor"),
    (torch.tensor([True, False]), ValueError, "torch.bool"),
])
def test_a_wrong_target_is_refused_in_words(target, error, message):
    with pytest.raises(error, match=message):
        classes_in(SCORES, target)


def test_class_score_is_the_score_before_the_softmax_in_the_graph():
    model, x = Toy(), toy_pictures(3).requires_grad_()
    target = torch.tensor([2, 0, 1])
    scores = class_score(model, x, target)
    torch.testing.assert_close(scores, model(x)[range(3), target], rtol=0, atol=0)
    torch.testing.assert_close(class_score(model, x), model(x).amax(dim=1), rtol=0, atol=0)
    assert torch.autograd.grad(scores.sum(), x)[0].abs().max() > 0


def test_an_in_place_first_layer_spares_the_picture():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
    x = torch.randn(1, 3, 4, 4)
    before = x.clone()
    class_score(model, x, 0)
    predict(model, x, k=1)
    target_classes(model, x)
    torch.testing.assert_close(x, before, rtol=0, atol=0)


def test_targets_are_resolved_on_the_picture_itself():
    model, x = Toy().train(), toy_pictures(4)
    before = state_of(model)
    expected = Toy()(x).argmax(dim=1)
    assert target_classes(model, x).tolist() == expected.tolist()
    assert target_classes(model, x, 2).tolist() == [2] * 4
    with pytest.raises(ValueError, match=r"shape \(3,\); 4 pictures"):
        target_classes(model, x, torch.tensor([0, 1, 2]))
    assert state_of(model) == before


@pytest.mark.parametrize("call", [
    lambda model, x: predict(model, x), lambda model, x: class_score(model, x, 3),
    lambda model, x: run_to(model, x, "features.12"),
], ids=["predict", "class_score", "run_to"])
@pytest.mark.parametrize("side", [2, 12])
def test_too_small_a_picture_is_told(call, side):
    with pytest.raises(ValueError, match=f"this SqueezeNet fails on pictures 1×3×{side}×{side}: "):
        call(network("squeezenet1_1"), torch.zeros(1, 3, side, side))
