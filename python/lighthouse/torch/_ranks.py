"""One layer by heads over ranks: rows of the sub-sequence travel, not tokens (docs/distributed.md; dist/heads.c is the same in C).

A rank's tokens are whole tiles, so that selecting, gathering, scattering and un-pooling are its own (a plan of
lh_dist_local). Of the B H sequences it attends over a W-th, all S rows of each (lh_dist_attention). Stages are the library's,
on the device where the tensors are; rows go by torch.distributed's own sends, out of one tensor and into another.
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

    def __init__(self, create, described, code, device):
        options = Options(backend=b"cuda" if device.type == "cuda" else b"openmp", dtype=code, backward=True, stages=True,
                          stream_given=True, memory=ON_DEVICE if device.type == "cuda" else 0, device=device.index or 0,
                          stream=_stream(device.index) if device.type == "cuda" else None,
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


class _Move:
    """What goes from rank to rank at one time: the i-th send of a rank to another is the other's i-th receive from it."""

    def __init__(self, group):
        self.group, self.operations = group, []

    def _add(self, operation, rank, x):
        self.operations.append(dist.P2POp(operation, x, dist.get_global_rank(self.group, rank), self.group))

    def send(self, rank, x):
        self._add(dist.isend, rank, x)

    def receive(self, rank, x):
        self._add(dist.irecv, rank, x)

    def start(self):
        self.works = dist.batch_isend_irecv(self.operations) if self.operations else []
        return self

    def wait(self):
        """What was sent and received may be used; it is kept until here."""
        for work in self.works:
            work.wait()
        self.operations = self.works = None


