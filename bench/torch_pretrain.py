#!/usr/bin/env python3
"""A small model from scratch, dense and in two stages: held-out loss under dense attention against tokens and seconds.

    LIGHTHOUSE_LIBRARY=build/liblighthouse.so PYTHONPATH=python python3 bench/torch_pretrain.py --out FOLDER
        [--text FOLDER,FOLDER] [--original CHECKOUT] [--seconds 570] [--gpus 0,1] RUN [RUN ...]

A RUN is one argument of words: dense, two-stage or original, then fields as NAME=VALUE (bench/pretrain_model.py has them all and
what they are unless said): "two-stage tokens=98304 seed=2 share=0.45 back=4:0.3,3:0.4". The runs are begun in their order, one
a GPU at a time, on all GPUs of the machine; none is begun once fewer seconds are left than it `needs`, and one that meets
the end of --seconds stops there. Each writes FOLDER/NAME.jsonl: what it was, then a line for each held-out loss, as it comes.
At the end a table, and of original and module without a dense stage their training losses; --table FOLDER makes them from what
lies there.

The model: 6 layers, width 256, 4 heads of 64, SwiGLU 704, bytes as tokens, bfloat16 with weights in float32, AdamW, a constant
rate after a warm-up and a line to 0 over the last fifth of the steps. The text, unless --text names folders: every *.py below PyTorch's
site-packages, each once, in the order of their paths; files whose SHA-256 begins below 1/50 are held out. Seconds are those of
steps: without compiling, which comes before, and without measuring held-out losses. "original" is the layer of
github.com/ighoshsubho/lighthouse-attention, whose `src/` is imported from CHECKOUT, never copied.
"""
import argparse
import gc
import json
import math
import os
import queue
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.multiprocessing as multiprocessing

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lighthouse.torch as lt  # noqa: E402
from cuda_table import Original  # noqa: E402
from pretrain_model import Run, Training, corpus  # noqa: E402

HELD_OUT = 1 / 50


def train(run, given, text, learnt, until):
    """One line that says how it went."""
    cuda = text.device.type == "cuda"
    layer = Original(given.original).layer(run.levels, run.pool, run.topk, False) if run.attention == "original" else None
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with open(Path(given.out) / (run.name + ".jsonl"), "w", encoding="utf-8") as log:
        training = Training(run, text, learnt, not given.eager, layer, log, until)
        points = training()
        memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
    if "stopped" in points[-1]:
        return f"{run.name}: stopped after {points[-1]['steps']} steps of {points[-1]['of']}"
    found = ", ".join(f"{p['held_out']:.4f} after {p['steps']} steps and {p['seconds']:.1f} s" for p in points if "last" in p)
    return f"{run.name}: {found}; {memory:.1f} GiB"


