#!/usr/bin/env python3
"""Honest dumps, drawn and written by a port that shares no code with the checker, judged by `lighthouse check`.

    honest_numpy.py LIGHTHOUSE [COUNT] [FIRST]

A port written from docs/spec.md alone: vectorised where the reference loops, with the habits of real ones as knobs.
What a draw is follows from its number. Any dump that is called wrong is printed, with its command; exit status 1.
"""
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

try:
    import numpy as np
except ImportError:
    print("SKIP: python3-numpy is not installed")
    sys.exit(77)


def bf16(x):
    """To the nearest bfloat16, ties to even, kept as float32."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.where(np.isfinite(x), rounded.astype(np.uint32).view(np.float32), np.asarray(x, np.float32))


def tf32(x):
    """Cut to tf32's 11 bits."""
    return (np.ascontiguousarray(x, np.float32).view(np.uint32) & 0xFFFFE000).view(np.float32)


STORE = {
    "F64": lambda x: np.asarray(x, np.float64),
    "F32": lambda x: np.asarray(x, np.float32),
    "BF16": bf16,
    "F16": lambda x: np.asarray(x, np.float16).astype(np.float32),
}


class Port:
    """One port's way of doing it: arithmetic in `real`, tensors stored by `store`."""

    def __init__(self, rng, dtype):
        self.dtype = dtype
        self.real = np.float64 if dtype == "F64" else np.float32
        self.store = STORE[dtype]
        half = dtype in ("BF16", "F16")
        pick = lambda odds: rng.random() < odds
        self.tf32 = dtype == "F32" and pick(0.15)
        self.round_p = half and pick(0.6)
        self.round_ds = half and pick(0.6)
        self.exp2 = pick(0.4)
        self.d_from_p = pick(0.4)
        self.level_by_level = pick(0.4)
        self.squared = pick(0.3)
        self.block = int(rng.choice([0, 0, 16, 64]))
        self.lse = str(rng.choice([dtype, dtype, "F32"])) if half else dtype
        self.scores = str(rng.choice(["F32", "F32", dtype])) if half else dtype
        self.rounded_logits = half and pick(0.15)
        self.shuffle = pick(0.5)
        self.wide_pooling = half and pick(0.3)
        self.half_sums = False

    def habits(self):
        names = [n for n, on in (("tf32", self.tf32), ("rounded-logits", self.rounded_logits),
                                 ("half-sums", self.half_sums)) if on]
        return ",".join(names)

    def product(self, a, b):
        if self.tf32:
            a, b = tf32(a), tf32(b)
        a, b = np.asarray(a, self.real), np.asarray(b, self.real)
        if not self.half_sums:
            return np.matmul(a, b)
        total = self.real(0)
        for i in range(0, a.shape[-1], 8):  # as matrix units with half accumulators
            total = self.add(total, np.matmul(a[..., i: i + 8], b[..., i: i + 8, :]))
        return total

    def add(self, total, term):
        return np.asarray(self.store(total + term), self.real) if self.half_sums else total + term


