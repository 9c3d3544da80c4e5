"""pytest plugin: a port judged on the conformance vectors, one test a vector.

    pytest -p lighthouse.pytest_plugin --lighthouse-vectors FOLDER      # of `lighthouse vectors --standard FOLDER`

A test that asks for `lighthouse_vector` runs once for each vector and hands its own tensors to `judge`:

    def test_port(lighthouse_vector):
        t, c = lighthouse_vector.inputs, lighthouse_vector.configuration
        lighthouse_vector.judge({**t, **my_layer(t, **c)}, require=("out", "dq", "dk", "dv"))
"""
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ._check import assert_right

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I32": "<i4", "I64": "<i8"}


def read(path):
    """Tensors and metadata of a safetensors file of the types that vectors have."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8: 8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata


@dataclass(frozen=True)
class Vector:
    """A conformance vector: `inputs` q, k, v, dout; `tensors` all of the reference's; `configuration` for check()."""

    name: str
    tensors: dict
    configuration: dict
    why: str

    @property
    def inputs(self):
        return {name: self.tensors[name] for name in ("q", "k", "v", "dout")}

    def judge(self, tensors, require=()):
        """Raises AssertionError with the report unless all of `tensors` is right and all of `require` was judged."""
        assert_right(tensors, require=require, **self.configuration)


def load(path):
    tensors, metadata = read(path)
    configuration = {key: int(metadata[key]) for key in ("levels", "pool", "topk", "tile_topk") if key in metadata}
    return Vector(metadata.get("id", Path(path).stem), tensors, configuration, metadata.get("why", ""))


def pytest_addoption(parser):
    parser.addoption("--lighthouse-vectors", metavar="FOLDER", help="folder of conformance vectors (*.safetensors)")


def pytest_generate_tests(metafunc):
    if "lighthouse_vector" not in metafunc.fixturenames:
        return
    folder = metafunc.config.getoption("--lighthouse-vectors")
    paths = sorted(Path(folder).glob("*.safetensors")) if folder else []
    if folder and not paths:
        raise pytest.UsageError(f"--lighthouse-vectors is {folder}, wanted a folder that holds *.safetensors")
    marks = () if paths else (pytest.mark.skip(reason="--lighthouse-vectors FOLDER was not given"),)
    metafunc.parametrize(
        "lighthouse_vector",
        [pytest.param(path, id=path.stem) for path in paths] or [pytest.param(None, marks=marks)],
        indirect=True,
    )


@pytest.fixture
def lighthouse_vector(request):
    return load(request.param)
