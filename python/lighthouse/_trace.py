"""trace(): every tensor of a layer, from any backend of the library."""
from ctypes import byref, c_void_p

from ._arrays import dtype_name, empty_like, tensor, to_numpy
from ._library import DTYPES, Config, LighthouseError, Options, Tensor, call, library

TENSORS = 24
FORWARD, STAGES = 6, 9


def names():
    return [library.lh_tensor_name(i).decode() for i in range(TENSORS)]


def configuration(q, k, levels, pool, topk, tile_topk):
    """From the shapes of q [B,H,N,d] and k [B,G,N,d]; tile_topk defaults to min(topk, 128)."""
    for name, array in (("q", q), ("k", k)):
        if array.ndim != 4:
            raise LighthouseError(f"{name} has {array.ndim} dimensions, wanted 4: [batch, heads, tokens, dim]")
    b, h, n, d = q.shape
    for name, number in (("levels", levels), ("pool", pool), ("topk", topk), ("tile_topk", tile_topk or 0)):
        if not -(2**63) <= number < 2**63:
            raise LighthouseError(f"{name} is {number}, wanted an integer of 64 bits")
    return Config(b, h, k.shape[1], n, d, levels, pool, topk, tile_topk or min(topk, 128))


def trace(q, k, v, dout=None, *, levels, pool, topk=0, tile_topk=None, index=None, backend="ref", dtype=None):
    """Runs a layer stage by stage and returns its tensors by name, as NumPy arrays.

    q [B,H,N,d], k and v [B,G,N,d] (G divides H), dout [B,H,N,d] for the backward tensors. `index` [B,H,S] replaces
    the selection. `dtype` is "F64" for the reference unless given, "F32" for other backends; bfloat16 results come as
    their bits in uint16. Raises LighthouseError naming what was refused.
    """
    arrays = {name: to_numpy(a, name) for name, a in (("q", q), ("k", k), ("v", v), ("dout", dout))
              if a is not None or name != "dout"}
    config = configuration(arrays["q"][0], arrays["k"][0], levels, pool, topk, tile_topk)
    code = DTYPES.index(dtype_name(dtype or ("F64" if backend == "ref" else "F32")))
    options = Options(backend=backend.encode(), dtype=code, backward=dout is not None, stages=True)
    plan = c_void_p()
    call("lh_plan_create", byref(config), byref(options), byref(plan))
    try:
        return _run(plan, config, code, arrays, index)
    finally:
        library.lh_plan_destroy(plan)


def _run(plan, config, code, arrays, index):
    tensors, results = (Tensor * TENSORS)(), {}
    for i, name in enumerate(names()):
        call("lh_tensor_describe", byref(config), code, i, byref(tensors[i]))
        if name in arrays or "dout" in arrays or not name.startswith("d"):
            results[name] = empty_like(tensors[i])
    for name, (array, dtype) in arrays.items():
        given = tensor(array, dtype)
        wanted = results[name].shape
        if array.shape != wanted:
            raise LighthouseError(f"{name} has shape {list(array.shape)}, wanted {list(wanted)}")
        call("lh_tensor_convert", byref(tensors[names().index(name)]), byref(given))
        call("lh_tensor_finite", byref(given), name.encode())
    if index is not None:
        array, dtype = to_numpy(index, "index")
        if array.shape != results["index"].shape:
            raise LighthouseError(f"index has shape {list(array.shape)}, wanted {list(results['index'].shape)}")
        call("lh_tensor_convert", byref(tensors[names().index("index")]), byref(tensor(array, dtype)))
    for stage in range(STAGES if "dout" in arrays else FORWARD):
        if index is None or names()[library.lh_stage_writes(stage)[0]] != "index":
            call("lh_run_stage", plan, stage, tensors)
    return results
