"""The experiment as a spec, and its plan: which jobs there are, under which keys."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, InstanceOf, NonNegativeInt

from relaxloss import defenses as defense_room
from relaxloss import seeds, signals, training
from relaxloss.attacks import SETS, Attack, AttackField, parse_list
from relaxloss.data import Dataset
from relaxloss.data.tabular import column_descriptions
from relaxloss.data.tabular.column_descriptions import Known
from relaxloss.defenses import NONE, Composed, Defense, DefenseField
from relaxloss.errors import MissingExtra, UserError, unknown
from relaxloss.experiments.jobs import DatasetHandle, Observation, ScoreJob, TrainJob
from relaxloss.experiments.tuned import TunedField
from relaxloss.games import Design, FiveFolds, Game, GameField
from relaxloss.specs import Read, Spec, Written, build, content_key
from relaxloss.storage.store import Store
from relaxloss.training import Recipe
from relaxloss.validation import listed

Shadows = Literal["same", "undefended", "both"]


def _recipe(given: Any) -> Any:
    return build(Recipe, given) if isinstance(given, Mapping) else given


def _read_list(given: Any, parse: Callable[[str], Any], sets: Collection[str]) -> Any:
    """A list as the command line takes it, or its items, some of which are names of sets (``paper``, ``all``)."""
    if isinstance(given, (list, tuple)) and any(isinstance(each, str) and each in sets for each in given):
        found: list[Any] = []
        for each in given:
            for one in parse(each) if isinstance(each, str) else (each,):
                if one not in found:  # sets overlap
                    found.append(one)
        return tuple(found)
    return parse(given) if isinstance(given, str) else given


_read_defenses = functools.partial(_read_list, parse=defense_room.parse_list, sets=("all",))
_read_attacks = functools.partial(_read_list, parse=parse_list, sets=(*SETS, "all"))


@dataclass(frozen=True)
class Experiment(Spec):
    """What is compared on what.

    Attributes:
        dataset: a data set's name, or the path of a user's file; ``label``, ``drop``, ``columns`` and ``group`` (see
            `relaxloss.data.load`) are for the latter.
        defenses: specs as objects, strings or dicts, or one comma-separated string; ``a+b`` composes. ``all`` stands
            for every one at its default (see `relaxloss.defenses.parse_list` for defaults that few classes allow).
        attacks: likewise; sets such as ``paper`` stand for their members, all of which the game must allow.
        game: who is in which model, `FiveFolds` or `RandomHalves`.
        recipe: None: the paper's for this kind of data.
        shadows: ``same`` (adaptive), ``undefended``, or both side by side; the same where the game has none.
        seeds: one whole repetition each: another split, other initial weights.
        level: of all intervals.
        setting: the name in `relaxloss.settings` that it was made from; empty: none.
        note: one line for whoever reads the result, such as what stands in for what. Neither is in any content key.
        tuned: for settings that were not set by hand, what chose them; a warning is raised if asked samples did.
    """

    dataset: str
    defenses: Read[
        str | Sequence[Defense | Written], Annotated[tuple[DefenseField, ...], BeforeValidator(_read_defenses)]
    ] = field(default=(NONE,))  # type: ignore[arg-type]
    attacks: Read[
        str | Sequence[Attack | Written], Annotated[tuple[AttackField, ...], BeforeValidator(_read_attacks)]
    ] = field(default_factory=functools.partial(parse_list, "blackbox"))  # type: ignore[arg-type]
    game: Read[Game | Written, GameField] = field(default_factory=FiveFolds)  # type: ignore[arg-type]
    recipe: Read[Recipe | Mapping[str, Any] | None, Annotated[InstanceOf[Recipe] | None, BeforeValidator(_recipe)]] = (
        field(default=None)  # type: ignore[arg-type]
    )
    shadows: Shadows = "both"
    seeds: tuple[NonNegativeInt, ...] = (0,)
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    label: str | None = None
    drop: tuple[str, ...] = ()
    columns: Annotated[Mapping[str, Known], BeforeValidator(column_descriptions.read)] = field(default_factory=dict)
    group: str | None = None
    setting: str = ""
    note: str = ""
    tuned: tuple[TunedField, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("defenses", "attacks", "seeds"):
            values = getattr(self, name)
            if not values:
                raise UserError(f"experiment: {name} is empty; name at least one")
            if len(set(values)) < len(values):
                twice = next(value for value in values if values.count(value) > 1)
                raise UserError(f"experiment: {twice} stands twice in {name}; keep one")

    @property
    def queries(self) -> tuple[str, ...]:
        """All queries that the attacks need; ``plain`` is always asked."""
        return queries_of(self.attacks)


def queries_of(attacks: Iterable[Attack]) -> tuple[str, ...]:
    """All queries that the attacks need, in the order of `signals.QUERIES`; ``plain`` is always asked."""
    needed = {query for attack in attacks for query in attack.needs.queries} | {"plain"}
    return tuple(name for name in signals.QUERIES if name in needed)


def unmet(attack: Attack, game: Game) -> str:
    """What the attack needs and the game does not give; empty if nothing."""
    if attack.needs.aligned and not game.aligned:
        return "shadows trained on asked samples (the game random_halves has them)"
    if attack.needs.population and not game.sets_aside:
        return "reference samples that are in no model (give the game a reference share)"
    if game.shadow_count is not None and attack.needs.shadows > game.shadow_count:
        some = "a shadow" if attack.needs.shadows == 1 else f"{attack.needs.shadows} shadows"
        return f"{some} or more (the game has {game.shadow_count})"
    return ""


def attacks_for(text: str, game: Game) -> tuple[tuple[Attack, ...], list[str]]:
    """The attacks of a list, of its sets (``all``, ...) only those that the game allows; and what was left out, why."""
    taken = parse_list(text, lambda attack: not unmet(attack, game))
    rest = [attack for attack in parse_list(text) if attack not in taken]
    return taken, [f"attack {attack} is left out: it needs {unmet(attack, game)}" for attack in rest]


@dataclass(frozen=True)
class Scored:
    """One attack's stored scores: which defense's targets, which shadows, which seed, and the key."""

    defense: Defense
    adaptive: bool
    seed: int
    attack: Attack
    key: str


class Plan:
    """All jobs of an experiment on a data set, with their keys; nothing has run yet."""

    def __init__(self, experiment: Experiment, dataset: Dataset, reference: Dataset | DatasetHandle) -> None:
        self.experiment, self.dataset, self.reference = experiment, dataset, reference
        self.recipe = experiment.recipe or Recipe.default(dataset)
        self.recipe.check()
        for attack in experiment.attacks:
            if strange := set(attack.needs.queries) - set(signals.QUERIES):
                raise unknown(f"query that attack {attack} needs", min(strange), signals.QUERIES)
            if lacking := unmet(attack, experiment.game):
                raise UserError(f"attack {attack} cannot run in the game {experiment.game.brief}: it needs {lacking}")
        self.designs = {seed: experiment.game.draw_from(dataset, seed) for seed in experiment.seeds}
        for defense in experiment.defenses:
            _installed(defense)
            defense.check(dataset.num_classes)
            for design in self.designs.values():
                if defense.needs_reference() and not len(design.reference):
                    raise UserError(
                        f"{defense} needs a reference set, but the game {experiment.game.brief} sets none aside"
                    )
        self.modes = {"same": (True,), "undefended": (False,), "both": (False, True)}[experiment.shadows]
        if experiment.game.shadow_count == 0:
            self.modes = (False,)  # nothing was trained with the target's defense

    def only(self, defenses: tuple[Defense, ...], attacks: tuple[Attack, ...]) -> Plan:
        """The plan of some of its defenses and attacks."""
        return Plan(replace(self.experiment, defenses=defenses, attacks=attacks), self.dataset, self.reference)

    def observed(self, store: Store) -> Plan | None:
        """The plan of the defenses whose models are observed in the store, and attacks whose queries all answered.

        If some query failed for every attack, it is that of the defenses on which none failed. None: nothing is left.
        """
        missing = {(each.defense, each.query) for job in self.train_jobs(store)[0] for each in job.observations}
        shadows = {query for defense, query in missing if defense == NONE and False in self.modes}
        lacks = {each: shadows | {query for of, query in missing if of == each} for each in self.experiment.defenses}
        sound = tuple(each for each in lacks if "plain" not in lacks[each])
        attacks = tuple(
            each for each in self.experiment.attacks if not any(lacks[of] & set(each.needs.queries) for of in sound)
        )
        if not attacks:
            sound, attacks = tuple(each for each in sound if not lacks[each]), self.experiment.attacks
        return self.only(sound, attacks) if sound else None

    def asking(self, query: str) -> str:
        """The query, and for which attacks it is asked, in words."""
        needing = [str(attack) for attack in self.experiment.attacks if query in attack.needs.queries]
        return f"query {query} (needed by {listed(needing, 4) if needing and query != 'plain' else 'all attacks'})"

    def train_key(self, trainer: Defense, seed: int, row: int) -> str:
        """The content key of one training."""
        design = self.designs[seed]
        return content_key(
            "train",
            training.VERSION,
            data=self.dataset.fingerprint,
            members=_digest(design.members(row)),
            reference=_digest(design.reference),
            labels=_digest(design.labels),
            defense=trainer,
            recipe=self.recipe,
            seed=seeds.seed(seed, "model", row),
        )

    def signal_keys(self, defense: Defense, seed: int, row: int) -> dict[str, str]:
        """The content keys of one model's observations, by query."""
        train_key = self.train_key(defense.trainer, seed, row)
        return {
            query: content_key("signals", signals.VERSION, model=train_key, defense=defense, query=query)
            for query in self.experiment.queries
        }

    def train_jobs(self, store: Store) -> tuple[list[TrainJob], int]:
        """One job per distinct training that is, or whose observations are, not yet in the store; how many are."""
        wanted: dict[str, tuple[Defense, int, int, dict[str, Observation]]] = {}
        for seed, design in self.designs.items():
            for defense, row in self._observed(design):
                key = self.train_key(defense.trainer, seed, row)
                entry = wanted.setdefault(key, (defense.trainer, seed, row, {}))
                for query, signal_key in self.signal_keys(defense, seed, row).items():
                    entry[3][signal_key] = Observation(signal_key, defense, query)
        found = []
        for key, (trainer, seed, row, observations) in wanted.items():
            missing = tuple(o for o in observations.values() if not store.has("signals", o.key))
            stored = store.root.resolve() if store.has("train", key) else None
            if stored is None or missing:
                found.append(
                    TrainJob(
                        key, self.reference, self.experiment.game, seed, row, trainer, self.recipe, missing, stored,
                        store.scratch(key).absolute(),
                    )
                )  # fmt: skip
        found.sort(key=lambda job: -job.work)  # the longest first, so that no core is left with one at the end
        return found, len(wanted) - len(found)

    def _observed(self, design: Design) -> Iterator[tuple[Defense, int]]:
        """The releases to observe, defense by defense: targets and, as the modes ask, shadows."""
        for defense in self.experiment.defenses:
            for row in range(len(design.member)):
                if row in design.targets or True in self.modes:
                    yield defense, row
        if False in self.modes:
            yield from ((NONE, row) for row in _shadow_rows(design))

    def score_jobs(self, store: Store) -> tuple[list[ScoreJob], list[Scored]]:
        """The jobs for scores not yet in the store, and all scores there will be."""
        wanted, listed = [], []
        for seed, design in self.designs.items():
            for defense in self.experiment.defenses:
                for adaptive in self.modes:
                    shadow = defense if adaptive else NONE
                    targets = {row: self._keys(defense, seed, row) for row in design.targets}
                    shadows = {row: self._keys(shadow, seed, row) for row in _shadow_rows(design)}
                    scored = [
                        Scored(defense, adaptive, seed, attack, self._score_key(attack, defense, shadow, seed))
                        for attack in self.experiment.attacks
                    ]
                    listed += scored
                    missing = tuple((item.key, item.attack) for item in scored if not store.has("scores", item.key))
                    if missing:
                        wanted.append(
                            ScoreJob(
                                store.root.resolve(),
                                self.reference,
                                self.experiment.game,
                                seed,
                                targets,
                                shadows,
                                missing,
                            )
                        )
        return wanted, listed

    def _keys(self, defense: Defense, seed: int, row: int, queries: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The keys of a model's observations; of the given queries only, if any are given."""
        keys = self.signal_keys(defense, seed, row)
        return tuple(keys[query] for query in keys if not queries or query in queries)

    def _score_key(self, attack: Attack, defense: Defense, shadow: Defense, seed: int) -> str:
        """The content key of one attack's scores: what it saw, and whom it was asked about."""
        design = self.designs[seed]
        queries = ("plain", *attack.needs.queries)
        return content_key(
            "scores",
            1,
            attack=attack,
            targets={row: self._keys(defense, seed, row, queries) for row in design.targets},
            shadows={row: self._keys(shadow, seed, row, queries) for row in _shadow_rows(design)},
            asked=_digest(design.asked),
            fit=_digest(design.fit),
            seed=seed,
        )


def _installed(defense: Defense) -> None:
    """A clear error before the first training if a defense needs an optional extra that is not there."""
    for part in defense.parts if isinstance(defense, Composed) else (defense,):
        if not part.installed:
            raise MissingExtra(str(part), part.name)


def _shadow_rows(design: Design) -> list[int]:
    """The rows that are a shadow of some target."""
    return [row for row in range(len(design.member)) if any(row != target for target in design.targets)]


def _digest(array: Any) -> str:
    return "" if array is None else hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:24]
