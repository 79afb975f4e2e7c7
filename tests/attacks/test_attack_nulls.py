"""No attack finds a leak in signals that are independent of membership, in either game, with few or many shadows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from attack_worlds import FITTED, NAMES, World, quick
from relaxloss import metrics
from relaxloss.attacks import attacks, parse
from relaxloss.experiments.plan import unmet
from relaxloss.games import FiveFolds, Game, RandomHalves


def null_games(shadows: int) -> tuple[tuple[Game, int], ...]:
    """Both games with so many shadows, and pools in which 120 samples are asked."""
    return (FiveFolds(shadows=shadows), 300), (RandomHalves(models=shadows + 1), 150)


def unbiased(names: list[str], game: Game, size: int, draws: int) -> list[str]:
    """Draw worlds without a leak; the attacks whose AUCs are not ½ within what chance explains."""
    chosen = [attack for attack in map(quick, names) if not unmet(attack, game)]
    assert chosen
    auc, covered = np.empty((2, draws, len(chosen)))
    for draw in range(draws):
        world = World(game, size, 1000 + draw)
        evidence, member = world.evidence(0), world.member()
        for place, attack in enumerate(chosen):
            scores = attack.score(evidence)
            auc[draw, place] = metrics.auc(scores, member)
            low, high = metrics.auc_interval(scores, member)
            covered[draw, place] = low <= 0.5 <= high
    tail = 0.01 / (6 * len(NAMES)) / 2  # two-sided, over all attacks, games and numbers of shadows
    least, most = stats.binom.ppf([tail, 1 - tail], draws, 0.95)
    found = []
    for place, attack in enumerate(chosen):
        column, hits = auc[:, place], covered[:, place].sum()
        errors = (column.mean() - 0.5) / (column.std(ddof=1) / np.sqrt(draws))
        if not least <= hits <= most or abs(errors) > 3:
            found.append(
                f"{attack}: {hits:.0f} of {draws} intervals hold ½, mean AUC {errors:+.1f} standard errors off"
            )
    return found


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("which", [0, 1], ids=["five_folds", "random_halves"])
@pytest.mark.parametrize(
    ("shadows", "draws"), [(4, 400), (16, 400), (64, 100), pytest.param(64, 400, marks=pytest.mark.slow)]
)
def test_no_leak_is_found_where_there_is_none(shadows: int, draws: int, which: int) -> None:
    game, size = null_games(shadows)[which]
    names = [name for name in NAMES if name not in FITTED]
    if shadows > 4:  # the others' scores are the same whatever K is
        names = [name for name in names if attacks[name].needs.shadows]
    assert unbiased(names, game, size, draws) == []


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("which", [0, 1], ids=["five_folds", "random_halves"])
@pytest.mark.parametrize(
    ("shadows", "draws"), [(4, 40), *(pytest.param(k, 400, marks=pytest.mark.slow) for k in (4, 16, 64))]
)
def test_no_leak_is_found_by_fitting_where_there_is_none(shadows: int, draws: int, which: int) -> None:
    game, size = null_games(shadows)[which]
    assert unbiased([name for name in NAMES if name in FITTED], game, size, draws) == []


@pytest.mark.parametrize("shadows", [4, 16])
def test_no_leak_is_found_pooled_over_all_targets(shadows: int) -> None:
    """As the results pool them: a record's scores under its models are built from one another's margins."""
    names, draws = ("loss", "lira", "lira_offline", "rmia"), 100
    auc, covered = np.empty((2, draws, len(names)))
    for draw in range(draws):
        world = World(RandomHalves(models=shadows + 1), 120, 5000 + draw)
        rows = world.all()
        member = world.design.member[:, world.design.asked]
        clusters = metrics.Clusters(*(each.reshape(-1) for each in np.indices(member.shape)[::-1]))
        for place, name in enumerate(names):
            scores = np.concatenate(parse(name).score_all(rows))
            auc[draw, place] = metrics.auc(scores, member.reshape(-1))
            low, high = metrics.clustered_auc_interval(scores, member.reshape(-1), clusters)
            covered[draw, place] = low <= 0.5 <= high
    assert (covered.sum(0) >= stats.binom.ppf(0.001, draws, 0.95)).all(), covered.sum(0)
    errors = (auc.mean(0) - 0.5) / (auc.std(0, ddof=1) / np.sqrt(draws))
    assert (np.abs(errors) < 3).all(), errors


def test_an_exactly_balanced_design_would_have_leaked() -> None:
    """If all models together have each sample equally often, the shadows alone tell who is in a silent target."""
    rng = np.random.default_rng(0)
    for balanced in (True, False):
        world = World(RandomHalves(models=6), 2_500, 7, spread=0.0)
        member = rng.random((6, 2_500)) < 0.5
        if balanced:
            member = rng.permuted(np.repeat([[True], [False]], 3, 0).repeat(2_500, 1), axis=0)
        shadows = tuple(world.signal(row, rng) for row in world.margins[1:] + 6.0 * member[1:, None])
        target = world.evidence(0).target
        silent = replace(target, answers=np.zeros_like(target.answers))
        evidence = replace(world.evidence(0), target=silent, shadows=shadows, shadow_member=member[1:])
        auc = metrics.auc(parse("rmia:mode=online").score(evidence), member[0, evidence.asked])
        assert auc > 0.75 if balanced else abs(auc - 0.5) < 0.05
