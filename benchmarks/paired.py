"""What the benchmarks share: paired timing on one thread, and the JSON file.

Every round times all variants once, in rotating order; a ratio is the median over rounds of baseline / variant within
the round, with its range. Time is the process's CPU time, which other processes disturb less than wall time.
"""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def rounds_of(variants: dict[str, Callable[[], object]], rounds: int, warm: int = 1) -> dict[str, list[float]]:
    """CPU seconds of each variant in each round."""
    names = list(variants)
    for name in names:
        for _ in range(warm):
            variants[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            begin = time.process_time()
            variants[name]()
            seconds[name].append(time.process_time() - begin)
    return seconds


def measure(
    variants: dict[str, Callable[[], object]], items: dict[str, int], rounds: int
) -> dict[str, dict[str, float]]:
    """Per variant: median microseconds per item, and how many times faster than the first variant it is."""
    names = list(variants)
    taken = rounds_of(variants, rounds)
    seconds = {name: [second / items[name] for second in taken[name]] for name in names}
    rows = {}
    for name in names:
        times = [base / own for base, own in zip(seconds[names[0]], seconds[name], strict=True)]
        rows[name] = {
            "microseconds": statistics.median(seconds[name]) * 1e6,
            "times_faster": statistics.median(times),
            "low": min(times),
            "high": max(times),
        }
    return rows


def show(what: str, rows: dict[str, dict[str, float]]) -> None:
    """Print one table."""
    print(what)
    for name, row in rows.items():
        span = f"[{row['low']:.2f}, {row['high']:.2f}]"
        print(f"  {name:<40}{row['microseconds']:>14.2f} us{row['times_faster']:>10.2f} x  {span}")


def verdict(what: str, got: float, least: float) -> dict[str, object]:
    """A limit and whether it is kept, printed and for the file."""
    print(f"  {what}: {got:.1f} x, at least {least} x wanted: {'kept' if got >= least else 'MISSED'}")
    return {"what": what, "times_faster": got, "wanted": least, "kept": got >= least}


def write(out: Path, **content: object) -> None:
    """The results with versions, date, machine and number of threads."""
    head = {
        "benchmark": out.stem,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(head | content, indent=1) + "\n")
