#!/usr/bin/env python3
"""One layer, and whole training steps, over several NVIDIA GPUs of one host (lighthouse.torch.context_parallel over NCCL).

    LIGHTHOUSE_LIBRARY=build/liblighthouse.so PYTHONPATH=python torchrun --standalone --nproc-per-node 2 bench/torch_ranks.py
                       [--part link,bits,layer,model] [--tokens 262144,524288] [--pieces 1,2] [--model 196608] [--layers 30]

link    seconds of a small and bytes a second of a large exchange, every rank with every other both ways at once.
bits    out, dq, dk, dv of a rank against its part of the whole layer on its own GPU, over shapes and dtypes: equal or not.
layer   bf16, B 1, H 8, d 128, L 3, p 4, k N/64, milliseconds: forward; forward and backward; one GPU, then over ranks: rows
        of the sub-sequence in so many pieces, and all tokens as dense layers send them. Medians of the slowest rank, the
        bits of the last results compared. Beside it the floor: attention's share at one GPU's own rate, the bytes at the link's.
model   whole steps of torch_steps.py's large model: the text over the ranks, gradients summed. Median seconds, peak GiB, loss and
        the gradient's norm; beside one GPU's where --alone says so.
die     rank 1 is killed after three layers; the others end by themselves. Run alone.
"""
import argparse
import datetime
import os
import signal
import statistics
import sys
import time

import torch
import torch.distributed as dist
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lighthouse.torch as lt  # noqa: E402
from lighthouse._library import LighthouseError  # noqa: E402
import torch_steps  # noqa: E402

HEADS, DIM = 8, 128
rank = ranks = 0


def say(*words):
    if rank == 0:
        print(*words, flush=True)


def slowest(seconds):
    """The largest of the ranks'."""
    t = torch.tensor(seconds, device="cuda", dtype=torch.float64)
    dist.all_reduce(t, op=dist.ReduceOp.MAX)
    return t.item()


def milliseconds(work, together=True, repeats=7):
    """Median of the slowest rank's, begun together; or of this GPU alone."""
    times = []
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    token = torch.zeros(1, device="cuda")
    for i in range(repeats + 2):
        if together:
            dist.all_reduce(token)
        start.record()
        work()
        stop.record()
        stop.synchronize()
        times.append(slowest(start.elapsed_time(stop)) if together else start.elapsed_time(stop))
    return statistics.median(times[2:])


def swap(x, y):
    """x[r] to rank r, y[r] from it."""
    others = [r for r in range(ranks) if r != rank]
    operations = [dist.P2POp(dist.isend, x[r], r) for r in others] + [dist.P2POp(dist.irecv, y[r], r) for r in others]
    for work in dist.batch_isend_irecv(operations):
        work.wait()


def link():
    """(seconds of an exchange of little, bytes a second that a rank sends while it receives as many)."""
    small, large = 256, 1 << 26
    x, y = (torch.zeros(ranks, large, dtype=torch.uint8, device="cuda") for _ in range(2))
    alpha = milliseconds(lambda: swap(x[:, :small], y[:, :small]), repeats=30) * 1e-3
    seconds = milliseconds(lambda: swap(x, y), repeats=15) * 1e-3
    beta = (ranks - 1) * large / (seconds - alpha)
    say(f"link: {alpha * 1e6:.0f} us an exchange, {beta / 1e9:.0f} GB/s sent and as many received, a rank")
    return alpha, beta


# ---- bits --------------------------------------------------------------------------------------------------


def part(x):
    return x.chunk(ranks, dim=2)[rank].contiguous().requires_grad_(x.requires_grad)


def draw(batch, heads, kv_heads, tokens, dim, dtype):
    generator = torch.Generator("cuda").manual_seed(7)
    shapes = ((heads, True), (kv_heads, True), (kv_heads, True), (heads, False))
    return [torch.randn(batch, h, tokens, dim, device="cuda", generator=generator).to(dtype).requires_grad_(needs)
            for h, needs in shapes]


def results(layer, q, k, v, dout):
    out = layer(q, k, v)
    return (out.detach(), *torch.autograd.grad(out, (q, k, v), dout))


def differing(got, want):
    """Names of the tensors that are not the same bits, on any rank."""
    same = torch.tensor([torch.equal(g, w.chunk(ranks, dim=2)[rank]) for g, w in zip(got, want)], device="cuda", dtype=torch.int)
    dist.all_reduce(same, op=dist.ReduceOp.MIN)
    return [name for name, ok in zip(("out", "dq", "dk", "dv"), same.tolist()) if not ok]


