"""Scores of tokens other than the norm, and the pyramid over them."""
import torch


def pyramid(score, levels, pool):
    """[B,X,N] -> [B,X,P] in float32: the tokens' scores, then the maximum over each window, level by level (SPEC 3.2)."""
    score = score.float()
    parts = [score]
    for _ in range(1, levels):
        parts.append(parts[-1].unflatten(2, (-1, pool)).amax(3))
    return torch.cat(parts, dim=2)


def norm(q, k):
    """What the library does by itself: Euclidean norms of the rows."""
    return q.float().norm(dim=-1), k.float().norm(dim=-1)


def dilated(dilation=4):
    """A scorer that looks at context: the norm of what a token gets from causal attention over every dilation-th token,
    with queries and keys as they are for score_q, exchanged for score_k. Costs N^2 / dilation; q and k have equally many
    heads, N is a multiple of dilation. Values are the keys, since a scorer sees no v.
    """

    def score(q, k):
        if q.shape != k.shape:
            raise ValueError(f"k has shape {list(k.shape)}, wanted that of q, {list(q.shape)}, for the dilated scorer")
        if q.shape[2] % dilation:
            raise ValueError(f"tokens is {q.shape[2]}, wanted a multiple of the dilation {dilation}")

        def strands(x):  # [B,H,N,d] -> [B,H*dilation,N/dilation,d]
            return x.unflatten(2, (-1, dilation)).transpose(2, 3).flatten(1, 2)

        def result(a, b):
            o = torch.nn.functional.scaled_dot_product_attention(strands(a), strands(b), strands(k), is_causal=True)
            return o.unflatten(1, (-1, dilation)).transpose(2, 3).flatten(2, 3).float().norm(dim=-1)

        return result(q, k), result(k, q)

    return score
