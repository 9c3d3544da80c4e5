"""Arrays of NumPy, PyTorch and JAX as tensors of the library, without needing any but NumPy."""
import ctypes

import numpy as np

from ._library import DTYPES, LighthouseError, Tensor

NUMPY = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "uint16", "I32": "int32", "I64": "int64"}
_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "uint16": "BF16", "int32": "I32",
          "int64": "I64"}


def dtype_name(dtype):
    """"F32" of "F32", "f32", "float32", numpy.float32, torch.float32."""
    text = getattr(dtype, "__name__", None) or getattr(dtype, "name", None) or str(dtype)
    name = _NAMES.get(text.split(".")[-1], text.upper())
    if name not in DTYPES[:4]:
        raise LighthouseError(f"dtype is {text!r}, wanted one of {', '.join(DTYPES[:4])}")
    return name


def to_numpy(array, what="array"):
    """(contiguous ndarray, dtype name); bfloat16 comes, and may be given, as its 16 bits in uint16."""
    if hasattr(array, "detach"):  # PyTorch
        array = array.detach().cpu()
        if str(array.dtype) == "torch.bfloat16":
            import torch

            return np.ascontiguousarray(array.contiguous().view(torch.int16).numpy().view(np.uint16)), "BF16"
        array = array.numpy()
    array = np.asarray(array)
    name = _NAMES.get(array.dtype.name)
    if name is None:
        raise TypeError(f"{what} has dtype {array.dtype}, wanted one of {', '.join(_NAMES)}")
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return (array.view(np.uint16) if name == "BF16" else array), name


def tensor(array, name):
    """A Tensor over the memory of a contiguous array, which must outlive it."""
    if array.ndim > 4:
        raise ValueError(f"array has {array.ndim} dimensions, wanted at most 4")
    t = Tensor(data=array.ctypes.data, dtype=DTYPES.index(name), rank=array.ndim)
    stride = 1
    for i in reversed(range(array.ndim)):
        t.shape[i], t.stride[i] = array.shape[i], stride
        stride *= array.shape[i]
    return t


def empty_like(t):
    """An array of the shape and dtype a Tensor describes, and the Tensor pointed at it."""
    array = np.empty(tuple(t.shape[: t.rank]), NUMPY[DTYPES[t.dtype]])
    t.data = array.ctypes.data_as(ctypes.c_void_p)
    return array
