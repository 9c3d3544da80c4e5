"""The package over the built library: trace, check, and what is refused. PyTorch and JAX where they are installed."""
import os
import subprocess
import sys

import numpy as np
import pytest

import lighthouse

SHAPE = dict(levels=3, pool=2, topk=8, tile_topk=4)


def draw(seed=1, heads=4, kv_heads=2, tokens=48, dim=6, dtype=np.float32):
    random = np.random.default_rng(seed)
    counts = (heads, kv_heads, kv_heads, heads)
    return [random.standard_normal((2, h, tokens, dim)).astype(dtype) for h in counts]


def float32(tensors):
    return {name: a.astype(np.float32) if a.dtype == np.float64 else a for name, a in tensors.items()}


def test_trace_has_every_tensor():
    q, k, v, dout = draw()
    tensors = lighthouse.trace(q, k, v, dout, **SHAPE)
    assert len(tensors) == 24
    assert tensors["out"].shape == q.shape and tensors["out"].dtype == np.float64
    assert tensors["dk"].shape == k.shape
    assert tensors["index"].dtype == np.int32
    assert (tensors["q"] == q).all()
    forward = lighthouse.trace(q, k, v, **SHAPE)
    assert "dq" not in forward and "dout" not in forward
    assert (forward["out"] == tensors["out"]).all()


