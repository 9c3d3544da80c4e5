"""lighthouse.torch.context_parallel over gloo: processes of this machine. Skipped where PyTorch is not installed."""
import os
import signal
import socket
import time

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist
import torch.multiprocessing as mp

import lighthouse.torch as lt
from lighthouse.torch import _ranks

HEADS, DIM = 6, 16
# name: (batch, kv_heads, tokens, levels, pool, topk, tile_topk), dtype, pieces; W of 2, 3, 4 divides 12 tiles and 12 sequences.
CASES = {
    "q k v are fewer bytes than rows": ((2, 2, 240, 3, 2, 48, 4), torch.float32, None),
    "rows are fewer": ((2, 3, 1536, 3, 4, 48, 4), torch.float32, None),
    "bfloat16": ((2, 6, 1536, 3, 4, 48, 4), torch.bfloat16, None),
    "bfloat16, rows not kept": ((2, 1, 240, 3, 2, 48, 4), torch.bfloat16, None),
    "float16, one level above": ((2, 6, 480, 2, 4, 24, 2), torch.float16, None),
    "four levels, all of the coarsest kept": ((2, 6, 384, 4, 2, 48, 4), torch.float32, None),
    "p 3": ((4, 2, 24 * 27, 4, 3, 24, 2), torch.float32, None),
}
EVEN = {"in pieces": ((4, 6, 240, 3, 2, 48, 4), torch.float32, 2), "in three": ((4, 6, 240, 3, 2, 48, 4), torch.bfloat16, 3)}


def draw(batch, kv_heads, tokens, dtype=torch.float32, device="cpu", dim=DIM):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(batch, tokens, h, dim, generator=generator).to(device, dtype).transpose(1, 2)
            for h in (HEADS, kv_heads, kv_heads, HEADS)]


def rank_part(x, rank, ranks):
    return x.chunk(ranks, dim=2)[rank].clone()


class Two(torch.nn.Module):
    """Two layers, the second on what the first gives."""

    def __init__(self, *shape):
        super().__init__()
        self.first, self.second = (lt.LighthouseAttention(*shape) for _ in range(2))

    def forward(self, q, k, v):
        return self.second(self.first(q, k, v), k, v)


def results(model, q, k, v, dout):
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    out = model(q, k, v)
    return (out.detach(), *torch.autograd.grad(out, (q, k, v), dout))


def compare(rank, ranks, case, dtype, pieces, dense=False, device="cpu", dim=DIM):
    """The two layers over ranks and in one process: (got, wanted) by name, and the plans of what sent rows."""
    batch, kv_heads, tokens, *shape = case
    whole, model = draw(batch, kv_heads, tokens, dtype, device, dim), Two(*shape)
    for layer in (model.first, model.second):
        layer.dense = dense
    want = results(model, *(x.clone() for x in whole))
    handles = lt.context_parallel(model, dist.device_mesh.init_device_mesh(device, (ranks,)), pieces)
    got = results(model, *(rank_part(x, rank, ranks) for x in whole))
    over = model.first.over
    rows = [plan for plan in over.ranks.plans.values() if plan is not None]
    for handle in handles:
        handle.remove()
    assert torch.equal(results(model, *(x.clone() for x in whole))[0], want[0])
    found = {name: (g, rank_part(w, rank, ranks)) for name, g, w in zip(("out", "dq", "dk", "dv"), got, want)}
    return found, rows


def work(rank, ranks, port, cases):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    torch.set_num_threads(1)
    for name, (case, dtype, pieces) in cases.items():
        found, rows = compare(rank, ranks, case, dtype, pieces)
        assert len(rows) == 1, f"{name}: tokens travelled"
        for tensor, (got, want) in found.items():
            assert torch.equal(got, want), f"{name}: {tensor} differs by {(got.float() - want.float()).abs().max()}"
    dist.destroy_process_group()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(ranks, function, *arguments):
    """Processes that have imported PyTorch once for all."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["lighthouse.torch"])
    started = [context.Process(target=function, args=(rank, ranks, *arguments)) for rank in range(ranks)]
    for process in started:
        process.start()
    return started


def spawn(ranks, function, *arguments):
    started = start(ranks, function, free_port(), *arguments)
    try:
        for process in started:
            process.join(300)
        assert [process.exitcode for process in started] == [0] * ranks
    finally:
        for process in started:
            process.kill()


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_have_the_bits_of_one_process(ranks):
    spawn(ranks, work, CASES | (EVEN if ranks in (2, 4) else {}))


def on_gpus(rank, ranks, port):
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    for name, (case, dtype, pieces) in (CASES | EVEN).items():
        found, rows = compare(rank, ranks, case, dtype, pieces, device="cuda", dim=16 if dtype is torch.float32 else 64)
        assert len(rows) == 1, f"{name}: tokens travelled"
        for tensor, (got, want) in found.items():
            assert torch.equal(got, want), f"{name}: {tensor} differs by {(got.float() - want.float()).abs().max()}"
    dist.destroy_process_group()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
def test_two_gpus_have_the_bits_of_one():
    spawn(2, on_gpus)


def other_ways(rank, ranks, port):
    """What sends whole tokens: dense layers, scores of the caller's, tiles that W does not divide."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    torch.set_num_threads(1)
    for case, dense in (((2, 2, 240, 3, 2, 48, 4), True), ((2, 2, 240, 3, 2, 12, 4), False), ((2, 1, 240, 3, 2, 12, 4), False)):
        found, rows = compare(rank, ranks, case, torch.float32, None, dense)
        assert not rows
        for tensor, (got, want) in found.items():
            exact = case[1] % ranks == 0 or tensor in ("out", "dq")
            assert torch.equal(got, want) if exact else torch.allclose(got, want, rtol=1e-5, atol=1e-6), tensor
    refuse(rank, ranks)
    dist.destroy_process_group()