def over_ranks(shape, pieces):
    layer = lt.LighthouseAttention(*shape)
    lt.context_parallel(layer, dist.group.WORLD, pieces)
    return layer


def bits():
    say("| B H G N d | L p k m | dtype | pieces | tensors that differ |\n|---|---|---|---|---|")
    for heads, shape, dtype, pieces in (
            ((1, 8, 8, 16384, 128), (3, 4, 1024, 128), torch.bfloat16, None),
            ((1, 8, 8, 16384, 128), (3, 4, 1024, 128), torch.bfloat16, 2),
            ((1, 8, 2, 16384, 64), (3, 2, 1024, 64), torch.bfloat16, None),
            ((1, 8, 8, 4096, 128), (3, 4, 256, 32), torch.bfloat16, None),
            ((2, 8, 4, 8192, 64), (4, 2, 512, 64), torch.float16, None),
            ((2, 8, 8, 4096, 40), (2, 3, 192, 16), torch.float32, None),
            ((1, 8, 1, 8192, 128), (3, 4, 512, 128), torch.float32, 1)):
        if shape[1] == 3:
            heads = (*heads[:3], 3 * 16 * 96, heads[4])
        whole = draw(*heads, dtype)
        want = results(lt.LighthouseAttention(*shape), *whole)
        layer = over_ranks(shape, pieces)
        got = results(layer, *map(part, whole))
        way = [plan is not None for plan in layer.over.ranks.plans.values()]
        wrong = differing(got, want)
        say(f"| {heads} | {shape} | {str(dtype)[6:]} | {pieces} | {', '.join(wrong) or 'none'}{'' if all(way) else ' (tokens)'} |")


# ---- one layer ---------------------------------------------------------------------------------------------


def time_layer(layer, inputs, together):
    q, k, v, dout = inputs
    kept = {}

    def both():
        kept["out"] = results(layer, q, k, v, dout)

    with torch.no_grad():
        forward = milliseconds(lambda: layer(q, k, v), together)
    return forward, milliseconds(both, together), kept["out"]


def layer(tokens_list, pieces_list, alpha, beta):
    say("| N | how | forward | forward and backward | times one GPU | tensors that differ |\n|---|---|---|---|---|---|")
    for tokens in tokens_list:
        shape = (3, 4, tokens // 64)
        whole = draw(1, HEADS, HEADS, tokens, DIM, torch.bfloat16)
        one = time_layer(lt.LighthouseAttention(*shape), whole, True)
        say(f"| {tokens:,} | one GPU | {one[0]:.2f} | {one[1]:.2f} | 1 | |")
        mine = [part(x) for x in whole]
        del whole
        selected = tokens // 16 + 2 * 4 * shape[2]
        sent = 8 * HEADS * selected * DIM * 2 * (ranks - 1) / ranks**2
        exchange = (sent / beta + 4 * alpha) * 1e3
        say(f"| {tokens:,} | floor | | {one[1] / ranks:.2f} + {exchange:.2f} | | {sent / 1e6:.0f} MB sent a rank |")
        for how in [*pieces_list, "tokens"]:
            lt.release_plans()
            torch.cuda.empty_cache()
            try:
                over = over_ranks(shape, None if how == "tokens" else how)
                if how == "tokens":
                    over.over.ranks._divide = lambda *_: False
                found = time_layer(over, mine, True)
            except Exception as error:  # a way that fails on every rank alike is a row of the table
                say(f"| {tokens:,} | {how} | {str(error).splitlines()[0][:100]} | | | |")
                continue
            wrong = differing(found[2], one[2])
            name = "all tokens by heads" if how == "tokens" else f"rows by heads, pieces {how}"
            times = f"{found[0]:.2f} | {found[1]:.2f} | {one[1] / found[1]:.2f}"
            say(f"| {tokens:,} | {name} | {times} | {', '.join(wrong) or 'none'} |")
            del over, found


# ---- whole steps -------------------------------------------------------------------------------------------


class RankModel(torch_steps.Model):
    """torch_steps.Model on this rank's run of the text: its angles begin there, its loss is its share of the mean."""

    def forward(self, text, targets, first, tokens):
        x = self.embed(text)
        rate = 1e4 ** (-torch.arange(self.half, device=x.device) / self.half)
        angle = (first + torch.arange(text.shape[1], device=x.device))[:, None, None] * rate
        cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        for one in self.layers:
            x = one(x, cosine, sine)
        logits = self.head(self.norm(x)).flatten(0, 1).float()
        return functional.cross_entropy(logits, targets.flatten(), ignore_index=-1, reduction="sum") / (tokens - 1)


def cudnn(attention):
    def attend(q, k, v):
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
            return attention(q, k, v)
    return attend


def build(layers, tokens, group):
    """The model with its attention over `group`'s ranks, or whole."""
    sparse, dense = lt.LighthouseAttention(3, 4, tokens // 64), lt.LighthouseAttention(3, 4, tokens // 64)
    dense.dense = True
    if group is not None:
        lt.context_parallel(sparse, group)
        lt.context_parallel(dense, group)
    torch.manual_seed(0)
    model = RankModel(layers, 1024, HEADS, 1536, (), torch_steps.interleaved(sparse), None)
    for i in (0, 1, -2, -1):
        model.layers[i].attention = torch_steps.interleaved(cudnn(dense))
    model = model.to("cuda", torch.bfloat16)
    for p in model.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.02)
    return model


def step(model, text, targets, first, tokens, group, optimizer=None):
    """(loss, gradient's norm) of the whole text."""
    model.zero_grad(set_to_none=True)
    loss = model(text, targets, first, tokens)
    loss.backward()
    loss = loss.detach()
    if group is not None:
        dist.all_reduce(loss, group=group)
        for p in model.parameters():
            dist.all_reduce(p.grad, group=group)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if optimizer:
        optimizer.step()
    return loss, norm


def measure(layers, tokens, group, repeats=3):
    whole = torch_steps.text_of(1, tokens)
    after = torch.cat([whole[:, 1:], torch.full_like(whole[:, :1], -1)], dim=1)
    each = tokens // ranks if group is not None else tokens
    first = rank * each if group is not None else 0
    text, targets = whole[:, first:first + each], after[:, first:first + each]
    torch.cuda.empty_cache()
    model = build(layers, tokens, group)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    torch.cuda.reset_peak_memory_stats()
    begun = [x.item() for x in step(model, text, targets, first, tokens, group)]
    seconds = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        if group is not None:
            dist.barrier()
        since = time.perf_counter()
        step(model, text, targets, first, tokens, group, optimizer)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - since)
    return statistics.median(seconds), torch.cuda.max_memory_allocated() / 2**30, *begun


