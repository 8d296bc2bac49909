"""The batch of a step: a function of (seed, step) and nothing else, so a resumed run sees the same data."""
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import DocumentWindows
from .documents import Documents
from .schedule import Recipe


@dataclass
class Batch:
    ids: Tensor                              # [W, T]
    targets: Tensor                          # [W, T], the next tokens
    weights: Tensor                          # [W, T], of the targets in the loss
    places: Tensor                           # [W], where each window starts in the context window
    layout: DocumentWindows


def make_batch(documents: Documents, recipe: Recipe, step: int, context: int) -> Batch:
    """Windows shorter than the context are put at random places of it, so queries rotated far meet memory from the start."""
    rng = random.Random(f"{recipe.seed}/{step}")
    phase, _ = recipe.phase_at(step)
    shares = recipe.shares(step)
    length = phase.windows * phase.tokens
    drawn = [documents.draw(rng, length + 1, shares, phase.facts) for _ in range(phase.documents)]
    by_window = lambda rows, dtype: torch.tensor(rows, dtype=dtype).view(-1, phase.tokens)
    windows = phase.documents * phase.windows
    places = [rng.randint(0, context - phase.tokens) if rng.random() < 0.8 else 0 for _ in range(windows)]
    return Batch(by_window([d.ids[:-1] for d in drawn], torch.long), by_window([d.ids[1:] for d in drawn], torch.long),
                 by_window([d.weights[1:] for d in drawn], torch.float32), torch.tensor(places),
                 DocumentWindows(phase.documents, phase.windows, _negatives(rng, phase, recipe.negatives(step))))


def joined(batch: Batch, context: int, seed: str) -> Batch:
    """The same documents, each as one window, at random places of the context: for models without memory."""
    documents = batch.layout.documents
    join = lambda x: x.view(documents, -1)
    length = join(batch.ids).shape[1]
    rng = random.Random(seed)
    places = torch.tensor([rng.randint(0, context - length) for _ in range(documents)])
    return Batch(join(batch.ids), join(batch.targets), join(batch.weights), places,
                 DocumentWindows(documents, 1, torch.empty(documents, 0, dtype=torch.long)))


def _negatives(rng: random.Random, phase, count: int) -> Tensor:
    """[D, count]: for each document, windows of the other documents."""
    rows = []
    for document in range(phase.documents):
        own = range(document * phase.windows, (document + 1) * phase.windows)
        others = [w for w in range(phase.documents * phase.windows) if w not in own]
        rows.append(rng.sample(others, min(count, len(others))))
    return torch.tensor(rows, dtype=torch.long).view(phase.documents, -1)
