"""The demo in a browser: the answers of Python, in words too; errors that cost nothing; a photograph that stays."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from notebook_rules import ROOT
from PIL import Image
from test_site import DESK, HTML, TELEPHONE
from torchvision.transforms import functional as F

from course_utils import load_image, load_model, overlay, predict, preprocess, sample_image, sample_images

DEMO = "docs/demo.html"
PATIENCE = 30_000      # milliseconds; what takes longer has failed
EXAMPLE = "a tabby cat above a German shepherd"


@pytest.fixture(scope="module")
def model():
    return load_model(device="cpu")


class Shown:
    """The demo on a page, used the way a passer-by uses it."""

    def __init__(self, page):
        self.page = page
        self.canvas, self.status, self.trouble, self.answers, self.own = (
            page.locator(f"#demo-{name}") for name in ("canvas", "status", "trouble", "answers", "own"))
        page.set_default_timeout(PATIENCE)

    def wait(self, name):
        """Until the answer about a picture of this name is there."""
        self.page.wait_for_function("start => document.getElementById('demo-canvas').ariaLabel.startsWith(start)",
                                    arg=f"{name}, with the map of ")

    def give(self, content, name="own.png"):
        """Choose a file, and wait until it is answered."""
        self.own.set_input_files({"name": name, "mimeType": "", "buffer": content})
        self.wait(name)

    def top(self):
        """Class index -> probability."""
        return dict(self.answers.evaluate("box => [...box.children].map(button => [Number(button.value), "
                                          "Number(button.style.getPropertyValue('--share'))])"))

    def picture(self):
        address = self.canvas.evaluate("canvas => canvas.toDataURL('image/png')")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"), dtype=int)


@pytest.fixture
def demo(visit, server):
    def open_demo(size=DESK, colours="light"):
        shown = Shown(visit(DEMO, size, colours, server))
        shown.wait(EXAMPLE)
        return shown
    return open_demo


def encoded(picture, kind="png", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def expected(model, picture):
    """What Python says: the five best as index -> probability, the maps `(1000, 13, 13)`, and the first one drawn."""
    x = preprocess(picture, model)
    with torch.no_grad():
        maps = model.classifier[:-1](model.features(x))[0]
    top = {index: probability for index, _, probability in predict(model, x)}
    large = F.center_crop(F.resize(load_image(picture), [512]), [448])
    return top, maps, np.asarray(overlay(large, maps[next(iter(top))]), dtype=int)


def furthest(found, wanted):
    """The largest difference between probabilities of classes that are among both answers, which four of five are."""
    common = found.keys() & wanted.keys()
    assert len(common) >= 4
    return max(abs(found[index] - wanted[index]) for index in common)


# --- the same answer as Python


def test_resize_is_pillow_s_to_the_last_bit(visit, server):
    page = visit(DEMO, DESK, server=server)
    for width, height in [(640, 480), (479, 640), (90, 71), (256, 256), (256, 299), (297, 256), (3000, 61)]:
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
        small = resized(page, pixels)
        wanted = F.center_crop(F.resize(Image.fromarray(pixels[..., :3]), [256]), [224])
        assert np.array_equal(small, np.asarray(wanted)), (width, height)


def resized(page, pixels):
    """What the page's resize makes of RGBA pixels `(H, W, 4)`: `(224, 224, 3)`."""
    height, width, _ = pixels.shape
    small = page.evaluate("""async ([text, width, height]) => {
        const {centre} = await import("../_static/demo/resize.js");
        const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
        const read = (top, rows) => bytes.subarray(4 * width * top, 4 * width * (top + rows));
        return Array.from(centre(read, width, height, 256, 224));
    }""", [base64.b64encode(pixels.tobytes()).decode(), width, height])
    return np.reshape(small, (224, 224, 3))


def test_every_photograph_gets_python_s_answer_and_map(demo, model):
    shown = demo()
    deviations = {"PNG": [], "JPEG": []}
    for name in sample_images():
        top, _, drawn = expected(model, sample_image(name))
        shown.give(encoded(sample_image(name)), f"{name}.png")      # every pixel as Pillow has it
        deviations["PNG"].append(furthest(shown.top(), top))
        assert list(shown.top()) == list(top)
        assert np.abs(shown.picture() - drawn).max() <= 2

        photograph = shown.page.locator(f"[data-photograph={name}]")
        photograph.click()      # the JPEG, decoded by the browser
        shown.wait(photograph.locator("img").get_attribute("alt"))
        deviations["JPEG"].append(furthest(shown.top(), top))
        assert next(iter(shown.top())) == next(iter(top))
        assert np.abs(shown.picture() - drawn).mean() < 2
    print({kind: f"{max(values):.1e}" for kind, values in deviations.items()})
    assert max(deviations["PNG"]) < 1e-4
    assert max(deviations["JPEG"]) < 0.01


