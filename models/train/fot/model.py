"""A plain Llama with Hugging Face's tensor names, whose memory layers also attend to windows other than their own.

Shapes: W windows, T tokens a window, H heads, E head_dim, C hidden size, D documents, M memory keys.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import DocumentWindows, attend, attend_documents, rope_tables, rotate, yarn_frequencies


@dataclass(frozen=True)
class ModelConfig:
    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 640
    num_layers: int = 5
    head_dim: int = 64
    mem_layers: tuple[int, ...] = (2, 3)
    rope_theta: float = 1e6
    rms_norm_eps: float = 1e-5
    window: int = 2048                       # tokens; times yarn_factor: max_position_embeddings
    yarn_factor: float = 1.0                 # 1: plain RoPE
    last_context_length: int = 1024

    @property
    def num_heads(self) -> int:
        return self.hidden_size // self.head_dim

    @property
    def context(self) -> int:
        """Positions that the model has."""
        return round(self.window * self.yarn_factor)


@dataclass
class LayerMemory:
    """What one memory layer has kept of the windows read so far: keys without rotation, and values."""
    keys: Tensor | None = None               # [1, M, H, E]
    values: Tensor | None = None             # [1, M, H, E]

    frozen: bool = False                     # True: windows attend to it and leave nothing

    def append(self, keys: Tensor, values: Tensor) -> None:
        if not self.frozen:
            self.keys = keys if self.keys is None else torch.cat([self.keys, keys], 1)
            self.values = values if self.values is None else torch.cat([self.values, values], 1)

    def keep_last(self, tokens: int) -> None:
        if self.keys is not None:
            first = max(0, self.keys.shape[1] - tokens)
            self.keys, self.values = self.keys[:, first:], self.values[:, first:]


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]"""
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, is_memory: bool):
        super().__init__()
        size = config.hidden_size
        self.heads, self.head_dim, self.is_memory = config.num_heads, config.head_dim, is_memory
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(size, size, bias=False) for _ in range(4))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, others: DocumentWindows | LayerMemory | None) -> Tensor:
        """x [W, T, C] -> [W, T, C]; `others` is what a memory layer sees besides the window."""
        split = lambda y: y.view(*y.shape[:2], self.heads, self.head_dim)
        queries, keys, values = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
        cos, sin = cos.to(keys.dtype), sin.to(keys.dtype)
        queries, rotated = rotate(queries, cos, sin), rotate(keys, cos, sin)
        if self.is_memory and isinstance(others, DocumentWindows):
            out = attend_documents(queries, rotated, keys, values, others)
        elif self.is_memory and others is not None:
            out = attend(queries, rotated, values, others.keys, others.values)
            others.append(keys, values)
        else:
            out = attend(queries, rotated, values)
        return self.o_proj(out.flatten(-2))


class Mlp(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]"""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: ModelConfig, index: int):
        super().__init__()
        self.self_attn, self.mlp = Attention(config, index in config.mem_layers), Mlp(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, others) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, others)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Llama(nn.Module):
    """state_dict() has the names of transformers' LlamaForCausalLM."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config, self.model = config, Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        frequencies, attention_factor = yarn_frequencies(config.head_dim, config.rope_theta, config.yarn_factor, config.window)
        cos, sin = rope_tables(config.context, frequencies, attention_factor)
        self.register_buffer("cos", cos, persistent=False)                   # [context, E]
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids: Tensor, places: Tensor | None = None, others=None) -> Tensor:
        """ids [W, T] -> logits [W, T, vocabulary].

        places [W]: where each window's first token stands in the context window (0 if None). others: a DocumentWindows that
        all memory layers share, or a list with one LayerMemory for each layer (None for plain layers), or None.
        """
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        if places is not None:
            positions = positions + places[:, None]
        cos, sin = self.cos[positions][:, :, None], self.sin[positions][:, :, None]
        x = self.model.embed_tokens(ids)
        for index, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, others[index] if isinstance(others, list) else others)
        return self.lm_head(self.model.norm(x))

    def new_memory(self) -> list[LayerMemory | None]:
        """An empty memory for reading one document window by window."""
        return [LayerMemory() if index in self.config.mem_layers else None for index in range(self.config.num_layers)]
