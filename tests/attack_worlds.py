"""Made-up models for the tests of the attacks: the size of the leak and each sample's difficulty are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from relaxloss.attacks import Attack, Evidence, attacks, parse
from relaxloss.data import Dataset
from relaxloss.experiments.jobs import ScoreJob, evidence_of
from relaxloss.games import Game
from relaxloss.signals import Signals

NAMES = attacks.names()
QUICK = {"neural": "neural:epochs=4,hidden=16,lr=0.01", "quantile": "quantile:trees=8"}  # conduct needs no strength
FITTED = ("neural", "quantile", "label_only")  # they fit something: slower than a formula


def quick(name: str) -> Attack:
    return parse(QUICK.get(name, name))


class World:
    """Models of a drawn game, whose margins are ``offset + difficulty + noise + mu * member``; and the evidence.

    The other classes' logits sum to 1 after exp, so that the true logit is the margin. `spread` is the difficulty's
    deviation: it belongs to the sample and is the same in all models; `x` shows it, with noise.
    """

    def __init__(
        self, game: Game, size: int, seed: int, mu: float = 0.0, *, spread: float = 1.0, offset: float = 0.0,
        classes: int = 2, queries: int = 1,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, classes, size)
        self.design = game.draw(labels, classes, seed)
        self.game, self.seed = game, seed
        models, width = self.design.member.shape
        self.difficulty = spread * rng.normal(size=width)
        x = np.column_stack([self.difficulty + 0.1 * rng.normal(size=width), rng.normal(size=width)])
        self.dataset = Dataset("world", x.astype(np.float32), labels, classes, "made for tests")
        self.margins = offset + self.difficulty + rng.normal(size=(models, queries, width))
        self.margins += mu * self.design.member[:, None]
        self.signals = [self.signal(margins, rng) for margins in self.margins]
        self.targets = self.signals  # defended models, say, attacked with the undefended `signals`

    def signal(self, margins: np.ndarray, rng: np.random.Generator) -> Signals:
        labels, classes = self.dataset.y, self.dataset.num_classes
        logits = rng.normal(size=(*margins.shape, classes))
        logits[:, np.arange(len(labels)), labels] = -np.inf
        logits -= np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        logits[:, np.arange(len(labels)), labels] = margins
        hits = margins[0] + rng.normal(size=(5, len(labels))) > 0
        norms = np.exp(-margins[0])[:, None] * [1.0, 2.0, 3.0, 4.0]
        return Signals(logits.astype(np.float32), labels, norms, hits)

    def evidence(self, target: int) -> Evidence:
        targets, shadows = ({r: (kind, str(r)) for r in range(len(self.signals))} for kind in ("target", "shadow"))
        job = ScoreJob(Path(), self.dataset, self.game, self.seed, targets, shadows, ())

        def read(key: tuple[str, str]) -> Signals:
            return (self.targets if key[0] == "target" else self.signals)[int(key[1])]

        return evidence_of(job, self.design, self.dataset, read, target)

    def all(self) -> tuple[Evidence, ...]:
        return tuple(self.evidence(target) for target in self.design.targets)

    def member(self, target: int = 0) -> np.ndarray:
        return self.design.member[target, self.design.asked]