def work(number, given, runs, path, learnt, until):
    """A process with a GPU of its own: takes runs until there are none; its exit status is 1 where one of them failed."""
    device = torch.device("cuda", number) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    text = torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8).to(device)
    failed = False
    while True:
        try:
            run = runs.get(timeout=1)
        except queue.Empty:
            sys.exit(int(failed))
        if time.time() + run.needs > until:
            print(f"{run.name}: no time was left", flush=True)
            continue
        try:
            print(train(run, given, text, learnt, until), flush=True)
        except Exception as error:  # the other runs are worth having
            print(f"{run.name}: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}", flush=True)
            failed = True
        gc.collect()
        lt.release_plans()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def table(folder):
    rows = []
    for path in sorted(Path(folder).glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        if lines:
            run, points = lines[0], lines[1:]
            for last in [p for p in points if "last" in p or "stopped" in p]:
                rows.append((run["tokens"], path.stem, last))
    print("| N | run | steps | MB of text | seconds | held-out loss | training loss |\n|---|---|---|---|---|---|---|")
    for tokens, name, last in sorted(rows, key=lambda row: (row[0], row[2]["of"], row[2]["seconds"])):
        stopped = f" of {last['of']}, stopped" if "stopped" in last else ""
        print(f"| {tokens} | {name} | {last['steps']}{stopped} | {last['tokens'] / 1e6:.1f} | {last['seconds']:.1f} "
              f"| {last['held_out']:.4f} | {last['training']:.4f} |")


def spread(folder, window=50):
    """Training losses of runs without a dense stage, averaged over windows of steps: the module, the original, what lies
    between the two at one seed, and between seeds at one layer (root of the mean square over all pairs).
    """
    means = {}
    for path in sorted(Path(folder).glob("*.jsonl")):
        run, *points = [json.loads(line) for line in path.read_text().splitlines()]
        losses = [loss for point in points for loss in point.get("losses", ())]
        if len(losses) == run["steps"]:
            means[run["attention"], run["seed"]] = [statistics.fmean(losses[i:i + window])
                                                    for i in range(0, len(losses) - window + 1, window)]
    layers, seeds = sorted({layer for layer, _ in means}), sorted({seed for _, seed in means})
    if len(layers) < 2 or len(means) != len(layers) * len(seeds):
        return
    print("\n| steps | " + " | ".join(f"{layer}, seed {seed}" for layer in layers for seed in seeds)
          + " | between layers | between seeds |\n|" + "---|" * (3 + len(means)))
    for i in range(len(next(iter(means.values())))):
        pairs = [(means[layers[0], a][i], means[layers[1], a][i]) for a in seeds], \
                [(means[layer, a][i], means[layer, b][i]) for layer in layers for a in seeds for b in seeds if a < b]
        gaps = [math.sqrt(statistics.fmean((a - b) ** 2 for a, b in kind)) if kind else math.nan for kind in pairs]
        print(f"| {(i + 1) * window} | " + " | ".join(f"{means[layer, seed][i]:.4f}" for layer in layers for seed in seeds)
              + " | " + " | ".join(f"{gap:.4f}" for gap in gaps) + " |")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out")
    parser.add_argument("--text", default=str(Path(torch.__file__).parent.parent))
    parser.add_argument("--original")
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--gpus", type=lambda words: [int(word) for word in words.split(",")], help="their numbers; all of them")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--table", help="the table of a folder, and no run")
    parser.add_argument("runs", nargs="*", metavar="RUN")
    given = parser.parse_args()
    if given.table is None and (not given.out or not given.runs):
        parser.error("no --out and RUN, wanted both, or --table")
    try:
        given.runs = [Run.parse(words) for words in given.runs]
    except ValueError as error:
        parser.error(str(error))
    if any(run.attention == "original" for run in given.runs) and not given.original:
        parser.error("a run is original and --original is not given, wanted a checkout")
    return given


def begin(given, path, until):
    """Exit status: 1 where a run failed, 2 where the text is too short for one."""
    learnt, size, digest, files = corpus(given.text.split(","), HELD_OUT, path)
    for run in given.runs:
        least = run.batch * run.tokens + 1
        if min(learnt, size - learnt) < least:
            print(f"torch_pretrain.py: {learnt} bytes of text to learn from and {size - learnt} held out, wanted {least} of each "
                  f"for {run.name}", file=sys.stderr)
            return 2
    gpus = given.gpus or range(torch.cuda.device_count())
    print(f"{f'{len(gpus)} x {torch.cuda.get_device_name()}' if gpus else 'CPU'}, PyTorch {torch.__version__}, text: {files} files, "
          f"{size} bytes, {size - learnt} of them held out, SHA-256 {digest[:16]}", flush=True)
    context = multiprocessing.get_context("spawn")
    runs = context.Queue()
    for run in given.runs:
        runs.put(run)
    workers = [context.Process(target=work, args=(number, given, runs, path, learnt, until))
               for number in gpus or [0]]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return int(any(worker.exitcode for worker in workers))


def main():
    given = parse_arguments()
    until = time.time() + given.seconds
    if given.table:
        table(given.table)
        spread(given.table)
        return
    os.makedirs(given.out, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        status = begin(given, Path(folder) / "text", until)
    if status != 2:
        table(given.out)
        spread(given.out)
    sys.exit(status)


if __name__ == "__main__":
    main()
