"""Attention over a window and a memory in one softmax.

Shapes: W windows, T tokens a window, H heads, E head_dim, M memory keys, D documents.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FUSED_FROM = 512                             # windows of at least this many tokens use PyTorch's fused attention


@dataclass
class DocumentWindows:
    """How the windows of a training batch see each other: W = documents * per_document, document after document."""
    documents: int
    per_document: int
    negatives: Tensor                        # [D, n] indices of windows of other documents, seen by all but the first window


def yarn_frequencies(head_dim: int, theta: float, factor: float, trained: int) -> tuple[Tensor, float]:
    """inv_freq [E/2] and the attention factor of YaRN with its usual ramp, beta 32 and 1 (Peng et al. 2023, as transformers computes it).

    A factor of 1 is plain RoPE. trained: tokens of the window before scaling.
    """
    half = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    inv_freq = theta ** -half
    if factor == 1:
        return inv_freq, 1.0
    turns_at = lambda turns: head_dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta))
    low, high = max(math.floor(turns_at(32)), 0), min(math.ceil(turns_at(1)), head_dim - 1)
    ramp = ((torch.arange(head_dim // 2, dtype=torch.float64) - low) / max(high - low, 0.001)).clamp(0, 1)
    return inv_freq / factor * ramp + inv_freq * (1 - ramp), 0.1 * math.log(factor) + 1


def rope_tables(length: int, inv_freq: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """cos and sin of every position, times the attention factor, [length, E], for half-split rotary pairs (i, i + E/2)."""
    angles = torch.outer(torch.arange(length, dtype=torch.float64), inv_freq).repeat(1, 2)
    return (angles.cos() * factor).float(), (angles.sin() * factor).float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates x [W, T, H, E] by tables [W or 1, T, 1, E]."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin


def causal_mask(tokens: int, memory: int, like: Tensor) -> Tensor:
    """[T, M + T]: 0 where a token may look (all memory, the window up to itself), -inf elsewhere."""
    future = torch.full((tokens, tokens), float("-inf"), dtype=like.dtype, device=like.device).triu(1)
    return F.pad(future, (memory, 0))


class _OneSoftmax(torch.autograd.Function):
    """softmax(queries @ keys.T, the last T keys causal) @ values, with fewer passes over the scores than autograd would make."""

    @staticmethod
    def forward(ctx, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """queries [W, H, T, E] (scaled), keys and values [W, H, M + T, E] -> [W, H, T, E]"""
        tokens = queries.shape[2]
        scores = queries @ keys.transpose(-1, -2)
        scores[..., -tokens:] += causal_mask(tokens, 0, scores)
        weights = scores.softmax(-1)
        ctx.save_for_backward(queries, keys, values, weights)
        return weights @ values

    @staticmethod
    def backward(ctx, grad: Tensor):
        queries, keys, values, weights = ctx.saved_tensors
        grad = grad.contiguous()
        grad_values = weights.transpose(-1, -2) @ grad
        grad_weights = grad @ values.transpose(-1, -2)
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        return grad_scores @ keys, grad_scores.transpose(-1, -2) @ queries, grad_values


def attend(queries: Tensor, keys: Tensor, values: Tensor, mem_keys: Tensor | None = None, mem_values: Tensor | None = None) -> Tensor:
    """One softmax over all memory keys and, causally, the window's own keys.

    queries, keys, values [W, T, H, E] (queries and keys rotated); mem_keys, mem_values [W, M, H, E] (not rotated) or None.
    Returns [W, T, H, E].
    """
    tokens, memory = queries.shape[1], 0 if mem_keys is None else mem_keys.shape[1]
    queries, keys, values = (x.transpose(1, 2) for x in (queries, keys, values))
    if memory:
        keys = torch.cat([mem_keys.transpose(1, 2), keys], 2)
        values = torch.cat([mem_values.transpose(1, 2), values], 2)
    if tokens < FUSED_FROM:
        scale = 1 / math.sqrt(queries.shape[-1])
        out = _OneSoftmax.apply((queries * scale).contiguous(), keys.contiguous(), values.contiguous())
    elif memory:
        out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=causal_mask(tokens, memory, queries))
    else:
        out = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    return out.transpose(1, 2)


def attend_documents(queries: Tensor, rotated: Tensor, keys: Tensor, values: Tensor, layout: DocumentWindows) -> Tensor:
    """Each window of a document sees itself, the document's earlier windows and the negatives. All tensors [W, T, H, E].

    The first window of a document sees only itself: so the model stays a good one when its memory is empty.
    """
    _, tokens, heads, dim = queries.shape
    docs, count = layout.documents, layout.per_document
    by_window = lambda x: x.view(docs, count, tokens, heads, dim)
    memory = []
    for x in (keys, values):
        negatives = x[layout.negatives].reshape(docs, -1, heads, dim)
        memory.append(torch.cat([negatives, x.reshape(docs, count * tokens, heads, dim)], 1))
    hidden = memory[0].shape[1] - count * tokens                     # negatives come first
    out = []
    for j in range(count):
        seen = [x[:, :hidden + j * tokens] for x in memory] if j else (None, None)
        out.append(attend(by_window(queries)[:, j], by_window(rotated)[:, j], by_window(values)[:, j], *seen))
    return torch.stack(out, 1).flatten(0, 1)
