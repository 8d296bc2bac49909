#!/usr/bin/env python3
"""Whether transformers and llama.cpp read a model folder as memlane does, without memory layers: the same tokens through all three.

  python3 -m venv out/peers && out/peers/bin/pip install torch -r bench/peers/requirements.txt
  out/peers/bin/python bench/peers/compare.py --model models/memlane-nano

Prints the largest difference of logits (transformers, float32), and of the next token's five largest log-probabilities (llama.cpp,
bf16 weights, by xllamacpp, a package that carries a built llama.cpp). Exit code 1 if they are further apart than rounding explains.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import sentencepiece
from safetensors.numpy import load_file

HERE = Path(__file__).resolve().parent
TEXT = ("The pass key is 58213. Remember it. 58213 is the pass key. The night was cold and the wind blew over the moor. "
        "What is the pass key? The pass key is")
TOLERANCE = {"transformers": 1e-3, "llama.cpp": 0.05}


def memlane_logits(program: Path, model: Path, ids: list[int], folder: Path) -> np.ndarray:
    """[tokens, vocabulary]"""
    (folder / "ids.txt").write_text(" ".join(map(str, ids)))
    subprocess.run([program, "logits", "--model", model, "--mem-layers", "none", "--compute", "float32", "--last-context-length", str(len(ids)),
                    "--ids", folder / "ids.txt", "--output", folder / "logits.safetensors"], check=True, stdout=subprocess.DEVNULL)
    return load_file(folder / "logits.safetensors")["logits"]


def transformers_logits(model: Path, ids: list[int]) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        return loaded(torch.tensor([ids])).logits[0].numpy()


def llama_cpp_log_probabilities(model: Path, folder: Path) -> dict[int, float]:
    """The five likeliest next tokens after TEXT."""
    import xllamacpp

    subprocess.run([sys.executable, HERE / "make_gguf.py", model, folder / "model.gguf"], check=True)
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.n_ctx, settings.n_parallel = str(folder / "model.gguf"), 2048, 1
    reply = xllamacpp.Server(settings).handle_completions({"prompt": TEXT, "max_tokens": 1, "temperature": 0.0, "logprobs": 5})
    reply = json.loads(reply) if isinstance(reply, (str, bytes)) else reply
    return {each["id"]: each["logprob"] for each in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--memlane", type=Path, default=HERE.parents[1] / "build/release/apps/memlane")
    args = parser.parse_args()
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(args.model / "tokenizer.model"))
    ids = [tokenizer.bos_id()] + tokenizer.encode(TEXT)
    apart = {}
    with tempfile.TemporaryDirectory() as name:
        ours = memlane_logits(args.memlane, args.model, ids, Path(name)).astype(np.float64)
        apart["transformers"] = float(np.abs(ours - transformers_logits(args.model, ids)).max())
        last = ours[-1] - ours[-1].max()
        log_probabilities = last - np.log(np.exp(last).sum())
        theirs = llama_cpp_log_probabilities(args.model, Path(name))
        apart["llama.cpp"] = max(abs(log_probabilities[id] - value) for id, value in theirs.items())
    for peer, difference in apart.items():
        print(f"{peer}: at most {difference:.2g} apart (allowed {TOLERANCE[peer]:g})")
    return int(any(difference > TOLERANCE[peer] for peer, difference in apart.items()))


if __name__ == "__main__":
    sys.exit(main())
