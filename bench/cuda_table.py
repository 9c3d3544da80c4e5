#!/usr/bin/env python3
"""One table on one NVIDIA GPU: this library's CUDA backend, the original implementation, dense attention, the floor.

    python3 bench/cuda_table.py --library build/liblighthouse.so [--original CHECKOUT] [--tokens 32768,98304]

bf16, B = 1, H = 8, d = 128, L = 3, p = 4, k = N/64; milliseconds, medians; forward; forward and backward. CHECKOUT is
github.com/ighoshsubho/lighthouse-attention, run as it is: its `src/` is imported, never copied. Dense is PyTorch's
cuDNN attention over all N tokens. The floor is the larger of bytes over copy speed and operations over matrix speed,
both measured here first, summed over the stages.
"""
import argparse
import importlib
import json
import os
import statistics
import sys
import types

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

HERE = os.path.dirname(os.path.abspath(__file__))
HEADS, DIM = 8, 128


def attend(q, k, v):
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def milliseconds(work, budget=400.0, most=20):
    """Median over repeated runs, as many as fit the budget once warm."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    for i in range(most + 2):
        start.record()
        work()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
        if i >= 2 and sum(times) > budget:
            break
    return statistics.median(times[2:] if len(times) > 3 else times[-1:])


def ceilings():
    """Bytes and multiply-add operations a millisecond: a device copy, a bf16 matrix product on random data."""
    a = torch.empty(1 << 31, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    copy = 2 * a.numel() / milliseconds(lambda: b.copy_(a))
    x, y = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return copy, 2 * 8192**3 / milliseconds(lambda: x @ y)


def floor(tokens, levels, pool, topk, copy, rate):
    """Forward, backward, and forward without attention: milliseconds no program gets under."""
    row = HEADS * DIM * 2
    coarse = tokens // pool ** (levels - 1)
    selected = coarse + (levels - 1) * pool * topk
    above = sum(tokens // pool**level for level in range(1, levels))
    pool_score = 3 * (tokens + above) * row
    gather = 2 * 3 * selected * row
    scatter = (selected + tokens) * row
    attention = 2 * selected**2 * DIM * HEADS
    outside = (pool_score + gather + scatter) / copy
    backward = (2 * (tokens + selected) * row + 3 * (tokens + selected) * row) / copy + 2.5 * attention / rate
    return outside + attention / rate, backward, outside


class Original:
    """The checkout's layer behind its own scorer, with cuDNN attention, as its patch wires it."""

    def __init__(self, checkout):
        package = "torchtitan.models.llama3.model"
        for depth in range(1, package.count(".") + 2):
            name = ".".join(package.split(".")[:depth])
            sys.modules.setdefault(name, types.ModuleType(name))
        sys.modules[package].__path__ = [os.path.join(checkout, "src")]
        try:
            importlib.import_module("einops")
        except ImportError:  # only its context-parallel code uses it
            sys.modules["einops"] = types.ModuleType("einops")
            sys.modules["einops"].rearrange = None
        self.module = importlib.import_module(package + ".lighthouse_selection")

    def layer(self, levels, pool, topk, compiled):
        scorer = self.module.DialatedLighthouseNormScorer(pool, levels)
        layer = self.module.LighthouseLocal(attend, scorer, levels, pool, topk)
        return torch.compile(layer, dynamic=False) if compiled else layer


def differentiated(layer, inputs, dout):
    out = layer(*inputs)
    torch.autograd.grad(out, inputs, dout)


def pair(forward, both):
    """Times, or the first line of what went wrong."""
    try:
        return [milliseconds(forward), milliseconds(both)]
    except Exception as error:  # an original that cannot run a size is a row of the table
        torch.cuda.synchronize()
        return str(error).strip().split("\n")[0][:60] or type(error).__name__


