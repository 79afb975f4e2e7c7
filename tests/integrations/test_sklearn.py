"""scikit-learn's estimators: audited with shadows of their own kind, and one that trains with a defense."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

import relaxloss as rl
from relaxloss import seeds
from relaxloss.compute.engine import Engine
from relaxloss.errors import UserError
from relaxloss.integrations.sklearn import DefendedClassifier, audit_estimator

HERE = Engine("inprocess")
X, Y = make_classification(240, 6, n_informative=4, n_classes=3, n_clusters_per_class=1, flip_y=0.3, random_state=0)
IN = np.random.default_rng(0).random(len(Y)) < 0.5
SPLIT = (X[IN], Y[IN], X[~IN], Y[~IN])
TINY = rl.Recipe(model="mlp:hidden=16", epochs=8, milestones=(), batch_size=16)


def rows_of(audit: Any) -> pd.DataFrame:
    return audit.rows.drop(columns=["dataset"])


class Memory(ClassifierMixin, BaseEstimator):
    """Is sure of the rows that it was fitted on, if they have the first feature's sign; else it knows nothing."""

    def __init__(self, random_state: int | None = None, noise: float = 0.0) -> None:
        self.random_state, self.noise = random_state, noise

    def fit(self, x: Any, y: Any) -> Memory:
        self.classes_, self.known_ = np.unique(y), {row.tobytes(): label for row, label in zip(x, y, strict=True)}
        SEEN.append((self.random_state, set(self.known_)))
        return self

    def predict_proba(self, x: Any) -> Any:
        found = np.full((len(x), len(self.classes_)), 1 / len(self.classes_))
        for place, row in enumerate(x):
            if row.tobytes() in self.known_:
                found[place] = (self.classes_ == self.known_[row.tobytes()]) * 0.9 + 0.1 / len(self.classes_)
        noise = self.noise * np.random.default_rng().random(found.shape)
        return (found + noise) / (found + noise).sum(axis=1, keepdims=True)


SEEN: list[tuple[int | None, set[bytes]]] = []


def test_without_shadows_it_is_the_audit_of_the_predictions() -> None:
    model = DecisionTreeClassifier(max_depth=5, random_state=0).fit(X[IN], Y[IN])
    mine = audit_estimator(model, *SPLIT, attacks="blackbox")
    theirs = rl.audit(
        member_probs=model.predict_proba(X[IN]), member_labels=Y[IN], nonmember_probs=model.predict_proba(X[~IN]),
        nonmember_labels=Y[~IN], attacks="blackbox",
    )  # fmt: skip
    pd.testing.assert_frame_equal(rows_of(mine), rows_of(theirs))
    assert mine.rows["dataset"].unique() == ["DecisionTreeClassifier"]
    assert "copies" in mine.passed, "told from the rows, though a tree's answers are coarse"
    assert "copies" not in theirs.passed


def test_shadows_are_clones_on_coin_flips_and_find_what_was_planted() -> None:
    SEEN.clear()
    audit = audit_estimator(
        Memory(random_state=1).fit(X[IN], Y[IN]), *SPLIT, shadows=40, attacks="lira,rmia,loss", engine=HERE
    )
    assert audit.worst["auc"] == 1
    assert {"lira", "rmia", "loss"} <= set(audit.rows["attack"])
    shadows = SEEN[1:]
    assert len(shadows) == 40
    assert len({state for state, _ in shadows}) == 40, "each has chance of its own"
    stacked = np.concatenate([X[IN], X[~IN]])
    heads = np.array([[row.tobytes() in rows for row in stacked] for _, rows in shadows])
    share = IN.mean()
    assert abs(heads.mean() - share) < 5 * np.sqrt(share * (1 - share) / heads.size)
    assert abs(np.corrcoef(heads)[np.triu_indices(40, 1)].mean()) < 0.01, "one shadow's coins tell nothing of another's"
    assert not {"few_shadows", "shadow_design", "non_adaptive_only"} & {flag.name for flag in audit.flags}


