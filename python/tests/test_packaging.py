"""Both ways to install hold the whole package: python/meson.build of the wheel, python/pyproject.toml of the package alone."""
import pathlib
import re

import pytest

from lighthouse import _library

tomllib = pytest.importorskip("tomllib")
HERE = pathlib.Path(__file__).parents[1]
ROOT = HERE.parent
PACKAGES = {"lighthouse": HERE / "lighthouse", "lighthouse.torch": HERE / "lighthouse" / "torch"}
pytestmark = pytest.mark.skipif(not (HERE / "meson.build").exists(), reason="the sources are not here")


def test_the_wheel_has_every_file():
    text = (HERE / "meson.build").read_text()
    table = dict(re.findall(r"'(\w*)': \[(.*?)\]", text, re.S))
    assert set(table) == {"", "torch"}
    for folder, listed in table.items():
        there = {p.name for p in (HERE / "lighthouse" / folder).iterdir() if p.is_file()}
        assert set(re.findall(r"'(.*?)'", listed)) == there
    assert "data/upstream" in text and "data/manifest.json" in text


def test_the_package_alone_has_every_package():
    setup = tomllib.loads((HERE / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {".".join(p.parent.relative_to(HERE).parts) for p in (HERE / "lighthouse").rglob("__init__.py")}
    assert set(setup["packages"]) == there == set(PACKAGES)
    assert setup["package-data"]["lighthouse"] == ["py.typed"]


def test_one_version_and_one_set_of_needs():
    alone, wheel = (tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in (HERE, ROOT))
    assert alone["version"] == wheel["version"] == _library.VERSION
    assert alone["dependencies"] == wheel["dependencies"] and wheel["requires-python"] == alone["requires-python"]
    assert wheel["scripts"] == {"lighthouse": "lighthouse.__main__:main"}
    for extra in ("torch", "transformers"):
        assert alone["optional-dependencies"][extra] == wheel["optional-dependencies"][extra]
