"""LiRA, RMIA and the best threshold against their textbook forms. Run: OMP_NUM_THREADS=1 python <this file>.

LiRA's baseline loops over samples with numpy's mean and std and scipy's normal log-density; RMIA's divides all pairs of
ratios, 1,000 rows at a time; the threshold's tries every score, one comparison of all samples each. Leave-one-out is
timed per target. Results are compared before they are timed.
"""

from __future__ import annotations

import argparse
import tracemalloc
from pathlib import Path

import numpy as np
import torch
from paired import measure, show, verdict, write
from scipy.stats import norm

from relaxloss import metrics
from relaxloss.attacks import functional as fn

MODELS, SAMPLES, POPULATION = 64, 20_000, 10_000
LIMITS = {"lira": 200.0, "rmia": 25.0, "threshold": 100.0}


def search(scores: np.ndarray, member: np.ndarray) -> float:
    """Every score as a threshold, from the highest down."""
    best, found = -1.0, np.inf
    members, others = scores[member], scores[~member]
    for threshold in np.unique(scores)[::-1]:
        accuracy = ((members >= threshold).mean() + (others < threshold).mean()) / 2
        if accuracy > best:
            best, found = accuracy, threshold
    return float(found)


def lira_loop(t: np.ndarray, s: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Algorithm 1 as it is written."""
    scores = []
    for n in range(len(t)):
        inside, outside = s[has[:, n], n], s[~has[:, n], n]
        high = norm.logpdf(t[n], inside.mean(), inside.std(ddof=1))
        scores.append(high - norm.logpdf(t[n], outside.mean(), outside.std(ddof=1)))
    return np.array(scores)


def rmia_matrix(t: np.ndarray, s: np.ndarray, z: fn.Population) -> np.ndarray:
    """All pairs."""
    x_ratio = np.exp(t) / np.exp(s).mean(axis=0)
    z_ratio = np.exp(z.target) / np.exp(z.shadows).mean(axis=0)
    blocks = [x_ratio[i : i + 1000, None] / z_ratio for i in range(0, len(t), 1000)]
    return np.concatenate([(block > 1).mean(axis=1) for block in blocks])


def peak(samples: int, population: int) -> int:
    """Bytes that RMIA allocates beyond its inputs, with 4 models so that the pairs would dominate."""
    rng = np.random.default_rng(1)
    x, z = -rng.exponential(size=(5, samples)), -rng.exponential(size=(5, population))
    has = rng.random((4, samples)) < 0.5
    tracemalloc.start()
    fn.rmia(x[0], x[1:], has, fn.Population(z[0], z[1:]))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def main() -> None:
    """Measure, print the tables, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/scoring.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    has = rng.random((MODELS + 1, SAMPLES)) < 0.5
    s = rng.normal(size=has.shape) + has
    z = rng.normal(size=(MODELS + 1, POPULATION))

    np.testing.assert_allclose(fn.lira(s[0], s[1:], has[1:]), lira_loop(s[0], s[1:], has[1:]), rtol=1e-9, atol=1e-9)
    lira = measure(
        {
            "loop over samples, one target": lambda: lira_loop(s[0], s[1:], has[1:]),
            "lira, variance per sample": lambda: fn.lira(s[0], s[1:], has[1:], variance="sample"),
            "lira, one variance": lambda: fn.lira(s[0], s[1:], has[1:], variance="global"),
            "lira_leave_one_out, per target": lambda: fn.lira_leave_one_out(s, has, variance="sample"),
        },
        {
            "loop over samples, one target": 1,
            "lira, variance per sample": 1,
            "lira, one variance": 1,
            "lira_leave_one_out, per target": MODELS + 1,
        },
        given.rounds,
    )
    show(f"LiRA, {MODELS} shadows, {SAMPLES} samples", lira)

    lp, zp = -np.logaddexp(0, -s), -np.logaddexp(0, -z)
    population = fn.Population(zp[0], zp[1:])
    pairs, sorted_once = rmia_matrix(lp[0], lp[1:], population), fn.rmia(lp[0], lp[1:], has[1:], population)
    np.testing.assert_allclose(sorted_once, pairs, rtol=0, atol=1.5 / POPULATION)  # the matrix leaves log space
    names = {"full matrix": 1, "rmia, online": 1, "rmia, offline": 1}
    rmia = measure(
        {
            "full matrix": lambda: rmia_matrix(lp[0], lp[1:], population),
            "rmia, online": lambda: fn.rmia(lp[0], lp[1:], has[1:], population),
            "rmia, offline": lambda: fn.rmia(lp[0], lp[1:], has[1:], population, offline_a=0.3),
        },
        names,
        given.rounds,
    )
    show(f"RMIA, {MODELS} shadows, {SAMPLES} x {POPULATION}", rmia)
    member = has[0]
    assert search(s[0], member) == metrics.best_threshold(s[0], member)
    threshold = measure(
        {
            "every score tried": lambda: search(s[0], member),
            "best_threshold": lambda: [metrics.best_threshold(s[0], member) for _ in range(20)],
        },
        {"every score tried": 1, "best_threshold": 20},
        given.rounds,
    )
    show(f"best threshold, {SAMPLES} samples", threshold)
    memory = {f"{n} x {n}": peak(n, n) for n in (20_000, 40_000, 80_000)}
    print("  bytes beyond the inputs, 4 models:", memory)
    limits = [
        verdict("LiRA, one target", lira["lira, variance per sample"]["times_faster"], LIMITS["lira"]),
        verdict("LiRA, leave-one-out", lira["lira_leave_one_out, per target"]["times_faster"], LIMITS["lira"]),
        verdict("RMIA, online", rmia["rmia, online"]["times_faster"], LIMITS["rmia"]),
        verdict("best threshold", threshold["best_threshold"]["times_faster"], LIMITS["threshold"]),
    ]
    sizes = {"models": MODELS, "samples": SAMPLES, "population": POPULATION, "rounds": given.rounds}
    results = {"lira": lira, "rmia": rmia, "threshold": threshold, "rmia_peak_bytes": memory}
    write(given.out, **sizes, limits=limits, results=results)


if __name__ == "__main__":
    main()
