#!/usr/bin/env python3
"""Writes a model folder (config.json, model.safetensors, tokenizer.model) as a GGUF file for llama.cpp.

Plain Llama only: memory layers mean nothing to llama.cpp, which sees one long window. Needs numpy, safetensors, ml-dtypes, sentencepiece and gguf (requirements.txt).
"""
import argparse
import json
from pathlib import Path

import gguf
import ml_dtypes  # noqa: F401  (gives safetensors a bfloat16 for numpy)
import numpy as np
import sentencepiece
from safetensors import safe_open

NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTSIDE_LAYERS = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


def gguf_name(name: str) -> str:
    """model.layers.3.self_attn.q_proj.weight -> blk.3.attn_q.weight"""
    if name in OUTSIDE_LAYERS:
        return OUTSIDE_LAYERS[name]
    _, _, layer, *middle, last = name.split(".")
    return f"blk.{layer}.{NAMES['.'.join(middle)]}.{last}"


def adjacent_pairs(rows: np.ndarray, heads: int) -> np.ndarray:
    """Query or key rows [heads * d, k] from half-split rotary pairs (i, i + d/2) to the adjacent ones (2i, 2i + 1) of GGUF's Llama."""
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return split.swapaxes(1, 2).reshape(rows.shape)


def add_settings(writer: gguf.GGUFWriter, config: dict) -> None:
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    scaling = config.get("rope_scaling")
    if scaling is None:
        return
    if scaling["rope_type"] != "yarn":
        raise SystemExit(f"rope_scaling {scaling['rope_type']}: only yarn is written")
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(scaling["factor"])
    writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])


def add_tokenizer(writer: gguf.GGUFWriter, file: Path, vocabulary: int) -> None:
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(file))
    pieces, scores, types = [], [], []
    for id in range(vocabulary):
        inside = id < tokenizer.vocab_size()
        pieces.append((tokenizer.id_to_piece(id) if inside else f"<unused{id}>").encode())
        scores.append(tokenizer.get_score(id) if inside else -1e4)
        kind = gguf.TokenType.NORMAL
        if not inside or tokenizer.is_unused(id):
            kind = gguf.TokenType.UNUSED
        elif tokenizer.is_unknown(id):
            kind = gguf.TokenType.UNKNOWN
        elif tokenizer.is_control(id):
            kind = gguf.TokenType.CONTROL
        elif tokenizer.is_byte(id):
            kind = gguf.TokenType.BYTE
        types.append(kind)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(tokenizer.bos_id())
    writer.add_eos_token_id(tokenizer.eos_id())
    writer.add_unk_token_id(tokenizer.unk_id())
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(tokenizer.encode("a", out_type=str)[0].startswith("\u2581"))


def add_tensors(writer: gguf.GGUFWriter, file: Path, config: dict) -> None:
    """Matrices as bf16, vectors as f32."""
    heads = config["num_attention_heads"]
    heads_of = {"attn_q": heads, "attn_k": config.get("num_key_value_heads") or heads}
    with safe_open(file, "np") as stored:
        for name in stored.keys():
            target, tensor = gguf_name(name), stored.get_tensor(name).astype(np.float32)
            if tensor.ndim == 1:
                writer.add_tensor(target, tensor)
                continue
            kind = target.split(".")[-2]
            if kind in heads_of:
                tensor = adjacent_pairs(tensor, heads_of[kind])
            narrowed = gguf.quants.quantize(tensor, gguf.GGMLQuantizationType.BF16)
            writer.add_tensor(target, narrowed, raw_dtype=gguf.GGMLQuantizationType.BF16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("out", type=Path, help="the .gguf file to write")
    args = parser.parse_args()
    config = json.loads((args.model / "config.json").read_text())
    writer = gguf.GGUFWriter(str(args.out), "llama")
    writer.add_name(args.model.resolve().name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    add_settings(writer, config)
    add_tokenizer(writer, args.model / "tokenizer.model", config["vocab_size"])
    add_tensors(writer, args.model / "model.safetensors", config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
