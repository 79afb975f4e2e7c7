"""From a name or a path to a data set."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relaxloss.data import npz
from relaxloss.data.dataset import Dataset, directory, sources
from relaxloss.data.tabular import column_descriptions, files
from relaxloss.errors import UserError, no_such_file, unknown
from relaxloss.specs import digest, plugin_modules

SUFFIXES = (".csv", ".csv.gz", ".parquet", ".npz")


def load(
    name_or_path: str | os.PathLike[str],
    *,
    label: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    drop: str | Sequence[str] = (),
    columns: Mapping[str, Sequence[Any]] | None = None,
    group: str | None = None,
) -> Dataset:
    """The data set of a name, or of a user's own file.

    A name: a prepared ``<name>.npz`` in `folder` (default: the data directory) if there is one, whether the name is
    registered or not; else the registered source, whose files are downloaded, verified and prepared for the next time.
    What a third party's source prepared is prepared again when its code has changed since.

    A path (``.csv``, ``.csv.gz``, ``.parquet``, ``.npz``): the file; CSV and Parquet need the name of the
    `label` column and leave out the columns in `drop`. `columns` says what is known of their columns beforehand, from a
    data dictionary: ``{"age": (0, 110), "ward": ("A", "B")}``; of these the released model holds no statistics of its
    members, so that the ε of a private training covers it whole. `group` is the column of persons, where one has
    several rows: see ``Dataset.groups``. A file's bare name is also looked for in `folder`.

    Raises `UserError` for an unknown name, a missing file, or data that cannot be used; see `files` and `prepared`.
    """
    name = os.fspath(name_or_path)
    drop = (drop,) if isinstance(drop, str) else tuple(drop)
    about = {"label": label, "drop": drop, "columns": column_descriptions.read(columns or {}), "group": group}
    home = Path(folder) if folder is not None else directory()
    if _is_path(name):
        return _file(_found(name, home), about)
    path = home / f"{name}.npz"
    source = sources[name]() if name in sources.names() else None
    if source is None and not path.is_file():
        if Path(name).is_file():
            return _file(Path(name), about)
        found = {file.stem for file in home.glob("*.npz")}
        raise unknown(f"data set (not registered, and no {name}.npz in {home})", name, {*sources.names(), *found})
    _for_tables_only(name, about, f"{name} is a data set by its name")
    if source is None:
        return npz.read(path, name)
    code = digest(type(source))
    if path.is_file() and npz.maker(path) in ("", code):
        return npz.read(path, name, num_classes=source.num_classes, about=source.about)
    dataset = source.fetch(home)
    if not source.embedded:
        npz.write(dataset, path, made_by=code)
    return dataset


def missing(name_or_path: str | os.PathLike[str], *, folder: str | os.PathLike[str] | None = None) -> Path | None:
    """The file that `load` would have to download or fail without; None if all it needs is there."""
    name = os.fspath(name_or_path)
    home = Path(folder) if folder is not None else directory()
    path = _found(name, home) if _is_path(name) else home / f"{name}.npz"
    if path.is_file():
        return None
    source = sources[name]() if not _is_path(name) and name in sources.names() else None
    if source is not None and (source.embedded or (home / source.file()).is_file()):
        return None
    return path


def known_to_workers(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether another process can `load` it: not if a script of the user's own registered it."""
    name = os.fspath(name_or_path)
    if _is_path(name) or name not in sources.names():
        return True
    module = sources[name].__module__
    return any(module == known or module.startswith(f"{known}.") for known in ("relaxloss", *plugin_modules()))


def _is_path(name: str) -> bool:
    return name.endswith(SUFFIXES) or bool({os.sep, os.altsep} & set(name))


def _found(name: str, home: Path) -> Path:
    """The path, or, for a bare file name that is not in the working folder, the file in the data directory."""
    path = Path(name)
    beside = home / name
    return beside if path.name == name and not path.is_file() and beside.is_file() else path


def _for_tables_only(what: str | Path, about: Mapping[str, Any], instead: str) -> None:
    """Refuse what only a table has, of which there is none."""
    if any(value is not None and value != () and value != {} for value in about.values()):
        raise UserError(f"{what}: label, drop, columns and group are for CSV and Parquet files; {instead}")


def _file(path: Path, about: Mapping[str, Any]) -> Dataset:
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"{path}: unknown kind of file; expected {', '.join(SUFFIXES)}, or the name of a data set")
    if not path.is_file():
        raise no_such_file(path, SUFFIXES)
    name = re.sub(r"(\.csv\.gz|\.csv|\.parquet|\.npz)$", "", path.name)
    if path.suffix != ".npz":
        return files.read(path, name, **about)
    _for_tables_only(path, about, "the labels of an npz file are its y, and whose row each is says its array groups")
    return npz.read(path, name)


def listing() -> list[tuple[str, str]]:
    """Names and one line each of all data sets: the registered ones, and other files in the data directory."""
    home = directory()
    registered = {source.name: source.about for source in sources}
    found = {path.stem: f"a file in {home}" for path in sorted(home.glob("*.npz")) if path.stem.isidentifier()}
    return sorted((found | registered).items())
