"""Games: the rules that decide who is in which model, and whose membership the attacker is asked for."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field, InstanceOf, NonNegativeInt, PositiveInt

from relaxloss import seeds
from relaxloss.data import Dataset
from relaxloss.errors import UserError, unknown
from relaxloss.specs import Spec, build, split

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Design:
    """One drawing of a game over a pool of M samples.

    Attributes:
        member: ``(R, M)`` who is in which model, a row per model.
        targets: the rows that are attacked; for each, every other usable row is a shadow.
        asked: ``(N,)`` the samples whose membership the attacker must decide.
        fit: the samples on which the attacker may fit with the help of shadows (it knows the shadows' membership).
        reference: samples in no model: a defense's surrogate attackers and RMIA's population may use them.
        test: samples on which accuracy is measured where `asked` has no fair non-members; empty: asked non-members.
        labels: ``(M,)`` the labels trained on, where they differ from the data set's (mislabelled canaries).
    """

    member: Flags
    targets: tuple[int, ...]
    asked: Indices
    fit: Indices
    reference: Indices
    test: Indices
    labels: Indices | None = None

    @property
    def several(self) -> bool:
        """Whether each asked sample is asked of several models."""
        return len(self.targets) > 1

    def members(self, row: int) -> Indices:
        """The samples that model `row` is trained on."""
        return np.flatnonzero(self.member[row])

    def shadows(self, target: int) -> tuple[int, ...]:
        """The shadows' rows when `target` is attacked."""
        return tuple(row for row in range(len(self.member)) if row != target)

    def test_of(self, row: int) -> Indices:
        """The samples on which a target's accuracy is measured: never its members."""
        return self.test if len(self.test) else self.asked[~self.member[row, self.asked]]


FEWEST = 5  # members, and non-members, of whom anything can be said


@dataclass(frozen=True)
class Game(Spec):
    """Base of the games. A subclass overrides `draw`.

    Class attributes:
        about: one line for ``relaxloss list``.
        aligned: whether shadows are trained on asked samples.
    """

    about: ClassVar[str] = ""
    aligned: ClassVar[bool] = False

    @property
    def sets_aside(self) -> bool:
        """Whether a drawing has reference samples."""
        return True

    @property
    def shadow_count(self) -> int | None:
        """How many shadows each target is attacked with; None: only a drawing tells."""
        return None

    @property
    def brief(self) -> str:
        """The spec as a string for tables: without lists of samples."""
        return str(self)

    def draw(self, labels: Indices, num_classes: int, seed: int) -> Design:
        """Who is in which model, for a pool with the given labels ``(M,)``."""
        raise NotImplementedError

    def draw_from(self, dataset: Dataset, seed: int) -> Design:
        """A drawing from a data set; where persons have several samples, of persons with all that they have."""
        if dataset.groups is None:
            return self.draw(dataset.y, dataset.num_classes, seed)
        persons, classes = dataset.persons, dataset.num_classes
        try:
            design = self._of(persons).draw(np.zeros(dataset.num_persons, np.int64), classes, seed)
        except UserError as error:
            raise UserError(
                f"{dataset.name} has {len(dataset):,} samples of {dataset.num_persons:,} persons, who count as one "
                f"sample each: {error}"
            ) from None
        asked, fit, reference, test = map(dataset.samples_of, (design.asked, design.fit, design.reference, design.test))
        shift = design.labels  # of all labels of a person, since they were 0
        labels = None if shift is None else (dataset.y + shift[persons]) % classes
        return Design(design.member[:, persons], design.targets, asked, fit, reference, test, labels)

    def _of(self, persons: Indices) -> Game:
        """The game with persons in place of the samples ``(M,)`` that it names."""
        return self


def permuted(size: int, seed: int) -> Indices:
    """A random order of ``0 .. size - 1`` from the seed's stream ``game``."""
    return seeds.rng(seed, "game").permutation(size).astype(np.int64)


def five_folds(samples: int, seed: int) -> list[Indices]:
    """The seed's partition of a pool into five equal folds; up to four samples are in none."""
    size = samples // 5
    if size < FEWEST:
        raise UserError(f"FiveFolds got {samples} samples; expected at least {5 * FEWEST}, better thousands")
    order = permuted(samples, seed)
    return [np.sort(order[k * size : (k + 1) * size]) for k in range(5)]


@dataclass(frozen=True)
class FiveFolds(Game):
    """The paper's game: five equal folds, for target-train, target-test, shadow-train, shadow-test and reference.

    The first shadow is trained on fold 3 exactly; each further one on a fresh random half of folds 3 and 4.

    Attributes:
        shadows: how many shadow models. 0 halves the cost: only attacks that need none, without their thresholds.
    """

    name: ClassVar[str] = "five_folds"
    about: ClassVar[str] = "target and shadow on folds of their own, as in the paper"
    shadows: NonNegativeInt = 1

    @property
    def shadow_count(self) -> int:
        """As many as its shadows."""
        return self.shadows

    def draw(self, labels: Indices, num_classes: int, seed: int) -> Design:
        """A random partition; up to four samples beyond a multiple of five are in no fold."""
        folds = five_folds(len(labels), seed)
        size = len(folds[0])
        member = np.zeros((1 + self.shadows, len(labels)), dtype=bool)
        member[0, folds[0]] = True
        member[1:2, folds[2]] = True
        attackers = np.sort(np.concatenate(folds[2:4]))
        for shadow in range(2, 1 + self.shadows):
            half = seeds.rng(seed, "game", "shadow", shadow).permutation(attackers)[:size]
            member[shadow, half] = True
        asked = np.sort(np.concatenate(folds[:2]))
        return Design(member, (0,), asked, attackers, folds[4], np.zeros(0, np.int64))


@dataclass(frozen=True)
class RandomHalves(Game):
    """The LiRA game: every asked sample is in each model with probability ½, independently; every model is target once.

    Independently, never exactly half: an exact balance would tell the target's membership from the shadows' counts.

    Attributes:
        models: how many models; each has the other ``models - 1`` as shadows.
        canaries: with 0, all samples but the held-out ones are asked; else only so many are, and all others are in
            every model.
        canary_kind: ``clean`` takes random samples as they are; ``mislabelled`` gives each a random wrong label;
            ``vulnerable`` takes those in `chosen` as they are.
        chosen: the places in the pool of the most vulnerable samples, as a leave-one-out pass over another run has
            found them (``relaxloss compare --canaries-from RUN``); as many as `canaries`. They are never held out.
        reference: the share of the pool that is in no model, for surrogate attackers and as RMIA's population.
        test: the share of the pool that is in no model, on which accuracy is measured.
    """

    name: ClassVar[str] = "random_halves"
    about: ClassVar[str] = "every sample is in half of the models: LiRA's game, also with canaries"
    aligned: ClassVar[bool] = True
    models: Annotated[int, Field(ge=2)] = 64
    canaries: NonNegativeInt = 0
    canary_kind: Literal["clean", "mislabelled", "vulnerable"] = "clean"
    chosen: tuple[NonNegativeInt, ...] = ()
    reference: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    test: Annotated[float, Field(gt=0, lt=0.5)] = 0.1

    @property
    def sets_aside(self) -> bool:
        """Whether a drawing has reference samples."""
        return self.reference > 0

    @property
    def shadow_count(self) -> int:
        """All other models."""
        return self.models - 1

    @property
    def brief(self) -> str:
        """As a string, with the chosen samples as a digest."""
        if not self.chosen:
            return str(self)
        digest = hashlib.sha256("/".join(map(str, self.chosen)).encode()).hexdigest()[:8]
        return f"{dataclasses.replace(self, chosen=())},chosen={digest}"

    def draw(self, labels: Indices, num_classes: int, seed: int) -> Design:
        """Held-out shares first, then a fair coin for every asked sample and model."""
        size = len(labels)
        order = permuted(size, seed)
        chosen = self._chosen(size)
        order = order[~np.isin(order, chosen)]
        reference, test, pool = np.split(order, [int(size * self.reference), int(size * (self.reference + self.test))])
        pool = np.concatenate([chosen, pool])
        asked = pool[: self.canaries] if self.canaries else pool
        if len(asked) < 2 or len(pool) < self.canaries or not len(test):
            raise UserError(
                f"RandomHalves got {size} samples, {len(pool)} of them not held out, and canaries={self.canaries}; "
                "expected at least 2 asked samples and one held out, and no more canaries than samples"
            )
        coins = seeds.rng(seed, "game", "coins").random((self.models, len(asked))) < 0.5
        member = np.zeros((self.models, size), dtype=bool)
        member[:, pool] = True
        member[:, asked] = coins
        changed = None
        if self.canaries and self.canary_kind == "mislabelled":
            if num_classes < 2:
                raise UserError("mislabelled canaries need at least 2 classes; use canary_kind=clean")
            shift = seeds.rng(seed, "game", "labels").integers(1, num_classes, len(asked))
            changed = labels.copy()
            changed[asked] = (labels[asked] + shift) % num_classes
        rows = tuple(range(self.models))
        asked, test = np.sort(asked), np.sort(test)
        return Design(member, rows, asked, asked, np.sort(reference), test, changed)

    def _of(self, persons: Indices) -> RandomHalves:
        self._chosen(len(persons))
        return dataclasses.replace(self, chosen=tuple(int(persons[place]) for place in self.chosen))

    def _chosen(self, size: int) -> Indices:
        """The places in `chosen`, if they fit a pool of `size` samples and the other fields."""
        if self.canary_kind != "vulnerable":
            if self.chosen:
                raise UserError(
                    f"RandomHalves got chosen samples and canary_kind={self.canary_kind}; only vulnerable canaries are "
                    "chosen: leave `chosen` out, or set canary_kind=vulnerable"
                )
        elif not self.chosen or len(set(self.chosen)) != self.canaries or self.canaries != len(self.chosen):
            raise UserError(
                f"RandomHalves got canaries={self.canaries} vulnerable ones, and {len(set(self.chosen))} different "
                "samples in `chosen`; expected as many: run random_halves without canaries first, and name its "
                "directory with --canaries-from"
            )
        elif max(self.chosen) >= size:
            raise UserError(
                f"RandomHalves got {max(self.chosen)} in `chosen`; expected places in this data set of {size} samples, "
                f"0 to {size - 1}: take the canaries from a run on the same data"
            )
        return np.array(self.chosen, dtype=np.int64)


@dataclass(frozen=True)
class TuningFolds(Game):
    """A game within folds 3, 4 and 5 of `FiveFolds` at the same seed: for choosing settings, never for reporting them.

    No sample of folds 1 and 2, which `FiveFolds` asks about, is in any model, asked, fitted on or set aside. The target
    is trained on fold 3, the shadow on fold 5, both as many samples as in `FiveFolds`, so that a strength chosen here
    means the same there; fold 4 is the target's test fold.

    There is no fourth fold from which the attacker could take its shadow's non-members: they are a random half of the
    asked samples. That is sound, since it sees the *shadow's* outputs on them, the shadow knows nothing of the target,
    and the half is drawn without regard to who is the target's member: whatever an attack learns of a sample by heart,
    it learns of members and non-members alike.

    Attributes:
        drawing: 0 takes the folds as they are; every other number shuffles their samples anew.
        swapped: the shadow is the target and the target the shadow: a second measurement without a training.
        reference: set a reference set aside, for defenses and attacks that need one. Then five folds are drawn within
            the three, and every model has three fifths of the samples.
    """

    name: ClassVar[str] = "tuning_folds"
    about: ClassVar[str] = "folds 3 to 5 of five_folds: what `tune` chooses on"
    drawing: NonNegativeInt = 0
    swapped: bool = False
    reference: bool = False

    @property
    def shadow_count(self) -> int:
        """One."""
        return 1

    @property
    def sets_aside(self) -> bool:
        """Whether a drawing has reference samples."""
        return self.reference

    def draw(self, labels: Indices, num_classes: int, seed: int) -> Design:
        """The roles of the folds, or of the folds within them. Row 0 is the target, or the shadow if `swapped`."""
        pool = np.concatenate(five_folds(len(labels), seed)[2:])
        count = 5 if self.reference else 3
        size = len(pool) // count
        if size < FEWEST:  # only possible with a reference set
            raise UserError(f"TuningFolds got {len(labels)} samples; expected at least 45, better thousands")
        if self.drawing or self.reference:
            pool = seeds.rng(seed, "game", "tuning", self.drawing).permutation(pool)
        folds = [np.sort(pool[k * size : (k + 1) * size]) for k in range(count)]
        member = np.zeros((2, len(labels)), dtype=bool)
        member[0, folds[0]] = True
        member[1, folds[2]] = True
        ours, theirs = (folds[2], folds[0]) if self.swapped else (folds[0], folds[2])
        if self.reference:
            own_test, other_test = (folds[3], folds[1]) if self.swapped else (folds[1], folds[3])
            asked, reference = np.concatenate([ours, own_test]), folds[4]
        else:
            asked, reference = np.concatenate([ours, folds[1]]), np.zeros(0, np.int64)
            half = seeds.rng(seed, "game", "tuning", self.drawing, "half", int(self.swapped))
            other_test = half.permutation(np.sort(asked))[:size]
        fit = np.sort(np.concatenate([theirs, other_test]))
        return Design(member, (int(self.swapped),), np.sort(asked), fit, reference, np.zeros(0, np.int64))


@dataclass(frozen=True)
class Redrawn(Game):
    """Shadows for a model that is there already: who is in each of them is drawn anew, by a coin for each person.

    The coin gives a shadow about as many members as the model has. It is tossed for every person and shadow anew, so
    that a person's shadows tell nothing of whether the model has the person, too. No target: it is attacked elsewhere.

    Attributes:
        shadows: how many.
        pool: the places of the model's members and of the samples that it was tested on.
        reference: the places of those that were set aside for its defense; they are so for the shadows'.
        share: of the pool's persons who are in a shadow on average.
    """

    name: ClassVar[str] = "redrawn"
    about: ClassVar[str] = "shadows of a model that is there already: what an audit of it trains"
    aligned: ClassVar[bool] = True
    shadows: PositiveInt
    pool: tuple[NonNegativeInt, ...]
    reference: tuple[NonNegativeInt, ...]
    share: Annotated[float, Field(gt=0, lt=1)]

    @property
    def sets_aside(self) -> bool:
        """Whether a drawing has reference samples."""
        return bool(self.reference)

    @property
    def shadow_count(self) -> int:
        """As many as its shadows."""
        return self.shadows

    @property
    def brief(self) -> str:
        """As a string, without the places."""
        return f"{self.name}:shadows={self.shadows},share={self.share:.3g}"

    def draw_from(self, dataset: Dataset, seed: int) -> Design:
        """A coin for every person of the pool and every shadow."""
        pool, reference = (np.array(each, dtype=np.int64) for each in (self.pool, self.reference))
        whose = np.unique(dataset.persons[pool], return_inverse=True)[1]
        member = np.zeros((self.shadows, len(dataset)), dtype=bool)
        member[:, pool] = coins(seeds.rng(seed, "game", "coins"), self.shadows, whose, self.share)
        return Design(member, (), pool, pool, reference, np.zeros(0, np.int64))


def coins(
    chance: np.random.Generator, shadows: int, persons: npt.NDArray[np.int64], share: float
) -> npt.NDArray[np.bool_]:
    """Which samples ``(n,)`` of the persons 0, 1, ... are in each shadow ``(K, n)``: a coin for each person decides."""
    heads = chance.random((shadows, persons.max() + 1)) < share
    return heads[:, persons]


GAMES: dict[str, type[Game]] = {game.name: game for game in (FiveFolds, RandomHalves, TuningFolds)}


def parse(given: str | Mapping[str, Any] | Game) -> Game:
    """A game from its spec: ``five_folds:shadows=4``, ``random_halves:models=32``."""
    if isinstance(given, Game):
        return given
    if not isinstance(given, (str, Mapping)):
        raise UserError(f"got the game {given!r}; expected name:field=value, such as five_folds:shadows=1")
    name, fields = split(given) if isinstance(given, str) else (str(given.get("name")), dict(given))
    if name not in GAMES:
        raise unknown("game", name, GAMES)
    return build(GAMES[name], {field: value for field, value in fields.items() if field != "name"})


GameField = Annotated[InstanceOf[Game], BeforeValidator(parse)]