def test_one_level_is_dense_attention():
    q, k, v, _ = draw(tokens=20, kv_heads=4)
    tensors = lighthouse.trace(q, k, v, levels=1, pool=2)
    logits = q.astype(np.float64) @ k.astype(np.float64).swapaxes(-1, -2) / np.sqrt(6)
    logits = np.where(np.tril(np.ones((20, 20), bool)), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    want = weights / weights.sum(-1, keepdims=True) @ v
    assert np.abs(tensors["out"] - want).max() < 1e-14


def test_a_given_index_is_obeyed():
    q, k, v, _ = draw()
    first = lighthouse.trace(q, k, v, **SHAPE)
    other = lighthouse.trace(*draw(seed=2)[:3], **SHAPE)
    forced = lighthouse.trace(q, k, v, index=other["index"], **SHAPE)
    assert (forced["index"] == other["index"]).all()
    assert (first["index"] != other["index"]).any()
    assert (forced["q_pyr"] == first["q_pyr"]).all()


def test_other_memory_layouts_and_dtypes():
    q, k, v, dout = draw()
    exact = lighthouse.trace(q, k, v, dout, **SHAPE)
    turned = [np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (q, k, v, dout)]
    assert (lighthouse.trace(*turned, **SHAPE)["dq"] == exact["dq"]).all()
    half = lighthouse.trace(*(x.astype(np.float16) for x in (q, k, v)), dtype="f16", **SHAPE)
    assert half["out"].dtype == np.float16 and half["score_q"].dtype == np.float32


def test_check_finds_an_honest_dump_right():
    report = lighthouse.check(float32(lighthouse.trace(*draw(), **SHAPE)), **SHAPE)
    assert report.ok and bool(report) and report.first_wrong == "" and not report.faults
    assert all(verdict.passed for verdict in report.verdicts)
    assert str(report).endswith("all right\n")


def test_check_names_a_fault():
    tensors = float32(lighthouse.trace(*draw(), **SHAPE))
    tensors["do_sel"] = tensors["do_sel"] * 0 + 1
    tensors["dq_sel"], tensors["dk_sel"] = tensors["dk_sel"], tensors["dq_sel"]
    report = lighthouse.check(tensors, **SHAPE)
    assert not report.ok and report.first_wrong == "do_sel"
    tensors = float32(lighthouse.trace(*draw(), **SHAPE))
    tensors["dq_sel"], tensors["dk_sel"] = tensors["dk_sel"], tensors["dq_sel"]
    with pytest.raises(AssertionError, match="backward-dq-dk-swapped"):
        lighthouse.assert_right(tensors, **SHAPE)
    report = lighthouse.check(tensors, **SHAPE)
    assert [fault.name for fault in report.faults] == ["backward-dq-dk-swapped"]
    worst = next(v for v in report.verdicts if v.tensor == "dq_sel" and not v.passed)
    assert len(worst.worst) == 4 and worst.share > 1


def test_what_is_not_judged_is_said():
    tensors = float32(lighthouse.trace(*draw(), **SHAPE))
    report = lighthouse.check({**{name: tensors[name] for name in "qkv"}, "o": tensors["out"], "mask": np.ones(3, bool)}, **SHAPE)
    assert not report.ok and "nothing was judged" in report.text
    assert "tensor 'o' is none of the trace's names: not judged; is it out?" in report.text
    del tensors["v"]
    report = lighthouse.check(tensors, **SHAPE)
    assert not report.ok and "out, not judged: v is not in the dump" in report.text
    report = lighthouse.check(tensors, **SHAPE, require=("index", "lse"))
    assert report.ok and report.text.endswith("required, judged and right: index lse\n")
    assert not lighthouse.check({**tensors, "lse": tensors["lse"] + 1}, **SHAPE, require=("index",)).ok


@pytest.mark.parametrize("dtype", ["bf16", "float32", np.float32, np.dtype("float16")])
def test_dtypes_by_any_name(dtype):
    assert lighthouse.check(lighthouse.trace(*draw(), dtype=dtype, **SHAPE), **SHAPE).ok


def test_what_is_refused():
    q, k, v, _ = draw()
    with pytest.raises(lighthouse.LighthouseError, match="tokens is 48"):
        lighthouse.trace(q, k, v, levels=6, pool=2, topk=8, tile_topk=4)
    with pytest.raises(lighthouse.LighthouseError, match=r"q\[0,1,2,3\] is NaN"):
        broken = q.copy()
        broken[0, 1, 2, 3] = np.nan
        lighthouse.trace(broken, k, v, **SHAPE)
    with pytest.raises(lighthouse.LighthouseError, match="q has 3 dimensions"):
        lighthouse.trace(q[0], k, v, **SHAPE)
    with pytest.raises(lighthouse.LighthouseError, match="tensor k is missing"):
        lighthouse.check(dict(q=q, k=None), **SHAPE)
    with pytest.raises(lighthouse.LighthouseError, match="levels is 18446744073709551619"):
        lighthouse.check(dict(q=q, k=k), **{**SHAPE, "levels": 2**64 + 3})
    with pytest.raises(lighthouse.LighthouseError, match=r"v has shape \[2, 2, 4, 6\], wanted \[2, 2, 48, 6\]"):
        lighthouse.trace(q, k, v[:, :, :4], **SHAPE)
    with pytest.raises(lighthouse.LighthouseError, match="dtype is 'int8'"):
        lighthouse.trace(q, k, v, dtype=np.int8, **SHAPE)
    with pytest.raises(TypeError, match="k has dtype object"):
        lighthouse.trace(q, None, v, **SHAPE)
    with pytest.raises(lighthouse.LighthouseError, match="backend is nobody"):
        lighthouse.trace(q, k, v, backend="nobody", **SHAPE)
    with pytest.raises(TypeError, match="complex"):
        lighthouse.trace(q.astype(np.complex64), k, v, **SHAPE)


@pytest.mark.parametrize("form", ["other byte order", "Fortran", "read-only", "float16", "strided"])
def test_forms_of_arrays(form):
    arrays = draw()
    changed = {"other byte order": lambda a: a.astype(a.dtype.newbyteorder()), "Fortran": np.asfortranarray,
               "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
               "float16": lambda a: a.astype(np.float16), "strided": lambda a: np.repeat(a, 2, axis=2)[:, :, ::2]}[form]
    got = lighthouse.trace(*map(changed, arrays), **SHAPE)
    want = lighthouse.trace(*(changed(a).astype(np.float32) for a in arrays), **SHAPE)
    assert all((got[name] == a).all() for name, a in want.items())
    assert form == "float16" or (got["q"] == arrays[0]).all()


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    arrays = draw()
    exact = lighthouse.trace(*arrays, **SHAPE)
    assert all((exact[name] == a).all() for name, a in lighthouse.trace(*map(torch.tensor, arrays), **SHAPE).items())
    half = [torch.tensor(a).to(torch.bfloat16).requires_grad_() for a in arrays]
    read = {**lighthouse.trace(*half, **SHAPE), **dict(zip(("q", "k", "v", "dout"), half))}
    report = lighthouse.check(read, **SHAPE)
    assert report.ok
    assert (lighthouse.trace(*half, **SHAPE)["q"] == half[0].detach().double().numpy()).all()


def test_jax_arrays():
    jax = pytest.importorskip("jax")
    arrays = draw()
    exact = lighthouse.trace(*arrays, **SHAPE)
    assert (lighthouse.trace(*map(jax.numpy.asarray, arrays), **SHAPE)["dq"] == exact["dq"]).all()


def test_a_library_that_does_not_load_is_an_import_error_with_the_way_out(tmp_path):
    """As after `meson install` without ldconfig: the file is there, the loader does not know."""
    environment = {**os.environ, "LIGHTHOUSE_LIBRARY": str(tmp_path / "liblighthouse.so.0")}
    ended = subprocess.run([sys.executable, "-c", "import lighthouse"], env=environment, capture_output=True, text=True)
    line = ended.stderr.splitlines()[-1]
    assert ended.returncode == 1 and line.startswith("ImportError: ") and "run ldconfig" in line and str(tmp_path) in line
