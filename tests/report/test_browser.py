"""The page in a real browser: it renders, without a network, and nothing is cut off."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from relaxloss import api
from relaxloss.compute.engine import Engine
from relaxloss.data import Dataset
from relaxloss.experiments.plan import Experiment
from relaxloss.training.task import Recipe

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
def test_the_page_renders(blobs: Dataset, tmp_path: Path) -> None:
    recipe = Recipe(model="mlp:hidden=16", epochs=4, milestones=(3,), batch_size=32)
    spec = Experiment("blobs", defenses=("none", "relaxloss"), attacks=("loss", "entropy"), recipe=recipe)
    api.compare(spec, tmp_path / "run", data=blobs, engine=Engine("inprocess"))
    page = (tmp_path / "run" / "report.html").as_uri()
    assert CHROMIUM is not None
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    shot = tmp_path / "page.png"
    command = [CHROMIUM, *FLAGS, profile, f"--screenshot={shot}", "--window-size=1000,3000", page]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert shot.stat().st_size > 50_000, "a blank page makes a small picture"
    dumped = subprocess.run(
        [CHROMIUM, *FLAGS, profile, "--dump-dom", page], check=True, capture_output=True, text=True, timeout=120
    ).stdout
    assert len(re.findall(r"<svg", dumped)) >= 4
    assert "not measured" in dumped
