"""Writes a model folder as transformers, llama.cpp and memlane read it, and reads it back."""
import argparse
import dataclasses
import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from .checkpoint import write_tensors
from .model import Llama, ModelConfig


def config_json(config: ModelConfig) -> dict:
    """Llama's keys as transformers names them, and LongLLaMA's for the memory."""
    yarn = {"rope_type": "yarn", "factor": config.yarn_factor, "original_max_position_embeddings": config.window}
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "vocab_size": config.vocab_size, "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers, "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_heads, "head_dim": config.head_dim, "hidden_act": "silu",
        "max_position_embeddings": config.context, "rope_theta": config.rope_theta,
        "rope_scaling": None if config.yarn_factor == 1 else yarn,
        "rms_norm_eps": config.rms_norm_eps, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, "use_cache": True, "initializer_range": 0.02,
        "mem_layers": list(config.mem_layers), "mem_positionals": True, "mem_dtype": "bfloat16",
        "mem_attention_grouping": None, "last_context_length": config.last_context_length,
    }


def read_config(folder: Path) -> ModelConfig:
    stored = json.loads((folder / "config.json").read_text())
    yarn = stored["rope_scaling"] or {"factor": 1.0, "original_max_position_embeddings": stored["max_position_embeddings"]}
    return ModelConfig(
        vocab_size=stored["vocab_size"], hidden_size=stored["hidden_size"], intermediate_size=stored["intermediate_size"],
        num_layers=stored["num_hidden_layers"], head_dim=stored["head_dim"], mem_layers=tuple(stored["mem_layers"]),
        rope_theta=stored["rope_theta"], rms_norm_eps=stored["rms_norm_eps"], window=yarn["original_max_position_embeddings"],
        yarn_factor=yarn["factor"], last_context_length=stored["last_context_length"])


def export(checkpoint: Path, tokenizer: Path, folder: Path, config: ModelConfig) -> None:
    """Writes config.json, model.safetensors (bf16) and tokenizer.model to the folder."""
    names = [name for name, _ in Llama(config).named_parameters()]
    with safe_open(checkpoint, "pt") as stored:
        tensors = {name: stored.get_tensor(name).to(torch.bfloat16) for name in names}
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_json(config), indent=2) + "\n")
    if tokenizer.resolve() != (folder / "tokenizer.model").resolve():
        shutil.copyfile(tokenizer, folder / "tokenizer.model")


def load_model(folder: Path) -> Llama:
    """The exported model, in f32."""
    model = Llama(read_config(folder))
    model.load_state_dict({name: x.float() for name, x in load_file(folder / "model.safetensors").items()})
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--yarn", type=float, default=1.0, help="the factor the checkpoint was trained with; such a model has no memory layers")
    args = parser.parse_args()
    with safe_open(args.checkpoint, "pt") as stored:
        vocabulary = stored.get_slice("lm_head.weight").get_shape()[0]
    config = dataclasses.replace(ModelConfig(), vocab_size=vocabulary, yarn_factor=args.yarn)
    export(args.checkpoint, args.tokenizer, args.out, config if args.yarn == 1 else dataclasses.replace(config, mem_layers=()))


if __name__ == "__main__":
    main()
