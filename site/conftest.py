"""What the tests of the website share: its server, and a reader who notices every complaint."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from notebook_rules import ROOT

HTML = ROOT / "build" / "site" / "html"
DISK = HTML.as_uri()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture(scope="session")
def server():
    """The address of a server of the site: from the disk, the search finds pages but cannot quote from them."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=HTML)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def visit(browser):
    """Opens a page, from the disk or a server; at the end, nothing was complained of and no other host was asked."""
    complaints, contexts = [], []

    def open_page(name, size, colours="light", server=DISK):
        contexts.append(browser.new_context(viewport=size, color_scheme=colours))
        page = contexts[-1].new_page()
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}")
                if request.failure != "net::ERR_ABORTED" else None)      # which is what a reader does who goes on
        page.on("request", lambda request: complaints.append(f"asks {request.url}")
                if not request.url.startswith((server, "data:", "blob:")) else None)
        page.goto(f"{server}/{name}")
        page.wait_for_function("() => !window.MathJax?.startup || MathJax.startup.promise")
        page.evaluate("() => window.MathJax?.startup?.promise")      # every formula is drawn
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
