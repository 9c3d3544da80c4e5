"""Sequences over ranks: each holds a run of the tokens, and attends over a share of the heads."""
import torch
import torch.distributed as dist

from .._library import LighthouseError
from . import _ranks
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


class _Over:
    """What a layer does with its rank's tokens instead of its own forward; `whole` is that forward without its checks."""

    def __init__(self, ranks):
        self.ranks = ranks

    @torch.compiler.disable
    def __call__(self, module, q, k, v, attn_mask, dropout_p):
        if attn_mask is not None or dropout_p:
            raise LighthouseError("attn_mask or dropout_p is given, wanted neither under context_parallel")
        q, k, v = _ranks.checked(q, k, v)
        plan = self.ranks.plan(q, k, self._configuration(module))
        if plan is not None:
            return _ranks.Layer.apply(q, k, v, plan)
        return self._by_tokens(module, q, k, v)

    @staticmethod
    def _configuration(module):
        """None for what looks at other tokens than a tile's: dense attention, and scores of the caller's own."""
        if module.dense or module.score is not None:
            return None
        return module.levels, module.pool, module.topk, module.tile_topk

    def _by_tokens(self, module, q, k, v):
        """Whole sequences of a share of the heads on each rank."""
        group, ranks = self.ranks.group, self.ranks.ranks
        heads, kv_heads = q.shape[1], k.shape[1]
        if heads % ranks:
            raise LighthouseError(f"q has {heads} heads, wanted a multiple of the {ranks} ranks")
        if kv_heads % ranks:  # a head that several ranks read goes to each; its gradient comes back as a sum
            if ranks % kv_heads:
                raise LighthouseError(f"k has {kv_heads} heads, wanted a multiple or a divisor of the {ranks} ranks")
            k, v = (x.repeat_interleave(ranks // kv_heads, dim=1) for x in (k, v))
        return _to_tokens(module.whole(*(_to_heads(x, ranks, group) for x in (q, k, v))), ranks, group)


class _Handle:
    """Undoes context_parallel for one layer."""

    def __init__(self, layer):
        self.layer = layer

    def remove(self):
        self.layer.over = None


def context_parallel(module, device_mesh, pieces=None):
    """Lets every LighthouseAttention in `module` (or itself) attend over sequences whose tokens are over the mesh's ranks.

        mesh = torch.distributed.device_mesh.init_device_mesh("cuda", (4,))
        context_parallel(model, mesh)

    Rank r of W then calls the layer with tokens r N/W ... (r+1) N/W - 1 of q, k, v and gets those of out. Where W divides the
    tiles (topk / tile_topk) and batch * heads, each rank selects among its own tokens, only the S selected rows travel, and a
    rank attends over whole sub-sequences of its share of the heads: every tensor has the bits that one process gives it. Dense
    layers, those with a `score` of their own and those W does not divide so send all N tokens, by heads: W divides q's heads, and
    where it does not divide k's but is a multiple of them, dk and dv are sums over ranks and differ by rounding. What else
    depends on a token's position (rotary angles) is the model's: it begins at r N/W. A rank's memory in the layer is 1 / W of a
    whole one's. device_mesh: of one dimension, or a process group. pieces: a rank's heads are attended over in so many pieces, the
    rows of one on their way while another is attended over; None is one.

    Shapes are compared over the ranks whenever they are new. Returns handles whose remove() undoes it. LighthouseError, a
    ValueError, for what does not fit.
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
    over = _Over(_ranks.Ranks(group, pieces))
    for layer in layers:
        layer.over = over
    return [_Handle(layer) for layer in layers]