@pytest.mark.parametrize("kind", ["turned", "transparent", "gray", "palette", "animated"])
def test_other_kinds_of_pictures_are_read_as_python_reads_them(kind, demo, model):
    picture = sample_image("crab")      # not square, and the network hesitates
    content = {
        "turned": lambda: encoded(picture, "png", exif=turned()),
        "transparent": lambda: encoded(with_alpha(picture)),
        "gray": lambda: encoded(picture.convert("L")),
        "palette": lambda: encoded(picture.quantize(64)),
        "animated": lambda: encoded(picture, "gif", save_all=True, append_images=[sample_image("cat")]),
    }[kind]()
    top, _, drawn = expected(model, load_image(content))
    shown = demo()
    shown.give(content)
    assert furthest(shown.top(), top) < 0.01
    assert np.abs(shown.picture() - drawn).mean() < 2


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6      # the orientation: to be turned by a quarter
    return exif


def with_alpha(picture):
    across = np.linspace(0, 255, picture.width).round().astype(np.uint8)
    picture = picture.convert("RGBA")
    picture.putalpha(Image.fromarray(np.tile(across, (picture.height, 1))))
    return picture


# --- what is shown and said


def test_pressing_an_answer_shows_its_map_and_says_where_it_is(demo, model):
    shown = demo()
    _, maps, first = expected(model, sample_image("cat_dog"))
    assert "German shepherd, 39\N{NO-BREAK SPACE}%. Its map is brightest " in shown.status.inner_text()
    buttons = shown.answers.get_by_role("button")
    assert buttons.count() == 5
    buttons.first.focus()
    shown.page.keyboard.press("Tab")
    shown.page.keyboard.press("Enter")
    assert [button.get_attribute("aria-pressed") for button in buttons.all()] == ["false", "true"] + 3 * ["false"]
    row, column = divmod(maps[281].argmax().item(), 13)
    words = [{0: "top", 1: "", 2: "bottom"}[3 * row // 13], {0: "left", 1: "", 2: "right"}[3 * column // 13]]
    said = re.fullmatch(r"tabby, 2\d\s%\. Its map is brightest (.+)\.", shown.status.inner_text())[1]
    assert re.findall("top|bottom|left|right", said) == [word for word in words if word]
    assert shown.canvas.get_attribute("aria-label") == f"{EXAMPLE}, with the map of tabby"
    large = F.center_crop(F.resize(sample_image("cat_dog"), [512]), [448])
    assert np.abs(shown.picture() - np.asarray(overlay(large, maps[281]), dtype=int)).mean() < 2
    assert np.abs(shown.picture() - first).mean() > 5

    shown.page.get_by_label("Show the map").press("Space")
    assert np.abs(shown.picture() - np.asarray(large, dtype=int)).mean() < 2
    assert shown.canvas.get_attribute("aria-label") == EXAMPLE


def test_a_picture_can_be_dropped_and_pasted(demo):
    shown = demo()
    for kind, field in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        shown.page.evaluate("""([text, kind, field]) => {
            const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0)), data = new DataTransfer();
            data.items.add(new File([bytes], `${kind}.png`, {type: "image/png"}));
            const event = kind === "drop" ? new DragEvent(kind, {[field]: data, bubbles: true, cancelable: true})
                                          : new ClipboardEvent(kind, {[field]: data, bubbles: true});
            document.body.dispatchEvent(event);
        }""", [base64.b64encode(encoded(sample_image("coffee"))).decode(), kind, field])
        shown.wait(f"{kind}.png")
        assert "espresso" in shown.status.inner_text()


def test_of_several_pictures_the_last_one_stays(demo):
    shown = demo()
    shown.page.evaluate("""() => ["panda", "coffee", "macaw"].forEach(
        name => document.querySelector(`[data-photograph=${name}]`).click())""")
    shown.wait("a scarlet macaw")
    shown.page.wait_for_timeout(1000)
    assert shown.status.inner_text().startswith("macaw, ")
    assert shown.page.locator("[data-photograph][aria-pressed=true]").get_attribute("data-photograph") == "macaw"


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, TELEPHONE], ids=["desk", "telephone"])
def test_demo_keeps_the_rules_of_accessibility_and_fits(size, colours, demo):
    shown = demo(size, colours)
    assert shown.page.evaluate("() => document.documentElement.scrollWidth") <= size["width"]
    shown.own.set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"notes"})
    shown.trouble.wait_for(state="visible")
    found = Axe().run(shown.page, options={"resultTypes": ["violations"], "preload": False})
    assert found.violations_count == 0, found.generate_report()


