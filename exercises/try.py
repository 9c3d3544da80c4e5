"""Which of the seven functions of port.py are right: each on the reference's own inputs, judged by the checker."""
import importlib
import sys
import traceback

try:
    import numpy as np
except ImportError:
    sys.exit(f"try.py: {sys.executable} has no NumPy, wanted python3-numpy, or make PYTHON=another")

import lighthouse

port = importlib.import_module("port")
SHAPES = [dict(levels=3, pool=2, topk=8, tile_topk=4), dict(levels=3, pool=3, topk=4, tile_topk=2)]


class Wrong(Exception):
    pass


def layers():
    for seed, shape in enumerate(SHAPES):
        draw = np.random.default_rng(seed)
        q, k, v, dout = (draw.standard_normal((2, heads, 54 if shape["pool"] == 3 else 48, 3)) for heads in (2, 1, 1, 2))
        yield lighthouse.trace(q, k, v, dout, **shape), shape


def judge(t, shape, upto, **found):
    """The reference's tensors before `upto`, those found, and nothing behind: then the oracle names the mistake."""
    names = list(t)[: list(t).index(upto)]
    report = lighthouse.check({**{name: t[name] for name in names}, "dout": t["dout"], **found}, **shape)
    if not report.ok:
        verdict = next(v for v in report.verdicts if not v.passed)
        reasons = "".join(f"\n           the oracle: {f.fix} (SPEC {f.breaks.removeprefix('SPEC ')})" for f in report.faults[:3])
        raise Wrong(f"{verdict.tensor} at {list(verdict.worst)} is {verdict.got:.6g}, wanted {verdict.wanted:.6g}{reasons}")


def same(name, found, wanted):
    found = np.asarray(found)
    if found.shape != wanted.shape or not np.allclose(found, wanted):
        at = np.argmax(found.ravel() != wanted.ravel()) if found.shape == wanted.shape else None
        raise Wrong(f"{name} is {found if at is None else found.ravel()[at]}, wanted {wanted.shape if at is None else wanted.ravel()[at]}"
                    + ("" if at is None else f" at {at}"))


def pool(t, shape):
    judge(t, shape, "q_pyr", **{f"{x}_pyr": port.pool(t[x], shape["levels"], shape["pool"]) for x in "qkv"})


def score(t, shape):
    judge(t, shape, "score_q", **{f"score_{x}": port.score(t[x], shape["levels"], shape["pool"]) for x in "qk"})


def select(t, shape):
    b, h, n, _ = t["q"].shape
    index = [[port.select(t["score_q"][i, j], t["score_k"][i, 0], n, shape["levels"], shape["pool"], shape["topk"], shape["tile_topk"])
              for j in range(h)] for i in range(b)]
    judge(t, shape, "index", index=np.array(index, np.int64))


def spans(t, shape):
    n, p = t["q"].shape[2], shape["pool"]
    window, first, start = port.spans(t["index"][0, 0], n, shape["levels"], p)
    offset = [sum(n // p**j for j in range(l)) for l in range(shape["levels"] + 1)]
    level = np.array([max(l for l in range(shape["levels"]) if offset[l] <= e) for e in t["index"][0, 0]])
    same("window", window, p**level)
    same("first token", first, (t["index"][0, 0] - np.take(offset, level)) * p**level)
    same("first position written", start, first + p**level - 1)


def attend(t, shape):
    o, lse, weights = port.attend(t["q_sel"], t["k_sel"], t["v_sel"])
    judge(t, shape, "o_sel", o_sel=o, lse=lse)
    same("weights times v_sel", weights @ t["v_sel"], t["o_sel"])


def forward(t, shape):
    mine = port.layer(t["q"], t["k"], t["v"], shape["levels"], shape["pool"], shape["topk"], shape["tile_topk"])
    report = lighthouse.check(mine, **shape)
    missing = [name for name in list(t)[: list(t).index("dout")] if name not in mine]
    if missing:
        raise Wrong(f"tensor {missing[0]} is missing from what layer returns")
    if not report.ok:
        raise Wrong(f"first wrong: {report.first_wrong}" + "".join(f"\n           the oracle: {f.fix} ({f.breaks})" for f in report.faults[:3]))


def backward(t, shape):
    mine = {name: t[name] for name in list(t)[: list(t).index("dout")]}
    s, d = t["q_sel"].shape[-2:]
    logits = np.where(np.tril(np.ones((s, s), bool)), t["q_sel"] @ t["k_sel"].swapaxes(-1, -2) / np.sqrt(d), -np.inf)
    port.backward(mine, np.exp(logits - t["lse"][..., None]), t["dout"], shape["levels"], shape["pool"], 2)
    report = lighthouse.check(mine, **shape)
    missing = [name for name in ("do_sel", "dq_sel", "dk_sel", "dv_sel", "dq", "dk", "dv") if name not in mine]
    if missing:
        raise Wrong(f"tensor {missing[0]} is missing from the trace")
    if not report.ok:
        raise Wrong(f"first wrong: {report.first_wrong}" + "".join(f"\n           the oracle: {f.fix} ({f.breaks})" for f in report.faults[:3]))


def run(check, name):
    """"right", "not written yet", or what is wrong."""
    for t, shape in layers():
        try:
            check(t, shape)
        except NotImplementedError as absent:
            return "not written yet" if str(absent) == name else f"waits for {absent}"
        except Wrong as wrong:
            return f"wrong: {wrong}"
        except Exception as error:  # whatever a half-written function does
            where = traceback.extract_tb(error.__traceback__)[-1]
            return f"wrong: {type(error).__name__}: {error} (line {where.lineno})"
    return "right"


CHECKS = {"pool": pool, "score": score, "select": select, "spans": spans, "attend": attend, "layer": forward, "backward": backward}
good = 0
for name, check in CHECKS.items():
    said = run(check, name)
    good += said == "right"
    print(f"{name:<10} {said}")
print(f"{good} of {len(CHECKS)} right")
sys.exit(good != len(CHECKS))
