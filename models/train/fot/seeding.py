"""Initial weights: small random numbers, plus an induction circuit that is too rare to form by itself within little compute.

The circuit: two heads of layer 0 copy what the previous and the second-previous token was into the residual stream; one head of
each memory layer looks for places whose previous tokens match the current ones and copies the token found there; the output
embedding starts aligned with the input embedding. Matching uses only rotary pairs that hardly turn within a window, because a
query is rotated by its place and a memory key is not.
"""
import math

import torch

from .model import Llama

CONSTANT = 0                                 # a residual dimension that is the same for all tokens


@torch.no_grad()
def initialise(model: Llama, seed: int, induction: bool = True) -> None:
    """Fills the weights in place, the same ones for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    depth_scale = 1 / math.sqrt(2 * model.config.num_layers)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            scale = depth_scale if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.02 * scale)
    if induction:
        seed_induction(model, generator)


@torch.no_grad()
def seed_induction(model: Llama, generator: torch.Generator, match_gain: float = 1.6, copy_gain: float = 0.25) -> None:
    config, dim, size = model.config, model.config.head_dim, model.config.hidden_size
    embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
    embedding[:, CONSTANT] = 0.06                                            # about 3 after the norm
    head.copy_(embedding * 3)
    head[:, CONSTANT] = 0
    # [2 * dim, size]: rows that write what the two heads of layer 0 found to disjoint subspaces of the residual stream
    write = _orthonormal(2 * dim, size, generator)
    read = _orthonormal(dim, size - 1, generator)                            # what a head keeps of a token: dim numbers
    for back in (1, 2):
        _seed_lookback_head(model, back, read, write[(back - 1) * dim:back * dim])
    slow = _slow_dimensions(model)
    for index in config.mem_layers:
        layer = model.model.layers[index].self_attn
        mix = [_orthonormal(len(slow), dim, generator) for _ in range(2)]    # one random projection for each of the two tokens
        first, second = write[:dim], write[dim:]
        layer.q_proj.weight[:dim], layer.k_proj.weight[:dim] = 0, 0
        layer.q_proj.weight[slow, 1:] += mix[0] @ read * match_gain          # current token ...
        layer.k_proj.weight[slow] += mix[0] @ first * match_gain             # ... against the previous one there
        layer.q_proj.weight[slow] += mix[1] @ first * match_gain             # previous token ...
        layer.k_proj.weight[slow] += mix[1] @ second * match_gain            # ... against the second-previous one there
        copy = _orthonormal(dim, size - 1, generator)
        layer.v_proj.weight[:dim], layer.o_proj.weight[:, :dim] = 0, 0
        layer.v_proj.weight[:dim, 1:] = copy
        layer.o_proj.weight[1:, :dim] = copy.T * copy_gain


def _seed_lookback_head(model: Llama, back: int, read: torch.Tensor, write: torch.Tensor) -> None:
    """Makes head `back` - 1 of layer 0 attend to the token `back` places before and add write.T @ read @ it."""
    config, dim = model.config, model.config.head_dim
    layer, half = model.model.layers[0].self_attn, dim // 2
    rows = slice((back - 1) * dim, back * dim)
    layer.q_proj.weight[rows], layer.k_proj.weight[rows], layer.v_proj.weight[rows] = 0, 0, 0
    for i in range(8):                                                       # the fastest frequencies tell neighbours apart
        angle = back * config.rope_theta ** (-i / half)
        layer.q_proj.weight[rows][i, CONSTANT] = 3.6 * math.cos(angle)
        layer.q_proj.weight[rows][i + half, CONSTANT] = -3.6 * math.sin(angle)
        layer.k_proj.weight[rows][i, CONSTANT] = 3.6
    layer.v_proj.weight[rows, 1:] = read
    layer.o_proj.weight[:, rows] = write.T * 0.04


def _slow_dimensions(model: Llama) -> list[int]:
    """The head dimensions whose rotary pair turns by less than about half a radian within a window."""
    config, half = model.config, model.config.head_dim // 2
    pairs = [i for i in range(half) if config.rope_theta ** (-i / half) * config.window < 0.6]
    return pairs + [i + half for i in pairs]


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """[rows, columns], rows <= columns, with orthonormal rows."""
    return torch.linalg.qr(torch.randn(columns, rows, generator=generator))[0].T