# --- nothing is sent


def test_an_own_photograph_is_looked_at_without_a_connection(demo):
    shown = demo()
    asked = []
    shown.page.on("request", lambda request: asked.append(request.url))
    shown.page.context.set_offline(True)
    shown.give(encoded(sample_image("panda")))
    assert "giant panda" in shown.status.inner_text()
    assert asked == []


# --- what goes wrong


@pytest.mark.parametrize("name, content, said", [
    ("notes.txt", lambda: b"notes", "notes.txt is not a picture"),
    ("half.png", lambda: encoded(Image.new("RGB", (300, 300)))[:60], "half.png is not a picture, or damaged"),
    ("heavy.png", lambda: bytes(51 * 2**20), "heavy.png has 51 MB"),
    ("wide.png", lambda: encoded(Image.new("1", (16400, 400))), "wide.png is 16400 × 400 pixels. That is too large"),
    ("many.png", lambda: encoded(Image.new("1", (9500, 9500))), "many.png is 9500 × 9500 pixels. That is too large"),
    ("strip.png", lambda: encoded(Image.new("L", (510, 10))), "strip.png is 510 × 10 pixels. That is more than 50"),
], ids=lambda value: value if isinstance(value, str) and "." in value[-4:] else "")
def test_what_cannot_be_read_is_said_and_the_last_picture_stays(name, content, said, demo, tmp_path):
    shown = demo()
    before, words = shown.picture(), shown.status.inner_text()
    (tmp_path / name).write_bytes(content())
    shown.own.set_input_files(tmp_path / name)
    shown.trouble.wait_for(state="visible")
    assert said in shown.trouble.inner_text()
    assert np.array_equal(shown.picture(), before) and shown.status.inner_text() == words
    shown.give(encoded(sample_image("coffee")))
    assert not shown.trouble.is_visible()


def test_a_network_that_cannot_be_loaded_is_asked_for_again(browser, server):
    context = browser.new_context(viewport=DESK)
    shown = Shown(context.new_page())
    shown.page.route("**/network.onnx", lambda route: route.fulfill(status=404))
    shown.page.goto(f"{server}/{DEMO}")
    shown.trouble.wait_for(state="visible")
    assert "network.onnx could not be loaded" in shown.trouble.inner_text()
    shown.own.set_input_files({"name": "own.png", "mimeType": "", "buffer": encoded(sample_image("coffee"))})
    shown.page.wait_for_function("() => document.getElementById('demo-canvas').ariaLabel === 'own.png'")
    shown.trouble.wait_for(state="visible")
    shown.page.unroute("**/network.onnx")
    shown.page.get_by_role("button", name="Try again").click()
    shown.wait("own.png")
    assert "espresso" in shown.status.inner_text() and not shown.trouble.is_visible()
    context.close()


def test_without_webassembly_or_from_the_disk_the_page_says_so(browser, server):
    for start, address, said in [("delete window.WebAssembly", server, "has no WebAssembly"),
                                 ("", HTML.as_uri(), "only from a server")]:
        context = browser.new_context(viewport=DESK)
        context.add_init_script(start)
        shown = Shown(context.new_page())
        shown.page.goto(f"{address}/{DEMO}")
        assert said in shown.status.inner_text()
        assert shown.page.locator("#demo-still").is_visible() and not shown.own.is_visible()
        context.close()


def test_versions_are_locked_and_no_registry_is_named():
    text = (ROOT / "site" / "demo" / "package-lock.json").read_text(encoding="utf-8")
    packages = json.loads(text)["packages"]
    wanted = json.loads((ROOT / "site" / "demo" / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert packages[""]["dependencies"] == wanted
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert "://" not in text


def test_lesson_and_gallery_lead_to_the_demo_and_it_leads_back():
    for page, link in [("notebooks/06_grad_cam.html", "../docs/demo.html"), ("docs/gallery.html", "demo.html"),
                       (DEMO, "../notebooks/06_grad_cam.html"), (DEMO, "../notebooks/20_faithfulness.html"),
                       (DEMO, "../notebooks/21_your_own_image.html")]:
        assert f'href="{link}' in (HTML / page).read_text(encoding="utf-8"), page
