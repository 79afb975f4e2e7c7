"""Games: who is in which model, and that the drawing itself betrays nobody."""

from __future__ import annotations

import numpy as np
import pytest

from relaxloss.errors import UserError
from relaxloss.games import FiveFolds, RandomHalves, parse

LABELS = np.random.default_rng(0).integers(0, 5, 1003)


def test_five_folds_are_the_papers() -> None:
    design = FiveFolds(shadows=4).draw(LABELS, 5, seed=1)
    target, shadow = design.members(0), design.members(1)
    assert len(target) == len(shadow) == len(design.reference) == 200
    assert len(design.asked) == 400
    assert set(target) < set(design.asked)
    for row in range(1, 5):
        members = set(design.members(row))
        assert len(members) == 200
        assert members < set(design.fit)
        assert not members & (set(design.asked) | set(design.reference))
    assert len({tuple(design.members(row)) for row in range(5)}) == 5
    assert set(design.test_of(0)) == set(design.asked) - set(target)


def test_adding_shadows_changes_no_other_model() -> None:
    few, many = FiveFolds(shadows=2).draw(LABELS, 5, seed=1), FiveFolds(shadows=8).draw(LABELS, 5, seed=1)
    assert np.array_equal(few.member, many.member[:3])


def test_random_halves_are_independent_coins() -> None:
    design = RandomHalves(models=64).draw(LABELS, 5, seed=0)
    coins = design.member[:, design.asked]
    n = coins.size
    assert abs(coins.mean() - 0.5) < 4 * 0.5 / np.sqrt(n)
    counts = coins.sum(0)  # Binomial(64, ½): variance 16; an exact balance would have variance 0
    assert 13 < counts.var() < 19
    pairs = np.corrcoef(coins[:20].astype(float))
    assert np.abs(pairs[np.triu_indices(20, 1)]).max() < 4.5 / np.sqrt(coins.shape[1])
    assert not design.member[:, np.r_[design.reference, design.test]].any()
    assert not set(design.reference) & set(design.test)
    assert design.targets == tuple(range(64))


def test_an_exactly_balanced_design_would_leak_and_ours_does_not() -> None:
    """With each sample in exactly half of all models, the shadows' counts give the target's membership away."""
    rng = np.random.default_rng(3)
    models, samples = 16, 2000
    balanced = rng.permuted(np.repeat([[True], [False]], models // 2, 0).repeat(samples, 1), axis=0)
    independent = RandomHalves(models=models, reference=0, test=0.01).draw(np.zeros(samples, int), 2, 0)
    for member, leaks in ((balanced, True), (independent.member[:, independent.asked], False)):
        score = -member[1:].sum(0)  # few shadows have it, so the target must
        truth = member[0]
        pairs = (score[truth][:, None] > score[~truth]) + 0.5 * (score[truth][:, None] == score[~truth])
        auc = pairs.mean()
        assert auc == 1.0 if leaks else abs(auc - 0.5) < 0.05


def test_canaries() -> None:
    design = RandomHalves(models=8, canaries=50, canary_kind="mislabelled").draw(LABELS, 5, seed=2)
    assert len(design.asked) == 50
    others = np.setdiff1d(np.arange(len(LABELS)), np.r_[design.asked, design.reference, design.test])
    assert design.member[:, others].all()
    assert design.labels is not None
    changed = design.labels != LABELS
    assert set(np.flatnonzero(changed)) == set(design.asked)
    assert 0 <= design.labels.min() <= design.labels.max() < 5


@pytest.mark.parametrize("game", [FiveFolds(), RandomHalves(models=4), RandomHalves(models=4, canaries=10)])
def test_drawings_depend_on_the_seed_alone(game: FiveFolds) -> None:
    one, same, other = (game.draw(LABELS, 5, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.member, same.member)
    assert not np.array_equal(one.member, other.member)
    assert parse(str(game)) == game


def test_bad_games_are_explained() -> None:
    FiveFolds().draw(LABELS[:25], 5, 0)
    with pytest.raises(UserError, match="at least 25"):
        FiveFolds().draw(LABELS[:24], 5, 0)
    with pytest.raises(UserError, match="no more canaries"):
        RandomHalves(canaries=5000).draw(LABELS, 5, 0)
    with pytest.raises(UserError, match="did you mean 'five_folds'"):
        parse("five_fold")
