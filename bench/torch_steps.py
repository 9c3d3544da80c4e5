#!/usr/bin/env python3
"""Whole training steps on one NVIDIA GPU: dense, the original's layer and lighthouse.torch's in the same model, in turns.

    LIGHTHOUSE_LIBRARY=build/liblighthouse.so PYTHONPATH=python python3 bench/torch_steps.py [--original CHECKOUT]
                       [--tokens 98304] [--layers 30] [--repeats 3]

The large model is the paper's: bf16, width 1024, 8 heads of 128, SwiGLU 1536, the first and last two layers dense, L = 3,
p = 4, k = 1536, one sequence a step; everything but attention is recomputed in backward. The small one: 6 layers, width
256, 4 heads of 64, SwiGLU 704, the first and last dense, p = 2, k = 512, two sequences of 16,384. Dense attention is cuDNN's.
A step is forward, backward, the gradient's norm and AdamW. Median seconds; peak memory; the norm of the first gradient
twice from the same start, which must be the same bits.
"""
import argparse
import os
import statistics
import sys
import time

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lighthouse.torch as lt  # noqa: E402
from cuda_table import Original, attend  # noqa: E402


class Layer(torch.nn.Module):
    def __init__(self, width, heads, hidden, attention):
        super().__init__()
        self.heads, self.attention = heads, attention
        self.norm_in, self.norm_mid = torch.nn.RMSNorm(width), torch.nn.RMSNorm(width)
        self.qkv, self.out = torch.nn.Linear(width, 3 * width, bias=False), torch.nn.Linear(width, width, bias=False)
        self.gate_up = torch.nn.Linear(width, 2 * hidden, bias=False)
        self.down = torch.nn.Linear(hidden, width, bias=False)

    def before(self, x, cosine, sine):
        q, k, v = self.qkv(self.norm_in(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)

        def rotate(x):
            a, b = x.chunk(2, dim=-1)
            return torch.cat([a * cosine - b * sine, b * cosine + a * sine], dim=-1)

        return rotate(q), rotate(k), v

    def after(self, x, o):
        x = x + self.out(o.flatten(2))
        gate, up = self.gate_up(self.norm_mid(x)).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)

    def forward(self, x, cosine, sine):
        q, k, v = checkpoint(self.before, x, cosine, sine, use_reentrant=False)
        return checkpoint(self.after, x, self.attention(q, k, v), use_reentrant=False)


class Model(torch.nn.Module):
    def __init__(self, layers, width, heads, hidden, dense_layers, attention):
        super().__init__()
        dense = {i % layers for i in dense_layers}
        self.embed, self.head = torch.nn.Embedding(256, width), torch.nn.Linear(width, 256, bias=False)
        self.norm = torch.nn.RMSNorm(width)
        self.layers = torch.nn.ModuleList(
            Layer(width, heads, hidden, interleaved(attend) if i in dense else attention) for i in range(layers))
        self.half = width // heads // 2

    def forward(self, text):
        x = self.embed(text)
        rate = 1e4 ** (-torch.arange(self.half, device=x.device) / self.half)
        angle = torch.arange(text.shape[1], device=x.device)[:, None, None] * rate
        cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        for layer in self.layers:
            x = layer(x, cosine, sine)
        return functional.cross_entropy(self.head(self.norm(x))[:, :-1].flatten(0, 1).float(), text[:, 1:].flatten())


def interleaved(attention):
    """Of [B,N,H,d], as the model's products leave them."""
    return lambda q, k, v: attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def start(shape, attention):
    torch.manual_seed(0)
    model = Model(*shape, attention).to("cuda", torch.bfloat16)
    for p in model.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.02)
    return model


def gradient_norm(model, text):
    model.zero_grad(set_to_none=True)
    loss = model(text)
    loss.backward()
    return torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0), loss


