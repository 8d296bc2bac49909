"""What a training run does at each step: window length, batch shape, learning rate, share of negatives and kinds of documents."""
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    steps: int
    tokens: int                              # window length
    windows: int                             # windows a document
    documents: int
    negatives: tuple[int, int]               # windows of other documents that a window sees: at the phase's first and last step


@dataclass(frozen=True)
class Recipe:
    phases: tuple[Phase, ...]
    seed: int = 1
    peak_lr: float = 8e-4                    # where the rise leads; the cosine over it keeps NANO's highest at 4.7e-4
    final_lr: float = 3e-5
    protected_lr: float = 2.5e-4             # while the seeded circuit settles
    protected_steps: int = 300
    rise_steps: int = 600                    # from the protected to the peak learning rate
    weight_decay: float = 0.05
    clip: float = 1.0

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> tuple[Phase, float]:
        """The phase a step is in, and how much of that phase is done (0 to 1)."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step / phase.steps
            step -= phase.steps
        raise ValueError(f"the recipe has only {self.steps} steps")

    def negatives(self, step: int) -> int:
        phase, done = self.phase_at(step)
        first, last = phase.negatives
        return round(first + (last - first) * done)

    def progress(self, step: int) -> float:
        """The share of all training tokens seen before a step."""
        size = lambda phase: phase.tokens * phase.windows * phase.documents
        total, seen = sum(phase.steps * size(phase) for phase in self.phases), 0
        for phase in self.phases:
            here = min(step, phase.steps)
            seen, step = seen + here * size(phase), step - here
        return seen / total

    def learning_rate(self, step: int) -> float:
        """Low at first, then up to the peak; a cosine over all tokens lies over both."""
        low = self.protected_lr / self.peak_lr
        if step < self.protected_steps:
            ramp = low * min(1.0, (step + 1) / 30)
        else:
            ramp = min(1.0, low + (1 - low) * (step - self.protected_steps) / self.rise_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress(step)))
        return self.final_lr + (self.peak_lr * ramp - self.final_lr) * cosine if ramp else 0.0

    def shares(self, step: int) -> dict[str, float]:
        """How often each kind of document is drawn."""
        after = step - self.protected_steps
        noise = 0.7 if after < 0 else max(0.05, 0.3 - 0.25 * after / 600)
        rest = 1 - noise
        return {"noise": noise, "prose": 0.34 * rest, "facts": 0.30 * rest, "named": 0.16 * rest, "repeats": 0.20 * rest}


# One CPU core, about half an hour. Windows of 2048 cost three times as much a token, so they come last and few.
NANO = Recipe(phases=(Phase(1700, 128, 8, 5, (0, 12)), Phase(120, 512, 5, 3, (4, 8)), Phase(24, 2048, 4, 2, (2, 4))))
SMOKE = Recipe(phases=(Phase(6, 32, 3, 2, (0, 2)), Phase(2, 64, 2, 2, (1, 1))), protected_steps=2, rise_steps=2)
RECIPES = {"nano": NANO, "smoke": SMOKE}
