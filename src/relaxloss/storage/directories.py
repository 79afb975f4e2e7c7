"""Directories for results: they can be written, and what is in them is not lost to another run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relaxloss.errors import UserError

MARKS = {"compare": "details/facts.json", "tune": "tuning.json", "audit": "audit.json"}  # the file that tells the kind


def writable(path: Path, option: str = "--out") -> None:
    """A clear error now, rather than after hours, if nothing can be written there. The path need not be there yet."""
    try:
        if path.exists() and not path.is_dir():
            raise UserError(f"{option} {path} is a file; expected a directory, or a path that is not there yet")
        with tempfile.TemporaryFile(dir=next(each for each in (path, *path.parents) if each.exists())):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write into {option} {path}: {error.strerror}; expected a directory that you may write, with room"
        ) from None


def of_kind(path: Path, kind: str) -> None:
    """A clear error if the directory belongs to another command than `kind`, a key of `MARKS`."""
    for other, mark in MARKS.items():
        if other != kind and (path / mark).is_file():
            raise UserError(
                f"{path} holds the results of relaxloss {other} ({mark}); expected a directory of relaxloss {kind}: "
                "name another one"
            )


def keep(path: Path, kind: str, lost: Callable[[dict[str, Any]], str], overwrite: bool) -> None:
    """A clear error if results in the directory would be replaced by others.

    Args:
        path: the directory; it need not be there.
        kind: of the results that are to come.
        lost: what of the results that are there, given the JSON of their mark, the new ones lack; empty if nothing.
        overwrite: let them be replaced all the same.
    """
    if overwrite:
        return
    of_kind(path, kind)
    mark = path / MARKS[kind]
    if not mark.is_file():
        return
    try:
        missed = lost(json.loads(mark.read_text(encoding="utf-8")))
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        missed = f"what they are cannot be read from {MARKS[kind]} ({type(error).__name__}: {error})"
    if missed:
        raise UserError(
            f"{path} holds results that this would replace: {missed}. Give another --out (out=...), or --overwrite "
            "(overwrite=True) to replace them"
        )


def claim(path: Path, kind: str) -> None:
    """From now on the directory holds results of this kind: those of other commands are no longer taken for results."""
    for other, mark in MARKS.items():
        if other != kind:
            (path / mark).unlink(missing_ok=True)