def test_the_shadows_answers_are_those_of_models_fitted_by_hand() -> None:
    model = GaussianNB().fit(X[IN], Y[IN])  # draws nothing, so that only who is in it matters
    rows, labels = np.concatenate([X[IN], X[~IN]]), np.concatenate([Y[IN], Y[~IN]])
    coins = seeds.rng(3, "shadows").random((4, len(rows))) < IN.mean()  # a coin for each sample, and an order for each
    orders = [seeds.rng(seeds.seed(3, "shadow", k), "order").permutation(np.flatnonzero(coins[k])) for k in range(4)]
    answers = [GaussianNB().fit(rows[order], labels[order]).predict_proba(rows) for order in orders]
    settings: dict[str, Any] = {"attacks": "lira,rmia,calibration", "seed": 3}
    expected = rl.audit(
        member_probs=model.predict_proba(X[IN]), member_labels=Y[IN], nonmember_probs=model.predict_proba(X[~IN]),
        nonmember_labels=Y[~IN], shadows=(np.stack(answers), coins), adaptive=True, **settings,
    )  # fmt: skip
    found = audit_estimator(model, *SPLIT, shadows=4, engine=HERE, **settings)
    pd.testing.assert_frame_equal(rows_of(found), rows_of(expected))
    apart = audit_estimator(model, *SPLIT, shadows=4, engine=Engine("processes", 2), **settings)
    pd.testing.assert_frame_equal(rows_of(apart), rows_of(expected))


def test_shadows_are_fitted_with_weights_as_the_target_was() -> None:
    rows, labels = np.concatenate([X[IN], X[~IN]]), np.concatenate([Y[IN], Y[~IN]])
    weights = np.random.default_rng(0).exponential(size=len(rows)) ** 4
    model = GaussianNB().fit(X[IN], Y[IN], sample_weight=weights[: IN.sum()])

    def weighted(clone: GaussianNB, places: Any) -> None:
        clone.fit(rows[places], labels[places], sample_weight=weights[places])

    coins = seeds.rng(3, "shadows").random((4, len(rows))) < IN.mean()
    answers = [
        GaussianNB().fit(rows[own], labels[own], sample_weight=weights[own]).predict_proba(rows) for own in coins
    ]
    settings: dict[str, Any] = {"attacks": "rmia,calibration", "seed": 3}
    expected = rl.audit(
        member_probs=model.predict_proba(X[IN]), member_labels=Y[IN], nonmember_probs=model.predict_proba(X[~IN]),
        nonmember_labels=Y[~IN], shadows=(np.stack(answers), coins), adaptive=True, **settings,
    )  # fmt: skip
    found = audit_estimator(model, *SPLIT, fit=weighted, shadows=4, engine=HERE, **settings)
    columns = ["measure", "attack", "value"]
    pd.testing.assert_frame_equal(rows_of(found)[columns], rows_of(expected)[columns])
    plain = audit_estimator(model, *SPLIT, shadows=4, engine=HERE, **settings)
    assert not rows_of(plain)[columns].equals(rows_of(found)[columns])
    apart = audit_estimator(model, *SPLIT, fit=weighted, shadows=4, engine=Engine("processes", 2), **settings)
    pd.testing.assert_frame_equal(rows_of(apart)[columns], rows_of(found)[columns])

    def nothing(clone: GaussianNB, places: Any) -> None: ...

    with pytest.raises(rl.UserError, match="of 4 shadows cannot be fitted, the first for this: NotFittedError"):
        audit_estimator(model, *SPLIT, fit=nothing, shadows=4, engine=HERE, **settings)


def test_a_class_that_a_shadow_never_saw_has_probability_0_there() -> None:
    labels = np.where(np.arange(len(Y)) < 2, "rare", np.array(["a", "b", "c"])[Y])
    inside = IN | (labels == "rare")
    model = GaussianNB().fit(X[inside], labels[inside])
    audit = audit_estimator(
        model, X[inside], labels[inside], X[~inside], labels[~inside], shadows=12, engine=HERE, attacks="lira,loss"
    )
    assert audit.facts["classes"] == ["a", "b", "c", "rare"]
    assert np.isfinite(audit.worst["auc"])


