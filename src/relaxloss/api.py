"""The verbs that join the rooms: compare = run + report, tune = search + report."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

from relaxloss import defenses, report, tuning
from relaxloss.compute.engine import Engine
from relaxloss.data import Dataset
from relaxloss.defenses import Defense
from relaxloss.experiments.run import Experiment, ProgressListener, Result, load_data, run
from relaxloss.report.tuning import page
from relaxloss.storage import directories
from relaxloss.training.task import Recipe
from relaxloss.tuning import Objective, Tuning


def compare(
    experiment: Experiment,
    out: Path | str,
    *,
    data: Dataset | None = None,
    engine: Engine | None = None,
    watch: ProgressListener | None = None,
    store: Path | str | None = None,
    overwrite: bool = False,
) -> Result:
    """Run an experiment, write its table, charts and page under `out`, and return the result.

    What is in the store already is not computed again, so that a killed run resumes.

    Args:
        experiment: what is compared on what.
        out: the run's directory.
        data: a data set in memory, in place of ``experiment.dataset``'s.
        engine: where the jobs run.
        watch: who is told of the progress.
        store: where models and scores rest; ``out/store`` if left out. Runs that share one train nothing twice, and run
            one after the other.
        overwrite: replace what is in `out`, though it holds defenses, attacks or seeds that this experiment lacks, or
            is of other data or another command.
    """

    def before(there: dict[str, Any]) -> str:
        dataset = data if data is not None else load_data(experiment)
        recipe = experiment.recipe or Recipe.default(dataset)
        return report.lost(there, experiment=experiment, fingerprint=dataset.fingerprint, recipe=recipe.settings())

    directories.keep(Path(out), "compare", before, overwrite)
    result = run(experiment, out, data=data, engine=engine, watch=watch, store=store)
    facts = result.facts
    after = functools.partial(
        report.lost, experiment=_held(experiment, facts["experiment"]), fingerprint=facts["fingerprint"],
        recipe=facts["experiment"]["recipe"],
    )  # fmt: skip
    directories.keep(Path(out), "compare", after, overwrite)  # another run may have ended here meanwhile
    report.save(result, Path(out))
    return result


def _held(experiment: Experiment, facts: dict[str, Any]) -> Experiment:
    """The part of the experiment that its result is of: after failures less than was asked for."""
    asked = experiment.settings()
    kept: dict[str, Any] = {}
    for name in ("defenses", "attacks"):
        pairs = zip(getattr(experiment, name), asked[name], strict=True)
        kept[name] = tuple(each for each, settings in pairs if settings in facts[name])
    return replace(experiment, **kept)


def tune(
    on: Experiment | Dataset | str,
    *,
    out: Path | str,
    defense: Defense | str = "relaxloss",
    max_auc: float | None = None,
    max_tpr: float | None = None,
    fpr: float = 0.01,
    keep_accuracy: float | None = None,
    field: str | None = None,
    low: float | None = None,
    high: float | None = None,
    settings: int = tuning.SETTINGS,
    repeats: int = 1,
    data: Dataset | None = None,
    engine: Engine | None = None,
    watch: ProgressListener | None = None,
    overwrite: bool = False,
) -> Tuning:
    """Choose a defense's strength on folds that the final evaluation never asks about, and write down what chose it.

    Give exactly one of `max_auc`, `max_tpr` and `keep_accuracy`; see `relaxloss.tuning.Objective`.

    Args:
        on: a data set, its name, or an experiment: its attacks, recipe and only seed are taken, and its defenses stand
            beside the chosen one in the final comparison.
        out: the tuning's directory; what is in ``out/store`` already is not computed again.
        defense: the defense, with the fields that stay as they are.
        max_auc: the most accurate setting whose strongest adaptive attack has at most this AUC.
        max_tpr: the same for its true-positive rate at the false-positive rate `fpr`.
        keep_accuracy: the least leaky setting that loses at most this share of accuracy to no defense.
        field: the field to search, if it is not the only one that the defense's sweep varies.
        low: the range's lower end, if not the sweep's.
        high: the range's upper end, if not the sweep's.
        settings: how many are tried at most.
        repeats: how many drawings of the tuning folds each is measured in.
        data: a data set in memory, in place of the experiment's.
        engine: where the jobs run.
        watch: who is told of the progress.
        overwrite: replace another tuning that is in `out`.

    Raises:
        UserError: see `relaxloss.tuning.tune`. That no setting meets the bound is none: see ``Tuning.met``.
    """
    if isinstance(on, Dataset):
        data, experiment = on, Experiment(on.name)
    else:
        experiment = on if isinstance(on, Experiment) else Experiment(on)
    objective = Objective(max_auc, max_tpr, keep_accuracy, fpr)
    options: dict[str, Any] = {"field": field, "low": low, "high": high, "repeats": repeats}
    other = functools.partial(
        page.lost, experiment=experiment, data=data, defense=defenses.parse(defense), objective=objective, **options
    )
    directories.keep(Path(out), "tune", other, overwrite)
    found = tuning.tune(
        experiment, out, defense=defense, objective=objective, field=field, low=low,
        high=high, settings=settings, repeats=repeats, data=data, engine=engine, watch=watch,
    )  # fmt: skip
    page.save(found, Path(out))
    return found
