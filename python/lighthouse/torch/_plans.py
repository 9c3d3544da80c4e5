"""Plans of the C library, one for each shape, dtype and device: made once, kept up to a bound, lent PyTorch's memory."""
import threading
from collections import OrderedDict
from ctypes import byref, c_void_p

import torch

from .._library import DTYPES, Config, Error, LighthouseError, Options, Tensor, call, library
from .._trace import TENSORS, names

CODES = {torch.float32: DTYPES.index("F32"), torch.float16: DTYPES.index("F16"), torch.bfloat16: DTYPES.index("BF16")}
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I64": 8}
ALIGNMENT = 256
ON_DEVICE = 1
STRIDED = frozenset(("q", "k", "v", "dout", "out", "dq", "dk", "dv"))

# The handle alone, as PyTorch's own generated code asks for it: a Stream object costs some microseconds a call.
_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None) or (lambda i: torch.cuda.current_stream(i).cuda_stream)
_kept = OrderedDict()
_lock = threading.Lock()
_limit = 64


class Plan:
    """One lh_plan, and the tensors of its calls with all but addresses and strides filled in."""

    def __init__(self, backend, device, dtype, scored, rows, config):
        self.lock = threading.Lock()
        self.device = device
        self.kept = ("q_sel", "k_sel", "v_sel", "o_sel") if rows else ("o_sel",)
        options = Options(backend=backend, dtype=dtype, backward=True, scores_given=scored, workspace_given=True,
                          rows_kept=rows, stream_given=True, memory=ON_DEVICE if device.type == "cuda" else 0,
                          device=device.index or 0,
                          threads=0 if device.type == "cuda" else torch.get_num_threads())
        config = Config(*config)
        self.handle = c_void_p()
        call("lh_plan_create", byref(config), byref(options), byref(self.handle))
        self.needs = [library.lh_plan_needs(self.handle, backward) for backward in (False, True)]
        self.trace = (Tensor * TENSORS)()
        self.at, self.strides = {}, {}
        for i, name in enumerate(names()):
            call("lh_tensor_describe", byref(config), dtype, i, byref(self.trace[i]))
            self.at[name] = self.trace[i]
            self.strides[name] = tuple(self.trace[i].stride) if name in STRIDED else None
        # What backward takes from its forward, in one piece of memory.
        self.held, self.held_bytes = [], 0
        for name in (*self.kept, "index", "lse"):
            t = self.at[name]
            self.held.append((t, self.held_bytes))
            size = (torch.Size(t.shape[:t.rank])).numel() * SIZES[DTYPES[t.dtype]]
            self.held_bytes += -(-size // ALIGNMENT) * ALIGNMENT
        self.error = Error()
        self.like = dict(dtype=torch.uint8, device=device)
        self.cuda = device.type == "cuda"

    def __del__(self):
        if getattr(self, "handle", None):
            library.lh_plan_destroy(self.handle)

    def run(self, backward, tensors, kept=None, held=None):
        """lh_forward or lh_backward on tensors by name, in the current stream, in memory of PyTorch's allocator.

        kept: [4,B,H,S,d] contiguous, q_sel k_sel v_sel o_sel, or [1,B,H,S,d], o_sel, as the plan was made; or instead
        held: held_bytes that have index and lse too.
        """
        at, strides, needs = self.at, self.strides, self.needs[backward]
        space = torch.empty(needs + ALIGNMENT, **self.like)
        address = (space.data_ptr() + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        stream = _stream(self.device.index) if self.cuda else None
        with self.lock:
            if held is not None:
                base = held.data_ptr()
                for slot, offset in self.held:
                    slot.data = base + offset
            else:
                part, step = kept.data_ptr(), kept.nbytes // len(self.kept)
                for name in self.kept:
                    at[name].data = part
                    part += step
            for name, tensor in tensors.items():
                at[name].data = tensor.data_ptr()
                last = strides[name]
                if last is not None and last != (now := tensor.stride()):
                    at[name].stride[:] = strides[name] = now
            failed = library.lh_plan_lend(self.handle, address, needs, stream, self.error)
            if not failed:
                call_it = library.lh_backward if backward else library.lh_forward
                failed = call_it(self.handle, self.trace, self.error)
            if failed:
                raise LighthouseError(self.error.text.decode())


def plan_for(like, scored, rows, config):
    """The plan for a configuration on a tensor's device and dtype; the least recently used goes when there are more than
    the bound. scored: scores are given; rows: selected rows are kept for backward instead of q k v.
    """
    device, dtype = like.device, like.dtype
    threads = 0 if device.type == "cuda" else torch.get_num_threads()
    key = (device, dtype, scored, rows, config, threads)
    with _lock:
        plan = _kept.get(key)
        if plan is not None:
            _kept.move_to_end(key)
            return plan
        if dtype not in CODES:
            raise LighthouseError(f"q is {dtype}, wanted float32, float16 or bfloat16")
        backend = b"cuda" if device.type == "cuda" else b"openmp"
        plan = Plan(backend, device, CODES[dtype], scored, rows, config)
        _kept[key] = plan
        while len(_kept) > _limit:
            _kept.popitem(last=False)
        return plan


def plans_kept(limit=None):
    """How many plans are kept; with `limit`, keeps at most that many from now on (64 unless said)."""
    global _limit
    with _lock:
        if limit is not None:
            if limit < 1:
                raise ValueError(f"limit is {limit}, wanted at least 1")
            _limit = limit
            while len(_kept) > _limit:
                _kept.popitem(last=False)
        return len(_kept)


def release_plans():
    """Gives every plan back."""
    with _lock:
        _kept.clear()
