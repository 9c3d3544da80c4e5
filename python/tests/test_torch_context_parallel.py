"""lighthouse.torch.context_parallel over gloo: processes of this machine. Skipped where PyTorch is not installed."""
import socket

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist
import torch.multiprocessing as mp

import lighthouse.torch as lt

SHAPE = dict(levels=3, pool=2, topk=16, tile_topk=8)
TOKENS = 96


def draw(heads, kv_heads):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(2, h, TOKENS, 16, generator=generator) for h in (heads, kv_heads, kv_heads, heads)]


def rank_part(x, rank, ranks):
    return x.chunk(ranks, dim=2)[rank].clone()


class Two(torch.nn.Module):
    """Two layers, the second on what the first gives."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (lt.LighthouseAttention(**SHAPE) for _ in range(2))

    def forward(self, q, k, v):
        return self.second(self.first(q, k, v), k, v)


def results(model, q, k, v, dout):
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    out = model(q, k, v)
    return (out.detach(), *torch.autograd.grad(out, (q, k, v), dout))


def compare(rank, ranks, heads, kv_heads, dense):
    whole, model = draw(heads, kv_heads), Two()
    for layer in (model.first, model.second):
        layer.dense = dense
    want = results(model, *(x.clone() for x in whole))
    handles = lt.context_parallel(model, dist.device_mesh.init_device_mesh("cpu", (ranks,)))
    got = results(model, *(rank_part(x, rank, ranks) for x in whole))
    for name, g, w in zip(("out", "dq", "dk", "dv"), got, want):
        w = rank_part(w, rank, ranks)
        exact = kv_heads % ranks == 0 or name in ("out", "dq")
        assert torch.equal(g, w) if exact else torch.allclose(g, w, rtol=1e-5, atol=1e-6), name
    for handle in handles:
        handle.remove()
    assert torch.equal(results(model, *(x.clone() for x in whole))[0], want[0])


def refuse(rank, ranks):
    whole, layer = draw(4, 2), lt.LighthouseAttention(**SHAPE)
    lt.context_parallel(layer, dist.group.WORLD)
    with pytest.raises(ValueError, match="wanted neither under context_parallel"):
        layer(*(rank_part(x, rank, ranks) for x in whole[:3]), dropout_p=0.1)
    tokens = TOKENS // ranks - (rank == 1)
    with pytest.raises(ValueError, match=r"on rank 1, wanted .* as on rank 0"):
        layer(*(x[:, :, :tokens] for x in whole[:3]))
    with pytest.raises(ValueError, match="q has 3 heads, wanted a multiple of the 2 ranks"):
        layer(*(x[:, :1].expand(-1, 3, -1, -1)[:, :, :48] for x in whole[:3]))


def work(rank, ranks, port):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    torch.set_num_threads(1)
    for kv_heads, dense in ((2, False), (1, False), (4, True)):
        compare(rank, ranks, 4, kv_heads, dense)
    refuse(rank, ranks)
    dist.destroy_process_group()


def test_two_ranks_give_what_one_process_gives():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, args=(2, port), nprocs=2)


def test_refuses_what_has_no_layer():
    with pytest.raises(ValueError, match="Linear has no LighthouseAttention module"):
        lt.context_parallel(torch.nn.Linear(2, 2), None)
