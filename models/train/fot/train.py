"""Trains a model by a recipe; resumes from the newest checkpoint of the run folder."""
import argparse
import dataclasses
import json
import time
from pathlib import Path

import sentencepiece
import torch
import torch.nn.functional as F
from torch import Tensor

from . import checkpoint
from .batches import Batch, joined, make_batch
from .books import Corpus
from .documents import ANSWER, PROSE, Documents
from .export import load_model
from .model import Llama, ModelConfig
from .schedule import RECIPES, Recipe
from .seeding import initialise


def make_optimizer(model: Llama, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate(0), betas=(0.9, 0.95), fused=True)


def losses(model: Llama, batch: Batch, device: torch.device, memory: bool = True) -> Tensor:
    """Cross-entropy of every target, [W, T]; matrix products in bf16."""
    layout = batch.layout if memory else None
    with torch.autocast(device.type, dtype=torch.bfloat16):
        logits = model(batch.ids.to(device), batch.places.to(device), layout)
    return F.cross_entropy(logits.float().flatten(0, 1), batch.targets.to(device).flatten(), reduction="none").view(batch.ids.shape)


def train_step(model: Llama, optimizer: torch.optim.Optimizer, batch: Batch, recipe: Recipe, step: int, memory: bool = True) -> dict:
    """One update; returns what to log."""
    device = next(model.parameters()).device
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate(step)
    each, weights = losses(model, batch, device, memory), batch.weights.to(device)
    loss = (each * weights).sum() / weights.sum()
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    mean = lambda mask: each[mask].mean().item() if mask.any() else None
    return {"loss": loss.item(), "prose": mean(weights == PROSE), "answers": mean(weights == ANSWER), "norm": norm.item(),
            "again": mean((weights > 2) & (weights < ANSWER))}


def train(model: Llama, documents: Documents, recipe: Recipe, folder: Path, save_every: int, log_every: int = 20,
          memory: bool = True, until: int | None = None) -> None:
    """Runs the recipe from where the folder's checkpoint stands; writes checkpoint.safetensors and log.jsonl there."""
    optimizer, file, step = make_optimizer(model, recipe), folder / "checkpoint.safetensors", 0
    if file.exists():
        step = checkpoint.load(file, model, optimizer)
    folder.mkdir(parents=True, exist_ok=True)
    seen, rows, started = 0, [], time.time()
    with (folder / "log.jsonl").open("a") as log:
        while step < min(recipe.steps, until or recipe.steps):
            batch = make_batch(documents, recipe, step, model.config.window)
            if model.config.yarn_factor > 1:
                batch = joined(batch, model.config.context, f"{recipe.seed}/{step}/places")
            rows.append(train_step(model, optimizer, batch, recipe, step, memory))
            seen, step = seen + batch.ids.numel(), step + 1
            if step % log_every == 0 or step == recipe.steps:
                row = {"step": step, "lr": round(recipe.learning_rate(step - 1), 7), **average(rows),
                       "tokens_per_s": round(seen / (time.time() - started))}
                print(json.dumps(row), file=log, flush=True)
                print(row, flush=True)
                seen, rows, started = 0, [], time.time()
            if step % save_every == 0 or step == recipe.steps:
                checkpoint.save(file, model, optimizer, step)


def average(rows: list[dict]) -> dict:
    """Means over the steps that had a value."""
    out = {}
    for key in rows[0]:
        values = [row[key] for row in rows if row[key] is not None]
        out[key] = round(sum(values) / len(values), 4) if values else None
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--books", type=Path, required=True, help="directory of .txt books")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="folder of the checkpoint, the log and the tokenized books")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="nano")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--until", type=int, help="stop after this step; the schedule stays that of the whole recipe")
    parser.add_argument("--start-from", type=Path, help="exported model folder to go on from, with a fresh optimizer, not the seeded weights")
    parser.add_argument("--yarn", type=float, default=1.0, help="train the rival: no memory layers, each document in one window with YaRN by this "
                        "factor; start it from another run's checkpoint in --run")
    parser.add_argument("--no-memory", action="store_true", help="train the twin without FoT: no window sees another")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = RECIPES[args.recipe]
    corpus = Corpus.load(args.books, args.tokenizer, args.run)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(args.tokenizer))
    if args.start_from:
        model = load_model(args.start_from)
    else:
        config = ModelConfig(vocab_size=tokenizer.vocab_size(), yarn_factor=args.yarn)
        model = Llama(config if args.yarn == 1 else dataclasses.replace(config, mem_layers=()))
        initialise(model, recipe.seed)
    train(model.to(args.device), Documents(corpus, tokenizer), recipe, args.run, args.save_every,
          memory=not args.no_memory and args.yarn == 1, until=args.until)


if __name__ == "__main__":
    main()