def measure(shape, attention, batch, tokens, repeats):
    generator = torch.Generator().manual_seed(3)
    text = torch.randint(0, 256, (batch, tokens), generator=generator).cuda()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = start(shape, attention)
    norms = [gradient_norm(model, text)[0].item() for _ in range(2)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    seconds, losses = [], []
    for i in range(repeats + 1):
        torch.cuda.synchronize()
        since = time.perf_counter()
        _, loss = gradient_norm(model, text)
        optimizer.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - since)
        losses.append(round(loss.item(), 4))
    return statistics.median(seconds[1:]), torch.cuda.max_memory_allocated() / 2**30, norms, losses


def overhead():
    """Microseconds of the host a forward, through the module and in the library alone."""
    from ctypes import byref
    from lighthouse._library import Error, library
    from lighthouse.torch import _plans

    q, k, v = (torch.randn(1, 4, 2048, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    layer = lt.LighthouseAttention(3, 2, 128, 32)
    plan = _plans.plan_for(q, k, False, 3, 2, 128, 32)
    keep = {}
    original = plan.run

    def run(backward, tensors):
        keep.update(tensors)
        original(backward, tensors)

    plan.run = run
    with torch.no_grad():
        layer(q, k, v)
    del plan.run
    space = torch.empty(plan.needs[0] + 256, dtype=torch.uint8, device="cuda")
    error = Error()

    def alone():
        for name, tensor in keep.items():
            plan.at[name].data = tensor.data_ptr()
        library.lh_plan_lend(plan.handle, (space.data_ptr() + 255) // 256 * 256, plan.needs[0],
                             torch.cuda.current_stream().cuda_stream, byref(error))
        assert library.lh_forward(plan.handle, plan.trace, byref(error)) == 0, error.text

    def time_of(work, calls=50):
        times = []
        for _ in range(9):
            torch.cuda.synchronize()
            since = time.perf_counter()
            for _ in range(calls):
                work()
            times.append((time.perf_counter() - since) / calls * 1e6)
        return statistics.median(times)

    with torch.no_grad():
        whole = time_of(lambda: layer(q, k, v))
    needing = [x.clone().requires_grad_() for x in (q, k, v)]
    return whole, time_of(lambda: layer(*needing)), time_of(alone)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original")
    parser.add_argument("--tokens", default="98304")
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    print("host time a forward: %.0f us without gradients, %.0f us with, of which %.0f us in the library" % overhead(),
          flush=True)
    original = Original(given.original) if given.original else None
    runs = [("small", (6, 256, 4, 704, (0, -1)), 2, 16384, (3, 2, 512))]
    runs += [("large", (given.layers, 1024, 8, 1536, (0, 1, -2, -1)), 1, int(n), (3, 4, 1536))
             for n in given.tokens.split(",")]
    print("| model | N | attention | s a step | GiB | gradient norm, twice | losses |\n|---|---|---|---|---|---|---|")
    for name, shape, batch, tokens, (levels, pool, topk) in runs:
        kinds = {"lighthouse.torch": interleaved(lt.LighthouseAttention(levels, pool, topk))}
        if original:
            layer = original.layer(levels, pool, topk, False)
            kinds["original"] = lambda q, k, v, layer=layer: layer(q, k, v).transpose(1, 2)
        kinds["dense"] = interleaved(attend)
        for kind, attention in kinds.items():
            try:
                seconds, memory, norms, losses = measure(shape, attention, batch, tokens, given.repeats)
                print(f"| {name} | {tokens} | {kind} | {seconds:.4f} | {memory:.1f} | {norms[0]:.9g}, {norms[1]:.9g} "
                      f"| {losses} |", flush=True)
            except Exception as error:  # a layer that cannot run a size is a row of the table
                print(f"| {name} | {tokens} | {kind} | {str(error).strip().splitlines()[0][:90]} |", flush=True)
            torch.cuda.empty_cache()
            lt.release_plans()


if __name__ == "__main__":
    main()
