"""Lighthouse Attention for PyTorch: operators, a module, and the two-stage recipe.

    from lighthouse.torch import LighthouseAttention
    attention = LighthouseAttention(levels=3, pool=4, topk=1536)
    out = attention(q, k, v)        # q [B,H,N,d], k and v [B,G,N,d] -> out [B,H,N,d]; causal

CUDA tensors are computed by the library's CUDA kernels in PyTorch's current stream, CPU tensors by its OpenMP port. float32,
float16, bfloat16; any strides whose last is 1 are read and written in place. Gradients of q, k and v; the selection
has none. torch.compile, checkpointing, autocast and CUDA graphs work; a second derivative is refused.
"""
from ._operators import lighthouse_attention
from ._plans import plans_kept, release_plans
from .context_parallel import context_parallel
from .module import LighthouseAttention, StageError
from .scorers import dilated, norm, pyramid
from .two_stage import TwoStage

__all__ = ["LighthouseAttention", "TwoStage", "StageError", "lighthouse_attention", "context_parallel", "dilated", "norm",
           "pyramid", "plans_kept", "release_plans"]
