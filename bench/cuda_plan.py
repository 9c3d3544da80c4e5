"""A CUDA plan over PyTorch's tensors, for benchmarks: times by stage and a choice of attention, which lighthouse.torch does not show."""
import ctypes

import torch

from lighthouse import _library as lib

DTYPES = {torch.float32: 1, torch.float16: 2, torch.bfloat16: 3, torch.int32: 4, torch.int64: 5}
ATTENTION = {"auto": 0, "own": 1, "cudnn": 2}
ON_DEVICE = 1
STAGES = ("pool", "score", "select", "gather", "attend", "scatter", "scatter_backward", "attend_backward", "unpool")
TENSORS = lib.library.lh_tensor_by_name(b"")  # no tensor has that name: their number


class Profile(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_double * 9), ("transfer", ctypes.c_double), ("calls", ctypes.c_int64)]


lib.library.lh_plan_workspace.restype = ctypes.c_size_t
for _name in ("lh_plan_workspace", "lh_profile_reset"):
    getattr(lib.library, _name).argtypes = [ctypes.c_void_p]
lib.library.lh_plan_profile.argtypes = [ctypes.c_void_p, ctypes.POINTER(Profile)]


def _trace(tensors):
    trace = (lib.Tensor * TENSORS)()
    for name, t in tensors.items():
        trace[lib.library.lh_tensor_by_name(name.encode())] = lib.Tensor(
            t.data_ptr(), DTYPES[t.dtype], t.dim(), (ctypes.c_int64 * 4)(*t.shape), (ctypes.c_int64 * 4)(*t.stride()))
    return trace


class Plan:
    """Layers of the shapes of q and k [B,H|G,N,d], forward and backward, in PyTorch's current stream. LighthouseError says what is refused."""

    def __init__(self, q, k, levels, pool, topk, tile_topk=128, attention="auto", profile=False):
        batch, heads, tokens, dim = q.shape
        config = lib.Config(batch, heads, k.shape[1], tokens, dim, levels, pool, topk, tile_topk)
        self.stream = torch.cuda.current_stream(q.device)
        options = lib.Options(backend=b"cuda", device=q.device.index or 0, dtype=DTYPES[q.dtype], backward=True, profile=profile,
                              stream_given=True, stream=self.stream.cuda_stream or None, memory=ON_DEVICE, attention=ATTENTION[attention])
        self.handle = ctypes.c_void_p()
        lib.call("lh_plan_create", ctypes.byref(config), ctypes.byref(options), ctypes.byref(self.handle))

    def __del__(self):
        if getattr(self, "handle", None):
            lib.library.lh_plan_destroy(self.handle)

    def forward(self, **tensors):
        lib.call("lh_forward", self.handle, _trace(tensors))

    def backward(self, **tensors):
        lib.call("lh_backward", self.handle, _trace(tensors))

    def workspace(self):
        return lib.library.lh_plan_workspace(self.handle)

    def profile(self):
        """Milliseconds by stage since the last call of this."""
        profile = Profile()
        lib.library.lh_plan_profile(self.handle, ctypes.byref(profile))
        lib.library.lh_profile_reset(self.handle)
        return {name: 1e3 * s for name, s in zip(STAGES, profile.seconds) if s > 0}
