"""Recall and perplexity of an exported model with its real window: greedy generation, memory filled window by window."""
import argparse
import json
import math
import random
from pathlib import Path

import sentencepiece
import torch
import torch.nn.functional as F
from torch import Tensor

from .books import book_files
from .export import load_model
from .model import LayerMemory, Llama

TASK = ("There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
        "I will quiz you about the important information there.")
SENTENCES = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


@torch.no_grad()
def read(model: Llama, ids: list[int], use_memory: bool) -> tuple[list[int], list[LayerMemory | None] | None]:
    """Puts all but the last local context into memory, a window at a time. Returns the local context and the memory (frozen)."""
    window, local = model.config.window, model.config.last_context_length
    split = max(0, len(ids) - local)
    if not use_memory:
        return ids[split:], None
    memory = model.new_memory()
    for start in range(0, split, window):
        model(torch.tensor([ids[start:min(start + window, split)]]), None, memory)
    for layer in memory:
        if layer is not None:
            layer.frozen = True
    return ids[split:], memory


@torch.no_grad()
def generate(model: Llama, local: list[int], memory, count: int) -> list[int]:
    """`count` tokens, each the likeliest."""
    out = []
    for _ in range(count):
        out.append(int(model(torch.tensor([local + out]), None, memory)[0, -1].argmax()))
    return out


def passkey_prompt(tokenizer, filler: list[int], length: int, rng: random.Random) -> tuple[list[int], list[int]]:
    """Exactly `length` tokens with a key of five digits at a random depth; returns them and the answer's tokens."""
    key = str(rng.randint(10000, 99999))
    head, info = [1] + tokenizer.encode(TASK), tokenizer.encode(f"The pass key is {key}. Remember it. {key} is the pass key.")
    question = tokenizer.encode("What is the pass key? The pass key is")
    room = length - len(head) - len(info) - len(question)
    start = rng.randrange(max(1, len(filler) - room))
    text = (filler * (room // len(filler) + 2))[start:start + room]
    depth = rng.randint(0, room)
    return head + text[:depth] + info + text[depth:] + question, tokenizer.encode(key)


def named_prompt(tokenizer, filler: list[int], length: int, rng: random.Random, count: int = 100) -> tuple[list[int], list[int]]:
    """`count` named values spread over the filler, one of them asked; the wording is not one of the training's."""
    names = rng.sample([a + b for a in ("Al", "Bar", "Cor", "Den", "Fal", "Gar", "Hel", "Jor", "Kel", "Mor", "Nor", "Sar")
                        for b in ("ana", "bert", "dine", "fina", "gard", "lian", "mund", "vina", "wick", "ston")], count)
    values = [str(rng.randint(10000, 99999)) for _ in names]
    facts = [tokenizer.encode(f"The special number of {n} is {v}.") for n, v in zip(names, values)]
    asked = rng.randrange(count)
    question = tokenizer.encode(f"What is the special number of {names[asked]}? The special number of {names[asked]} is")
    room = length - 1 - sum(map(len, facts)) - len(question)
    if room < 0:
        raise SystemExit(f"{count} named values do not fit into {length} tokens")
    start = rng.randrange(max(1, len(filler) - room))
    text, cuts = filler[start:start + room], sorted(rng.randint(0, room) for _ in facts)
    ids = [1]
    for fact, begin, end in zip(facts, [0] + cuts, cuts):
        ids += text[begin:end] + fact
    return ids + text[cuts[-1]:] + question, tokenizer.encode(values[asked])


def recall(model: Llama, tokenizer, make_prompt, filler: list[int], length: int, trials: int, seed: int, use_memory: bool = True) -> dict:
    """Exact matches of greedily generated answers."""
    rng, correct = random.Random(f"{seed}/{length}"), 0
    for _ in range(trials):
        ids, answer = make_prompt(tokenizer, filler, length, rng)
        correct += generate(model, *read(model, ids, use_memory), len(answer)) == answer
    return {"length": length, "trials": trials, "correct": correct, "accuracy": correct / trials}


@torch.no_grad()
def perplexity(model: Llama, ids: Tensor, first: int, windows: int, memory_tokens: int) -> float:
    """Of the targets of `windows` windows from token `first` on, each with the `memory_tokens` before it in memory."""
    window, memory = model.config.window, model.new_memory()
    nll, begin = 0.0, first - math.ceil(memory_tokens / window) * window
    for start in range(begin, first + windows * window, window):
        for layer in memory:
            if layer is not None:
                layer.keep_last(memory_tokens)
        logits = model(ids[None, start:start + window], None, memory if memory_tokens else None)[0].float()
        if start >= first:
            nll += F.cross_entropy(logits, ids[start + 1:start + window + 1], reduction="sum").item()
    return math.exp(nll / (windows * window))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--books", type=Path, required=True, help="books the model was not trained on")
    parser.add_argument("--task", choices=["passkey", "named", "perplexity"], default="passkey")
    parser.add_argument("--filler", choices=["book", "sentences"], default="book")
    parser.add_argument("--lengths", default="2048,8192", help="prompt lengths, or memory sizes for perplexity")
    parser.add_argument("--trials", type=int, default=20, help="prompts a length, or target windows for perplexity")
    parser.add_argument("--first", type=int, default=65536, help="perplexity: the first target token of the book")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.model)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(args.model / "tokenizer.model"))
    book = max(book_files(args.books), key=lambda file: file.stat().st_size)
    filler = tokenizer.encode(book.read_text(errors="ignore") if args.filler == "book" else SENTENCES)
    for length in map(int, args.lengths.split(",")):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if args.task == "perplexity":
                row = {"memory": length, "windows": args.trials, "book": book.stem,
                       "perplexity": round(perplexity(model, torch.tensor(filler), args.first, args.trials, length), 4)}
            else:
                prompt = passkey_prompt if args.task == "passkey" else named_prompt
                row = {"task": args.task, "filler": args.filler, "method": "none" if args.no_memory else "memory",
                       **recall(model, tokenizer, prompt, filler, length, args.trials, args.seed, not args.no_memory)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
