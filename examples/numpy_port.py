#!/usr/bin/env python3
"""Lighthouse Attention in plain NumPy, forward and backward, written from docs/algorithm.md.

Not fast: a port to read beside the description, whose section numbers it names (3.1 is "forward, step 1"), and to
check as one checks any port. All arrays are [B, H, N, d]; k and v may have fewer heads (grouped queries).

    python3 examples/numpy_port.py              # draws a layer, runs it, has every tensor checked
"""
import numpy as np


def pool(x, levels, p):
    """3.1: mean over windows of p^l tokens, straight from level 0, levels one after another."""
    b, h, n, d = x.shape
    return np.concatenate([x.reshape(b, h, n // p**l, p**l, d).mean(3) for l in range(levels)], axis=2)


def score(x, levels, p):
    """3.2: the L2 norm of every token; a coarser level takes the maximum over its window."""
    b, h, n, _ = x.shape
    norm = np.sqrt((x * x).sum(-1))
    return np.concatenate([norm.reshape(b, h, n // p**l, p**l).max(3) for l in range(levels)], axis=2)


def select(score_q, score_k, n, levels, p, topk, tile_topk):
    """3.3 and 3.4 for one head: scores [P] to index [S]."""
    offset = np.cumsum([0] + [n // p**l for l in range(levels)])
    tiles, coarse = (topk // tile_topk if levels > 1 else 1), n // p ** (levels - 1)
    keyed = []  # (start or end of the window, level of a parent, entry): post-order when sorted
    for t in range(tiles):
        candidates = np.arange(t * coarse // tiles, (t + 1) * coarse // tiles)
        for l in range(levels - 1, 0, -1):
            best = lambda c, s: c[np.lexsort((c, -s[offset[l] + c]))][: tile_topk // 2]
            by_query = best(candidates, score_q)
            by_key = best(np.setdiff1d(candidates, by_query), score_k)
            parents = np.union1d(by_query, by_key)
            leaves = np.setdiff1d(candidates, parents)
            keyed += [(2 * i * p**l, 0, offset[l] + i) for i in leaves]
            keyed += [(2 * ((i + 1) * p**l - 1) + 1, l, offset[l] + i) for i in parents]
            candidates = (parents[:, None] * p + np.arange(p)).ravel()
        keyed += [(2 * i, 0, i) for i in candidates]
    return np.array([entry for _, _, entry in sorted(keyed)])


def spans(index, n, levels, p):
    """Level, first token and first position written (3.7) of every selected entry."""
    offset = np.cumsum([0] + [n // p**l for l in range(levels)])
    level = np.searchsorted(offset, index, side="right") - 1
    window = p**level
    first = (index - offset[level]) * window
    return window, first, first + window - 1


def attend(q, k, v):
    """3.6: causal softmax over the sub-sequence; returns o, lse and the weights."""
    s = q.shape[-2]
    logits = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    logits = np.where(np.tril(np.ones((s, s), bool)), logits, -np.inf)
    top = logits.max(-1, keepdims=True)
    e = np.exp(logits - top)
    z = e.sum(-1, keepdims=True)
    return (e / z) @ v, (top + np.log(z))[..., 0], e / z


def layer(q, k, v, levels, pool_factor, topk, tile_topk, dout=None):
    """Every tensor of the trace, by name."""
    (b, h, n, d), group, p = q.shape, q.shape[1] // k.shape[1], pool_factor
    t = dict(q=q, k=k, v=v)
    for x in "qkv":
        t[x + "_pyr"] = pool(t[x], levels, p)
    t["score_q"], t["score_k"] = score(q, levels, p), score(k, levels, p)
    t["index"] = np.array([[select(t["score_q"][i, j], t["score_k"][i, j // group], n, levels, p, topk, tile_topk)
                            for j in range(h)] for i in range(b)])
    rows = t["index"][..., None]
    for x in "qkv":
        pyramid = t[x + "_pyr"].repeat(1 if x == "q" else group, axis=1)
        t[x + "_sel"] = np.take_along_axis(pyramid, rows, axis=2)
    t["o_sel"], t["lse"], weights = attend(t["q_sel"], t["k_sel"], t["v_sel"])
    t["out"], t["coverage"] = np.zeros_like(q), np.zeros((b, h, n), np.int32)
    for i, j, s, window, _, start in entries(t["index"], n, levels, p):
        t["out"][i, j, start : start + window] += t["o_sel"][i, j, s]  # the slice ends at N
        t["coverage"][i, j, start : start + window] += 1
    if dout is not None:
        backward(t, weights, dout, levels, p, group)
    return t


def entries(index, n, levels, p):
    for i, j in np.ndindex(index.shape[:2]):
        for s, span in enumerate(zip(*spans(index[i, j], n, levels, p))):
            yield (i, j, s, *span)


def backward(t, weights, dout, levels, p, group):
    """Section 4, index held fixed."""
    (b, h, n, d), scale = t["q"].shape, 1 / np.sqrt(t["q"].shape[-1])
    t["dout"], t["do_sel"] = dout, np.zeros_like(t["o_sel"])
    full = {x: np.zeros_like(t["q"]) for x in "qkv"}
    for i, j, s, window, _, start in entries(t["index"], n, levels, p):
        t["do_sel"][i, j, s] = t["dout"][i, j, start : start + window].sum(0)
    do = t["do_sel"]
    ds = weights * (do @ t["v_sel"].swapaxes(-1, -2) - (do * t["o_sel"]).sum(-1, keepdims=True))
    t["dq_sel"] = scale * ds @ t["k_sel"]
    t["dk_sel"] = scale * ds.swapaxes(-1, -2) @ t["q_sel"]
    t["dv_sel"] = weights.swapaxes(-1, -2) @ do
    for i, j, s, window, first, _ in entries(t["index"], n, levels, p):
        for x in "qkv":
            full[x][i, j, first : first + window] += t[f"d{x}_sel"][i, j, s] / window
    t["dq"] = full["q"]
    t["dk"], t["dv"] = (full[x].reshape(b, h // group, group, n, d).sum(2) for x in "kv")


if __name__ == "__main__":
    import lighthouse

    draw, shape = np.random.default_rng(1), dict(levels=3, pool=2, topk=16, tile_topk=8)
    q, k, v, dout = (draw.standard_normal((2, heads, 96, 16), np.float32) for heads in (4, 2, 2, 4))
    report = lighthouse.check(layer(q, k, v, 3, 2, 16, 8, dout), **shape)
    raise SystemExit(print(report) or not report.ok)