def model(tokens_list, layers, alone):
    say("| N | layers | GPUs | s a step | peak GiB a GPU | loss | gradient norm |\n|---|---|---|---|---|---|---|")
    for tokens in tokens_list:
        for group in (dist.group.WORLD, None) if tokens in alone else (dist.group.WORLD,):
            count = ranks if group is not None else 1
            try:
                found = measure(layers, tokens, group)
                text = " | ".join(f"{x:.6g}" for x in found)
            except (torch.cuda.OutOfMemoryError, LighthouseError) as error:  # too large for a card: a row of the table
                text = str(error).splitlines()[0][:120] + " | | |"
            say(f"| {tokens:,} | {layers} | {count} | {text} |")
            torch.cuda.empty_cache()
            lt.release_plans()


def die():
    """Until somebody is killed."""
    over = over_ranks((3, 4, 1024), None)
    whole = [part(x) for x in draw(1, HEADS, HEADS, 65536, DIM, torch.bfloat16)]
    for i in range(10**6):
        results(over, *whole)
        torch.cuda.synchronize()
        if i == 3 and rank == 1:
            print(f"{time.time():.1f} rank 1 is killed", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)


def numbers(text):
    return [int(x) for x in text.split(",") if x]


def main():
    global rank, ranks
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="link,bits,layer,model")
    parser.add_argument("--tokens", type=numbers, default=[262144, 524288])
    parser.add_argument("--pieces", type=numbers, default=[1, 2])
    parser.add_argument("--model", type=numbers, default=[196608])
    parser.add_argument("--alone", type=numbers, default=[])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--timeout", type=float, default=60)
    given = parser.parse_args()
    parts = given.part.split(",")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl", device_id=torch.device("cuda", torch.cuda.current_device()),
                            timeout=datetime.timedelta(seconds=given.timeout))
    rank, ranks = dist.get_rank(), dist.get_world_size()
    say(f"{ranks} of {torch.cuda.get_device_name()}, PyTorch {torch.__version__}, NCCL {torch.cuda.nccl.version()}, "
        f"cuDNN {torch.backends.cudnn.version()}")
    alpha, beta = link() if {"link", "layer"} & {*parts} else (0, 1)
    if "bits" in parts:
        bits()
    if "layer" in parts:
        layer(given.tokens, given.pieces, alpha, beta)
    if "model" in parts:
        model(given.model, given.layers, given.alone)
    if "die" in parts:
        die()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
