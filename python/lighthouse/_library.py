"""The C library through ctypes: its structs as lighthouse.h declares them, and nothing else."""
import ctypes
import ctypes.util
import os
from ctypes import POINTER, Structure, byref, c_bool, c_char, c_char_p, c_int, c_int64, c_size_t, c_void_p

OK, MISMATCH = 0, 8
DTYPES = ("F64", "F32", "F16", "BF16", "I32", "I64")  # in the order of lh_dtype


class Error(Structure):
    _fields_ = [("status", c_int), ("text", c_char * 512)]


class Config(Structure):
    NAMES = ("batch", "heads", "kv_heads", "tokens", "dim", "levels", "pool", "topk", "tile_topk")
    _fields_ = [(name, c_int64) for name in NAMES]


class Tensor(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("dtype", c_int),
        ("rank", c_int),
        ("shape", c_int64 * 4),
        ("stride", c_int64 * 4),
    ]


class Options(Structure):
    _fields_ = [
        ("backend", c_char_p),
        ("device", c_int),
        ("dtype", c_int),
        ("backward", c_bool),
        ("stages", c_bool),
        ("index_given", c_bool),
        ("scores_given", c_bool),
        ("profile", c_bool),
        ("finite", c_bool),
        ("stream_given", c_bool),
        ("workspace_given", c_bool),
        ("rows_kept", c_bool),
        ("memory", c_int),
        ("attention", c_int),
        ("threads", c_int),
        ("stream", c_void_p),
        ("tiles", c_void_p),
        ("part", c_void_p),
    ]


class LighthouseError(ValueError):
    """What the library refused, in its own words."""


VERSION = "0.2.0"  # of the header these structs follow


def _beside():
    """The library of a wheel: in it, or wherever the wheel's own record says the build put it."""
    here = os.path.dirname(os.path.abspath(__file__))
    for folder in (here, os.path.join(os.path.dirname(here), ".lighthouse_attention.mesonpy.libs")):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if name.startswith("liblighthouse") and ".so" in name:
                return os.path.join(folder, name)
    return None


def _open():
    name = os.environ.get("LIGHTHOUSE_LIBRARY") or _beside() or ctypes.util.find_library("lighthouse")
    if not name:
        raise ImportError(
            "liblighthouse was not found: install it (meson install) or set LIGHTHOUSE_LIBRARY to its path"
        )
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise ImportError(
            f"{name} does not load ({error}): after meson install, run ldconfig; or set LIGHTHOUSE_LIBRARY to its path"
        ) from None


_functions = {
    "lh_tensor_name": (c_char_p, [c_int]),
    "lh_tensor_by_name": (c_int, [c_char_p]),
    "lh_tensor_describe": (c_int, [POINTER(Config), c_int, c_int, POINTER(Tensor), POINTER(Error)]),
    "lh_stage_writes": (POINTER(c_int), [c_int]),
    "lh_plan_create": (c_int, [POINTER(Config), POINTER(Options), POINTER(c_void_p), POINTER(Error)]),
    "lh_plan_destroy": (None, [c_void_p]),
    "lh_plan_needs": (c_size_t, [c_void_p, c_bool]),
    "lh_plan_lend": (c_int, [c_void_p, c_void_p, c_size_t, c_void_p, POINTER(Error)]),
    "lh_forward": (c_int, [c_void_p, POINTER(Tensor), POINTER(Error)]),
    "lh_backward": (c_int, [c_void_p, POINTER(Tensor), POINTER(Error)]),
    "lh_version": (c_char_p, []),
    "lh_backend_name": (c_char_p, [c_int]),
    "lh_device_count": (c_int, [c_char_p, POINTER(c_int), POINTER(Error)]),
    "lh_run_stage": (c_int, [c_void_p, c_int, POINTER(Tensor), POINTER(Error)]),
    "lh_dist_local": (c_int, [POINTER(Config), POINTER(Options), c_int, POINTER(c_void_p), POINTER(Error)]),
    "lh_dist_attention": (c_int, [POINTER(Config), POINTER(Options), c_int64, POINTER(c_void_p), POINTER(Error)]),
    "lh_dist_select": (c_int, [c_void_p, POINTER(Tensor), POINTER(Error)]),
    "lh_tensor_finite": (c_int, [POINTER(Tensor), c_char_p, POINTER(Error)]),
    "lh_check": (c_int, [POINTER(Config), POINTER(Tensor), POINTER(c_void_p), POINTER(Error)]),
    "lh_text_free": (None, [c_void_p]),
}

library = _open()
for _name, (_result, _arguments) in _functions.items():
    if not hasattr(library, _name):
        raise ImportError(f"{library._name} has no {_name}: it is of another version, wanted {VERSION}")
    getattr(library, _name).restype = _result
    getattr(library, _name).argtypes = _arguments
if library.lh_version().decode() != VERSION:
    raise ImportError(f"{library._name} is version {library.lh_version().decode()}, wanted {VERSION}")


def call(name, *arguments, allowed=(OK,)):
    """Calls a function that returns a status; any other than those allowed is raised as its line."""
    error = Error()
    status = getattr(library, name)(*arguments, byref(error))
    if status not in allowed:
        raise LighthouseError(error.text.decode())
    return status
