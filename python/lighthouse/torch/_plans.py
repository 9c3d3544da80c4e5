"""Plans of the C library, one for each shape, dtype and device: made once, kept up to a bound, lent PyTorch's memory."""
import threading
from collections import OrderedDict
from ctypes import byref, c_void_p

import torch

from .._library import DTYPES, Config, Error, LighthouseError, Options, Tensor, call, library
from .._trace import TENSORS, names

CODES = {torch.float32: DTYPES.index("F32"), torch.float16: DTYPES.index("F16"), torch.bfloat16: DTYPES.index("BF16")}
ALIGNMENT = 256
ON_DEVICE = 1
FORWARD = ("q", "k", "v", "out", "index", "o_sel", "lse")
SCORES = ("score_q", "score_k")
BACKWARD = ("q", "k", "v", "dout", "index", "o_sel", "lse", "dq", "dk", "dv")
STRIDED = ("q", "k", "v", "dout", "out", "dq", "dk", "dv")

_kept = OrderedDict()
_lock = threading.Lock()
_limit = 64


class Plan:
    """One lh_plan, and the tensors of its calls with all but addresses and strides filled in."""

    def __init__(self, backend, device, dtype, scored, config):
        self.lock = threading.Lock()
        self.device = device
        options = Options(backend=backend, dtype=dtype, backward=True, scores_given=scored, workspace_given=True,
                          stream_given=True, memory=ON_DEVICE if device.type == "cuda" else 0,
                          device=device.index or 0,
                          threads=0 if device.type == "cuda" else torch.get_num_threads())
        config = Config(*config)
        self.handle = c_void_p()
        call("lh_plan_create", byref(config), byref(options), byref(self.handle))
        self.needs = [library.lh_plan_needs(self.handle, backward) for backward in (False, True)]
        self.trace = (Tensor * TENSORS)()
        self.at = {}
        for i, name in enumerate(names()):
            call("lh_tensor_describe", byref(config), dtype, i, byref(self.trace[i]))
            self.at[name] = self.trace[i]
        self.error = Error()

    def __del__(self):
        if getattr(self, "handle", None):
            library.lh_plan_destroy(self.handle)

    def run(self, backward, tensors):
        """lh_forward or lh_backward on tensors by name, in the current stream, in memory of PyTorch's allocator."""
        cuda = self.device.type == "cuda"
        space = torch.empty(self.needs[backward] + ALIGNMENT, dtype=torch.uint8, device=self.device)
        address = (space.data_ptr() + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        stream = torch.cuda.current_stream(self.device).cuda_stream if cuda else None
        with self.lock:
            for name, tensor in tensors.items():
                slot = self.at[name]
                slot.data = tensor.data_ptr()
                if name in STRIDED:
                    slot.stride[:] = tensor.stride()
            failed = library.lh_plan_lend(self.handle, address, self.needs[backward], stream, self.error)
            if not failed:
                call_it = library.lh_backward if backward else library.lh_forward
                failed = call_it(self.handle, self.trace, self.error)
            for name in tensors:
                self.at[name].data = None
            if failed:
                raise LighthouseError(self.error.text.decode())


def plan_for(q, k, scored, levels, pool, topk, tile_topk):
    """The plan for these shapes; the least recently used goes when there are more than the bound."""
    b, h, n, d = q.shape
    threads = 0 if q.device.type == "cuda" else torch.get_num_threads()
    key = (q.device, q.dtype, scored, b, h, k.shape[1], n, d, levels, pool, topk, tile_topk, threads)
    with _lock:
        plan = _kept.get(key)
        if plan is not None:
            _kept.move_to_end(key)
            return plan
        if q.dtype not in CODES:
            raise LighthouseError(f"q is {q.dtype}, wanted float32, float16 or bfloat16")
        backend = b"cuda" if q.device.type == "cuda" else b"openmp"
        plan = Plan(backend, q.device, CODES[q.dtype], scored, key[3:12])
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
