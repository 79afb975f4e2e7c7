"""scikit-learn: audit a fitted estimator, with shadows fitted as it was; and train with a defense as an estimator.

What has ``fit``, ``predict_proba`` and ``get_params`` is an estimator here: scikit-learn's own, pipelines and searches
of them, and the classifiers of XGBoost, LightGBM and others that follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from relaxloss import seeds, validation
from relaxloss.attacks import Attack
from relaxloss.auditing import audit, predictions
from relaxloss.auditing import shadows as shadow_jobs
from relaxloss.auditing.audit import Audit
from relaxloss.auditing.predictions import Predictions
from relaxloss.compute.engine import Engine
from relaxloss.data import from_frame
from relaxloss.defenses import Defense
from relaxloss.errors import UserError
from relaxloss.evaluation import comparability
from relaxloss.signals import TWICE
from relaxloss.specs import build
from relaxloss.trained import Trained, train
from relaxloss.training.task import Recipe

Fit = Callable[[Any, npt.NDArray[np.int64]], object]
AGREE = 0.5  # share of the samples on which the largest value and the prediction must be one class's


def audit_estimator(
    estimator: Any,
    x_train: Any,
    y_train: npt.ArrayLike,
    x_test: Any,
    y_test: npt.ArrayLike,
    *,
    fit: Fit | None = None,
    shadows: int = 0,
    groups: npt.ArrayLike | None = None,
    attacks: str | Sequence[Attack | str] = "all",
    engine: Engine | None = None,
    name: str | None = None,
    coin_flips: bool = False,
    guesses: int | None = None,
    delta: float = 0.0,
    level: float = 0.95,
    seed: int = 0,
) -> Audit:
    """Audit a fitted classifier: the samples that it was fitted on against samples that it was not.

    Shadows are not kept: an audit that is cut off starts again.

    Args:
        estimator: what was fitted on `x_train` and `y_train`, all of them. Its ``predict_proba`` is asked, or, if it
            has none, its ``decision_function``, whose values are taken as logits.
        x_train: the members: an array, a sparse matrix or a pandas DataFrame, as the estimator takes it.
        y_train: ``(n,)`` their classes.
        x_test: the non-members, from the same population. Samples that the estimator was chosen on are none.
        y_test: ``(m,)`` theirs.
        fit: ``fit(clone, places)`` fits a clone of the estimator on the samples at these `places` of the n + m, the
            members' first, as it was fitted itself: with weights of samples, for one. None: by its own ``fit``, with
            samples and classes alone.
        shadows: how many clones of the estimator are fitted, each on those of all n + m samples that a coin chooses, on
            average n, in a random order, with random numbers of its own for every parameter ``random_state``. 16 or
            more tell something; with a fifth of the samples in the test, 32. 0: none, and attacks that need shadows are
            listed as not measured.
        groups: ``(n + m,)`` whose sample each is, the members' first, where persons have several (`relaxloss.audit`). A
            shadow is then fitted on all samples of a person or on none.
        attacks: as in `relaxloss.auditing.audit.run`, as are `coin_flips`, `guesses`, `delta` and `level`.
        engine: where the shadows are fitted.
        name: what the model is called in the report; None: the estimator's class.
        seed: of the shadows, of the halves, and of attacks that draw random numbers.

    Raises:
        UserError: the estimator is not fitted or no classifier; its answers, the samples and the labels do not fit each
            other; or a shadow cannot be fitted, or would not be a new one.
    """
    classes = _classes(estimator)
    shadow_jobs.check_count(shadows)
    if rest := _kept_back(estimator):
        raise UserError(
            f"{rest:,} of the samples that the estimator was fitted on are its defense's reference and no members; "
            "expected that all are: train with relaxloss.train, and audit with relaxloss.audit_model"
        )
    chosen = audit.chosen_of(attacks)
    x, n = _stacked(x_train, x_test)
    y = np.concatenate([validation.column(y_train, n, "y_train"), validation.column(y_test, x.shape[0] - n, "y_test")])
    if not (fits := np.isin(y, classes)).all():
        strange, known = (validation.listed(map(repr, each.tolist())) for each in (np.unique(y[~fits]), classes))
        raise UserError(
            f"the labels hold {strange}, which the estimator was not fitted on; expected {known}: leave these samples "
            "out, or give the labels as in the fit"
        )
    whole = classes.dtype.kind == "f" and (classes == np.floor(classes)).all()  # what sklearn makes of nullable ones
    names = (classes.astype(np.int64) if whole else classes).astype(str)
    labels = names[_places(y, classes)]
    member = np.arange(len(y)) < n
    kind = "probs" if hasattr(estimator, "predict_proba") else "logits"
    outputs = _answers(estimator, x, classes)
    if kind == "logits":
        _agree(estimator, x, classes[outputs.argmax(axis=1)])

    def taken(shadows: Any) -> Predictions:
        return predictions.of_groups(
            {kind: (outputs[member], outputs[~member])},
            (labels[member], labels[~member]),
            shadows=shadows,
            classes=names.tolist(),
            groups=groups,
        )

    found = taken(None)  # before the shadows, which cost something
    jobs = _drawn(_Job(estimator, x, y, member, classes, seed, fit), found.persons, shadows) if shadows else []
    done = shadow_jobs.fitted(engine or Engine(), _shadow, jobs, len(y))
    if done.results:
        found = taken((np.stack(done.results), done.member))
    asked = "predict_proba" if kind == "probs" else "decision_function, whose values were taken as logits"
    notes = [*found.notes, f"The model is a fitted {type(estimator).__name__}; it was asked by {asked}."]
    how = "without weights of samples or other arguments" if fit is None else "by the given function"
    notes += done.notes(f"are clones of it, fitted {how} on")
    once, again = (_answers(estimator, _rows(x, np.arange(min(TWICE, len(y)))), classes) for _ in range(2))
    facts: dict[str, Any] = {"changed_on_repeat": float((once != again).any(axis=1).mean())}
    if (rows := _digests(x)) is not None:
        facts["copies"] = comparability.copied_rows(rows, found.labels, np.flatnonzero(member), np.flatnonzero(~member))
    return audit.run(
        replace(found, notes=tuple(notes)),
        name=name or type(estimator).__name__, attacks=chosen, adaptive=True, coin_flips=coin_flips, guesses=guesses,
        delta=delta, level=level, seed=seed, known=facts,
        evidence=replace(audit.evidence_of(found, seed), x=_numbers(x)),
    )  # fmt: skip


class DefendedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """A network trained with a defense, as pipelines, searches and cross-validation take it: `relaxloss.train`.

    >>> model = DefendedClassifier("relaxloss:alpha=0.5")
    >>> # model.fit(x, y).predict_proba(x); GridSearchCV(model, {"defense": ["none", "relaxloss:alpha=0.5"]})

    A DataFrame's text, dates and missing values are understood as `relaxloss.data.from_frame` does; an array holds
    numbers, NaN where one is missing. There are no weights of samples, and each row counts as a person.

    Args:
        defense: as on the command line, with its fields, or an object; a search varies it as a whole.
        recipe: how the network is trained, or a mapping of the recipe's fields; None: the paper's for tables.
        reference: the share of the samples that is kept from the network for a defense that needs some; None: 0.2 for
            these, else 0.
        random_state: the seed of split, initial weights and order; a whole number.

    Attributes:
        classes_: the classes in sorted order, as the columns of ``predict_proba`` are.
        n_features_in_: D.
        trained_: the `relaxloss.trained.Trained`, to ``save``.
    """

    classes_: npt.NDArray[Any]
    trained_: Trained

    def __init__(
        self,
        defense: Defense | str = "relaxloss",
        *,
        recipe: Recipe | Mapping[str, Any] | None = None,
        reference: float | None = None,
        random_state: int = 0,
    ) -> None:
        self.defense, self.recipe, self.reference, self.random_state = defense, recipe, reference, random_state

    def __sklearn_tags__(self) -> Any:
        """NaN marks a missing value."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, X: Any, y: npt.ArrayLike) -> DefendedClassifier:
        """Train on the rows ``(n, D)`` with the classes ``(n,)``; all are members but for the reference's share."""
        if not isinstance(self.random_state, (int, np.integer)):
            raise UserError(
                f"got random_state={self.random_state!r}; expected a whole number, as a training is repeatable"
            )
        frame, y = self._table(X, y, reset=True)
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        label = "label"
        while label in frame.columns:
            label = f"{label}_"
        data = from_frame(frame.assign(**{label: labels}), label=label, name=type(self).__name__)
        self.classes_ = np.unique(labels)
        recipe = build(Recipe, self.recipe) if isinstance(self.recipe, Mapping) else self.recipe
        self.trained_ = train(
            data, self.defense, recipe=recipe, seed=int(self.random_state), test=0.0, reference=self.reference
        )
        return self

    def _table(self, x: Any, y: Any = "no_validation", *, reset: bool) -> tuple[pd.DataFrame, Any]:
        """A table, and y. What has no names has those of the fit, by position, and in the fit 0, 1, ..."""
        framed = isinstance(x, pd.DataFrame)
        found = validate_data(
            self, x, y, reset=reset, skip_check_array=framed,
            **({} if framed else {"ensure_all_finite": "allow-nan", "ensure_min_samples": 2 if reset else 1}),
        )  # fmt: skip
        x, y = (found, None) if isinstance(y, str) else found
        if reset:
            return x if framed else pd.DataFrame(x, columns=[str(place) for place in range(x.shape[1])]), y
        names = [column[0] for column in self.trained_.card["columns"]]
        if not framed:
            return pd.DataFrame(x, columns=names), y
        return x if {*map(str, x.columns)} == set(names) else x.set_axis(names, axis=1), y

    def predict_log_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Log-probabilities ``(n, C)``, as the released model gives them."""
        check_is_fitted(self, "trained_")
        return self.trained_.predict_log_proba(self._table(X, reset=False)[0])

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Probabilities ``(n, C)``."""
        probabilities: npt.NDArray[np.float64] = np.exp(self.predict_log_proba(X))
        return probabilities

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The most probable class of each row ``(n,)``."""
        places = self.predict_log_proba(X).argmax(axis=1)
        chosen: npt.NDArray[Any] = self.classes_[places]
        return chosen


@dataclass(frozen=True, eq=False)
class _Job:
    """One model: the estimator is fitted (by `fit`, if given) on `member` ``(N,)``, and asked about all samples."""

    estimator: Any
    x: Any
    y: npt.NDArray[Any]
    member: npt.NDArray[np.bool_]
    classes: npt.NDArray[Any]
    seed: int
    fit: Fit | None


def _drawn(target: _Job, persons: npt.NDArray[np.int64], shadows: int) -> list[_Job]:
    """The shadows of a target: a coin for each person decides, so that on average they have as many samples as it."""
    estimator = target.estimator
    try:
        fresh = replace(target, estimator=clone(estimator))
    except TypeError as error:
        raise UserError(f"the estimator cannot be cloned as scikit-learn does it, for shadows: {error}") from None
    parts = {"the estimator": estimator} | fresh.estimator.get_params()
    frozen = [
        key
        for key, part in parts.items()
        if isinstance(part, FrozenEstimator) or (isinstance(part, str) and part == "prefit")
    ]
    if frozen:
        raise UserError(
            f"{validation.listed(frozen)} is fitted beforehand, and a shadow would hold what the target's members "
            "taught it; expected an estimator that is fitted as a whole: give it unfitted parts, or shadows=0"
        )
    drawn = shadow_jobs.drawn(target.seed, shadows, persons, target.member)
    return [replace(fresh, member=member, seed=seed) for member, seed in drawn]


def _shadow(job: _Job) -> npt.NDArray[np.float64]:
    """What one answers ``(N, C)``."""
    model = clone(job.estimator)  # in one process, jobs share it
    states = [name for name in model.get_params() if name.split("__")[-1] == "random_state"]
    model.set_params(**{name: seeds.seed(job.seed, name) % 2**31 for name in states})
    rows = shadow_jobs.rows(job.member, job.seed)
    if job.fit is not None:
        job.fit(model, rows)
    else:
        model.fit(_rows(job.x, rows), job.y[rows])
    return _answers(model, job.x, job.classes)


def _classes(estimator: Any) -> npt.NDArray[Any]:
    """The classes of a fitted classifier, in the order of its answers' columns."""
    classes = getattr(estimator, "classes_", None)
    asked = hasattr(estimator, "predict_proba") or hasattr(estimator, "decision_function")
    if not isinstance(classes, np.ndarray) or classes.ndim != 1 or not asked:
        raise UserError(
            f"got {type(estimator).__name__}, which has no classes_, or neither predict_proba nor decision_function; "
            "expected a fitted classifier of one label: call fit first"
        )
    return classes


