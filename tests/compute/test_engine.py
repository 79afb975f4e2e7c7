"""The engine: every job once, failures told apart, lost workers replaced."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from relaxloss import specs
from relaxloss.compute import engine
from relaxloss.compute.engine import Engine
from relaxloss.errors import MissingExtra, UserError


def square(n: int) -> int:
    if n == 13:
        raise UserError("13 is not wanted; leave it out")
    if n == 14:
        raise ZeroDivisionError("a defect")
    return n * n


def threads(_: int) -> tuple[int, str | None, str | None]:
    import torch

    return torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS"), os.environ.get("MALLOC_MMAP_MAX_")


def process(_: int) -> int:
    return os.getpid()


def die_once(path: str) -> str:
    marker = Path(path)
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@pytest.mark.parametrize("name", ["inprocess", "processes"])
def test_every_job_runs_once_and_a_failure_stops_no_other(name: str) -> None:
    outcomes = sorted(Engine(name).run(square, [1, 13, 2, 14, 3]), key=lambda outcome: outcome.index)  # type: ignore[arg-type]
    assert [outcome.result for outcome in outcomes] == [1, None, 4, None, 9]
    assert outcomes[1].user_error
    assert "leave it out" in outcomes[1].error
    assert not outcomes[3].user_error
    assert "square" in outcomes[3].trace
    assert list(Engine(name).run(square, [])) == []  # type: ignore[arg-type]


def test_workers_have_one_thread_and_the_measured_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_MMAP_MAX_", raising=False)
    found = [outcome.result for outcome in Engine("processes", 3).run(threads, [0, 1, 2])]
    assert found == [(1, "1", "0")] * 3
    assert "MALLOC_MMAP_MAX_" not in os.environ


def test_a_killed_workers_job_is_run_again(tmp_path: Path) -> None:
    jobs = [str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "c")]
    Path(jobs[1]).touch()
    Path(jobs[2]).touch()
    assert [outcome.result for outcome in Engine("processes", 2).run(die_once, jobs)] == ["alive"] * 3


def test_workers_are_renewed_when_a_third_partys_code_came_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def workers() -> set[int | None]:
        return {outcome.result for outcome in Engine("processes", 2).run(process, range(8))}

    monkeypatch.setattr(engine, "_known", {"older"})
    before = workers()
    monkeypatch.setitem(specs.DIGESTS, "code", "newer")
    assert not before & workers()


def test_bad_engines_are_explained() -> None:
    with pytest.raises(UserError, match="did you mean 'processes'"):
        Engine("process")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="at least 1"):
        Engine("processes", 0)
    try:
        import ray  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtra, match=r"relaxloss\[ray\]"):
            list(Engine("ray", 2).run(square, [1, 2]))