def refuse(rank, ranks):
    layer = lt.LighthouseAttention(3, 2, 48, 4)
    lt.context_parallel(layer, dist.group.WORLD)
    q, k, v = (rank_part(x, rank, ranks) for x in draw(1, 2, 240)[:3])
    with pytest.raises(ValueError, match="wanted neither under context_parallel"):
        layer(q, k, v, dropout_p=0.1)
    tokens = 120 - 8 * (rank == 1)
    with pytest.raises(ValueError, match=r"\[1, 6, 112, 16\] .* on rank 1, wanted .* as on rank 0"):
        layer(q[:, :, :tokens], k[:, :, :tokens], v[:, :, :tokens])
    layer.topk = 48 if rank == 0 else 24
    with pytest.raises(ValueError, match="on rank 1, wanted .* as on rank 0, and its dtype and configuration"):
        layer(q, k, v)
    layer.topk = 48
    with pytest.raises(ValueError, match="q has 3 heads, wanted a multiple of the 2 ranks"):
        layer(q[:, :3], k[:, :1], v[:, :1])
    layer.over.ranks.pieces = 2 if rank == 1 else None
    line = "pieces is 2, wanted a divisor of a rank's 3 sequences" if rank == 1 else "rank 1 could not make its plan"
    with pytest.raises(ValueError, match=line):
        layer(q, k, v)
    layer.over.ranks.pieces = None
    out = layer(*(x.requires_grad_() for x in (q, k, v)))
    (dq,) = torch.autograd.grad(out, q, torch.ones_like(out), create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        dq.sum().backward()


def test_what_sends_tokens_and_what_is_refused():
    spawn(2, other_ways)


def endless(rank, ranks, port, folder):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    torch.set_num_threads(1)
    layer = lt.LighthouseAttention(3, 2, 48, 4)
    lt.context_parallel(layer, dist.group.WORLD)
    inputs = [rank_part(x, rank, ranks) for x in draw(2, 2, 240)]
    for step in range(10**9):
        results(layer, *inputs)
        if step == 2:
            open(f"{folder}/{rank}", "w").write(str(os.getpid()))


def test_a_killed_rank_ends_the_others(tmp_path):
    """kill -9 of one of four in the middle: the others raise, and nobody waits for ever."""
    ranks = start(4, endless, free_port(), str(tmp_path))
    try:
        until = time.monotonic() + 120
        while len(list(tmp_path.iterdir())) < 4 and time.monotonic() < until:
            time.sleep(0.1)
        os.kill(int((tmp_path / "2").read_text()), signal.SIGKILL)
        until = time.monotonic() + 30
        for process in ranks:
            process.join(max(0, until - time.monotonic()))
        assert [process.exitcode for process in ranks] == [1, 1, -signal.SIGKILL, 1]
    finally:
        for process in ranks:
            process.kill()


def test_the_first_entries_are_found():
    """Which entries cover a rank's first positions: the shifted windows of SPEC 3.7, by brute force."""
    plan = _ranks.RankPlan.__new__(_ranks.RankPlan)
    plan.levels, plan.pool, plan.tokens, plan.rows, plan.index_dtype = 3, 3, 54, 40, torch.int32
    plan._edges(torch.device("cpu"))
    writes = {}
    offset = 0
    for level in range(3):
        for i in range(54 // 3**level):
            for j in range(i * 3**level + 3**level - 1, i * 3**level + 2 * 3**level - 1):
                writes.setdefault((level, j), offset + i)
        offset += 54 // 3**level
    assert plan.reach == 8 and plan.last.tolist() == [54 + 17, 54 + 18 + 5]
    assert plan.covering[..., 0].tolist() == [[writes.get((level, j), -1) for j in range(8)] for level in range(2)]


def test_refuses_what_has_no_layer():
    with pytest.raises(ValueError, match="Linear has no LighthouseAttention module"):
        lt.context_parallel(torch.nn.Linear(2, 2), None)
