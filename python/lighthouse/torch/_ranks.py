"""One layer by heads over ranks: rows of the sub-sequence travel, not tokens (docs/distributed.md; dist/heads.c is the same in C).

A rank's tokens are whole tiles, so that selecting, gathering, scattering and un-pooling are its own (a plan of
lh_dist_local). Of the B H sequences it attends over a W-th, all S rows of each (lh_dist_attention). Stages are the library's,
on the device where the tensors are; rows go by torch.distributed's all-to-all, and what crosses a rank's edge by way of whoever
attends over it.
"""
import threading
from collections import OrderedDict
from ctypes import byref, c_void_p

import torch
import torch.distributed as dist

from .._library import Config, Error, LighthouseError, Options, Tensor, call, library
from .._trace import TENSORS, names
from ._operators import _check, _once, _parts, _rows, _selected
from ._plans import CODES, ON_DEVICE, STRIDED, _stream

ATTEND, SCATTER, SCATTER_BACKWARD, ATTEND_BACKWARD, UNPOOL = range(4, 9)  # of lh_stage
PLANS = 16


class _Stages:
    """One lh_plan of single stages; `create` makes it."""

    def __init__(self, create, described, code, device, stream=None):
        self.stream = stream  # of torch, where it is not the caller's
        options = Options(backend=b"cuda" if device.type == "cuda" else b"openmp", dtype=code, backward=True, stages=True,
                          stream_given=True, memory=ON_DEVICE if device.type == "cuda" else 0, device=device.index or 0,
                          stream=stream.cuda_stream if stream else _stream(device.index) if device.type == "cuda" else None,
                          threads=0 if device.type == "cuda" else torch.get_num_threads())
        self.handle, self.error, self.lock = c_void_p(), Error(), threading.Lock()
        create(options, self.handle)
        self.trace = (Tensor * TENSORS)()
        self.at = dict(zip(names(), self.trace))
        for i in range(TENSORS):
            call("lh_tensor_describe", byref(described), code, i, byref(self.trace[i]))

    def __del__(self):
        if getattr(self, "handle", None):
            library.lh_plan_destroy(self.handle)

    def run(self, stage, **tensors):
        """The stage, or lh_dist_select where it is None, on tensors by name."""
        with self.lock:
            for name, x in tensors.items():
                self.at[name].data = x.data_ptr()
                if name in STRIDED:
                    self.at[name].stride[:] = x.stride()
            if stage is None:
                failed = library.lh_dist_select(self.handle, self.trace, self.error)
            else:
                failed = library.lh_run_stage(self.handle, stage, self.trace, self.error)
            if failed:
                raise LighthouseError(self.error.text.decode())


def _wide(x):
    """x [...,d] as integers of 8 bytes where rows are whole ones: strided copies of rows then move four numbers at a time."""
    return x.view(torch.int64) if x.shape[-1] * x.element_size() % 8 == 0 else x


class _Move:
    """Tensors on their way at one time. A group's exchanges come in the order in which they were begun."""

    def __init__(self, group):
        self.group, self.under_way = group, []

    def trade(self, sent, to):
        """sent[r] goes to rank r, to[r] comes from it; both [W,...] of one shape, strided as they may be."""
        sent, to = _wide(sent), _wide(to)
        sent = sent.contiguous()
        came = to if to.is_contiguous() else torch.empty_like(sent)
        work = dist.all_to_all_single(came, sent, group=self.group, async_op=True)
        self.under_way.append((work, sent, came, to))
        return self

    def wait(self):
        """What was sent may be written and what came be read; both are kept until here."""
        for work, _, came, to in self.under_way:
            work.wait()
            if came is not to:
                to.copy_(came)
        self.under_way = None