class RankPlan:
    """A layer of one shape on one rank. config: (B, H, G, N of the whole, d, levels, pool, topk, tile_topk)."""

    def __init__(self, group, config, dtype, device, pieces):
        self.group, self.rank, self.ranks = group, dist.get_rank(group), dist.get_world_size(group)
        self.batch, self.heads, self.kv_heads, tokens, self.dim, self.levels, self.pool, topk, _ = config
        self.tokens, self.mine = tokens // self.ranks, self.batch * self.heads // self.ranks
        self.all_rows = _selected(tokens, self.levels, self.pool, topk)[0]
        self.rows, entries = _selected(self.tokens, self.levels, self.pool, topk // self.ranks)
        self.pieces = pieces or (2 if device.type == "cuda" and self.mine % 2 == 0 else 1)
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
        self.attention = _Stages(
            lambda o, plan: call("lh_dist_attention", byref(whole), byref(o), self.piece, byref(plan)), dense, code, device)
        self._edges(device)

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

    def _rows_of(self, there, piece, rank):
        return there[piece * self.piece:(piece + 1) * self.piece, rank * self.rows:(rank + 1) * self.rows]

    def _sequences_of(self, here, piece, rank):
        at = rank * self.mine + piece * self.piece
        return here[at:at + self.piece]

    def _exchange(self, move, here, there, piece, back):
        """Adds a piece of the sequences of every rank to `move`, and copies what stays."""
        for rank in range(self.ranks):
            near, far = self._sequences_of(here, piece, rank), self._rows_of(there, piece, rank)
            if rank == self.rank:
                (near if back else far).copy_(far if back else near)
                continue
            for a, b in zip(near, far):
                move.send(rank, b if back else a)
                move.receive(rank, a if back else b)

    def _pieces(self, heres, theres, more=lambda move: None):
        """Every piece on its way, the first one first; `more` travels with it."""
        moves = []
        for piece in range(self.pieces):
            move = _Move(self.group)
            for here, there in zip(heres, theres):
                self._exchange(move, here, there, piece, False)
            if piece == 0:
                more(move)
            moves.append(move.start())
        return moves

    def _over_edge(self, move, step, sent, received):
        """To rank + step, from rank - step."""
        if 0 <= self.rank + step < self.ranks:
            move.send(self.rank + step, sent)
        if 0 <= self.rank - step < self.ranks:
            move.receive(self.rank - step, received)

    def _cross(self, move, there, over, piece):
        """The rows before each rank's own are its left neighbour's last: they come with its own, from whoever attended."""
        more = self.levels - 1
        for rank in range(self.ranks):
            from_there = there[piece * self.piece:(piece + 1) * self.piece, rank * self.rows - more:rank * self.rows]
            to_here = self._sequences_of(over, piece, rank)
            if rank == self.rank and rank > 0:
                to_here.copy_(from_there)
            for i in range(self.piece if rank != self.rank else 0):
                if rank > 0:
                    move.send(rank, from_there[i])
                if self.rank > 0:
                    move.receive(rank, to_here[i])

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
        return there[piece * self.piece:(piece + 1) * self.piece].to(dtype).unsqueeze(0)

    def forward(self, q, k, v):
        """out, and what backward takes: index here, q k v o lse there."""
        out = torch.empty_like(q)
        q, k, v = (_rows(x.to(self.work)) for x in (q, k, v))
        scores = [self._empty(q, torch.float32, *shape) for shape in self.score_shapes]
        index = self._empty(q, self.index_dtype, self.batch, self.heads, self.rows)
        here = [self._here(q, self.work) for _ in range(3)]
        self.local.run(None, q=q, k=k, v=v, score_q=scores[0], score_k=scores[1], index=index,
                       **{name: self._layer(x) for name, x in zip(("q_sel", "k_sel", "v_sel"), here)})
        ends = index[:, :, self.crossing:].contiguous()
        ends_before = torch.empty_like(ends)
        here = [x.to(self.row_dtype) for x in here]
        there = [self._there(q, self.row_dtype) for _ in range(3)]
        moves = self._pieces(here, there, lambda move: self._over_edge(move, 1, ends, ends_before))
        del here
        o_there, o_sel = self._there(q, self.kept), self._here(q, self.kept)
        lse = self._empty(q, torch.float32, self.mine, self.all_rows)
        over = self._empty(q, self.kept, self.batch * self.heads, self.levels - 1, self.dim)
        back = []
        for piece, move in enumerate(moves):
            move.wait()
            o = self._part(o_there, piece, self.work)
            rows = {name: self._part(x, piece, self.work) for name, x in zip(("q_sel", "k_sel", "v_sel"), there)}
            self.attention.run(ATTEND, o_sel=o, lse=self._part(lse, piece, torch.float32), **rows)
            if self.work != self.kept:
                self._part(o_there, piece, self.kept).copy_(o)
            move = _Move(self.group)
            self._exchange(move, o_sel, o_there, piece, True)
            self._cross(move, o_there, over, piece)
            back.append(move.start())
        for move in back:
            move.wait()
        result = out if out.dtype == self.work else self._empty(q, self.work, *out.shape)
        o_sel = self._layer(o_sel)
        worked = o_sel.to(self.work)
        self.local.run(SCATTER, o_sel=worked, index=index, out=result)
        if self.rank > 0:
            self._add_from_left(result, index, worked, ends_before, self._layer(over))
        return out if result is out else out.copy_(result), (index, *there, o_there, lse)

    def _add_from_left(self, out, index, o_sel, ends, over):
        """The first positions again, in float32 and rounded once: this rank's entries, then the left neighbour's (SPEC 3.7)."""
        found = index[:, :, None, None, :self.first] == self.covering  # [B,H,L-1,reach,first]
        there, slot = found.any(-1), found.byte().argmax(-1)
        rows = o_sel[:, :, :self.first].float()
        total = torch.zeros_like(out[:, :, :self.reach], dtype=torch.float32)
        for level in range(self.levels - 1):
            row = torch.take_along_dim(rows, slot[:, :, level, :, None], dim=2)
            total = torch.where(there[:, :, level, :, None], total + row, total)
        there = (ends == self.last)[..., None]
        for level in range(1, self.levels):
            reach = self.pool**level - 1
            first = total[:, :, :reach]
            more = torch.where(there[:, :, level - 1:level], first + over[:, :, level - 1:level].float(), first)
            total = torch.cat([more, total[:, :, reach:]], dim=2)
        out[:, :, :self.reach] = total.to(out.dtype)

    def _add_from_right(self, do_sel, index, dout, right):
        """The last rows again: position n - 1, then the right neighbour's first ones, in order (SPEC 4)."""
        there = (index[:, :, self.crossing:] == self.last)[..., None]
        total = dout[:, :, -1].float() + 0.0
        done = 0
        for level in range(1, self.levels):
            for j in range(done, self.pool**level - 1):
                total = total + right[:, :, j].float()
            done = self.pool**level - 1
            row = do_sel[:, :, self.crossing + level - 1]
            row.copy_(torch.where(there[:, :, level - 1], total.to(row.dtype), row))

    def backward(self, dout, index, q_there, k_there, v_there, o_there, lse, gradients):
        """Writes dq, dk, dv of the shapes and dtype of `gradients`, and returns them."""
        dout = _rows(dout.to(self.work))
        first, right = dout[:, :, :self.reach].contiguous(), self._empty(dout, self.work, self.batch, self.heads, self.reach,
                                                                         self.dim)
        edge = _Move(self.group)
        self._over_edge(edge, -1, first, right)
        edge.start()
        do_sel = self._here(dout, self.work)
        self.local.run(SCATTER_BACKWARD, dout=dout, index=index, do_sel=self._layer(do_sel))
        edge.wait()
        if self.rank < self.ranks - 1:
            self._add_from_right(self._layer(do_sel), index, dout, right)
        do_there = self._there(dout, self.work)
        moves = self._pieces([do_sel], [do_there])
        del do_sel
        there, here = ([make(dout, self.work) for _ in range(3)] for make in (self._there, self._here))
        back = []
        for piece, move in enumerate(moves):
            move.wait()
            rows = {name: self._part(x, piece, self.work) for name, x in zip(
                ("q_sel", "k_sel", "v_sel", "o_sel", "do_sel", "dq_sel", "dk_sel", "dv_sel"),
                (q_there, k_there, v_there, o_there, do_there, *there))}
            self.attention.run(ATTEND_BACKWARD, lse=self._part(lse, piece, torch.float32), **rows)
            move = _Move(self.group)
            for a, b in zip(here, there):
                self._exchange(move, a, b, piece, True)
            back.append(move.start())
        for move in back:
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
