"""Records what transformers computes with each of its RoPE types on one tiny random Llama.

    pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0
    python make_golden.py

Writes model.safetensors (the weights, the same for every case), cases.json (what each case changes in the config) and
expected.safetensors (input_ids of each case, and the logits of its last tokens) beside this file.
"""

import copy
import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

FOLDER = pathlib.Path(__file__).parent
ORIGINAL = 64  # tokens the model is said to have been trained on
LONG, SHORT = 200, 40  # tokens of a prompt
KEPT = 32  # logits of so many last tokens are recorded

BASE = {
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def scaled(rope_type, **settings):
    return {"rope_scaling": {"rope_type": rope_type, **settings}}


def yarn(**settings):
    return scaled("yarn", **{"factor": 4.0, "original_max_position_embeddings": ORIGINAL, **settings})


def longrope(**settings):
    pairs = range(BASE["head_dim"] // 2)
    return {
        **scaled(
            "longrope",
            short_factor=[1 + 0.02 * i for i in pairs],
            long_factor=[1 + 0.4 * i for i in pairs],
            **settings,
        ),
        "original_max_position_embeddings": ORIGINAL,
    }


# name: (changes of the config, tokens)
CASES = {
    "none": ({}, LONG),
    "linear": (scaled("linear", factor=4.0), LONG),
    "dynamic": ({**scaled("dynamic", factor=2.0), "max_position_embeddings": ORIGINAL}, LONG),
    "dynamic_short": ({**scaled("dynamic", factor=2.0), "max_position_embeddings": ORIGINAL}, SHORT),
    "yarn": (yarn(), LONG),
    "yarn_null_factor": (yarn(factor=None, original_max_position_embeddings=32), LONG),
    "yarn_factor_against_ratio": (yarn(factor=2.0), LONG),
    "yarn_mscale": (yarn(mscale=1.0, mscale_all_dim=0.3), LONG),
    "yarn_equal_mscales": (yarn(mscale=1.0, mscale_all_dim=1.0), LONG),
    "yarn_one_mscale": (yarn(mscale=0.5), LONG),
    "yarn_attention_factor": (yarn(attention_factor=0.8), LONG),
    "yarn_not_truncated": (yarn(truncate=False, beta_fast=8.0, beta_slow=2.0), LONG),
    "llama3": (
        scaled(
            "llama3",
            factor=4.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=ORIGINAL,
        ),
        LONG,
    ),
    "longrope_long": (longrope(), LONG),
    "longrope_short": (longrope(), SHORT),
    "longrope_factor": (longrope(factor=2.0), LONG),
    "longrope_attention_factor": (longrope(attention_factor=1.1), LONG),
    "rope_parameters": (
        {"rope_parameters": {**yarn()["rope_scaling"], "rope_theta": 500.0}, "rope_theta": None},
        LONG,
    ),
}


def config_of(changes):
    merged = {key: value for key, value in {**copy.deepcopy(BASE), **copy.deepcopy(changes)}.items() if value is not None}
    return merged, LlamaConfig(**copy.deepcopy(merged), attn_implementation="eager")


def main():
    torch.manual_seed(0)
    _, config = config_of({})
    weights = LlamaForCausalLM(config).state_dict()
    # Large enough that attention is far from uniform, so that every rotation shows in the logits.
    weights = {
        name: torch.randn(w.shape) * 0.2 if w.dim() == 2 else 1 + 0.2 * torch.randn(w.shape) for name, w in weights.items()
    }
    save_file(weights, FOLDER / "model.safetensors", metadata={"format": "pt"})

    cases, expected = {}, {}
    for number, (name, (changes, tokens)) in enumerate(CASES.items()):
        as_written, config = config_of(changes)
        model = LlamaForCausalLM(config).eval()
        model.load_state_dict(weights)
        ids = torch.randint(3, BASE["vocab_size"], (tokens,), generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            logits = model(ids[None], use_cache=False).logits[0]
        cases[name] = as_written
        expected[f"{name}.input_ids"] = ids.to(torch.int32)
        expected[f"{name}.logits"] = logits[-KEPT:].contiguous()
    save_file(expected, FOLDER / "expected.safetensors")
    (FOLDER / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