class RankPlan:
    """A layer of one shape on one rank. config: (B, H, G, N of the whole, d, levels, pool, topk, tile_topk)."""

    def __init__(self, group, config, dtype, device, pieces):
        self.group, self.rank, self.ranks = group, dist.get_rank(group), dist.get_world_size(group)
        self.batch, self.heads, self.kv_heads, tokens, self.dim, self.levels, self.pool, topk, _ = config
        self.tokens, self.mine = tokens // self.ranks, self.batch * self.heads // self.ranks
        self.all_rows = _selected(tokens, self.levels, self.pool, topk)[0]
        self.rows, entries = _selected(self.tokens, self.levels, self.pool, topk // self.ranks)
        self.pieces = pieces or 1
        if self.mine % self.pieces:
            raise LighthouseError(f"pieces is {self.pieces}, wanted a divisor of a rank's {self.mine} sequences")
        self.piece = self.mine // self.pieces
        # openmp computes in float32 and rounds what a whole layer keeps: the rows where it keeps them, and o_sel.
        self.work = torch.float32 if device.type == "cpu" else dtype
        rows_kept = _parts(self.heads, self.kv_heads, tokens, self.levels, self.all_rows) == 4
        self.kept, self.row_dtype = dtype, dtype if rows_kept else self.work
        self.index_dtype = torch.int64 if entries > 2**31 - 1 else torch.int32
        self.score_shapes = [(self.batch, h, entries) for h in (self.heads, self.kv_heads)]
        whole, code = Config(*config), CODES[self.work]
        part = Config(*config)
        part.tokens, part.topk = self.tokens, topk // self.ranks
        dense = Config(1, self.piece, self.piece, self.all_rows, self.dim, 1, 2)
        self.local = _Stages(lambda o, plan: call("lh_dist_local", byref(whole), byref(o), self.ranks, byref(plan)),
                             part, code, device)
        # Pieces take turns on two streams, so that blocks of the next fill the device while the last ones of one are at work.
        self.attentions = [
            _Stages(lambda o, plan: call("lh_dist_attention", byref(whole), byref(o), self.piece, byref(plan)), dense, code,
                    device, torch.cuda.Stream(device) if lane else None)
            for lane in range(2 if device.type == "cuda" and self.pieces > 1 else 1)]
        self._edges(device)

    def _attend(self, moves, work):
        """Has work(piece, attention plan) done on each piece once it has come; sees off the move that it returns."""
        lanes = [attention.stream for attention in self.attentions]
        for lane in lanes[1:]:
            lane.wait_stream(torch.cuda.current_stream())
        back = []
        for piece, move in enumerate(moves):
            with torch.cuda.stream(lanes[piece % len(lanes)]):  # None is the caller's
                move.wait()
                back.append(work(piece, self.attentions[piece % len(lanes)]))
        for lane in lanes[1:]:
            torch.cuda.current_stream().wait_stream(lane)
        return back

    def _edges(self, device):
        """Of a rank's entries only the last of each level above 0 writes past its tokens, the first p^l - 1 of the next
        rank's. They are the rank's last L - 1 rows, level by level, where they were selected at all.
        """
        self.reach = self.pool ** (self.levels - 1) - 1
        self.crossing = self.rows - (self.levels - 1)
        offset, ends, covering = 0, [], []
        for level in range(self.levels):
            window = self.pool**level
            covering.append([offset + (j + 1) // window - 1 if j + 1 >= window else -1 for j in range(self.reach)])
            offset += self.tokens // window
            ends.append(offset - 1)
        self.last = torch.tensor(ends[1:], dtype=self.index_dtype, device=device)
        # The entries that cover the first positions, all inside the first coarse window, whose rows are the first ones.
        self.covering = torch.tensor(covering[:-1], dtype=self.index_dtype, device=device)[..., None]
        self.first = min(self.rows, sum(self.pool**i for i in range(1, self.levels)))

    # ---- rows on their way: here [B H,rows,d] of this rank's tokens, there [B H / W,S,d] of this rank's sequences ----

    def _of_piece(self, piece):
        return slice(piece * self.piece, (piece + 1) * self.piece)

    def _by_rank(self, here):
        """[W,sequences,rows,d] of here."""
        return here.view(self.ranks, self.mine, *here.shape[1:])

    def _by_rows(self, there):
        """The same of there."""
        return there.unflatten(1, (self.ranks, self.rows)).transpose(0, 1)

    def _go(self, pairs, first=None):
        """Every piece of (here, there) on its way, after what `first` has."""
        moves = []
        for piece in range(self.pieces):
            move = first if first and piece == 0 else _Move(self.group)
            for here, there in pairs:
                move.trade(self._by_rank(here)[:, self._of_piece(piece)], self._by_rows(there)[:, self._of_piece(piece)])
            moves.append(move)
        return moves

    def _come(self, pairs, piece):
        """The way back of a piece."""
        move = _Move(self.group)
        for here, there in pairs:
            move.trade(self._by_rows(there)[:, self._of_piece(piece)], self._by_rank(here)[:, self._of_piece(piece)])
        return move

    # ---- the layer -------------------------------------------------------------------------------------------

    def _empty(self, like, dtype, *shape):
        return like.new_empty(shape, dtype=dtype)

    def _here(self, like, dtype):
        return self._empty(like, dtype, self.batch * self.heads, self.rows, self.dim)

    def _there(self, like, dtype):
        return self._empty(like, dtype, self.mine, self.all_rows, self.dim)

    def _layer(self, here):
        return here.view(self.batch, self.heads, *here.shape[1:])

    def _part(self, there, piece, dtype):
        return there[self._of_piece(piece)].to(dtype).unsqueeze(0)

    def forward(self, q, k, v):
        """out, and what backward takes: index here, q k v o lse there, and which rows write over an edge."""
        out = torch.empty_like(q)
        q, k, v = (_rows(x.to(self.work)) for x in (q, k, v))
        scores = [self._empty(q, torch.float32, *shape) for shape in self.score_shapes]
        index = self._empty(q, self.index_dtype, self.batch, self.heads, self.rows)
        here = [self._here(q, self.work) for _ in range(3)]
        self.local.run(None, q=q, k=k, v=v, score_q=scores[0], score_k=scores[1], index=index,
                       **{name: self._layer(x) for name, x in zip(("q_sel", "k_sel", "v_sel"), here)})
        here = [x.to(self.row_dtype) for x in here]
        there = [self._there(q, self.row_dtype) for _ in range(3)]
        ends = self._empty(q, self.index_dtype, self.ranks, self.mine, self.levels - 1)
        move = _Move(self.group).trade(self._by_rank(index.flatten(0, 1)[:, self.crossing:].contiguous()), ends)
        moves = self._go(list(zip(here, there)), move)
        del here, move
        o_there, o_sel = self._there(q, self.kept), self._here(q, self.kept)
        lse = self._empty(q, torch.float32, self.mine, self.all_rows)

        def attend(piece, attention):
            o = self._part(o_there, piece, self.work)
            rows = {name: self._part(x, piece, self.work) for name, x in zip(("q_sel", "k_sel", "v_sel"), there)}
            attention.run(ATTEND, o_sel=o, lse=self._part(lse, piece, torch.float32), **rows)
            if self.work != self.kept:
                self._part(o_there, piece, self.kept).copy_(o)
            return self._come([(o_sel, o_there)], piece)

        back = self._attend(moves, attend)
        crosses = (ends == self.last)[..., None]  # [W,sequences,L-1,1]
        over = self._empty(q, self.kept, self.ranks, self.mine, self.levels - 1, self.dim)
        back.append(_Move(self.group).trade(self._over_edges(o_there, crosses), over))
        for move in back:
            move.wait()
        result = out if out.dtype == self.work else self._empty(q, self.work, *out.shape)
        worked = self._layer(o_sel.to(self.work))
        self.local.run(SCATTER, o_sel=worked, index=index, out=result)
        if self.rank > 0:
            self._add_from_left(result, index, worked, self._layer(over.flatten(0, 1)))
        return out if result is out else out.copy_(result), (index, *there, o_there, lse, crosses)

    def _over_edges(self, o_there, crosses):
        """[W,sequences,L-1,d]: for each rank its left neighbour's last rows, +0.0 where they were not selected. Who attended has
        them at hand. What rank 0 gets means nothing.
        """
        return torch.where(crosses, self._by_rows(o_there)[:, :, self.crossing:], 0.0).roll(1, 0)

    def _add_from_left(self, out, index, o_sel, over):
        """The first positions again, in float32 and rounded once: this rank's entries, then the left neighbour's (SPEC 3.7).
        An absent entry adds +0.0, which changes no sum that began with +0.0.
        """
        found = index[:, :, None, None, :self.first] == self.covering  # [B,H,L-1,reach,first]
        there, slot = found.byte().max(-1)
        rows = torch.take_along_dim(o_sel[:, :, :self.first].float(), slot.flatten(2)[..., None], dim=2)
        rows = torch.where(there.bool()[..., None], rows.unflatten(2, slot.shape[2:]), 0.0)
        total = rows[:, :, 0] + 0.0
        for level in range(1, self.levels - 1):
            total += rows[:, :, level]
        for level in range(1, self.levels):
            total[:, :, :self.pool**level - 1] += over[:, :, level - 1:level]
        out[:, :, :self.reach] = total

    def _add_from_right(self, do_there, crosses, edges):
        """The last rows of every rank but the last again: its position n - 1, then the first ones of the next, in order (SPEC 4).
        do_there: of a piece, [W,sequences,rows,d]; edges: [W,sequences,1 + reach,d] of dout, each rank's last and first ones.
        """
        total, right = edges[:-1, :, 0].float() + 0.0, edges[1:, :, 1:].float()
        done = 0
        for level in range(1, self.levels):
            for j in range(done, self.pool**level - 1):
                total += right[:, :, j]
            done = self.pool**level - 1
            row = do_there[:-1, :, self.crossing + level - 1]
            row.copy_(torch.where(crosses[:-1, :, level - 1], total.to(row.dtype), row))

    def backward(self, dout, index, q_there, k_there, v_there, o_there, lse, crosses, gradients):
        """Writes dq, dk, dv of the shapes and dtype of `gradients`, and returns them."""
        dout = _rows(dout.to(self.work))
        do_sel, do_there = self._here(dout, self.work), self._there(dout, self.work)
        edges = self._empty(dout, self.work, self.ranks, self.mine, 1 + self.reach, self.dim)
        sent = torch.cat([dout[:, :, -1:], dout[:, :, :self.reach]], dim=2).contiguous()
        move = _Move(self.group).trade(self._by_rank(sent.flatten(0, 1)), edges)
        self.local.run(SCATTER_BACKWARD, dout=dout, index=index, do_sel=self._layer(do_sel))
        moves = self._go([(do_sel, do_there)], move)
        del do_sel, sent, move
        there, here = ([make(dout, self.work) for _ in range(3)] for make in (self._there, self._here))

        def attend(piece, attention):
            mine = self._of_piece(piece)
            self._add_from_right(self._by_rows(do_there)[:, mine], crosses[:, mine], edges[:, mine])
            rows = {name: self._part(x, piece, self.work) for name, x in zip(
                ("q_sel", "k_sel", "v_sel", "o_sel", "do_sel", "dq_sel", "dk_sel", "dv_sel"),
                (q_there, k_there, v_there, o_there, do_there, *there))}
            attention.run(ATTEND_BACKWARD, lse=self._part(lse, piece, torch.float32), **rows)
            return self._come(list(zip(here, there)), piece)

        for move in self._attend(moves, attend):
            move.wait()
        results = [x if x.dtype == self.work else self._empty(dout, self.work, *x.shape) for x in gradients]
        self.local.run(UNPOOL, index=index, **{name: self._layer(x) for name, x in zip(("dq_sel", "dk_sel", "dv_sel"), here)},
                       **dict(zip(("dq", "dk", "dv"), results)))
        return tuple(x if r is x else x.copy_(r) for x, r in zip(gradients, results))


class Ranks:
    """The plans of one group, agreed upon when they are made: ranks call in the same order, so all make them at once."""

    def __init__(self, group, pieces):
        self.group, self.pieces = group, pieces
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)
        self.plans = OrderedDict()

    def _agree(self, numbers, like):
        """Every rank's numbers are the first one's, or all ranks are told who differs."""
        mine = torch.tensor(numbers, device=like.device)
        everyone = [torch.empty_like(mine) for _ in range(self.ranks)]
        dist.all_gather(everyone, mine, group=self.group)
        everyone = [x.tolist() for x in everyone]
        for rank, other in enumerate(everyone):
            if other[:-1] != everyone[0][:-1]:
                raise LighthouseError(f"q and k have shapes {other[:4]} and {other[4:8]} on rank {rank}, "
                                      f"wanted {everyone[0][:4]} and {everyone[0][4:8]} as on rank 0"
                                      + ("" if other[:8] != everyone[0][:8] else ", and its dtype and configuration"))
        return [rank for rank, other in enumerate(everyone) if other[-1]]

    def plan(self, q, k, config):
        """The plan for these tensors and (levels, pool, topk, tile_topk), or None where rows alone can't travel: W does not
        divide the tiles or the sequences, or `config` is None.
        """
        stream = _stream(q.device.index) if q.is_cuda else torch.get_num_threads()
        key = (q.shape, k.shape, q.dtype, q.device, stream, config)
        if key in self.plans:
            self.plans.move_to_end(key)
            return self.plans[key]
        plan = refused = None
        try:
            if config and q.dtype not in CODES:
                raise LighthouseError(f"q is {q.dtype}, wanted float32, float16 or bfloat16")
            if config and self._divide(q, config):
                (b, h, n, d), g = q.shape, k.shape[1]
                plan = RankPlan(self.group, (b, h, g, n * self.ranks, d, *config), q.dtype, q.device, self.pieces)
        except LighthouseError as error:
            refused = error
        failed = self._agree([*q.shape, *k.shape, q.element_size(), q.dtype is torch.bfloat16, *(config or (0,) * 4),
                              refused is not None], q)
        if refused:
            raise refused
        if failed:
            raise LighthouseError(f"rank {failed[0]} could not make its plan: its own line says why")
        self.plans[key] = plan
        while len(self.plans) > PLANS:
            self.plans.popitem(last=False)
        return plan

    def _divide(self, q, config):
        levels, pool, topk, tile_topk = config
        b, h, n, _ = q.shape
        tiles = max(topk // tile_topk, 1)
        return (self.ranks > 1 and levels > 1 and tiles % self.ranks == 0 and b * h % self.ranks == 0
                and n * self.ranks % (pool ** (levels - 1) * tiles) == 0)


class Layer(torch.autograd.Function):
    """RankPlan's two halves under autograd."""

    @staticmethod
    def forward(ctx, q, k, v, plan):
        out, kept = plan.forward(q, k, v)
        ctx.plan, ctx.like = plan, [(x.shape, x.stride(), x.dtype) for x in map(_rows, (q, k, v))]
        ctx.save_for_backward(*kept)
        return out

    @staticmethod
    def backward(ctx, dout):
        gradients = [torch.empty_strided(shape, stride, dtype=dtype, device=dout.device) for shape, stride, dtype in ctx.like]
        return (*_once(ctx.plan.backward(dout, *ctx.saved_tensors, gradients)), None)


def checked(q, k, v):
    """q, k, v as _check wants them, under autocast in its dtype."""
    if torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    _check(q, k, v)
    return q, k, v