def pool(port, x, levels, p):
    n = x.shape[2]
    out, below = [x], x
    for level in range(1, levels):
        window = p if port.level_by_level else p**level
        source = below if port.level_by_level else x
        parts = np.asarray(source, port.real).reshape(*x.shape[:2], n // p**level, window, x.shape[3])
        if port.shuffle:
            parts = parts[:, :, :, ::-1]
        total = np.zeros(parts.shape[:3] + parts.shape[4:], port.real)
        for j in range(window):
            total = port.add(total, parts[:, :, :, j])
        mean = total / port.real(window)
        below = mean if port.wide_pooling else port.store(mean)
        out.append(port.store(mean))
    return np.concatenate(out, 2)


def scores(port, x, levels, p):
    """Norms by rows scaled to 1, so that no square is lost."""
    x = np.asarray(x, port.real)
    most = np.abs(x).max(-1, keepdims=True)
    scale = np.where(most > 0, np.exp2(np.floor(np.log2(np.where(most > 0, most, 1)))), 1).astype(port.real)
    squares = ((x / scale)[..., ::-1] ** 2) if port.shuffle else (x / scale) ** 2
    token = np.sqrt(squares.sum(-1, dtype=port.real)) * scale[..., 0]
    token = STORE[port.scores](token)
    out = [token]
    for level in range(1, levels):
        out.append(token.reshape(*token.shape[:2], -1, p**level).max(-1))
    return np.concatenate(out, 2)


def offsets(n, levels, p):
    at = [0]
    for level in range(levels):
        at.append(at[-1] + n // p**level)
    return at


def select(score_q, score_k, n, levels, p, k, m):
    """One head's index, by sorting pairs (-score, entry)."""
    at = offsets(n, levels, p)
    if levels == 1:
        return list(range(n))
    chosen = []
    coarse = n // p ** (levels - 1)
    tiles = k // m
    for tile in range(tiles):
        candidates = list(range(tile * coarse // tiles, (tile + 1) * coarse // tiles))
        for level in range(levels - 1, 0, -1):
            entry = lambda i: at[level] + i
            by_query = sorted(candidates, key=lambda i: (-score_q[entry(i)], i))
            taken, rest = by_query[: m // 2], by_query[m // 2:]
            by_key = sorted(rest, key=lambda i: (-score_k[entry(i)], i))
            parents = taken + by_key[: m // 2]
            for i in by_key[m // 2:]:
                chosen.append(((2 * i * p**level, 0), entry(i)))
            for i in parents:
                chosen.append(((2 * ((i + 1) * p**level - 1) + 1, level), entry(i)))
            candidates = [i * p + j for i in parents for j in range(p)]
        for i in candidates:
            chosen.append(((2 * i, 0), i))
    return [entry for _, entry in sorted(chosen)]


def attend(port, q, k, v):
    d = q.shape[-1]
    scale = port.real(1 / math.sqrt(d))
    rows = q.shape[2]
    logits = port.product(q, np.swapaxes(k, 2, 3)) * scale
    if port.rounded_logits:
        logits = np.asarray(port.store(logits), port.real)
    mask = np.tril(np.ones((rows, rows), bool))
    logits = np.where(mask, logits, -np.inf)
    log2e = port.real(1 / math.log(2))
    exp = (lambda x: np.exp2(x * log2e)) if port.exp2 else np.exp
    block = port.block or rows
    top = np.full(q.shape[:3], -np.inf, port.real)
    total = np.zeros(q.shape[:3], port.real)
    o = np.zeros(q.shape, port.real)
    for first in range(0, rows, block):
        part = logits[..., first: first + block]
        here = np.maximum(top, part.max(-1))
        safe = np.where(np.isfinite(here), here, 0)
        shrink = np.where(np.isfinite(top), exp(np.where(np.isfinite(top), top, 0) - safe), 0).astype(port.real)
        weights = exp(part - safe[..., None]).astype(port.real)
        total = port.add(total * shrink, weights.sum(-1, dtype=port.real))
        used = np.asarray(port.store(weights), port.real) if port.round_p else weights
        o = port.add(o * shrink[..., None], port.product(used, v[:, :, first: first + block]))
        top = here
    lse = STORE[port.lse](top + np.log(total))
    return port.store(o / total[..., None]), lse, logits


def attend_backward(port, q, k, v, o, lse, do, logits):
    d = q.shape[-1]
    scale = port.real(1 / math.sqrt(d))
    weights = np.exp(logits - np.asarray(lse, port.real)[..., None]).astype(port.real)
    dp = port.product(do, np.swapaxes(v, 2, 3))
    if port.d_from_p:
        delta = (weights * dp).sum(-1, dtype=port.real)
    else:
        delta = (np.asarray(do, port.real) * np.asarray(o, port.real)).sum(-1, dtype=port.real)
    ds = np.where(weights > 0, weights * (dp - delta[..., None]), 0)
    p_used = np.asarray(port.store(weights), port.real) if port.round_p else weights
    ds_used = np.asarray(port.store(ds), port.real) if port.round_ds else ds
    dq = port.product(ds_used, k) * scale
    dk = port.product(np.swapaxes(ds_used, 2, 3), q) * scale
    dv = port.product(np.swapaxes(p_used, 2, 3), do)
    return port.store(dq), port.store(dk), port.store(dv)


def layer(port, t, levels, p, k, m):
    b, h, n, d = t["q"].shape
    g = t["k"].shape[1]
    group = h // g
    at = offsets(n, levels, p)
    for x in "qkv":
        t[x + "_pyr"] = pool(port, t[x], levels, p)
    t["score_q"], t["score_k"] = scores(port, t["q"], levels, p), scores(port, t["k"], levels, p)
    index = np.array([[select(t["score_q"][i, j], t["score_k"][i, j // group], n, levels, p, k, m)
                       for j in range(h)] for i in range(b)], np.int32)
    t["index"] = index
    for x in "qkv":
        source = t[x + "_pyr"] if x == "q" else np.repeat(t[x + "_pyr"], group, 1)
        t[x + "_sel"] = np.take_along_axis(source, index[..., None].astype(np.int64), 2)
    t["o_sel"], t["lse"], logits = attend(port, t["q_sel"], t["k_sel"], t["v_sel"])
    out = np.zeros((b, h, n, d), port.real)
    coverage = np.zeros((b, h, n), np.int32)
    do_sel = np.zeros(t["q_sel"].shape, port.real)
    ranges = []
    for level in range(levels):
        w = p**level
        for i in range(n // w):
            ranges.append((i * w + w - 1, min(i * w + 2 * w - 1, n), i * w, w))
    for i in range(b):
        for j in range(h):
            for s, entry in enumerate(index[i, j]):
                first, end, _, _ = ranges[entry]
                out[i, j, first:end] = port.add(out[i, j, first:end], t["o_sel"][i, j, s].astype(port.real))
                coverage[i, j, first:end] += 1
                do_sel[i, j, s] = t["dout"][i, j, first:end].astype(port.real).sum(0, dtype=port.real)
    t["out"], t["coverage"], t["do_sel"] = port.store(out), coverage, port.store(do_sel)
    t["dq_sel"], t["dk_sel"], t["dv_sel"] = attend_backward(
        port, t["q_sel"], t["k_sel"], t["v_sel"], t["o_sel"], t["lse"], t["do_sel"], logits)
    for x in "qkv":
        grad = np.zeros((b, h if x == "q" else g, n, d), port.real)
        for i in range(b):
            for j in range(h):
                for s, entry in enumerate(index[i, j]):
                    _, _, first, w = ranges[entry]
                    grad[i, j if x == "q" else j // group, first: first + w] += (
                        t[f"d{x}_sel"][i, j, s].astype(port.real) / port.real(w))
        t["d" + x] = port.store(grad)
    return t


PATTERNS = ("gaussian", "gaussian", "sink", "outlier", "padding", "one-hot", "equal", "offset", "ramp", "tiny", "apart",
            "small-gradient", "large-gradient", "normalised", "sharp")


def draw(rng, dtype):
    p = int(rng.choice([2, 2, 3, 4, 8]))
    levels = int(rng.choice([1, 2, 2, 3, 3, 4]))
    while p ** (levels - 1) > 64:
        levels -= 1
    m = int(rng.choice([2, 4, 8]))
    tiles = int(rng.choice([1, 1, 2, 3]))
    coarse = m * int(rng.integers(1, 4)) if levels > 1 else int(rng.integers(1, 120))
    n = coarse * tiles * p ** (levels - 1) if levels > 1 else coarse
    b = int(rng.choice([1, 1, 2]))
    g = int(rng.choice([1, 1, 2]))
    h = g * int(rng.choice([1, 1, 2, 3]))
    d = int(rng.choice([1, 2, 3, 5, 8, 16, 33, 64, 128]))
    pattern = str(rng.choice(PATTERNS))
    t = {x: rng.standard_normal((b, h if x in ("q", "dout") else g, n, d)) for x in ("q", "k", "v", "dout")}
    small, large = (1e-3, 30.0) if dtype == "F16" else (1e-25, 1e25)
    if pattern == "sink":
        t["k"][:, :, 0] *= 6
    elif pattern == "outlier":
        t["q"][..., 0] *= 10
        t["k"][..., 0] += 10
    elif pattern == "padding":
        for x in t:
            t[x][:, :, -(n // 3 or 1):] = 0
    elif pattern == "one-hot":
        for x in "qk":
            t[x] = np.eye(d)[rng.integers(0, d, t[x].shape[:3])]
    elif pattern == "equal":
        for x in "qkv":
            t[x][:] = t[x][:, :, :1]
    elif pattern == "offset":
        t["v"] += 20
        t["k"] += rng.integers(0, 2) * 5
    elif pattern == "ramp":
        t["q"] *= np.linspace(0.2, 3, n)[:, None]
        t["k"] *= np.linspace(3, 0.2, n)[:, None]
    elif pattern == "tiny":
        t["q"] *= small
        t["k"] *= small
    elif pattern == "apart":
        t["q"] *= large
        t["k"] /= large
    elif pattern == "small-gradient":
        t["dout"] *= 1e-6
    elif pattern == "large-gradient":
        t["dout"] *= 100 if dtype == "F16" else 1e20
    elif pattern == "normalised":
        for x in "qk":
            t[x] *= math.sqrt(d) / np.linalg.norm(t[x], axis=-1, keepdims=True)
    elif pattern == "sharp":
        t["q"] *= 4
        t["k"] *= 4
    return pattern, t, (levels, p, tiles * m, m)


SHOWN = {
    "all": None,
    "fused": ("q", "k", "v", "dout", "index", "o_sel", "lse", "out", "dq", "dk", "dv"),
    "ends": ("q", "k", "v", "dout", "out", "dq", "dk", "dv"),
    "forward": ("q", "k", "v", "score_q", "score_k", "index", "out"),
}


def encode(a, dtype):
    if dtype == "BF16":
        return (np.ascontiguousarray(a, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    return np.ascontiguousarray(a, {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I32": "<i4"}[dtype]).tobytes()


def write(path, tensors, dtypes, metadata):
    header, blobs, at = {"__metadata__": metadata}, [], 0
    for name, a in tensors.items():
        blob = encode(a, dtypes[name])
        header[name] = {"dtype": dtypes[name], "shape": list(a.shape), "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def one(number, program, folder):
    rng = np.random.default_rng([20260526, number])
    dtype = str(rng.choice(["F32", "F32", "BF16", "BF16", "F16", "F64"]))
    port = Port(rng, dtype)
    port.half_sums = dtype in ("BF16", "F16") and number % 9 == 4
    pattern, t, (levels, p, k, m) = draw(rng, dtype)
    for x in t:
        t[x] = port.store(t[x])
    with np.errstate(all="ignore"):
        layer(port, t, levels, p, k, m)
    shape = str(rng.choice(list(SHOWN)))
    names = SHOWN[shape] or tuple(t)
    dtypes = {name: dtype for name in t}
    dtypes.update(index="I32", coverage="I32", lse=port.lse, score_q=port.scores, score_k=port.scores)
    metadata = {"levels": str(levels), "pool": str(p), "topk": str(k), "tile_topk": str(m)}
    if port.habits():
        metadata["habits"] = port.habits()
    path = os.path.join(folder, f"honest-{number}.safetensors")
    write(path, {name: t[name] for name in names}, dtypes, metadata)
    ran = subprocess.run([program, "check", *os.environ.get("CHECK_ARGUMENTS", "").split(), path], capture_output=True, text=True)
    what = f"{number}: {dtype} {pattern} {shape} {vars(port)}"
    if ran.returncode == 0 or (ran.returncode == 1 and ("nothing was judged" in ran.stdout or "not all was judged" in ran.stdout)):
        os.unlink(path)
        return None, "unjudged" if ran.returncode else "right"
    return f"{what}\n{program} check {path}\n{ran.stdout}{ran.stderr}", "wrong"


def main():
    program, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else int(os.environ.get("HONEST_DUMPS", "60"))
    first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    folder = tempfile.mkdtemp(prefix="honest-")
    tally = {"right": 0, "unjudged": 0, "wrong": 0}
    with ThreadPoolExecutor(2) as pool_of_threads:
        for text, verdict in pool_of_threads.map(lambda i: one(i, program, folder), range(first, first + count)):
            tally[verdict] += 1
            if text:
                print(text)
    print(f"{count} honest dumps: {tally['right']} right, {tally['unjudged']} that could not be judged whole, "
          f"{tally['wrong']} called wrong")
    if not tally["wrong"]:
        os.rmdir(folder)
    return 1 if tally["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
