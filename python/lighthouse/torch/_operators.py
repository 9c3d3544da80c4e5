"""The operators lighthouse::forward and lighthouse::backward, and the function over them."""
import functools
import warnings

import torch

from .._library import LighthouseError
from ._plans import plan_for
from .scorers import pyramid

_library = torch.library.Library("lighthouse", "DEF")
_tags = (torch.Tag.pt2_compliant_tag,)
_library.define(
    "forward(Tensor q, Tensor k, Tensor v, Tensor? score_q, Tensor? score_k, SymInt levels, SymInt pool, SymInt topk, "
    "SymInt tile_topk) -> (Tensor out, Tensor index, Tensor kept, Tensor lse)", tags=_tags)
_library.define(
    "backward(Tensor dout, Tensor? q, Tensor? k, Tensor? v, Tensor index, Tensor kept, Tensor lse, SymInt kv_heads, "
    "bool tokens_first, SymInt levels, SymInt pool, SymInt topk, SymInt tile_topk) -> (Tensor dq, Tensor dk, Tensor dv)",
    tags=_tags)


def _rows(x):
    """x itself where the library can read it: rows together, strides positive."""
    strides = x.stride()
    if strides[3] == 1 and strides[0] > 0 and strides[1] > 0 and strides[2] > 0:
        return x
    return x.contiguous()


def _check(q, k, v):
    if q.dtype is k.dtype is v.dtype and q.device == k.device == v.device and q.dim() == 4 and k.shape == v.shape:
        (b, h, n, d), (kb, g, kn, kd) = q.shape, k.shape
        if b == kb and n == kn and d == kd and g and h % g == 0:
            return
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() != 4:
            raise LighthouseError(f"{name} has {x.dim()} dimensions, wanted 4: [batch, heads, tokens, dim]")
        if x.dtype != q.dtype:
            raise LighthouseError(f"{name} is {x.dtype}, wanted {q.dtype} as q is")
        if x.device != q.device:
            raise LighthouseError(f"{name} is on {x.device}, wanted {q.device} as q is")
    for name, x in (("k", k), ("v", v)):
        if x.shape[0] != q.shape[0] or x.shape[2] != q.shape[2] or x.shape[3] != q.shape[3] or \
                x.shape[1] != k.shape[1]:
            raise LighthouseError(f"{name} has shape {list(x.shape)}, wanted "
                                  f"{[q.shape[0], k.shape[1], q.shape[2], q.shape[3]]} beside q {list(q.shape)}")
    if q.shape[1] % k.shape[1] != 0:
        raise LighthouseError(f"k has {k.shape[1]} heads, wanted a number that divides the {q.shape[1]} of q")


