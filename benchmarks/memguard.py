"""MemGuard's phase I: all rows in one batch, against one row at a time. Writes results/benchmarks/memguard.json.

Run: ``python benchmarks/memguard.py``. N = 2,000 rows of C = 100 classes, one thread. The loop is the tests' oracle; it
runs on 40 of the rows, spread over all, and its time is scaled to 2,000 (rows are independent of each other). Rounds of
both alternate, so that a busy machine slows both; the median of the rounds' ratios is reported, from CPU time.
"""

from __future__ import annotations

import datetime
import json
import statistics
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.test_memguard import example, slow_phase_one  # noqa: E402

from relaxloss.defenses.memguard import phase_one  # noqa: E402

ROWS, CLASSES, PART, ROUNDS = 2000, 100, 40, 5


def main() -> None:
    torch.set_num_threads(1)
    z, attacker = example(ROWS, CLASSES)
    batched, loop = [], []
    error = 0.0
    for number in range(ROUNDS):
        start = time.process_time()
        fast = phase_one(z, attacker)
        batched.append(time.process_time() - start)
        part = torch.arange(number, ROWS, ROWS // PART)[:PART]
        start = time.process_time()
        slow = torch.stack([slow_phase_one(row, attacker) for row in z[part]])
        loop.append((time.process_time() - start) * ROWS / PART)
        error = max(error, (slow.softmax(1) - fast[part].softmax(1)).abs().max().item())
    result = {
        "what": "MemGuard phase I, CPU seconds of one thread",
        "rows": ROWS,
        "classes": CLASSES,
        "rounds": ROUNDS,
        "loop_measured_on_rows": PART,
        "batched_seconds": round(statistics.median(batched), 2),
        "loop_seconds_scaled": round(statistics.median(loop), 1),
        "ratio": round(statistics.median(b / a for a, b in zip(batched, loop, strict=True)), 1),
        "ratios": [round(b / a, 1) for a, b in zip(batched, loop, strict=True)],
        "largest_difference": error,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "torch": torch.__version__,
    }
    path = ROOT / "results" / "benchmarks" / "memguard.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
