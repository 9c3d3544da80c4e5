#!/usr/bin/env python3
"""Whole training steps on one NVIDIA GPU: dense, the original's layer and lighthouse.torch's in the same model, in turns.

    LIGHTHOUSE_LIBRARY=build/liblighthouse.so PYTHONPATH=python python3 bench/torch_steps.py [--original CHECKOUT]
                       [--small] [--tokens 98304,98304c] [--layers 30] [--repeats 2] [--seconds 3600]
    ... bench/torch_steps.py --overhead [--device cpu]

The large model is the paper's: bf16, width 1024, 8 heads of 128, SwiGLU 1536, the first and last two layers dense, L = 3,
p = 4, k = N/64, one sequence a step; everything but attention is recomputed in backward. The small one (--small): 6 layers, width
256, 4 heads of 64, SwiGLU 704, the first and last dense, p = 2, k = 512, two sequences of 16,384; once launched kernel by
kernel and once as a CUDA graph, which takes the host out. Dense attention is cuDNN's. At a size with a c behind it what is
not attention is compiled by torch.compile, for all three alike. A step is forward, backward, the gradient's norm and AdamW.
Median seconds; peak memory; the share of the step that is not attention; the norm of the first gradient twice from the same
start, which must be the same bits (of a graph: of two steps). No row is begun after --seconds. The original comes last: a size
at which it fails on the device ends the process.
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
from cuda_table import Original, attend, milliseconds  # noqa: E402


def before(x, norm, qkv, cosine, sine, heads):
    """q, k, v [B,N,H,d] of x [B,N,width]: norm, projection, rotation of q and k."""
    q, k, v = functional.linear(functional.rms_norm(x, norm.shape, norm), qkv).unflatten(-1, (3, heads, -1)).unbind(2)

    def rotate(x):
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cosine - b * sine, b * cosine + a * sine], dim=-1)

    return rotate(q), rotate(k), v


def after(x, o, out, norm, gate_up, down):
    x = x + functional.linear(o.flatten(2), out)
    gate, up = functional.linear(functional.rms_norm(x, norm.shape, norm), gate_up).chunk(2, dim=-1)
    return x + functional.linear(functional.silu(gate) * up, down)


def recomputed(function, *arguments):
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


class Layer(torch.nn.Module):
    def __init__(self, width, heads, hidden, attention, compiled):
        super().__init__()
        self.heads, self.attention = heads, attention
        self.norm_in, self.norm_mid = (torch.nn.Parameter(torch.ones(width)) for _ in range(2))
        self.qkv, self.out = (torch.nn.Parameter(torch.empty(rows, width)) for rows in (3 * width, width))
        self.gate_up, self.down = (torch.nn.Parameter(torch.empty(*shape)) for shape in ((2 * hidden, width), (width, hidden)))
        self.before, self.after = compiled or (before, after)

    def forward(self, x, cosine, sine):
        q, k, v = recomputed(self.before, x, self.norm_in, self.qkv, cosine, sine, self.heads)
        return recomputed(self.after, x, self.attention(q, k, v), self.out, self.norm_mid, self.gate_up, self.down)


class Model(torch.nn.Module):
    def __init__(self, layers, width, heads, hidden, dense_layers, attention, compiled):
        super().__init__()
        dense = {i % layers for i in dense_layers}
        self.embed, self.head = torch.nn.Embedding(256, width), torch.nn.Linear(width, 256, bias=False)
        self.norm = torch.nn.RMSNorm(width)
        self.layers = torch.nn.ModuleList(
            Layer(width, heads, hidden, interleaved(attend) if i in dense else attention, compiled) for i in range(layers))
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


def start(shape, attention, compiled):
    torch.manual_seed(0)
    model = Model(*shape, attention, compiled).to("cuda", torch.bfloat16)
    for p in model.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.02)
    return model


def gradient_norm(model, text):
    model.zero_grad(set_to_none=True)
    loss = model(text)
    loss.backward()
    return torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0), loss


def text_of(batch, tokens):
    return torch.randint(0, 256, (batch, tokens), generator=torch.Generator().manual_seed(3)).cuda()


def measure(shape, attention, batch, tokens, repeats, compiled):
    """Seconds a step, peak GiB, two norms of the first gradient, losses."""
    text = text_of(batch, tokens)
    torch.cuda.empty_cache()
    model = start(shape, attention, compiled)
    norms = [gradient_norm(model, text)[0].item() for _ in range(2)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    torch.cuda.reset_peak_memory_stats()
    seconds, losses = [], []
    for i in range(repeats + 1):
        torch.cuda.synchronize()
        since = time.perf_counter()
        _, loss = gradient_norm(model, text)
        optimizer.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - since)
        losses.append(round(loss.item(), 4))
    return statistics.median(seconds[1:]), torch.cuda.max_memory_allocated() / 2**30, norms, losses[:3]


def measure_graph(shape, attention, batch, tokens, repeats):
    """The same with a step as one CUDA graph."""
    text = text_of(batch, tokens)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = start(shape, attention, None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True, capturable=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            gradient_norm(model, text)
            optimizer.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        norm, loss = gradient_norm(model, text)
        optimizer.step()
    seconds, norms, losses = [], [], []
    for i in range(repeats + 1):
        torch.cuda.synchronize()
        since = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - since)
        norms.append(norm.item())
        losses.append(round(loss.item(), 4))
    return statistics.median(seconds[1:]), torch.cuda.max_memory_allocated() / 2**30, norms[:2], losses[:3]


def layer_seconds(attention, batch, tokens, heads, dim):
    """Forward and backward of one layer's attention."""
    q, k, v, dout = (torch.randn(batch, tokens, heads, dim, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    return 1e-3 * milliseconds(lambda: torch.autograd.grad(attention(*inputs), inputs, dout), 100.0, 5)


def overhead(device):
    """Microseconds of the host a call: {forward, forward with gradients, backward}: (through PyTorch, in the library)."""
    from ctypes import byref
    from lighthouse._library import Error, library
    from lighthouse.torch import _plans

    small = device == "cpu"  # where computing is host time: as little of it as can be, and not on a busy machine's clock
    clock = time.process_time if small else time.perf_counter
    shape = (2, 2, 2, 2) if small else (3, 2, 128, 32)
    q, k, v = (torch.randn(1, 1, 16, 4) if small else torch.randn(1, 4, 2048, 64, device=device, dtype=torch.bfloat16)
               for _ in range(3))
    layer = lt.LighthouseAttention(*shape)
    seen, error = {}, Error()
    original = _plans.Plan.run

    def run(plan, backward, tensors, kept):
        seen[backward] = plan, dict(tensors), kept
        original(plan, backward, tensors, kept)

    needing = [x.clone().requires_grad_() for x in (q, k, v)]
    _plans.Plan.run = run
    out = layer(*needing)
    dout = torch.randn_like(out)
    torch.autograd.grad(out, needing, dout, retain_graph=True)
    _plans.Plan.run = original

    def alone(backward):
        plan, tensors, kept = seen[backward]
        original(plan, backward, tensors, kept)  # addresses and strides
        space = torch.empty(plan.needs[backward] + 256, dtype=torch.uint8, device=device)
        address = (space.data_ptr() + 255) // 256 * 256
        stream = None if small else torch.cuda.current_stream().cuda_stream
        library.lh_plan_lend(plan.handle, address, plan.needs[backward], stream, byref(error))
        call = library.lh_backward if backward else library.lh_forward
        return time_of(lambda: call(plan.handle, plan.trace, error), space)

    def time_of(work, *alive, calls=100):
        times = []
        for _ in range(15):
            if not small:
                torch.cuda.synchronize()
            since = clock()
            for _ in range(calls):
                work()
            times.append((clock() - since) / calls * 1e6)
        return statistics.median(times)

    with torch.no_grad():
        found = {"forward": (time_of(lambda: layer(q, k, v)), alone(False))}
    found["forward with gradients"] = time_of(lambda: layer(*needing)), found["forward"][1]
    found["backward"] = (time_of(lambda: torch.autograd.grad(out, needing, dout, retain_graph=True)), alone(True))
    # What autograd itself takes for a function of three inputs that does nothing.
    empty = sum(needing)
    found["autograd of a sum"] = time_of(lambda: torch.autograd.grad(empty, needing, dout, retain_graph=True)), 0.0
    return found


def rows_of(given):
    """(name, tokens, batch, shape, selection, how, repeats) of every row of the table."""
    large = (given.layers, 1024, 8, 1536, (0, 1, -2, -1))
    for how in ("", "graph") if given.small else ():
        yield "small", 16384, 2, (6, 256, 4, 704, (0, -1)), (3, 2, 512), how, 20
    for size in filter(None, given.tokens.split(",")):
        how, tokens = "compiled" if size.endswith("c") else "", int(size.rstrip("c"))
        yield "large", tokens, 1, large, (3, 4, tokens // 64), how, given.repeats


def kinds_of(original, selection):
    kinds = {"lighthouse.torch": interleaved(lt.LighthouseAttention(*selection)), "dense": interleaved(attend)}
    if original:
        layer = original.layer(*selection, False)
        kinds["original"] = lambda q, k, v: layer(q, k, v).transpose(1, 2)
    return kinds


def row(kind, attention, name, tokens, batch, shape, how, repeats):
    layers, width, heads, _, dense_layers = shape
    compiled = tuple(torch.compile(f, dynamic=False) for f in (before, after)) if how == "compiled" else None
    if how == "graph":
        found = measure_graph(shape, attention, batch, tokens, repeats)
    else:
        found = measure(shape, attention, batch, tokens, repeats, compiled)
    seconds, memory, norms, losses = found
    dense, own = (layer_seconds(a, batch, tokens, heads, width // heads) for a in (interleaved(attend), attention))
    outside = 1 - (len(dense_layers) * dense + (layers - len(dense_layers)) * own) / seconds
    return (f"| {name} {how} | {tokens} | {kind} | {seconds:.4f} | {memory:.1f} | {outside:.2f} "
            f"| {norms[0]:.9g}, {norms[1]:.9g} | {losses} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original")
    parser.add_argument("--tokens", default="98304")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    given = parser.parse_args()
    since = time.monotonic()
    if given.overhead:
        for name, (whole, library) in overhead(given.device).items():
            print(f"{name}: {whole:.0f} us, of which {library:.0f} us in the library: {whole - library:.0f}", flush=True)
        return
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    original = Original(given.original) if given.original else None
    print("| model | N | attention | s a step | GiB | outside attention | gradient norm, twice | losses |")
    print("|---|---|---|---|---|---|---|---|")
    for name, tokens, batch, shape, selection, how, repeats in rows_of(given):
        for kind, attention in kinds_of(original, selection).items():
            if time.monotonic() - since > given.seconds:
                print(f"| {name} {how} | {tokens} | {kind} | no time was left |", flush=True)
                continue
            try:
                print(row(kind, attention, name, tokens, batch, shape, how, repeats), flush=True)
            except Exception as error:  # a layer that cannot run a size is a row of the table
                print(f"| {name} {how} | {tokens} | {kind} | {str(error).strip().splitlines()[0][:90]} |", flush=True)
            torch.cuda.empty_cache()
            lt.release_plans()


if __name__ == "__main__":
    main()
