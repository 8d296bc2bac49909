#!/usr/bin/env python3
"""Writes a GGUF file of the shapes that `memlane bench speed` has, with random weights: for llama.cpp to run at the same size.

Weights are one random block over and over, as wide as the widest matrix: speed does not depend on their values. Needs numpy and gguf.
"""
import argparse
from pathlib import Path

import gguf
import numpy as np

SHAPES = {  # layers, hidden, ffn, heads, head_dim: those of `memlane bench speed --shape`
    "a": (26, 3200, 8640, 32, 100),
    "b": (12, 768, 2048, 12, 64),
}
VOCABULARY = 32000
TYPES = {name: gguf.GGMLQuantizationType[name] for name in ("F32", "BF16", "Q8_0", "Q4_0")}


def add_vocabulary(writer: gguf.GGUFWriter) -> None:
    """A SentencePiece vocabulary that means nothing: 3 control pieces, 256 bytes, words."""
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    types = [gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.BYTE] * 256
    words = VOCABULARY - len(pieces)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece.encode() for piece in pieces + [f"\u2581w{i}" for i in range(words)]])
    writer.add_token_scores([0.0] * len(pieces) + [-float(i) for i in range(words)])
    writer.add_token_types(types + [gguf.TokenType.NORMAL] * words)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="b")
    parser.add_argument("--type", choices=TYPES, default="BF16")
    parser.add_argument("--context", type=int, default=1 << 20, help="tokens that the file says it was trained on")
    parser.add_argument("out", type=Path, help="the .gguf file to write")
    args = parser.parse_args()
    layers, hidden, ffn, heads, head_dim = SHAPES[args.shape]
    kind = TYPES[args.type]
    writer = gguf.GGUFWriter(str(args.out), "llama")
    writer.add_name(f"random {args.shape}")
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(args.context)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    add_vocabulary(writer)

    random = np.random.default_rng(1)
    blocks = {}

    def matrix(name: str, rows: int, columns: int) -> None:
        if columns not in blocks:
            block = random.standard_normal((64, columns), dtype=np.float32) / np.sqrt(hidden, dtype=np.float32)
            blocks[columns] = block if kind == gguf.GGMLQuantizationType.F32 else gguf.quants.quantize(block, kind)
        block = blocks[columns]
        repeated = np.broadcast_to(block, (rows // 64, *block.shape)).reshape(rows, block.shape[1])
        writer.add_tensor(name, repeated, raw_dtype=None if kind == gguf.GGMLQuantizationType.F32 else kind)

    ones = np.ones(hidden, dtype=np.float32)
    matrix("token_embd.weight", VOCABULARY, hidden)
    matrix("output.weight", VOCABULARY, hidden)
    writer.add_tensor("output_norm.weight", ones)
    for layer in range(layers):
        prefix = f"blk.{layer}."
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{prefix}{name}.weight", ones)
        for name in ("attn_q", "attn_k", "attn_v"):
            matrix(f"{prefix}{name}.weight", heads * head_dim, hidden)
        matrix(f"{prefix}attn_output.weight", hidden, heads * head_dim)
        matrix(f"{prefix}ffn_gate.weight", ffn, hidden)
        matrix(f"{prefix}ffn_up.weight", ffn, hidden)
        matrix(f"{prefix}ffn_down.weight", hidden, ffn)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
