"""Print the decks as PDFs for those who listened: python lectures/handout.py

For each deck two files in build/handout: the slides, two on a page, and the same with the notes of who speaks. Pictures
come from the stored outputs, formulas are drawn by a MathJax on this disk, and a Chromium or Chrome prints the page;
nothing asks the network. Alternative texts of pictures are in the PDF for screen readers.
"""

import html
import importlib.metadata
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert.filters import markdown2html
from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
TO = HERE.parent / "build" / "handout"
BROWSERS = "chromium", "chromium-browser", "google-chrome"
# As on the website: one file that needs no fonts.
MATHJAX = importlib.metadata.distribution("sphinx-mathjax-offline").locate_file(
    "sphinx-mathjax-offline/static/mathjax/tex-svg-full.js")
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><base href="{base}"><title>{title}</title>
<style>
@page {{ size: A4; margin: 12mm; }}
body {{ font: 13pt/1.35 "DejaVu Sans", Arial, sans-serif; margin: 0; }}
section {{ box-sizing: border-box; break-inside: avoid; padding: 4mm 7mm; border: 1px solid #999; border-radius: 2mm;
  margin-bottom: 5mm; height: 133mm; display: flex; flex-direction: column; justify-content: center; }}
.notes section {{ height: auto; justify-content: flex-start; }}
aside {{ font-size: 10pt; border-top: 1px solid #999; margin-top: 2mm; }}
h1 {{ font-size: 24pt; }} h1, h2 {{ margin: 0 0 3mm; }} p {{ margin: 0 0 2mm; }}
img {{ max-width: 100%; max-height: 72mm; object-fit: contain; object-position: left; }}
th, td {{ padding: 1mm 3mm; border-bottom: 1px solid #ccc; text-align: left; }} table {{ border-collapse: collapse; }}
.anchor-link {{ display: none; }}
</style>
<script>window.MathJax = {{tex: {{inlineMath: [["$", "$"]]}}}};</script>
<script src="{mathjax}"></script></head>
<body class="{kind}">{body}</body></html>
"""


def main():
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        sys.exit(f"A handout is printed by a browser, and none of {', '.join(BROWSERS)} is here.")
    TO.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        for deck in sorted(HERE.glob("*.ipynb")):
            for kind, file in ("slides", TO / f"{deck.stem}.pdf"), ("notes", TO / f"{deck.stem}_notes.pdf"):
                source = file.with_suffix(".html")
                source.write_text(page(deck, kind), encoding="utf-8")
                printed(chromium, source, file)
                source.unlink()
                print(file)
        chromium.close()


def page(deck, kind):
    """A deck as one page of HTML; kind: "slides", or "notes", which has them below each slide."""
    notebook = nbformat.read(deck, as_version=4)
    slides = []
    for cell in notebook.cells:
        type_ = cell.metadata.get("slideshow", {}).get("slide_type")
        if type_ == "slide":
            slides.append("")
        if type_ == "notes" and kind == "notes":
            slides[-1] += f"<aside>{markdown2html(cell.source)}</aside>"
        elif type_ not in ("notes", "skip"):
            slides[-1] += shown(cell)
    body = "".join(f"<section>{slide}</section>" for slide in slides)
    title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
    return PAGE.format(base=f"{HERE.as_uri()}/", title=html.escape(title), mathjax=Path(MATHJAX).as_uri(), kind=kind,
                       body=body)


def shown(cell):
    """What is seen of a cell: its text, or the pictures among its outputs."""
    if cell.cell_type == "markdown":
        return markdown2html(cell.source)
    pictures = [(type_, data, output.metadata[type_]["alt"]) for output in cell.outputs
                for type_, data in output.get("data", {}).items() if type_.startswith("image/")]
    return "".join(f'<img src="data:{type_};base64,{data}" alt="{html.escape(alt)}">' for type_, data, alt in pictures)


def printed(chromium, source, file):
    tab = chromium.new_page()
    tab.context.set_offline(True)
    tab.goto(source.as_uri())
    tab.evaluate("() => MathJax.startup.promise")
    broken = tab.evaluate("() => [...document.images].filter(one => !one.naturalWidth).map(one => one.alt)")
    assert not broken, f"pictures that are not there: {broken}"
    tab.pdf(path=file, prefer_css_page_size=True, print_background=True, tagged=True, outline=True)
    tab.close()


if __name__ == "__main__":
    main()
