"""The pytest plugin, on the conformance vectors of the reference itself and on ports that are wrong."""
import json
import struct

import numpy as np
import pytest

import lighthouse

pytest_plugins = ["pytester"]

PORT = """
import lighthouse

def test_port(lighthouse_vector):
    t = dict(lighthouse_vector.tensors)
    {change}
    lighthouse_vector.judge(t, require={require})
"""


def write_vector(path, seed):
    rng = np.random.default_rng(seed)
    config = dict(levels=2, pool=2, topk=4, tile_topk=4)
    inputs = {name: rng.standard_normal((1, 2, 16, 4)) for name in ("q", "k", "v", "dout")}
    tensors = {**inputs, **lighthouse.trace(**inputs, **config)}
    kinds = {"float64": "F64", "float32": "F32", "int32": "I32", "int64": "I64"}
    header, at, blobs = {"__metadata__": {key: str(value) for key, value in config.items()}}, 0, []
    for name, a in tensors.items():
        blob = np.ascontiguousarray(a).tobytes()
        header[name] = {"dtype": kinds[str(a.dtype)], "shape": list(a.shape), "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


@pytest.mark.parametrize("change, require, passed, failed", [
    ("pass", ("out", "dq"), 2, 0),
    ("t['out'] = t['out'] * 1.01", (), 0, 2),
    ("del t['dq']", ("dq",), 0, 2),
])
def test_vectors(pytester, change, require, passed, failed):
    for seed in range(2):
        write_vector(pytester.path / f"v{seed}.safetensors", seed)
    pytester.makepyfile(PORT.format(change=change, require=require))
    result = pytester.runpytest("-p", "lighthouse.pytest_plugin", "--lighthouse-vectors", str(pytester.path))
    result.assert_outcomes(passed=passed, failed=failed)


def test_without_vectors_is_a_skip(pytester):
    pytester.makepyfile(PORT.format(change="pass", require=()))
    pytester.runpytest("-p", "lighthouse.pytest_plugin").assert_outcomes(skipped=1)


def test_an_empty_folder_is_refused(pytester):
    pytester.makepyfile(PORT.format(change="pass", require=()))
    result = pytester.runpytest("-p", "lighthouse.pytest_plugin", "--lighthouse-vectors", str(pytester.path))
    assert result.ret != 0 and "wanted a folder that holds" in result.stdout.str() + result.stderr.str()