def test_values_of_a_decision_function_are_logits() -> None:
    binary = (Y > 0).astype(int)
    model = make_pipeline(StandardScaler(), LinearSVC(random_state=0)).fit(X[IN], binary[IN])
    audit = audit_estimator(model, X[IN], binary[IN], X[~IN], binary[~IN], shadows=3, engine=HERE, attacks="loss,lira")
    odds = model.decision_function(X)
    expected = rl.audit(
        member_logits=odds[IN], member_labels=binary[IN], nonmember_logits=odds[~IN], nonmember_labels=binary[~IN],
        attacks="loss",
    )  # fmt: skip
    area = {
        name: audit.rows.query("measure == 'auc' and attack == @name")["value"].iloc[0] for name in ("loss", "lira")
    }
    assert area["loss"] == expected.worst["auc"]
    assert any("decision_function" in note for note in audit.facts["notes"])


def test_frames_sparse_matrices_and_texts_are_rows_too() -> None:
    frame = pd.DataFrame(X, columns=list("abcdef"), index=np.arange(len(X)) % 7)  # an index that tells no row
    plain = LogisticRegression().fit(X[IN], Y[IN])
    framed = LogisticRegression().fit(frame[IN], Y[IN])
    sparse = LogisticRegression().fit(scipy.sparse.csr_array(X)[IN], Y[IN])
    settings: dict[str, Any] = {"shadows": 3, "engine": HERE, "attacks": "loss,lira"}
    expected = rows_of(audit_estimator(plain, *SPLIT, **settings))
    found = audit_estimator(framed, frame[IN], pd.Series(Y)[IN], frame[~IN], pd.Series(Y)[~IN], **settings)
    pd.testing.assert_frame_equal(rows_of(found), expected)
    rows = scipy.sparse.csr_array(X)
    pd.testing.assert_frame_equal(
        rows_of(audit_estimator(sparse, rows[IN], Y[IN], rows[~IN], Y[~IN], **settings)), expected, atol=1e-3, rtol=1e-2
    )
    words = np.array([f"w{a} w{b} w{a + b}" for a, b in np.random.default_rng(1).integers(0, 9, (len(Y), 2))])
    reader = make_pipeline(CountVectorizer(), LogisticRegression()).fit(list(words[IN]), Y[IN])
    audit = audit_estimator(reader, list(words[IN]), Y[IN], list(words[~IN]), Y[~IN], **settings)
    assert "copies" in {flag.name for flag in audit.flags}, "few different texts"


