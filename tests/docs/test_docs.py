"""The documents: their numbers are those of the files under results/, and their examples run."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_number_in_a_filled_block_is_its_files() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "fill_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_number_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill = runpy.run_path(str(ROOT / "scripts" / "fill_docs.py"))
    text = (ROOT / "README.md").read_text()
    block = fill["BLOCK"].search(text)
    assert block is not None
    assert fill["KINDS"][block[2]](ROOT / block[3]) in text
    damaged = re.sub(r"\d\.\d", "9.9", block[0], count=1)
    assert fill["KINDS"][block[2]](ROOT / block[3]) not in damaged


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/tuning.md", "docs/audit.md"])
def test_python_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of Python runs by itself, top to bottom, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / name).read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for code in blocks:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, f"{code}\n{done.stderr}"


def test_the_readmes_calls_are_those_whose_types_are_checked() -> None:
    """mypy looks at ``examples/``, as a user's own type checker would."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert (ROOT / "examples" / "in_python.py").read_text().endswith(blocks[-1])


def test_links_to_files_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}, which is not there"
