#!/usr/bin/env python3
"""Lighthouse Attention in PyTorch, differentiated by autograd, written from docs/algorithm.md.

Selection is taken under no_grad: no gradient flows through scores or index. Everything else is ordinary tensor
arithmetic, so dout reaches q, k and v through autograd alone. All arrays are [B, H, N, d].

    python3 examples/torch_port.py              # draws a layer, runs it, has every tensor checked
"""
import math

import torch

KEPT = ("q_sel", "k_sel", "v_sel", "o_sel", "q", "k", "v")  # tensors whose gradients the trace shows


def windows(x, p, level):
    """[B, H, N, ...] -> [B, H, N/p^l, p^l, ...]"""
    return x.unflatten(2, (x.shape[2] // p**level, p**level))


def pool(x, levels, p):
    return torch.cat([windows(x, p, l).mean(3) for l in range(levels)], dim=2)


@torch.no_grad()
def score(x, levels, p):
    norm = x.float().norm(dim=-1) if x.dtype in (torch.bfloat16, torch.float16) else x.norm(dim=-1)
    return torch.cat([windows(norm, p, l).amax(3) for l in range(levels)], dim=2)


@torch.no_grad()
def select(score_q, score_k, n, levels, p, topk, tile_topk):
    """All heads and tiles at once: [B, H, P] scores of both kinds to index [B, H, S]."""
    b, h, _ = score_q.shape
    offset = [sum(n // p**j for j in range(l)) for l in range(levels + 1)]
    if levels == 1:
        return torch.arange(n).expand(b, h, n)
    tiles, coarse = topk // tile_topk, n // p ** (levels - 1)
    candidates = torch.arange(coarse).view(1, 1, tiles, -1).expand(b, h, -1, -1)
    entries, keys = [], []
    for l in range(levels - 1, 0, -1):
        flat = (candidates + offset[l]).flatten(2)
        sq, sk = (s.gather(2, flat).view(candidates.shape) for s in (score_q, score_k))
        parent = torch.zeros(candidates.shape, dtype=torch.bool)
        for s in (sq, sk):
            # Candidates rise, so a stable sort breaks ties towards the lower index.
            rank = s.masked_fill(parent, -1).sort(dim=-1, descending=True, stable=True).indices
            parent = parent.scatter(-1, rank[..., : tile_topk // 2], True)
        first = 2 * candidates * p**l
        last = 2 * ((candidates + 1) * p**l - 1) + 1
        keys.append((torch.where(parent, last, first) * levels + torch.where(parent, l, 0)).flatten(2))
        entries.append(flat)
        parents = candidates[parent].view(b, h, tiles, tile_topk)
        candidates = (parents[..., None] * p + torch.arange(p)).flatten(3)
    entries.append(candidates.flatten(2))
    keys.append((2 * candidates * levels).flatten(2))
    return torch.cat(entries, 2).gather(2, torch.cat(keys, 2).argsort(dim=-1))


def scatter(o_sel, index, n, levels, p):
    """Row s of level l goes to the p^l positions from the last token of its window on; those past N are cut."""
    b, h, s, d = o_sel.shape
    offset = torch.tensor([sum(n // p**j for j in range(l)) for l in range(levels)])
    level = torch.searchsorted(offset, index.contiguous(), right=True) - 1
    out = o_sel.new_zeros(b, h, n, d)
    coverage = torch.zeros(b, h, n, dtype=torch.int32)
    for l in range(levels):
        for i in range(p**l):
            position = (index - offset[l]) * p**l + p**l - 1 + i
            mine = (level == l) & (position < n)
            position = position.clamp(0, n - 1)
            out = out.scatter_add(2, position[..., None].expand(-1, -1, -1, d), o_sel * mine[..., None])
            coverage = coverage.scatter_add(2, position, mine.int())
    return out, coverage


def layer(q, k, v, levels, p, topk, tile_topk):
    """The forward trace, by name; out.backward(dout) does the rest."""
    (b, h, n, d), group = q.shape, q.shape[1] // k.shape[1]
    t = dict(q=q, k=k, v=v, score_q=score(q, levels, p), score_k=score(k, levels, p))
    for x in "qkv":
        t[x + "_pyr"] = pool(t[x], levels, p)
    t["index"] = select(t["score_q"], t["score_k"].repeat_interleave(group, 1), n, levels, p, topk, tile_topk)
    rows = t["index"][..., None].expand(-1, -1, -1, d)
    for x in "qkv":
        t[x + "_sel"] = t[x + "_pyr"].repeat_interleave(1 if x == "q" else group, 1).gather(2, rows)
    logits = t["q_sel"] @ t["k_sel"].mT / math.sqrt(d)
    logits = logits.masked_fill(~torch.ones(logits.shape[-2:], dtype=torch.bool).tril(), -math.inf)
    t["lse"] = logits.logsumexp(-1).float() if q.dtype != torch.float64 else logits.logsumexp(-1)
    t["o_sel"] = logits.softmax(-1) @ t["v_sel"]
    t["out"], t["coverage"] = scatter(t["o_sel"], t["index"], n, levels, p)
    return t


def trace(q, k, v, dout, **configuration):
    """Forward and backward: all tensors, detached."""
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    t = layer(*leaves, *(configuration[name] for name in ("levels", "pool", "topk", "tile_topk")))
    gradients = torch.autograd.grad(t["out"], [t[x] for x in KEPT], dout)
    t.update({"d" + x: g for x, g in zip(KEPT, gradients)}, dout=dout)
    return {name: x.detach() for name, x in t.items()}


if __name__ == "__main__":
    import lighthouse

    torch.manual_seed(1)
    shape = dict(levels=3, pool=2, topk=16, tile_topk=8)
    q, k, v, dout = (torch.randn(2, heads, 96, 16) for heads in (4, 2, 2, 4))
    report = lighthouse.check(trace(q, k, v, dout, **shape), **shape)
    print(report)
    raise SystemExit(not report.ok)