def test_persons_are_in_a_shadow_as_a_whole() -> None:
    order = np.argsort(~IN, kind="stable")
    groups = np.array([f"{'in' if inside else 'out'}{place // 3}" for place, inside in enumerate(IN[order])])
    model = GaussianNB().fit(X[IN], Y[IN])
    audit = audit_estimator(model, *SPLIT, shadows=4, groups=groups, engine=HERE, attacks="loss,lira")
    assert audit.facts["persons"]["members"] == len({each for each in groups if each.startswith("in")})
    SEEN.clear()
    uneven = np.where(IN[order], np.arange(len(Y)) // 10, 1000 + np.arange(len(Y)))  # members have more rows each
    audit_estimator(Memory().fit(X[IN], Y[IN]), *SPLIT, shadows=60, groups=uneven, engine=HERE, attacks="loss")
    sizes = [len(rows) for _, rows in SEEN[1:]]
    assert abs(np.mean(sizes) - IN.sum()) < 5 * np.std(sizes) / np.sqrt(60), "as many rows as the target, on average"


def test_an_estimator_that_answers_at_random_is_flagged() -> None:
    audit = audit_estimator(Memory(noise=0.1).fit(X[IN], Y[IN]), *SPLIT, attacks="loss")
    assert "randomised_release" in {flag.name for flag in audit.flags}
    assert "randomised_release" in audit_estimator(Memory().fit(X[IN], Y[IN]), *SPLIT, attacks="loss").passed


class Stubborn(GaussianNB):
    """Cannot do without a class."""

    def fit(self, x: Any, y: Any, sample_weight: Any = None) -> Any:
        if len(y) != IN.sum():
            raise RuntimeError("too few rows for me")
        return super().fit(x, y, sample_weight)


PREFIT = CalibratedClassifierCV(FrozenEstimator(GaussianNB().fit(X[IN], Y[IN]))).fit(X[IN], Y[IN])


class Uncloneable:
    """No scikit-learn estimator, though it answers like one."""

    classes_ = np.arange(3)

    def predict_proba(self, x: Any) -> Any:
        return np.full((len(x), 3), 1 / 3)


@pytest.mark.parametrize(
    ("model", "split", "says"),
    [
        (GaussianNB(), SPLIT, "GaussianNB, which has no classes_.*call fit first"),
        (LinearRegression().fit(X, Y), SPLIT, "LinearRegression, which has no classes_"),
        (GaussianNB().fit(X, Y), (X[IN], Y[IN], X[~IN][:, :3], Y[~IN]), r"x_train float64 .* and x_test float64"),
        (
            GaussianNB().fit(X, Y),
            (pd.DataFrame(X[IN]), Y[IN], X[~IN], Y[~IN]),
            "x_train a DataFrame and x_test an array",
        ),
        (GaussianNB().fit(X, Y), (X[IN], Y[IN], None, Y[~IN]), "x_train an array and x_test None"),
        (SVC(decision_function_shape="ovo").fit(X, Y), SPLIT, "predicted class in .* expected one column per class"),
        (FrozenEstimator(GaussianNB().fit(X, Y)), SPLIT, "the estimator is fitted beforehand"),
        (PREFIT, SPLIT, "estimator is fitted beforehand, and a shadow would hold"),
        (DefendedClassifier(recipe=TINY, reference=0.5).fit(X[IN], Y[IN]), SPLIT, "are its defense's reference and no"),
        (GaussianNB().fit(X, Y), (X[IN], Y[IN][1:], X[~IN], Y[~IN]), "y_train has shape"),
        (
            GaussianNB().fit(X, Y),
            (X[IN], Y[IN], X[~IN], Y[~IN] + 7),
            "labels hold 7, 8, 9, which the estimator was not fitted on; expected 0, 1, 2",
        ),
        (Uncloneable(), SPLIT, "the estimator cannot be cloned as scikit-learn does it"),
        (
            Stubborn().fit(X[IN], Y[IN]),
            SPLIT,
            "2 of 2 shadows cannot be fitted, the first for this: RuntimeError: too few rows for me",
        ),
    ],
    ids=[
        "unfitted",
        "regressor",
        "columns",
        "kinds",
        "None",
        "pairs",
        "frozen",
        "prefit",
        "reference",
        "lengths",
        "labels",
        "uncloneable",
        "stubborn",
    ],
)
def test_what_cannot_be_audited_says_why(model: Any, split: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        audit_estimator(model, *split, shadows=2, attacks="loss", engine=HERE)


@pytest.mark.parametrize("shadows", [-1, 2.5, "4", True, None])
def test_what_is_no_number_of_shadows_is_refused(shadows: Any) -> None:
    with pytest.raises(UserError, match=f"got shadows={shadows!r}"):
        audit_estimator(GaussianNB().fit(X, Y), *SPLIT, shadows=shadows, attacks="loss")


def test_what_is_wrong_is_said_before_the_shadows_are_fitted() -> None:
    model = Memory().fit(X[IN], Y[IN])
    SEEN.clear()
    few = (X[IN], Y[IN], X[~IN][:3], Y[~IN][:3])
    both = np.zeros(len(Y), int)
    for split, settings in ((SPLIT, {"attacks": "lirra"}), (few, {}), (SPLIT, {"groups": both})):
        with pytest.raises(UserError, match=r"lirra|non-members|one side"):
            audit_estimator(model, *split, shadows=3, engine=HERE, **settings)
    assert not SEEN


class Tail(ClassifierMixin, BaseEstimator):
    """Holds the last fifth of its rows out, as networks that watch a validation set do; knows the others by heart."""

    def fit(self, x: Any, y: Any) -> Tail:
        self.memory_ = Memory().fit(x[: len(y) * 4 // 5], y[: len(y) * 4 // 5])
        self.classes_ = self.memory_.classes_
        HELD.append({row.tobytes() for row in x[len(y) * 4 // 5 :]})
        return self

    def predict_proba(self, x: Any) -> Any:
        return self.memory_.predict_proba(x)


HELD: list[set[bytes]] = []


def test_what_a_shadow_holds_out_at_the_end_is_of_both_sides() -> None:
    model = Tail().fit(X[IN], Y[IN])
    HELD.clear()
    audit_estimator(model, *SPLIT, shadows=20, attacks="loss", engine=HERE)
    share = [
        np.mean([row.tobytes() in held for row in X[IN]]) / np.mean([row.tobytes() in held for row in X])
        for held in HELD
    ]
    assert 0.85 < np.mean(share) < 1.15, "members are held out as often as others"


def test_whole_numbers_that_scikit_learn_made_fractions_of_are_called_as_they_were() -> None:
    frame = pd.Series(Y).astype("Int64")
    model = GaussianNB().fit(X[IN], frame[IN])
    assert model.classes_.dtype == np.float64
    audit = audit_estimator(model, X[IN], frame[IN], X[~IN], frame[~IN], attacks="loss")
    assert audit.facts["classes"] == [str(each) for each in np.unique(Y)]


def test_classes_in_an_order_of_their_own_are_understood() -> None:
    class Turned(GaussianNB):
        """Its columns are in another order."""

        def fit(self, x: Any, y: Any, sample_weight: Any = None) -> Any:
            super().fit(x, y, sample_weight)
            self.order_ = np.roll(np.arange(len(self.classes_)), 1)
            self.sorted_, self.classes_ = self.classes_, self.classes_[self.order_]
            return self

        def predict_proba(self, x: Any) -> Any:
            turned, self.classes_ = self.classes_, self.sorted_
            found = super().predict_proba(x)[:, self.order_]
            self.classes_ = turned
            return found

    settings: dict[str, Any] = {"shadows": 3, "engine": HERE, "attacks": "loss,lira"}
    for labels in (Y, np.minimum(Y, 1)):
        split = (X[IN], labels[IN], X[~IN], labels[~IN])
        plain = audit_estimator(GaussianNB().fit(X[IN], labels[IN]), *split, **settings)
        turned = audit_estimator(Turned().fit(X[IN], labels[IN]), *split, **settings)
        assert turned.worst["auc"] == pytest.approx(plain.worst["auc"])
        assert turned.rows.query("measure == 'test_accuracy'")["value"].to_list() == pytest.approx(
            plain.rows.query("measure == 'test_accuracy'")["value"].to_list()
        )


def test_categories_of_another_type_are_refused_and_shadows_see_those_of_the_fit() -> None:
    kinds: list[str] = []

    class Spy(HistGradientBoostingClassifier):
        def fit(self, x: Any, y: Any) -> Any:
            kinds.append(str(x.dtypes["c"]))
            return super().fit(x, y)

    frame = pd.DataFrame({"c": np.random.default_rng(0).integers(0, 6, len(Y)) * 10, "z": X[:, 0]})
    train, test = frame[IN].astype({"c": "category"}), frame[~IN & (frame["c"] != 50)].astype({"c": "category"})
    model = Spy(max_iter=5).fit(train, Y[IN])
    with pytest.raises(UserError, match=r"columns of different types: c \(category, category\)"):
        audit_estimator(model, train, Y[IN], test, Y[test.index], attacks="loss")
    audit_estimator(
        model, train, Y[IN], test.astype(train.dtypes), Y[test.index], shadows=2, attacks="loss", engine=HERE
    )
    assert kinds == ["category"] * 3


def test_a_step_that_writes_into_its_input_changes_no_later_one() -> None:
    x = np.exp(X)
    split = (x[IN], Y[IN], x[~IN], Y[~IN])
    found = []
    for copy in (True, False):
        model = make_pipeline(StandardScaler(copy=copy), LogisticRegression()).fit(x[IN].copy(), Y[IN])
        found.append(rows_of(audit_estimator(model, *split, shadows=3, engine=HERE, attacks="loss,lira")))
    pd.testing.assert_frame_equal(*found)


def test_frames_of_different_columns_are_refused() -> None:
    frame = pd.DataFrame(X)
    model = GaussianNB().fit(frame, Y)
    with pytest.raises(UserError, match="different columns"):
        audit_estimator(model, frame[IN], Y[IN], frame[~IN][[1, 0, 2, 3, 4, 5]], Y[~IN])


# An estimator that trains with a defense


def test_the_estimator_keeps_scikit_learns_rules() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its checks fit on constant columns, and skip what is not installed
        check_estimator(DefendedClassifier("relaxloss:alpha=0.1", recipe=TINY))


def test_it_trains_what_train_trains() -> None:
    frame = pd.DataFrame(X, columns=list("abcdef")).assign(ward=np.array(["north", "south"])[Y % 2])
    names = np.array(["a", "b", "c"])[Y]
    model = DefendedClassifier("relaxloss:alpha=0.5", recipe=TINY, random_state=3).fit(frame, names)
    data = rl.data.from_frame(frame.assign(label=names), label="label")
    trained = rl.train(data, "relaxloss:alpha=0.5", recipe=TINY, seed=3, test=0.0)
    np.testing.assert_array_equal(model.predict_log_proba(frame), trained.predict_log_proba(frame))
    np.testing.assert_array_equal(model.predict(frame), trained.predict(frame))
    np.testing.assert_allclose(model.predict_proba(frame).sum(axis=1), 1)
    with pytest.raises(UserError, match="random_state=None; expected a whole number"):
        DefendedClassifier(random_state=None).fit(frame, names)  # type: ignore[arg-type]


def test_a_recipe_of_plain_values_can_be_written_down() -> None:
    plain = {"model": "mlp:hidden=16", "epochs": 8, "milestones": [], "batch_size": 16}
    model = DefendedClassifier("none", recipe=plain)
    assert json.loads(json.dumps(model.get_params())) == model.get_params()
    expected = DefendedClassifier("none", recipe=TINY).fit(X[IN], Y[IN]).predict_proba(X)
    np.testing.assert_array_equal(model.fit(X[IN], Y[IN]).predict_proba(X), expected)
    with pytest.raises(UserError, match=r"unknown field of Recipe 'epoch'.*'epochs'"):
        DefendedClassifier(recipe={"epoch": 8}).fit(X, Y)


def test_columns_go_by_name_and_where_there_are_none_by_position() -> None:
    frame = pd.DataFrame(X, columns=list("abcdef"))
    by_name, by_place = (DefendedClassifier(recipe=TINY).fit(x, Y) for x in (frame, X))
    expected = by_name.predict_log_proba(frame)
    for model, x in ((by_name, X), (by_place, frame)):
        with pytest.warns(UserWarning, match="feature names"):
            np.testing.assert_array_equal(model.predict_log_proba(x), expected)
    np.testing.assert_array_equal(by_place.predict_log_proba(X), expected)


def test_a_search_chooses_among_defenses_and_a_pipeline_holds_one() -> None:
    model = make_pipeline(StandardScaler(), DefendedClassifier(recipe=TINY))
    grid = {"defendedclassifier__defense": ["none", "relaxloss:alpha=1.05"]}
    search = GridSearchCV(model, grid, cv=2).fit(X, Y)
    assert search.best_params_["defendedclassifier__defense"] in grid["defendedclassifier__defense"]
    assert clone(search.best_estimator_).get_params()["defendedclassifier__recipe"] == TINY


def test_a_defended_estimator_leaks_less_to_shadows_of_its_own_kind() -> None:
    recipe = rl.Recipe(model="mlp:hidden=256", epochs=100, milestones=(), batch_size=16)
    found = {}
    for defense in ("none", "relaxloss:alpha=0.9"):
        model = DefendedClassifier(defense, recipe=recipe).fit(X[IN], Y[IN])
        audit = audit_estimator(model, *SPLIT, shadows=4, attacks="loss,lira", engine=HERE)
        found[defense] = audit.worst["auc"]
    assert found["relaxloss:alpha=0.9"] < found["none"] - 0.08  # seen: 0.545 and 0.677
