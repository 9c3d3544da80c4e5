"""Sequences over ranks: each holds a run of the tokens, and attends over whole sequences of a share of the heads."""
import torch
import torch.distributed as dist

from .._library import LighthouseError
from .module import LighthouseAttention


class _Exchange(torch.autograd.Function):
    """x [W, ...], the r-th part to rank r -> [W, ...], the r-th part from rank r. Its own backward."""

    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        x = x.contiguous()
        out = torch.empty_like(x)
        dist.all_to_all_single(out, x, group=group)
        return out

    @staticmethod
    def backward(ctx, dout):
        return _Exchange.apply(dout, ctx.group), None


def _to_heads(x, ranks, group):
    """[B, W h, n, d], this rank's tokens of all heads -> [B, h, W n, d], all tokens of this rank's heads."""
    x = _Exchange.apply(x.unflatten(1, (ranks, -1)).movedim(1, 0), group)  # [W, B, h, n, d]
    return x.movedim(0, 2).flatten(2, 3)


def _to_tokens(x, ranks, group):
    """The way back."""
    x = _Exchange.apply(x.unflatten(2, (ranks, -1)).movedim(2, 0), group)
    return x.movedim(0, 1).flatten(1, 2)


class _Hooks:
    def __init__(self, group):
        self.group, self.ranks = group, dist.get_world_size(group)
        self.agreed = False

    def _agree(self, q, k):
        """On the first call: every rank's shapes and dtype are the first one's, or all ranks are told who differs."""
        mine = torch.tensor([*q.shape, *k.shape, q.element_size()], device=q.device)
        everyone = [torch.empty_like(mine) for _ in range(self.ranks)]
        dist.all_gather(everyone, mine, group=self.group)
        for rank, other in enumerate(everyone):
            if not torch.equal(other, everyone[0]):
                raise LighthouseError(f"q and k have shapes {other[:4].tolist()} and {other[4:8].tolist()} on rank {rank}, "
                                      f"wanted {everyone[0][:4].tolist()} and {everyone[0][4:8].tolist()} as on rank 0")
        self.agreed = True

    def before(self, module, inputs, keywords):
        if len(inputs) < 3:
            raise LighthouseError(f"{len(inputs)} of q, k, v are positional, wanted all three under context_parallel")
        if len(inputs) > 3 or any(v is not None and v != 0 for v in keywords.values()):
            raise LighthouseError("attn_mask or dropout_p is given, wanted neither under context_parallel")
        q, k, v = inputs
        for name, x in (("q", q), ("k", k), ("v", v)):
            if x.dim() != 4:
                raise LighthouseError(f"{name} has {x.dim()} dimensions, wanted 4: [batch, heads, tokens, dim]")
        if not self.agreed:
            self._agree(q, k)
        heads, kv_heads = q.shape[1], k.shape[1]
        if heads % self.ranks:
            raise LighthouseError(f"q has {heads} heads, wanted a multiple of the {self.ranks} ranks")
        if kv_heads % self.ranks:  # a head that several ranks read goes to each; its gradient comes back as a sum
            if self.ranks % kv_heads:
                raise LighthouseError(f"k has {kv_heads} heads, wanted a multiple or a divisor of the {self.ranks} ranks")
            k, v = (x.repeat_interleave(self.ranks // kv_heads, dim=1) for x in (k, v))
        return tuple(_to_heads(x, self.ranks, self.group) for x in (q, k, v)), keywords

    def after(self, module, inputs, out):
        return _to_tokens(out, self.ranks, self.group)


def context_parallel(module, device_mesh):
    """Lets every LighthouseAttention in `module` (or itself) attend over sequences whose tokens are over the mesh's ranks.

        mesh = torch.distributed.device_mesh.init_device_mesh("cuda", (4,))
        context_parallel(model, mesh)

    Rank r of W then calls the layer with tokens r N/W ... (r+1) N/W - 1 of q, k, v and gets those of out. Heads travel
    (all-to-all), the layer sees whole sequences, dense or Lighthouse, and so each head has the bits that one process gives
    it; where W does not divide k's heads but is a multiple of them, dk and dv are sums over ranks and differ by rounding. W
    divides q's heads. What else depends on a token's position (rotary angles) is the model's: it begins at r N/W. A rank's
    memory in the layer is 1 / W of a whole one's. device_mesh: of one dimension, or a process group.

    Returns handles whose remove() undoes it. LighthouseError, a ValueError, for what does not fit.
    """
    if hasattr(device_mesh, "get_group"):
        if device_mesh.ndim != 1:
            raise LighthouseError(f"device_mesh has {device_mesh.ndim} dimensions, wanted 1: mesh['name'] of one of them")
        group = device_mesh.get_group()
    else:
        group = device_mesh
    layers = [m for m in module.modules() if isinstance(m, LighthouseAttention)]
    if not layers:
        raise LighthouseError(f"{type(module).__name__} has no LighthouseAttention module, wanted one at least")
    handles = []
    for layer in layers:
        hooks = _Hooks(group)
        handles.append(layer.register_forward_pre_hook(hooks.before, with_kwargs=True))
        handles.append(layer.register_forward_hook(hooks.after))
    return handles