def ours(Plan, tokens, levels, pool, topk, attention, stages):
    q, k, v, dout = (torch.randn(1, HEADS, tokens, DIM, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    out, dq, dk, dv = (torch.empty_like(q) for _ in range(4))
    try:
        plan = Plan(q, k, levels, pool, topk, attention=attention)
    except ValueError as error:  # LighthouseError
        return str(error)

    def forward():
        plan.forward(q=q, k=k, v=v, out=out)

    def both():
        forward()
        plan.backward(q=q, k=k, v=v, dout=dout, dq=dq, dk=dk, dv=dv)

    result = pair(forward, both)
    del plan
    timed = Plan(q, k, levels, pool, topk, attention=attention, profile=True)
    totals = {}
    for i in range(7):
        timed.forward(q=q, k=k, v=v, out=out)
        timed.backward(q=q, k=k, v=v, dout=dout, dq=dq, dk=dk, dv=dv)
        for name, value in timed.profile().items():
            totals.setdefault(name, []).append(value)
    stages.update({name: round(statistics.median(values[2:]), 4) for name, values in totals.items()})
    stages["workspace_GiB"] = round(timed.workspace() / 2**30, 2)
    return result


def alone(Plan, tokens=16384):
    """Attention by itself (L = 1), forward and backward: milliseconds and TFLOP/s of the causal half."""
    for dtype, attention in ((torch.float32, "own"), (torch.bfloat16, "own"), (torch.bfloat16, "cudnn")):
        q, k, v, dout = (torch.randn(1, HEADS, tokens, DIM, device="cuda", dtype=dtype) for _ in range(4))
        out, dq, dk, dv = (torch.empty_like(q) for _ in range(4))
        try:
            plan = Plan(q, k, 1, 2, 0, attention=attention, profile=True)
        except ValueError as error:
            print(error)
            continue
        times = []
        for _ in range(6):
            plan.forward(q=q, k=k, v=v, out=out)
            plan.backward(q=q, k=k, v=v, dout=dout, dq=dq, dk=dk, dv=dv)
            times.append(plan.profile())
        cells = []
        for stage, factor in (("attend", 1), ("attend_backward", 2.5)):
            ms = statistics.median(t[stage] for t in times[2:])
            cells.append(f"{ms:.3f} ms {factor * 2 * tokens**2 * DIM * HEADS / ms / 1e9:.0f} TFLOP/s")
        print(f"attention alone, S {tokens}, {dtype}, {attention}: forward {cells[0]}, backward {cells[1]}", flush=True)


def theirs(original, tokens, levels, pool, topk, compiled):
    inputs = [torch.randn(1, tokens, HEADS, DIM, device="cuda", dtype=torch.bfloat16, requires_grad=True)
              for _ in range(3)]
    layer = original.layer(levels, pool, topk, compiled)
    try:
        with torch.no_grad():
            dout = torch.randn_like(layer(*inputs))
    except Exception as error:
        return str(error).strip().split("\n")[0][:60]

    def forward():
        with torch.no_grad():
            layer(*inputs)

    result = pair(forward, lambda: differentiated(layer, inputs, dout))
    torch._dynamo.reset()
    return result


def dense(tokens):
    inputs = [torch.randn(1, HEADS, tokens, DIM, device="cuda", dtype=torch.bfloat16, requires_grad=True)
              for _ in range(3)]
    dout = torch.randn_like(inputs[0])

    def forward():
        with torch.no_grad():
            attend(*inputs)

    return pair(forward, lambda: differentiated(attend, inputs, dout))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", required=True)
    parser.add_argument("--original")
    parser.add_argument("--tokens", default="32768,65536,98304,131072,262144,524288,1048576")
    parser.add_argument("--shape", help="LEVELS,POOL,TOPK instead of 3,4,N/64")
    parser.add_argument("--attention", default="own,cudnn")
    parser.add_argument("--dense-up-to", type=int, default=1 << 19)
    parser.add_argument("--json")
    given = parser.parse_args()
    os.environ["LIGHTHOUSE_LIBRARY"] = os.path.abspath(given.library)
    os.environ["TRITON_PRINT_AUTOTUNING"] = "0"
    sys.path[:0] = [HERE, os.path.join(HERE, "..", "python")]
    cuda_plan = importlib.import_module("cuda_plan")
    original = Original(given.original) if given.original else None
    copy, rate = ceilings()
    print(f"{torch.cuda.get_device_name()}: copy {copy / 1e9:.2f} TB/s, bf16 product {rate / 1e9:.0f} TFLOP/s, "
          f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    results = []
    with torch.cuda.stream(torch.cuda.Stream()):
        alone(cuda_plan.Plan)
        for tokens in map(int, given.tokens.split(",")):
            levels, pool, topk = map(int, given.shape.split(",")) if given.shape else (3, 4, tokens // 64)
            forward, backward, outside = floor(tokens, levels, pool, topk, copy, rate)
            row = {"tokens": tokens, "floor": [forward, forward + backward], "floor_outside": outside, "stages": {}}
            for attention in given.attention.split(","):
                row["stages"][attention] = {}
                row[attention] = ours(cuda_plan.Plan, tokens, levels, pool, topk, attention, row["stages"][attention])
                torch.cuda.empty_cache()
            for name, compiled in (("original_eager", False), ("original_compiled", True)) if original else ():
                row[name] = theirs(original, tokens, levels, pool, topk, compiled)
                torch.cuda.empty_cache()
            if tokens <= given.dense_up_to:
                row["dense"] = dense(tokens)
                torch.cuda.empty_cache()
            results.append(row)
            print(json.dumps(row), flush=True)
    columns = ["floor", *given.attention.split(","), "original_eager", "original_compiled", "dense"]
    print("| N | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for row in results:
        cells = [row.get(name, "") for name in columns]
        print(f"| {row['tokens']} | " + " | ".join(
            f"{cell[0]:.2f}; {cell[1]:.2f}" if isinstance(cell, list) else cell for cell in cells) + " |")
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
