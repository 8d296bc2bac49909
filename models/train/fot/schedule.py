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
    facts: int = 10                          # most facts in a document

    @property
    def size(self) -> int:
        """Tokens a step."""
        return self.tokens * self.windows * self.documents


@dataclass(frozen=True)
class Cycle:
    """Phases under one cosine of the learning rate, which rises first."""
    phases: tuple[Phase, ...]
    shares: dict[str, float]                 # of the kinds of documents besides noise
    peak_lr: float
    rise_steps: int                          # from the protected (or, without protection, no) learning rate to where the peak would be
    final_lr: float = 3e-5
    protected_lr: float = 2.5e-4             # while the seeded circuit settles
    protected_steps: int = 0                 # with much noise to copy; its share then falls over 600 steps

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def progress(self, step: int) -> float:
        """The share of the cycle's tokens seen before a step of it."""
        seen = 0
        for phase in self.phases:
            here = min(step, phase.steps)
            seen, step = seen + here * phase.size, step - here
        return seen / sum(phase.steps * phase.size for phase in self.phases)

    def learning_rate(self, step: int) -> float:
        """Low at first, then up to the peak; a cosine over all tokens lies over both."""
        low = self.protected_lr / self.peak_lr if self.protected_steps else 0.0
        if step < self.protected_steps:
            ramp = low * min(1.0, (step + 1) / 30)
        else:
            ramp = min(1.0, low + (1 - low) * (step - self.protected_steps) / self.rise_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress(step)))
        return self.final_lr + (self.peak_lr * ramp - self.final_lr) * cosine

    def noise(self, step: int) -> float:
        """The share of documents that are noise with copies in it."""
        if not self.protected_steps:
            return 0.05
        after = step - self.protected_steps
        return 0.7 if after < 0 else max(0.05, 0.3 - 0.25 * after / 600)


@dataclass(frozen=True)
class Recipe:
    cycles: tuple[Cycle, ...]
    seed: int = 1
    weight_decay: float = 0.05
    clip: float = 1.0

    @property
    def steps(self) -> int:
        return sum(cycle.steps for cycle in self.cycles)

    def cycle_at(self, step: int) -> tuple[Cycle, int]:
        """The cycle a step is in, and the step's number in it."""
        for cycle in self.cycles:
            if step < cycle.steps:
                return cycle, step
            step -= cycle.steps
        raise ValueError(f"the recipe has only {self.steps} steps")

    def phase_at(self, step: int) -> tuple[Phase, float]:
        """The phase a step is in, and how much of that phase is done (0 to 1)."""
        cycle, step = self.cycle_at(step)
        for phase in cycle.phases:
            if step < phase.steps:
                return phase, step / phase.steps
            step -= phase.steps
        raise AssertionError("a cycle has the steps of its phases")

    def negatives(self, step: int) -> int:
        phase, done = self.phase_at(step)
        first, last = phase.negatives
        return round(first + (last - first) * done)

    def learning_rate(self, step: int) -> float:
        cycle, step = self.cycle_at(step)
        return cycle.learning_rate(step)

    def shares(self, step: int) -> dict[str, float]:
        """How often each kind of document is drawn."""
        cycle, step = self.cycle_at(step)
        noise = cycle.noise(step)
        return {"noise": noise, **{kind: share * (1 - noise) for kind, share in cycle.shares.items()}}


SHARES = {"prose": 0.34, "facts": 0.30, "named": 0.16, "repeats": 0.20}
LATER_SHARES = {"prose": 0.30, "facts": 0.27, "named": 0.31, "repeats": 0.12}
# One CPU core: half an hour, then an hour. Windows of 2048 cost three times as much a token, so they come last and few. The cosine over
# the first rise keeps that cycle's highest learning rate at 4.7e-4.
NANO = Recipe((
    Cycle((Phase(1700, 128, 8, 5, (0, 12)), Phase(120, 512, 5, 3, (4, 8)), Phase(24, 2048, 4, 2, (2, 4))), SHARES,
          peak_lr=8e-4, rise_steps=600, protected_steps=300),
    Cycle((Phase(1900, 128, 8, 5, (8, 12), 16), Phase(420, 512, 5, 3, (6, 8), 24), Phase(120, 1024, 4, 2, (3, 4), 40),
           Phase(70, 2048, 4, 2, (3, 4), 60)), LATER_SHARES, peak_lr=6e-4, rise_steps=100, final_lr=1.5e-5)))
SMOKE = Recipe((Cycle((Phase(6, 32, 3, 2, (0, 2)), Phase(2, 64, 2, 2, (1, 1))), SHARES, peak_lr=8e-4, rise_steps=2, protected_steps=2),))
RECIPES = {"nano": NANO, "smoke": SMOKE}