def _kept_back(estimator: Any) -> int:
    """How many samples a `DefendedClassifier` kept as a reference; also at the end of a pipeline, or of a search."""
    inner = getattr(estimator, "best_estimator_", estimator)
    inner = inner[-1] if isinstance(inner, Pipeline) else inner
    return len(inner.trained_.split["reference"]) if isinstance(inner, DefendedClassifier) else 0


def _places(values: npt.NDArray[Any], classes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Where the values stand among the classes, which may be in any order."""
    order = np.argsort(classes)
    places: npt.NDArray[np.int64] = order[np.searchsorted(classes, values, sorter=order)]
    return places


def _agree(estimator: Any, x: Any, first: npt.NDArray[Any]) -> None:
    """Refuse values that are no class's: of three classes there are three pairs, too."""
    said = np.asarray(estimator.predict(x.copy()))
    if (share := (said == first).mean()) < AGREE:
        raise UserError(
            f"the largest value of {type(estimator).__name__}'s decision_function is that of the predicted class in "
            f"{share:.0%} of the samples only; expected one column per class (of an SVC: decision_function_shape='ovr')"
        )


def _answers(estimator: Any, x: Any, classes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Probabilities or logits ``(N, C)``; of a class that the estimator never saw 0, or -inf.

    It is asked with a copy, for a step may write into what it is given.
    """
    if hasattr(estimator, "predict_proba"):
        outputs, never = np.asarray(estimator.predict_proba(x.copy()), np.float64), 0.0
    else:
        outputs, never = np.asarray(estimator.decision_function(x.copy()), np.float64), -np.inf
        if outputs.ndim == 1:  # of two classes: the log-odds of the second
            outputs = np.column_stack([np.zeros(len(outputs)), outputs])
    own = _classes(estimator)
    if outputs.shape != (x.shape[0], len(own)):
        raise UserError(
            f"{type(estimator).__name__} answers {outputs.shape}; expected ({x.shape[0]}, {len(own)}), one column per "
            "class (of an SVC: decision_function_shape='ovr')"
        )
    found = np.full((len(outputs), len(classes)), never)
    found[:, _places(own, classes)] = outputs
    return found


def _stacked(train: Any, test: Any) -> tuple[Any, int]:
    """The rows of both, one after the other, and how many the first has."""
    kinds = [_kind(each) for each in (train, test)]
    if kinds[0] != kinds[1]:
        raise UserError(f"got x_train {kinds[0]} and x_test {kinds[1]}; expected both of one kind")
    if isinstance(train, pd.DataFrame):
        if list(train.columns) != list(test.columns):
            raise UserError("x_train and x_test have different columns; expected the same in the same order")
        pairs = zip(train.columns, train.dtypes, test.dtypes, strict=True)
        if apart := [f"{name} ({one}, {other})" for name, one, other in pairs if not _joins(one, other)]:
            raise UserError(
                f"x_train and x_test hold columns of different types: {validation.listed(apart)}; expected the same, "
                "as categories too: x_test.astype(x_train.dtypes)"
            )
        return pd.concat([train, test], ignore_index=True), len(train)
    if scipy.sparse.issparse(train):
        parts: list[Any] = [train, test]
        return scipy.sparse.vstack(parts).tocsr(), parts[0].shape[0]
    first, second = validation.as_array(train, "x_train"), validation.as_array(test, "x_test")
    if first.ndim < 1 or first.shape[1:] != second.shape[1:] or not _joins(first.dtype, second.dtype):
        raise UserError(
            f"got x_train {first.dtype} {first.shape} and x_test {second.dtype} {second.shape}; expected rows of one "
            "kind and length"
        )
    return np.concatenate([first, second]), len(first)


def _kind(x: Any) -> str:
    if x is None:
        return "None"
    if isinstance(x, pd.DataFrame):
        return "a DataFrame"
    return "a sparse matrix" if scipy.sparse.issparse(x) else "an array"


def _joins(one: Any, other: Any) -> bool:
    """Whether columns of both types are one column, in which each value is what it was."""
    plain = isinstance(one, np.dtype) and isinstance(other, np.dtype)
    return bool(one == other) or (plain and any({one.kind, other.kind} <= set(kinds) for kinds in ("iuf", "OU")))


def _rows(x: Any, places: npt.NDArray[np.int64]) -> Any:
    return x.iloc[places] if isinstance(x, pd.DataFrame) else x[places]


def _numbers(x: Any) -> npt.NDArray[np.float32] | None:
    """The rows as numbers ``(N, D)``, categories as codes, NaN where there is none; None of what has no columns."""
    if scipy.sparse.issparse(x) or (not isinstance(x, pd.DataFrame) and (x.ndim < 2 or x.dtype.kind not in "fiub")):
        return None
    if not isinstance(x, pd.DataFrame):
        return _finite(x.reshape(len(x), -1))
    columns = [
        x.iloc[:, place].to_numpy(np.float32, na_value=np.nan)
        if pd.api.types.is_numeric_dtype(x.dtypes.iloc[place])
        else pd.factorize(x.iloc[:, place].astype(str), sort=True)[0].astype(np.float32)
        for place in range(x.shape[1])
    ]
    return _finite(np.column_stack(columns)) if columns else None


def _finite(table: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        numbers = table.astype(np.float32)
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers


def _digests(x: Any) -> npt.NDArray[Any] | None:
    """Something ``(N, ...)`` that is equal where rows are; None where that cannot be told."""
    if scipy.sparse.issparse(x):
        return None
    if not isinstance(x, pd.DataFrame):
        return None if x.dtype == object else np.asarray(x)
    try:
        return pd.util.hash_pandas_object(x, index=False).to_numpy()
    except TypeError:  # of lists in cells
        return None
