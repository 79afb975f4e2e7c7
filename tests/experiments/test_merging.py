"""Merging: runs of one experiment with other seeds or defenses are read as the run that did it all at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from comparison_results import NONE, RELAX, result_of, rows_of, with_curves
from relaxloss import report
from relaxloss.errors import UserError
from relaxloss.evaluation.flags import Flag
from relaxloss.experiments.merge import CURVES
from relaxloss.experiments.result import Result


def part(pairs: dict[tuple[tuple[str, str], int], float], seeds: list[int]) -> Result:
    """A result with the given accuracies by (who, seed)."""
    rows = [row for (who, seed), top1 in pairs.items() for row in rows_of(who, top1=top1, adaptive=0.7, seed=seed)]
    whole = result_of(rows)
    return with_curves(replace(whole, facts=whole.facts | {"experiment": whole.facts["experiment"] | {"seeds": seeds}}))


def test_parts_by_seed_give_the_summary_of_the_whole() -> None:
    values = {(who, seed): 0.5 + 0.01 * seed + 0.02 * (who == RELAX) for who in (NONE, RELAX) for seed in (0, 1, 2)}
    whole = part(values, [0, 1, 2])
    parts = [part({key: value for key, value in values.items() if key[1] == seed}, [seed]) for seed in (0, 1, 2)]
    merged = report.merge(parts)
    pd.testing.assert_frame_equal(report.summary(merged), report.summary(whole))
    assert merged.facts["experiment"]["seeds"] == [0, 1, 2]
    assert merged.facts["seconds"] == pytest.approx(3 * whole.facts["seconds"], abs=0.1)


def test_of_what_stands_twice_the_first_is_taken_whole() -> None:
    first = part({(NONE, 0): 0.5}, [0])
    second = part({(NONE, 0): 0.9, (RELAX, 0): 0.6}, [0])
    second = replace(second, facts=second.facts | {"torch": "2.14", "date": "2025-02-01"})
    merged = report.merge([first, second])
    assert list(report.summary(merged)["top1"]) == [0.5, 0.6]
    for name in CURVES:
        if not len(getattr(first, name)):
            continue  # there are no records in these made-up results
        expected = len(getattr(first, name)) + (getattr(second, name)["defense"] == "relaxloss").sum()
        assert len(getattr(merged, name)) == expected
    assert (merged.facts["torch"], merged.facts["date"]) == ("2.13, 2.14", "2025-01-31 to 2025-02-01")


def test_what_does_not_belong_together_is_refused() -> None:
    first = part({(NONE, 0): 0.5}, [0])
    for change, name in (({"level": 0.9}, "level"), ({"recipe": {"lr": 0.2}}, "recipe")):
        other = replace(first, facts=first.facts | {"experiment": first.facts["experiment"] | change})
        with pytest.raises(UserError, match=f"do not belong together: {name} is"):
            report.merge([first, other])
    parts = [
        replace(
            each, facts=each.facts | {"experiment": each.facts["experiment"] | {"recipe": {"precision": precision}}}
        )
        for each, precision in ((first, "float32"), (part({(NONE, 1): 0.6}, [1]), "bf16"))
    ]
    assert report.merge([*parts, parts[0]]).facts["precision"] == "float32, bf16"  # as machines have it, and said
    with pytest.raises(UserError, match="no result to merge"):
        report.merge([])


def test_data_is_told_apart_by_its_fingerprint_and_not_by_its_name() -> None:
    def named(name: str, fingerprint: str, seed: int) -> Result:
        found = part({(NONE, seed): 0.5 + seed / 10}, [seed])
        facts = found.facts | {"fingerprint": fingerprint, "experiment": found.facts["experiment"] | {"dataset": name}}
        return replace(found, facts=facts, rows=found.rows.assign(dataset=name))

    merged = report.merge([named("here/a.csv", "f1", 0), named("there/a.csv", "f1", 1)])
    assert list(report.summary(merged)["top1"]) == [0.55]
    assert set(merged.rows["dataset"]) == {"here/a.csv"}
    with pytest.raises(UserError, match="dataset is data of the fingerprint f1 in one and data of the fingerprint f2"):
        report.merge([named("a.csv", "f1", 0), named("a.csv", "f2", 1)])


def test_results_of_other_code_under_the_same_name_are_refused() -> None:
    old = part({(NONE, 0): 0.5}, [0])
    one, two = (
        replace(each, facts=each.facts | {"code": {"none": "1", "mine": digest}})
        for each, digest in ((old, "1 a"), (part({(NONE, 1): 0.6}, [1]), "1 b"))
    )
    assert report.merge([one, one]).facts["code"] == {"none": "1", "mine": "1 a"}
    assert report.merge([one, old]).facts["code"] == {"none": "1", "mine": "1 a"}  # of a version which did not say it
    with pytest.raises(UserError, match=r"the code of mine is not the same \(version 1 a in one, 1 b in another"):
        report.merge([one, two])


def test_settings_tuned_for_their_own_seeds_are_merged() -> None:
    parts = [part({(RELAX, seed): 0.5}, [seed]) for seed in (0, 1)]
    tuned = [{"defense": "relaxloss", "games": [], "seed": seed, "data": "f"} for seed in (0, 1)]
    parts = [
        replace(each, facts=each.facts | {"experiment": each.facts["experiment"] | {"tuned": [mine]}})
        for each, mine in zip(parts, tuned, strict=True)
    ]
    assert report.merge(parts).facts["experiment"]["tuned"] == tuned


def test_a_directory_of_parts_is_read_as_their_union(tmp_path: Path) -> None:
    for seed in (1, 0):
        report.save(part({(NONE, seed): 0.5 + seed / 10}, [seed]), tmp_path / f"seed{seed}")
    found = report.load(tmp_path)
    assert list(report.summary(found)[["top1", "top1_low", "top1_high"]].iloc[0]) == pytest.approx([0.55, 0.5, 0.6])
    assert found.out == tmp_path
    report.save(found, tmp_path)  # a part that comes later still counts
    report.save(part({(NONE, 2): 0.7}, [2]), tmp_path / "seed2")
    assert report.load(tmp_path).facts["experiment"]["seeds"] == [0, 1, 2]


def test_a_run_with_other_runs_in_its_directory_is_no_union_of_them(tmp_path: Path) -> None:
    """Else `report` would write the inner runs' results over its own."""
    report.save(part({(NONE, 0): 0.5}, [0]), tmp_path)
    report.save(part({(NONE, 1): 0.6}, [1]), tmp_path / "again")
    with pytest.raises(UserError, match=r"is a run itself, and there are runs in it \(again\)"):
        report.load(tmp_path)
    assert report.load(tmp_path / "again").facts["experiment"]["seeds"] == [1]


def test_a_parts_warning_says_whom_it_is_about_in_the_whole() -> None:
    """In a part with one defense a warning names nobody; what all parts say is said once."""
    shared, own = (Flag(name, "r", "w", "d", detail) for name, detail in (("few", "20 non-members"), ("eps", "ε is 9")))
    noisy = ("dpsgd", "noise=1")
    first = replace(part({(NONE, 0): 0.5, (RELAX, 0): 0.5}, [0]), flags=(shared,))
    second = replace(part({(noisy, 0): 0.5}, [0]), flags=(shared, own))
    assert [flag.detail for flag in report.merge([first, second]).flags] == ["20 non-members", "dpsgd: ε is 9"]
    third = replace(part({(noisy, 1): 0.5}, [1]), flags=(replace(own, detail="dpsgd:noise=1: ε is 8"),))
    assert report.merge([first, third]).flags[1].detail == "dpsgd:noise=1: ε is 8"
