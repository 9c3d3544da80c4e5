#!/usr/bin/env python3
"""Times PyTorch's CPU causal attention and `lighthouse bench` in turns: same shapes, same threads, one table.

    python3 -m pip install torch
    python3 bench/pytorch_attention.py --backend openmp --tokens 4096,8192 --dims 64,128

Both compute causal attention in float32 over q, k, v [batch, heads, tokens, dim], forward and backward. The two take
turns for a few rounds, so that a machine that slows down slows both, and each keeps its fastest time. "times" is
PyTorch's time over ours: more than 1 means that ours is faster. The last two columns are Lighthouse attention over
the same tokens, against PyTorch's dense attention.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PASSES = ("forward", "backward")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: [int(word) for word in text.split(",")]
    parser.add_argument("--lighthouse", default=str(Path(__file__).parent.parent / "build" / "lighthouse"),
                        help="the program (%(default)s)")
    parser.add_argument("--backend", default="openmp", help="its backend (%(default)s)")
    parser.add_argument("--tokens", type=numbers, default=[4096], help="numbers of tokens, separated by commas")
    parser.add_argument("--dims", type=numbers, default=[64, 128], help="head dimensions, separated by commas")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--threads", type=int, help="threads of both (as PyTorch decides)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each pass in each round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    return parser.parse_args()


def time_lighthouse(arguments, tokens, dim, threads):
    """{"dense": {"forward": seconds, "backward": seconds}, "lighthouse": {...}}"""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "bench.json"
        command = [arguments.lighthouse, "bench", "--backend", arguments.backend, "--tokens", str(tokens),
                   "--heads", str(arguments.heads), "--dim", str(dim), "--threads", str(threads),
                   "--seconds", str(arguments.seconds), "--patience", "600", "--json", str(report)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            sys.exit(done.returncode)
        points = json.loads(report.read_text())["points"]
    return {point["attention"]: {name: point[name]["min_seconds"] for name in PASSES} for point in points}


def fastest(function, seconds):
    function()  # warms up
    least, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        since = time.perf_counter()
        function()
        least = min(least, time.perf_counter() - since)
    return least


def time_pytorch(torch, arguments, tokens, dim):
    shape = (1, arguments.heads, tokens, dim)
    q, k, v, dout = (torch.rand(shape) * 2 - 1 for _ in range(4))
    inputs = [tensor.requires_grad_() for tensor in (q, k, v)]
    attention = lambda: torch.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True)
    out = attention()
    return {"forward": fastest(attention, arguments.seconds),
            "backward": fastest(lambda: torch.autograd.grad(out, inputs, dout, retain_graph=True),
                                arguments.seconds)}


def main():
    arguments = parse_arguments()
    try:
        import torch
    except ImportError:
        print("torch is absent, wanted PyTorch: python3 -m pip install torch", file=sys.stderr)
        return 77
    torch.manual_seed(1)
    threads = arguments.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    print(f"PyTorch {torch.__version__} and lighthouse {arguments.backend}, {threads} threads, float32, batch 1, "
          f"{arguments.heads} heads; milliseconds, fastest of {arguments.rounds} rounds")
    print(f"{'tokens':>8} {'dim':>4} {'pass':8} {'PyTorch':>10} {'ours':>10} {'times':>6} "
          f"{'Lighthouse':>11} {'times':>6}")
    for tokens in arguments.tokens:
        for dim in arguments.dims:
            ours, theirs = [], []
            for _ in range(arguments.rounds):
                ours.append(time_lighthouse(arguments, tokens, dim, threads))
                theirs.append(time_pytorch(torch, arguments, tokens, dim))
            for name in PASSES:
                pytorch = min(times[name] for times in theirs)
                dense = min(times["dense"][name] for times in ours)
                lighthouse = min(times["lighthouse"][name] for times in ours)
                print(f"{tokens:8} {dim:4} {name:8} {1e3 * pytorch:10.2f} {1e3 * dense:10.2f} {pytorch / dense:6.2f} "
                      f"{1e3 * lighthouse:11.2f} {pytorch / lighthouse:6.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
