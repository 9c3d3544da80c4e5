#!/usr/bin/env python3
"""Lighthouse Attention as a torch.autograd.Function over liblighthouse.so, without a copy through the host.

    LIGHTHOUSE_LIBRARY=build/liblighthouse.so python3 examples/torch_autograd_cuda.py

Tensors are PyTorch's own: device pointers and strides go to lh_forward and lh_backward, work is enqueued on PyTorch's
current stream. Run as a program it compares out and the gradients with a plain PyTorch statement of the same layer.
"""
import ctypes as c
import os
import sys

import torch

DTYPES = {torch.float32: 1, torch.float16: 2, torch.bfloat16: 3, torch.int32: 4, torch.int64: 5}
ATTENTION = {"auto": 0, "own": 1, "cudnn": 2}
ON_DEVICE = 1


class Config(c.Structure):
    _fields_ = [(name, c.c_int64) for name in
                ("batch", "heads", "kv_heads", "tokens", "dim", "levels", "pool", "topk", "tile_topk")]


class Options(c.Structure):
    _fields_ = [("backend", c.c_char_p), ("device", c.c_int), ("dtype", c.c_int), ("backward", c.c_bool),
                ("stages", c.c_bool), ("index_given", c.c_bool), ("scores_given", c.c_bool), ("profile", c.c_bool),
                ("finite", c.c_bool), ("stream_given", c.c_bool), ("workspace_given", c.c_bool),
                ("memory", c.c_int), ("attention", c.c_int), ("threads", c.c_int), ("stream", c.c_void_p), ("tiles", c.c_void_p),
                ("part", c.c_void_p)]


class Tensor(c.Structure):
    _fields_ = [("data", c.c_void_p), ("dtype", c.c_int), ("rank", c.c_int),
                ("shape", c.c_int64 * 4), ("stride", c.c_int64 * 4)]


class Error(c.Structure):
    _fields_ = [("status", c.c_int), ("text", c.c_char * 512)]


class Profile(c.Structure):
    _fields_ = [("seconds", c.c_double * 9), ("transfer", c.c_double), ("calls", c.c_int64)]


STAGES = ("pool", "score", "select", "gather", "attend", "scatter",
          "scatter_backward", "attend_backward", "unpool")

library = c.CDLL(os.environ.get("LIGHTHOUSE_LIBRARY", "liblighthouse.so"))
library.lh_plan_workspace.restype = c.c_size_t
for name in ("lh_plan_destroy", "lh_plan_workspace", "lh_profile_reset"):
    getattr(library, name).argtypes = [c.c_void_p]
library.lh_plan_profile.argtypes = [c.c_void_p, c.POINTER(Profile)]
library.lh_tensor_by_name.argtypes = [c.c_char_p]
TENSORS = library.lh_tensor_by_name(b"")  # no tensor has that name: their number


class Plan:
    """Shapes, workspace and kernels for layers of one shape, on PyTorch's current stream and device."""

    def __init__(self, q, k, levels, pool, topk, tile_topk=128, attention="auto", backward=True, profile=False):
        batch, heads, tokens, dim = q.shape
        self.config = Config(batch, heads, k.shape[1], tokens, dim, levels, pool, topk, tile_topk)
        device = q.device.index or 0
        self.stream = torch.cuda.current_stream(device)
        options = Options(b"cuda", device, DTYPES[q.dtype], backward, False, False, False, profile, False, True, False,
                          ON_DEVICE, ATTENTION[attention], 0, self.stream.cuda_stream or None)
        self.handle = c.c_void_p()
        self.call("lh_plan_create", c.byref(self.config), c.byref(options), c.byref(self.handle))
        coarse = tokens // pool ** (levels - 1)
        self.selected = coarse + (levels - 1) * pool * topk if levels > 1 else tokens

    def __del__(self):
        if getattr(self, "handle", None):
            library.lh_plan_destroy(self.handle)

    @staticmethod
    def call(name, *arguments):
        error = Error()
        if getattr(library, name)(*arguments, c.byref(error)):
            raise RuntimeError(f"{name}: {error.text.decode()}")

    @staticmethod
    def trace(**tensors):
        trace = (Tensor * TENSORS)()
        for name, t in tensors.items():
            if t is not None:
                trace[library.lh_tensor_by_name(name.encode())] = Tensor(
                    t.data_ptr(), DTYPES[t.dtype], t.dim(), (c.c_int64 * 4)(*t.shape), (c.c_int64 * 4)(*t.stride()))
        return trace

    def forward(self, **tensors):
        self.call("lh_forward", self.handle, self.trace(**tensors))

    def backward(self, **tensors):
        self.call("lh_backward", self.handle, self.trace(**tensors))

    def workspace(self):
        return library.lh_plan_workspace(self.handle)

    def profile(self):
        """Milliseconds by stage since the last call of this."""
        profile = Profile()
        library.lh_plan_profile(self.handle, c.byref(profile))
        library.lh_profile_reset(self.handle)
        return {name: 1e3 * s for name, s in zip(STAGES, profile.seconds) if s > 0}


