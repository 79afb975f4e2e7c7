"""Progress on a terminal: a bar over all work, a line per running job, and an estimate from what was measured.

A job writes how far it is into ``progress.json`` in its scratch directory, whichever process it runs in; a thread reads
these files twice a second. Where there is no terminal, plain lines are printed instead.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

POLL = 0.5  # seconds between two looks at the running jobs
PLAIN = 60.0  # seconds between two lines where there is no terminal
SINGLE = "model"  # the phase of a job that is one training; others have several, and nobody knows how many


@dataclass(frozen=True)
class Report:
    """What a running job last wrote: its phase, the epoch of how many, its training loss, and the file's time."""

    phase: str
    epoch: int
    epochs: int
    loss: float | None
    written: float

    @property
    def share(self) -> float:
        """The share of the job that is done, as far as that is known."""
        return min(self.epoch / self.epochs, 1.0) if self.phase == SINGLE and self.epochs > 0 else 0.0

    def __str__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.3f}"
        return f"{'' if self.phase == SINGLE else self.phase + ' '}epoch {self.epoch}/{self.epochs}{loss}"


def read(folder: Path) -> Report | None:
    """The report in a job's scratch directory; None if there is none, or none that can be read."""
    path = folder / "progress.json"
    try:
        found = json.loads(path.read_text())
        loss = found.get("train_loss")
        return Report(
            str(found["phase"]), int(found["epoch"]), int(found["epochs"]),
            float(loss) if isinstance(loss, (int, float)) else None, path.stat().st_mtime,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@dataclass
class Stage:
    """One stage's jobs and how much of their work is done.

    `before` is what resumed jobs had done in an earlier run: it counts as done, but not towards this run's speed.
    """

    name: str
    jobs: Mapping[str, tuple[str, float]]
    scratch: Path
    started: float = field(default_factory=time.monotonic)
    finished: set[str] = field(default_factory=set)
    running: dict[str, Report] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    leftovers: dict[str, Report | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in self.jobs:
            leftover = self.leftovers[key] = read(self.scratch / key)
            self.before[key] = self.shares[key] = leftover.share if leftover else 0.0

    @property
    def total(self) -> float:
        """All work, in the jobs' units."""
        return sum(work for _, work in self.jobs.values())

    @property
    def done(self) -> float:
        """The work done, with the epochs of running jobs."""
        return sum(work * self.shares[key] for key, (_, work) in self.jobs.items())

    def look(self) -> None:
        """Read how far the unfinished jobs are. A report that was there at the start is a killed run's."""
        found = {key: read(self.scratch / key) for key in self.jobs if key not in self.finished}
        self.running = {key: item for key, item in found.items() if item and item != self.leftovers[key]}
        for key, item in self.running.items():
            self.shares[key] = max(item.share, self.before[key])

    def finish(self, key: str) -> None:
        """A job has ended."""
        self.finished.add(key)
        self.running.pop(key, None)
        self.shares[key] = 1.0

    def left(self, now: float | None = None) -> float | None:
        """Seconds to go: the work left over the work done per second of this run; None while there is no data."""
        seconds = (time.monotonic() if now is None else now) - self.started
        made = self.done - sum(work * self.before[key] for key, (_, work) in self.jobs.items())
        if made <= 0 or seconds <= 0:
            return None
        return max(self.total - self.done, 0.0) * seconds / made


def about(seconds: float | None) -> str:
    """An estimate in words, as exact as an estimate is: ``about 3 min left``."""
    if seconds is None:
        return "estimating"
    if seconds == 0:
        return "done"
    if seconds < 90:
        return f"about {max(5 * round(seconds / 5), 5)} s left"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min left"
    return f"about {seconds / 3600:.1f} h left"


class Terminal:
    """A `ProgressListener` that shows what happens on a console, and writes what it logs to a file.

    Args:
        console: where to; bars if it is a terminal, plain lines if not.
        log: the file for the lines, each with its time; none if None.
    """

    def __init__(self, console: Console, log: Path | None = None) -> None:
        self._console, self._log = console, log
        self._live = console.is_terminal and not console.is_dumb_terminal
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._stage: Stage | None = None
        self._bars: Progress | None = None
        self._overall: TaskID | None = None
        self._lines: dict[str, TaskID] = {}
        self._said = 0.0

    def log(self, text: str) -> None:
        """Print a line, and write it to the file."""
        self._print(text)
        self._write(text)

    def begin(self, stage: str, jobs: Mapping[str, tuple[str, float]], cached: int, scratch: Path) -> None:
        """A stage begins: its jobs by key, each with a name and its work; `cached` more were in the store."""
        self.end()
        stored = f", {cached} more {'is' if cached == 1 else 'are'} in the store" if cached else ""
        if not jobs:
            self.log(f"{stage}: nothing to do{stored or ', everything is in the store'}")
            return
        self.log(f"{stage}: {len(jobs)} job{'' if len(jobs) == 1 else 's'}{stored}")
        self._stage = Stage(stage, dict(jobs), scratch)
        self._said = time.monotonic()
        if self._live:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24), TextColumn("{task.fields[note]}", markup=False),
                console=self._console, auto_refresh=False, transient=True,
            )  # fmt: skip
            self._overall = self._bars.add_task(stage, total=self._stage.total, note=about(None))
            self._bars.start()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, args=(self._stop,), name="relaxloss-progress", daemon=True)
        self._thread.start()

    def done(self, key: str, seconds: float) -> None:
        """A job has ended, after so many seconds of its own."""
        with self._lock:
            stage = self._stage
            if stage is None or key not in stage.jobs or key in stage.finished:
                return
            stage.finish(key)
            took = f" in {seconds:.1f} s" if seconds else ""
            text = f"[{len(stage.finished)}/{len(stage.jobs)}] {stage.jobs[key][0]}{took}"
            self._write(text)
            if self._live:
                self._draw()
            else:
                self._print(f"{text}; {about(stage.left())}")

    def end(self) -> None:
        """The stage is over, or broken off: take the bars away and end the thread. May be called at any time."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            stage, bars = self._stage, self._bars
            self._thread = self._stage = self._bars = None
            self._lines = {}
            if bars is not None:
                bars.stop()
            if stage is not None:
                count = f"{len(stage.finished)} of {len(stage.jobs)} jobs"
                self.log(f"{stage.name}: {count} in {time.monotonic() - stage.started:.1f} s")

    def _poll(self, stop: threading.Event) -> None:
        while not stop.wait(POLL):
            with self._lock:
                if self._stage is None:
                    return
                self._stage.look()
                if self._live:
                    self._draw()
                elif time.monotonic() - self._said >= PLAIN:
                    self._said = time.monotonic()
                    share = self._stage.done / self._stage.total if self._stage.total else 0.0
                    self._print(f"{self._stage.name}: {share:.0%}, {about(self._stage.left())}")

    def _draw(self) -> None:
        bars, stage = self._bars, self._stage
        if bars is None or stage is None or self._overall is None:
            return
        count = f"{len(stage.finished)}/{len(stage.jobs)} jobs, {about(stage.left())}"
        bars.update(self._overall, completed=stage.done, note=count)
        for key in [key for key in self._lines if key not in stage.running]:
            bars.remove_task(self._lines.pop(key))
        for key, report in stage.running.items():
            fields: dict[str, Any] = {"completed": report.epoch, "total": max(report.epochs, 1), "note": str(report)}
            if key not in self._lines:
                self._lines[key] = bars.add_task(f"  {stage.jobs[key][0]}", **fields)
            bars.update(self._lines[key], **fields)
        bars.refresh()

    def _print(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def _write(self, text: str) -> None:
        if self._log is None:
            return
        with contextlib.suppress(OSError):  # a full disk is the store's to report
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
