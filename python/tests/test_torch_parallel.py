"""lighthouse.torch in models that are compiled to machine code or spread over processes. Skipped where PyTorch is not installed."""
import os
import shutil
import warnings

import pytest

torch = pytest.importorskip("torch")

import lighthouse.torch as lt

SHAPE = dict(levels=3, pool=4, topk=8, tile_topk=4)
TOKENS, WIDTH, HEADS = 192, 32, 2


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.attention = torch.nn.Linear(WIDTH, 3 * WIDTH), lt.LighthouseAttention(**SHAPE)
        self.out = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return x + self.out(self.attention(q, k, v).transpose(1, 2).flatten(2))


def start():
    torch.manual_seed(0)
    return torch.nn.Sequential(*(Block() for _ in range(2)))


def batch():
    return torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def gradients(model, x):
    model(x).square().mean().backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
def test_inductor():
    model, compiled = start(), torch.compile(start(), fullgraph=True)
    assert torch.allclose(compiled(batch()), model(batch()), rtol=1e-5, atol=1e-6)
    for got, want in zip(gradients(compiled, batch()), gradients(model, batch())):
        assert torch.allclose(got, want, rtol=1e-4, atol=1e-7)


def rank_main(rank, folder):
    """One of two processes; each has a row of the batch, so that the mean of their losses is the loss of the whole."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.nn.parallel import DistributedDataParallel

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    x = batch()[rank:rank + 1]
    torch.save(gradients(DistributedDataParallel(start()), x), f"{folder}/ddp{rank}")
    mesh = init_device_mesh("cpu", (2,))
    for name, policy in (("fsdp", MixedPrecisionPolicy()), ("bf16", MixedPrecisionPolicy(param_dtype=torch.bfloat16))):
        model = start()
        for block in model:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)
        torch.save([g.full_tensor() for g in gradients(model, x)], f"{folder}/{name}{rank}")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)  # PyTorch 2.15's own threads ended 2 of 8 processes by SIGABRT on their way out of a loaded machine


def test_two_processes(tmp_path):
    """DistributedDataParallel and FSDP2 over gloo: on both ranks the gradients of one process with the whole batch."""
    torch.multiprocessing.spawn(rank_main, (str(tmp_path),), nprocs=2)
    want = gradients(start(), batch())
    for name, share in (("ddp", 1e-5), ("fsdp", 1e-5), ("bf16", 5e-2)):
        for rank in range(2):
            got = torch.load(tmp_path / f"{name}{rank}")
            assert len(got) == len(want)
            for g, w in zip(got, want):
                assert (g.float() - w).norm() < share * w.norm(), name