class LighthouseAttention(torch.autograd.Function):
    """out [B,H,N,d] of q [B,H,N,d], k and v [B,G,N,d], any strides whose last is 1."""

    @staticmethod
    def forward(ctx, q, k, v, plan):
        rows = (*q.shape[:2], plan.selected)
        out = torch.empty_like(q)
        index = torch.empty(rows, dtype=torch.int32, device=q.device)
        o_sel = torch.empty((*rows, q.shape[3]), dtype=q.dtype, device=q.device)
        lse = torch.empty(rows, dtype=torch.float32, device=q.device)
        plan.forward(q=q, k=k, v=v, out=out, index=index, o_sel=o_sel, lse=lse)
        ctx.plan = plan
        ctx.save_for_backward(q, k, v, index, o_sel, lse)
        ctx.mark_non_differentiable(index)
        return out, index

    @staticmethod
    def backward(ctx, dout, _):
        q, k, v, index, o_sel, lse = ctx.saved_tensors
        dq, dk, dv = (torch.empty_like(t) for t in (q, k, v))
        ctx.plan.backward(q=q, k=k, v=v, dout=dout.contiguous(), index=index, o_sel=o_sel, lse=lse,
                          dq=dq, dk=dk, dv=dv)
        return dq, dk, dv, None


def plain(q, k, v, index, levels, pool):
    """The same layer in PyTorch, with the selection given: pool, gather, attend, scatter with the shift."""
    heads, tokens, dim = q.shape[1:]
    sizes = [tokens // pool ** level for level in range(levels)]

    def selected(x):
        x = x.repeat_interleave(heads // x.shape[1], dim=1)
        pyramid = torch.cat([x.unflatten(2, (n, -1)).mean(3) for n in sizes], dim=2)
        return pyramid.gather(2, index.long().unsqueeze(-1).expand(-1, -1, -1, dim))

    o = torch.nn.functional.scaled_dot_product_attention(selected(q), selected(k), selected(v), is_causal=True)
    out = torch.zeros_like(q)
    offset = 0
    for level, n in enumerate(sizes):
        window = pool ** level
        entry = index.long() - offset
        offset += n
        here = ((entry >= 0) & (entry < n)).unsqueeze(-1)
        for shift in range(window):
            position = entry * window + window - 1 + shift
            inside = here & (position < tokens).unsqueeze(-1)
            position = position.clamp(0, tokens - 1).unsqueeze(-1).expand_as(o)
            out = out.scatter_add(2, position, torch.where(inside, o, torch.zeros_like(o)))
    return out


def main():
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    worst = 0.0
    for dtype, allowed in ((torch.float32, 2e-5), (torch.bfloat16, 2e-2)):
        shapes = ((2, 4, 2048, 64), (2, 2, 2048, 64), (2, 2, 2048, 64))
        q, k, v = (torch.randn(s, device="cuda", dtype=dtype, requires_grad=True) for s in shapes)
        dout = torch.randn_like(q)
        plan = Plan(q, k, levels=3, pool=2, topk=128, tile_topk=32)
        out, index = LighthouseAttention.apply(q, k, v, plan)
        got = (out, *torch.autograd.grad(out, (q, k, v), dout))
        wide = [t.detach().double().requires_grad_() for t in (q, k, v)]
        expected = plain(*wide, index, 3, 2)
        want = (expected, *torch.autograd.grad(expected, wide, dout.double()))
        for name, g, w in zip(("out", "dq", "dk", "dv"), got, want):
            error = ((g.double() - w).norm() / w.norm()).item()
            worst = max(worst, error / allowed)
            print(f"{str(dtype):16} {name:4} relative error {error:.2e}, allowed {allowed:.0e}")
    return 0 if worst <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