def _selected(tokens, levels, pool, topk):
    """S and P of SPEC 2 and 3.3."""
    if levels == 1:
        return tokens, tokens
    return (tokens // pool ** (levels - 1) + (levels - 1) * pool * topk,
            sum(tokens // pool**level for level in range(levels)))


def _parts(heads, kv_heads, tokens, levels, rows):
    """What a forward keeps of [B,H,S,d] each: q_sel k_sel v_sel o_sel, or o_sel alone where q k v are fewer bytes."""
    return 4 if levels > 1 and 3 * heads * rows < (heads + 2 * kv_heads) * tokens else 1


def _sizes_of(b, h, g, n, d, levels, pool, topk):
    """Shape of index and lse, dtype of index, shape of what is kept."""
    rows, entries = _selected(n, levels, pool, topk)
    return ((b, h, rows), torch.int64 if entries > 2**31 - 1 else torch.int32,
            (_parts(h, g, n, levels, rows), b, h, rows, d))


_sizes = functools.lru_cache(maxsize=256)(_sizes_of)  # for sizes that are numbers, not a compiler's symbols


def _outputs(q, k, levels, pool, topk):
    shape, dtype, parts = _sizes_of(*q.shape[:2], k.shape[1], *q.shape[2:], levels, pool, topk)
    return (torch.empty_like(q), q.new_empty(shape, dtype=dtype), q.new_empty(parts),
            q.new_empty(shape, dtype=torch.float32))


def _prepare(q, k, v, score_q, score_k, levels, pool, topk, tile_topk):
    """(plan, its tensors by name but for what is kept, _sizes) of a forward on numbers, not a compiler's symbols."""
    _check(q, k, v)
    b, h, n, d = q.shape
    q, k, v = _rows(q), _rows(k), _rows(v)
    sizes = _sizes(b, h, k.shape[1], n, d, levels, pool, topk)
    plan = plan_for(q, score_q is not None, sizes[2][0] == 4, (b, h, k.shape[1], n, d, levels, pool, topk, tile_topk))
    tensors = {"q": q, "k": k, "v": v, "out": torch.empty_like(q)}
    if score_q is not None:
        entries = _selected(n, levels, pool, topk)[1]
        for name, score, heads in (("score_q", score_q, h), ("score_k", score_k, k.shape[1])):
            if tuple(score.shape) != (b, heads, entries) or score.dtype != torch.float32:
                raise LighthouseError(f"{name} is {score.dtype} {list(score.shape)}, wanted torch.float32 "
                                      f"{[b, heads, entries]}")
        tensors["score_q"], tensors["score_k"] = score_q.contiguous(), score_k.contiguous()
    return plan, tensors, sizes


def _forward(*arguments):
    plan, tensors, (shape, dtype, parts) = _prepare(*arguments)
    q = tensors["q"]
    index, kept, lse = q.new_empty(shape, dtype=dtype), q.new_empty(parts), q.new_empty(shape, dtype=torch.float32)
    tensors["index"], tensors["lse"] = index, lse
    plan.run(False, tensors, kept)
    return tensors["out"], index, kept, lse


def _forward_held(*arguments):
    """(out, held_bytes of a plan that backward takes, the plan, whether the selected rows are among them)."""
    plan, tensors, sizes = _prepare(*arguments)
    held = torch.empty(plan.held_bytes, **plan.like)
    plan.run(False, tensors, held=held)
    return tensors["out"], held, plan, sizes[2][0] == 4


def _gradients(dout, q, k, v, kv_heads, tokens_first):
    """dq dk dv, unwritten: laid out as q k v, or where those are not there with tokens or heads first as q was."""
    if q is not None:
        return tuple(torch.empty_like(_rows(x)) for x in (q, k, v))
    b, h, n, d = dout.shape
    if kv_heads == h and (dout.stride(1) < dout.stride(2)) == tokens_first:  # as dout is, for the least of PyTorch's calls
        return torch.empty_like(dout), torch.empty_like(dout), torch.empty_like(dout)
    if tokens_first:
        return tuple(dout.new_empty((b, n, heads, d)).transpose(1, 2) for heads in (h, kv_heads, kv_heads))
    return tuple(dout.new_empty((b, heads, n, d)) for heads in (h, kv_heads, kv_heads))


def _prepare_backward(dout, q, k, v, kv_heads, tokens_first):
    """Tensors by name; dq dk dv."""
    dout = _rows(dout)
    dq, dk, dv = _gradients(dout, q, k, v, kv_heads, tokens_first)
    tensors = {"dq": dq, "dk": dk, "dv": dv, "dout": dout}
    if q is not None:
        tensors["q"], tensors["k"], tensors["v"] = _rows(q), _rows(k), _rows(v)
    return tensors, (dq, dk, dv)


def _backward(dout, q, k, v, index, kept, lse, kv_heads, tokens_first, *configuration):
    b, h, n, d = dout.shape
    plan = plan_for(dout, False, q is None, (b, h, kv_heads, n, d, *configuration))
    tensors, gradients = _prepare_backward(dout, q, k, v, kv_heads, tokens_first)
    tensors["index"], tensors["lse"] = index.contiguous(), lse.contiguous()
    plan.run(True, tensors, kept.contiguous())
    return gradients


def _backward_held(plan, dout, q, k, v, held, kv_heads, tokens_first):
    tensors, gradients = _prepare_backward(dout, q, k, v, kv_heads, tokens_first)
    plan.run(True, tensors, held=held)
    return gradients


for _device in ("CPU", "CUDA"):
    _library.impl("forward", _forward, _device)
    _library.impl("backward", _backward, _device)


@torch.library.register_fake("lighthouse::forward")
def _(q, k, v, score_q, score_k, levels, pool, topk, tile_topk):
    _check(q, k, v)
    return _outputs(_rows(q), k, levels, pool, topk)


@torch.library.register_fake("lighthouse::backward")
def _(dout, q, k, v, index, kept, lse, kv_heads, tokens_first, levels, pool, topk, tile_topk):
    return _gradients(_rows(dout), q, k, v, kv_heads, tokens_first)


def _keep(ctx, q, k, v, rows, more, configuration=()):
    """Saves for backward what it must have and no more: the rows that were selected, which are among `more`, or q k v where
    those are fewer bytes.
    """
    ctx.configuration = (k.shape[1], q.stride(1) < q.stride(2), *configuration)
    if rows:
        q = k = v = None
    ctx.save_for_backward(q, k, v, *more)


def _save(ctx, inputs, output):
    q, k, v, _, _, *configuration = inputs
    _, index, kept, lse = output
    ctx.mark_non_differentiable(index, kept, lse)
    _keep(ctx, q, k, v, kept.shape[0] == 4, (index, kept, lse), configuration)


def _refuse(ctx, *_):
    raise RuntimeError("Lighthouse Attention has no second derivative, wanted create_graph=False")


class _Once(torch.autograd.Function):
    """Gradients that raise when they are differentiated: what they depend on was not all saved."""

    @staticmethod
    def forward(ctx, *gradients):
        return tuple(x.view_as(x) for x in gradients)

    backward = staticmethod(_refuse)


def _once(gradients):
    return _Once.apply(*(x.detach().requires_grad_() for x in gradients)) if torch.is_grad_enabled() else gradients


def _differentiate(ctx, dout, *_):
    gradients = torch.ops.lighthouse.backward(dout, *ctx.saved_tensors, *ctx.configuration)
    return (*_once(gradients), None, None, None, None, None, None)


torch.library.register_autograd("lighthouse::forward", _differentiate, setup_context=_save)
torch.library.register_autograd("lighthouse::backward", _refuse)


class _Layer(torch.autograd.Function):
    """The operators' autograd without their dispatch, which costs more than the kernels' launches."""

    @staticmethod
    def forward(ctx, q, k, v, score_q, score_k, configuration):
        out, held, plan, rows = _forward_held(q, k, v, score_q, score_k, *configuration)
        ctx.plan = plan
        _keep(ctx, q, k, v, rows, (held,))
        return out

    @staticmethod
    def backward(ctx, dout):
        gradients = _backward_held(ctx.plan, dout, *ctx.saved_tensors, *ctx.configuration)
        return (*_once(gradients), None, None, None)


_ordinary = frozenset((torch.Tensor, torch.nn.Parameter))


def _plain(q, k, v):
    """Eager tensors of PyTorch's own on a device, with nobody listening: no compiler, mode, transform or subclass."""
    return (type(q) in _ordinary and type(k) in _ordinary and type(v) in _ordinary and (q.is_cuda or q.is_cpu)
            and not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() == 0
            and torch._C._functorch.peek_interpreter_stack() is None)


def _padding(tokens, levels, pool, topk, tile_topk):
    """Zeros that a sequence needs at its end: tiles of whole coarse windows, tile_topk or more of them (SPEC 2)."""
    if levels == 1:
        return 0
    tiles = max(topk // tile_topk, 1)
    step = pool ** (levels - 1) * tiles
    return max(-(-tokens // step) * step, step * tile_topk) - tokens


def lighthouse_attention(q, k, v, *, levels, pool, topk=0, tile_topk=128, score=None, pad=False, attn_mask=None,
                         dropout_p=0.0, documents=None):
    """out [B,H,N,d] of q [B,H,N,d], k and v [B,G,N,d] (G divides H): one causal layer (docs/algorithm.md).

    levels, pool, topk, tile_topk: L, p, k, m of the algorithm; levels=1 is dense attention. score: None for norms, or a
    function (q, k) -> (score_q, score_k) of tokens [B,H,N] and [B,G,N] or of the whole pyramid [B,H,P] and [B,G,P]; no
    gradient flows through it. pad: lengths that do not fit get zeros at the end, which no real token can see; else they are
    refused. Under autocast q, k, v are cast as scaled_dot_product_attention does. attn_mask, dropout_p and documents
    are there to be refused by name. Raises LighthouseError, a ValueError, naming what was found and what was wanted.
    """
    if attn_mask is not None:
        raise LighthouseError("attn_mask is given, wanted None: Lighthouse Attention is causal and has no other mask")
    if dropout_p:
        raise LighthouseError(f"dropout_p is {dropout_p}, wanted 0: the attention weights are not dropped")
    if documents is not None:
        raise LighthouseError("documents are packed in a sequence, wanted None: one sequence, one document")
    if torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    tokens = q.shape[2]
    more = _padding(tokens, levels, pool, topk, tile_topk) if pad else 0
    if more:
        if not torch.compiler.is_compiling():
            warnings.warn(f"{tokens} tokens are padded with {more} zeros to {tokens + more}", stacklevel=2)
        q, k, v = (torch.nn.functional.pad(x, (0, 0, 0, more)) for x in (q, k, v))
    score_q = score_k = None
    if score is not None:
        _check(q, k, v)
        with torch.no_grad():
            score_q, score_k = score(q.detach(), k.detach())
            score_q, score_k = (pyramid(s, levels, pool) if s.shape[2] == q.shape[2] else s.float()
                                for s in (score_q, score_k))
    if _plain(q, k, v):
        if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
            out = _Layer.apply(q, k, v, score_q, score_k, (levels, pool, topk, tile_topk))
        else:
            out = _forward_held(q, k, v, score_q, score_k, levels, pool, topk, tile_topk)[0]
    else:
        out = torch.ops.lighthouse.forward(q, k, v, score_q, score_k, levels, pool, topk, tile_topk)[0]
    return out[:, :, :tokens] if more else out
