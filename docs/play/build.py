#!/usr/bin/env python3
"""One self-contained page: build.py MODULE.wasm PAGE.html, from the files beside this script."""
import base64
import pathlib
import sys

here = pathlib.Path(__file__).parent
page = (here / "page.html").read_text()
scripts = [(here / name).read_text() for name in ("engine.js", "state.js", "draw.js", "page.js", "selftest.js")]
parts = {
    "@STYLE@": (here / "page.css").read_text(),
    "@WASM@": base64.b64encode(pathlib.Path(sys.argv[1]).read_bytes()).decode(),
    "@SCRIPT@": "\n".join(scripts),
}
for name, text in parts.items():
    page = page.replace(name, text)
pathlib.Path(sys.argv[2]).write_text(page)
