"""Progress: what counts as done, the estimate against hand computation, plain lines, bars, and a thread that ends."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from relaxloss.compute import progress
from relaxloss.compute.progress import Stage, Terminal, about, read

JOBS = {"a": ("none seed 0 model 0", 100.0), "b": ("relaxloss:alpha=[1] seed 0 model 0", 300.0)}


def tell(scratch: Path, key: str, epoch: int, epochs: int = 100, phase: str = "model", stamp: int = 0) -> None:
    path = scratch / key / "progress.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"phase": phase, "epoch": epoch, "epochs": epochs, "train_loss": 0.5}))
    if stamp:
        os.utime(path, (stamp, stamp))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "relaxloss-progress"]


def test_the_estimate_is_work_left_over_measured_speed(tmp_path: Path) -> None:
    stage = Stage("train", JOBS, tmp_path, started=1000.0)
    assert stage.left(now=1010.0) is None  # no data yet
    tell(tmp_path, "a", 50)
    tell(tmp_path, "b", 10)
    stage.look()
    assert stage.done == pytest.approx(50 + 30)
    assert stage.left(now=1020.0) == pytest.approx(320 * 20 / 80)
    stage.finish("a")
    assert stage.left(now=1026.0) == pytest.approx(270 * 26 / 130)
    stage.finish("b")
    assert stage.left(now=1090.0) == 0


def test_what_a_killed_run_left_is_done_but_neither_running_nor_speed(tmp_path: Path) -> None:
    tell(tmp_path, "b", 60, stamp=1_000_000)
    stage = Stage("train", JOBS, tmp_path, started=0.0)
    stage.look()
    assert stage.running == {}
    assert stage.done == pytest.approx(180)
    assert stage.left(now=10.0) is None
    tell(tmp_path, "b", 55)  # resumed from a checkpoint some epochs before
    stage.look()
    assert set(stage.running) == {"b"}
    assert stage.left(now=10.0) is None
    tell(tmp_path, "b", 80)
    stage.look()
    assert stage.left(now=30.0) == pytest.approx((400 - 240) * 30 / 60)


def test_one_of_several_phases_is_shown_and_not_counted(tmp_path: Path) -> None:
    stage = Stage("train", JOBS, tmp_path)
    tell(tmp_path, "a", 100, phase="teacher")
    stage.look()
    assert str(stage.running["a"]) == "teacher epoch 100/100, loss 0.500"
    assert stage.done == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"phase": "model"}', '{"phase": "m", "epoch": "x", "epochs": 3}'])
def test_an_unreadable_report_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "progress.json").write_text(text)
    assert read(tmp_path) is None


def test_about() -> None:
    said = [about(seconds) for seconds in (None, 0.0, 1.0, 62.0, 200.0, 9000.0)]
    assert said[:3] == ["estimating", "done", "about 5 s left"]
    assert said[3:] == ["about 60 s left", "about 3 min left", "about 2.5 h left"]


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL", 0.01)
    monkeypatch.setattr(progress, "PLAIN", 0.02)
    out = io.StringIO()
    watch = Terminal(Console(file=out, width=40), log=tmp_path / "run" / "log.txt")
    watch.log("data [bold]x[/bold]")
    watch.begin("train", JOBS, 2, tmp_path)
    tell(tmp_path, "a", 50)
    deadline = time.monotonic() + 5
    while "train: 12%" not in out.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    watch.done("a", 1.25)
    watch.done("a", 1.25)
    watch.done("b", 0.0)
    watch.begin("score", {}, 0, tmp_path)
    watch.end()
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["data [bold]x[/bold]", "train: 2 jobs, 2 more are in the store"]
    assert any(line.startswith("train: 12%, about") for line in lines)
    done = [line for line in lines if line.startswith("[")]
    assert done[0].startswith("[1/2] none seed 0 model 0 in 1.2 s; about")
    assert done[1:] == ["[2/2] relaxloss:alpha=[1] seed 0 model 0; done"]
    assert lines[-1] == "score: nothing to do, everything is in the store"
    assert "\x1b" not in out.getvalue()
    logged = [line[20:] for line in (tmp_path / "run" / "log.txt").read_text().splitlines()]
    assert logged[:3] == [*lines[:2], "[1/2] none seed 0 model 0 in 1.2 s"]
    assert logged[-1] == lines[-1]


def test_bars_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL", 0.01)
    out = io.StringIO()
    watch = Terminal(Console(file=out, force_terminal=True, width=120, _environ={"TERM": "xterm"}))
    watch.begin("train", JOBS, 0, tmp_path)
    tell(tmp_path, "b", 30)
    deadline = time.monotonic() + 5
    while "epoch 30/100, loss 0.500" not in out.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "relaxloss:alpha=[1] seed 0 model 0" in out.getvalue()
    assert "0/2 jobs, about" in out.getvalue()
    watch.end()  # broken off: the cursor is given back and the thread has gone
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")
    assert threads() == []
    assert out.getvalue().splitlines()[-1].endswith(" s")
    watch.end()


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = io.StringIO()
    Terminal(Console(file=out), log=tmp_path / "file" / "log.txt").log("on")
    assert out.getvalue() == "on\n"
