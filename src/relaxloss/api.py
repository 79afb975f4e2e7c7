"""The verbs that join the rooms: compare = run + report."""

from __future__ import annotations

from pathlib import Path

from relaxloss import report
from relaxloss.data import Dataset
from relaxloss.engine import Engine
from relaxloss.experiment import Experiment, Result, Watch, run


def compare(
    experiment: Experiment,
    out: Path | str,
    *,
    data: Dataset | None = None,
    engine: Engine | None = None,
    watch: Watch | None = None,
) -> Result:
    """Run an experiment, write its table, charts and page under `out`, and return the result.

    What is in ``out/store`` already is not computed again, so that a killed run resumes.

    Args:
        experiment: what is compared on what.
        out: the run's directory.
        data: a data set in memory, in place of ``experiment.dataset``'s.
        engine: where the jobs run.
        watch: who is told of the progress.
    """
    result = run(experiment, out, data=data, engine=engine, watch=watch)
    report.save(result, Path(out))
    return result
