"""The website, as `make site` left it: every page in Chromium, opened from the disk, and what stands on it."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pages
import pytest
from axe_playwright_python.sync_playwright import Axe
from notebook_rules import ROOT, code_cells, is_solution, lesson_paths, notebook_paths, read

HTML = ROOT / "build" / "site" / "html"
PAGES = sorted(path.relative_to(HTML).as_posix() for path in HTML.rglob("*.html") if "_static" not in path.parts)
NOTEBOOKS = notebook_paths()
LOOKED_AT_CLOSELY = ["index.html", "docs/gallery.html", "notebooks/06_grad_cam.html",
                     "notebooks/solutions/06_grad_cam.html"]
TELEPHONE, DESK = {"width": 390, "height": 844}, {"width": 1400, "height": 1000}


def name_of(path):
    return path.relative_to(ROOT / "notebooks").as_posix()


def html_of(path):
    """The page of a notebook or text."""
    return HTML / path.relative_to(ROOT).with_suffix(".html")


class Parts(HTMLParser):
    """The pictures, links and ids of a page, in their order."""

    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.ids = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.images += [attributes] if tag == "img" else []
        self.links += [attributes["href"]] if tag == "a" and "href" in attributes else []


@pytest.fixture(scope="session")
def parts():
    """Page -> its parts."""
    return {page: Parts((HTML / page).read_text(encoding="utf-8")) for page in PAGES}


# --- without a browser


def test_every_notebook_and_text_is_a_page():
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    wanted = {html_of(path).relative_to(HTML).as_posix() for path in NOTEBOOKS + texts}
    assert wanted | {"index.html"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_site_lead_somewhere(page, parts):
    gone, followed = [], 0
    for link in parts[page].links:
        target, heading = urldefrag(urljoin(f"http://here/{page}", link))
        if urlparse(target).netloc == "here":
            file = unquote(urlparse(target).path).lstrip("/")
            if not (HTML / file).is_file() or heading and unquote(heading) not in parts[file].ids:
                gone.append(link)
            followed += 1
    assert gone == [] and followed


@pytest.mark.parametrize("page", PAGES)
def test_ids_are_unique_and_pictures_have_words(page, parts):
    ids = parts[page].ids
    assert sorted(name for name in set(ids) if ids.count(name) > 1) == []
    assert [image.get("src") for image in parts[page].images if not image.get("alt", "").strip()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebook_is_all_there(path, parts):
    """Its number, its pictures with their words, its folds, and the file itself."""
    notebook, page = read(path), html_of(path).relative_to(HTML).as_posix()
    text = (HTML / page).read_text(encoding="utf-8")
    assert re.search(rf"<h1>{path.name[:2]} · \w", text)

    shown = [image["alt"] for image in parts[page].images]
    assert set(alt for _, _, alt in pages.pictures(notebook)) - set(shown) == set()

    outputs_hidden = [cell for cell in code_cells(notebook) if "outputs_hidden" in cell.metadata.get("jupyter", {})]
    sources_hidden = [cell for cell in code_cells(notebook) if "source_hidden" in cell.metadata.get("jupyter", {})]
    folds = len(re.findall(r'<details class="[^"]*\bhide\b', text))
    assert folds == len(outputs_hidden) + len(sources_hidden)
    assert folds or is_solution(path)
    written = sum(cell.source.count("<details>") for cell in notebook.cells if cell.cell_type == "markdown")
    assert text.count("<details>") == written

    download, = [link for link in parts[page].links if "_sources/" in link]
    assert (HTML / page).parent.joinpath(download).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("path", lesson_paths(), ids=name_of)
def test_lesson_leads_to_its_solutions_which_are_not_in_the_navigation(path, parts):
    page = html_of(path).relative_to(HTML).as_posix()
    assert f"solutions/{path.stem}.html" in parts[page].links
    assert f"notebooks/{path.stem}.html" in parts["index.html"].links
    assert f"notebooks/solutions/{path.stem}.html" not in parts["docs/gallery.html"].links


def test_gallery_shows_every_picture_of_every_lesson(parts):
    shown = {(image["src"], image["alt"]) for image in parts["docs/gallery.html"].images}
    for path in lesson_paths():
        for kind, data, alt in pages.pictures(read(path)):
            found = re.search(r'src="(.+?)"', pages.tile(path, kind, data, alt))[1]
            assert (found, alt) in shown      # two lessons may show the same photograph, in other words
            assert (HTML / "docs" / found).read_bytes() == data


@pytest.mark.parametrize("workflow, origin, name", [
    ("somebody/course", "", "somebody/course"),
    ("", "git@github.com:somebody/course.git", "somebody/course"),
    ("", "https://github.com/somebody/my.course/", "somebody/my.course"),
    ("", "https://example.org/github.com.git", None),
    ("", "/home/somebody/course", None),
    ("", "", None),
])
def test_buttons_follow_the_address_of_the_repository(workflow, origin, name, monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", workflow)
    monkeypatch.setattr(pages, "origin", lambda: origin)
    options, readme = pages.repository_options(), pages.with_badge("# Course\n\n## Start\n\n## More\n")
    if name is None:
        assert options == {} and "inder" not in readme
    else:
        assert options["repository_url"] == f"https://github.com/{name}"
        assert options["launch_buttons"]["binderhub_url"] == "https://mybinder.org"
        assert readme.count(f"mybinder.org/v2/gh/{name}/main") == 1
        assert readme.index("mybinder") < readme.index("## Start")


# --- in a browser


@pytest.mark.parametrize("name", PAGES)
def test_page_opens_without_complaints_and_fits_a_telephone(name, visit):
    page = visit(name, TELEPHONE)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= TELEPHONE["width"]
    # A formula that MathJax could not read stands there as an error.
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    # Pictures that are not loaded as they come into sight are all there.
    assert page.evaluate("() => [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)") == []


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("name", LOOKED_AT_CLOSELY)
def test_page_keeps_the_rules_of_accessibility(name, colours, visit):
    page = visit(name, DESK, colours)
    assert page.locator("html").get_attribute("data-theme") == colours
    # Without preload: axe would fetch style sheets itself, some from a wrong address.
    found = Axe().run(page, options={"resultTypes": ["violations"], "preload": False})
    assert found.violations_count == 0, found.generate_report()


def test_search_finds_a_lesson(visit, server):
    page = visit("search.html?q=deconvnet", DESK, server=server)
    page.wait_for_selector("#search-results li a[href*='02_guided_backprop']", timeout=20_000)


def test_a_picture_of_the_gallery_leads_to_its_place_also_where_it_is_folded(visit):
    path = ROOT / "notebooks" / "06_grad_cam.ipynb"
    page = visit("docs/gallery.html", DESK)
    for folded in (False, True):
        cell = next(cell for cell in code_cells(read(path)) if pages.pictures({"cells": [cell]})
                    and ("jupyter" in cell.metadata) == folded)
        (_, data, alt), *_ = pages.pictures({"cells": [cell]})
        page.goto(f"{(HTML / 'docs/gallery.html').as_uri()}")
        page.locator(f"a[href$='#{pages.picture_name(data)}']").first.click()
        picture = page.locator(f"#{pages.picture_name(data)}")
        picture.wait_for(state="visible")
        assert picture.get_attribute("alt") == alt
