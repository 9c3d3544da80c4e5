"""The layer as a module."""
import torch
from torch import nn

from .._library import LighthouseError
from ._operators import lighthouse_attention


class StageError(RuntimeError):
    """Something that must wait for the dense stage was asked of a model that is still in the Lighthouse stage."""


class LighthouseAttention(nn.Module):
    """Causal attention over a selected sub-sequence: q [B,H,N,d], k and v [B,G,N,d] -> out [B,H,N,d].

    levels, pool, topk, tile_topk: L, p, k, m (docs/algorithm.md). score, pad: as in lighthouse_attention. The module has no
    parameters. `dense` turns it into ordinary attention; TwoStage does so when the Lighthouse stage is over. While a
    TwoStage holds it in the Lighthouse stage, calling it in eval mode raises StageError: what selects may look ahead, so
    nothing that is measured or generated is worth anything before the dense stage.
    """

    def __init__(self, levels, pool, topk, tile_topk=128, score=None, pad=False):
        super().__init__()
        if levels < 1:
            raise LighthouseError(f"levels is {levels}, wanted at least 1")
        if pool < 2:
            raise LighthouseError(f"pool is {pool}, wanted at least 2")
        if levels > 1 and (tile_topk < 2 or topk < tile_topk or topk % tile_topk):
            raise LighthouseError(f"topk is {topk}, wanted a multiple of tile_topk {tile_topk}")
        self.levels, self.pool, self.topk, self.tile_topk = levels, pool, topk, tile_topk
        self.score, self.pad = score, pad
        self.dense = False
        self.staged = False  # a TwoStage decides over `dense`
        self.over = None  # of context_parallel: (module, q, k, v, attn_mask, dropout_p) -> out of this rank's tokens

    def forward(self, q, k, v, attn_mask=None, dropout_p=0.0):
        if not self.dense and self.staged and not self.training:
            raise StageError("the model is in stage lighthouse and in eval mode, wanted the dense stage (TwoStage)")
        if self.over is not None:
            return self.over(self, q, k, v, attn_mask, dropout_p)
        return self.whole(q, k, v, attn_mask, dropout_p)

    def whole(self, q, k, v, attn_mask=None, dropout_p=0.0):
        """Of whole sequences, on this process alone."""
        if self.dense:
            return torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=attn_mask is None,
                enable_gqa=q.shape[1] != k.shape[1])
        return lighthouse_attention(q, k, v, levels=self.levels, pool=self.pool, topk=self.topk,
                                    tile_topk=self.tile_topk, score=self.score, pad=self.pad, attn_mask=attn_mask,
                                    dropout_p=dropout_p)

    def extra_repr(self):
        if self.dense:
            return "dense"
        return (f"levels={self.levels}, pool={self.pool}, topk={self.topk}, tile_topk={self.tile_topk}"
                + (", pad=True" if self.pad else "") + (", score=given" if self.score else ""))
