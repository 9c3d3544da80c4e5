"""Arrays of NumPy, PyTorch and JAX as tensors of the library, without needing any but NumPy."""
import ctypes

import numpy as np

from ._library import DTYPES, Tensor

NUMPY = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "uint16", "I32": "int32", "I64": "int64"}
_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int32": "I32", "int64": "I64"}


def to_numpy(array):
    """(contiguous ndarray, dtype name); bfloat16 comes as its 16 bits in uint16."""
    if hasattr(array, "detach"):  # PyTorch
        array = array.detach().cpu()
        if str(array.dtype) == "torch.bfloat16":
            import torch

            return np.ascontiguousarray(array.contiguous().view(torch.int16).numpy().view(np.uint16)), "BF16"
        array = array.numpy()
    array = np.asarray(array)
    name = _NAMES.get(array.dtype.name)
    if name is None:
        raise TypeError(f"array has dtype {array.dtype}, wanted one of {', '.join(_NAMES)}")
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
