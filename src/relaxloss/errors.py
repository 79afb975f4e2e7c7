"""What went wrong, split by whose fault it is: the command line exits with 2 for `UserError`, with 1 for the rest."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path


class UserError(ValueError):
    """The input is wrong. The message says what was got, what was expected and what to do."""


class MissingExtra(UserError):
    """An optional dependency is needed and absent; the message names the extra to install."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional dependency; install it with: pip install 'relaxloss[{extra}]'")


def no_such_file(path: Path, suffixes: tuple[str, ...]) -> UserError:
    """The error for a path where there is no file; it names those beside it that would do."""
    near = sorted(file.name for file in path.parent.glob("*") if file.name.endswith(suffixes))[:10]
    beside = f"; beside it: {', '.join(near)}" if near else ""
    return UserError(f"{path}: there is no such file{beside}; check the path")


def unknown(kind: str, got: object, known: Iterable[str]) -> UserError:
    """The error for an unknown name: what was got, the nearest known names, and all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(got), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(name) for name in near)}? " if near else ""
    return UserError(f"unknown {kind} {str(got)!r}: {hint}known: {', '.join(names) or 'none'}")


def one_line(error: BaseException) -> str:
    """An error in one line: a `UserError`'s message; of any other its type, its message, and the line it comes from.

    That is the last line of the user's own code, if there is one: it says more than a library's beneath it.
    """
    if isinstance(error, UserError):
        return str(error)
    frames = list(traceback.extract_tb(error.__traceback__))
    libraries = ("site-packages", str(Path(__file__).parent))
    frames = [frame for frame in frames if not any(each in frame.filename for each in libraries)] or frames
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
