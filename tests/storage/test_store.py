"""The store: whole and verified, or not there."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from relaxloss.errors import UserError
from relaxloss.storage import store as stores
from relaxloss.storage.store import Store, pack_arrays, pack_weights, unpack_arrays, unpack_weights, write_atomically


def test_what_is_put_is_got(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writing():
        store.put("train", "k", {"a": b"1", "b": b""}, {"spec": "none"})
    assert store.get("train", "k") == {"a": b"1", "b": b""}
    assert store.get("train", "other") is None
    entry = next(iter(store.entries(verify=True)))
    assert (entry.stage, entry.key, entry.sound, entry.about["spec"]) == ("train", "k", True, "none")


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "no manifest"])
def test_a_damaged_entry_is_never_trusted(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    store.put("train", "k", {"a": b"12345"}, {})
    folder = store.path("train", "k")
    if damage == "flip":
        (folder / "a").write_bytes(b"12x45")
    elif damage == "truncate":
        (folder / "a").write_bytes(b"12")
    elif damage == "remove":
        (folder / "a").unlink()
    elif damage == "manifest":
        (folder / "manifest.json").write_text("{")
    else:
        (folder / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="damaged"):
        assert store.get("train", "k") is None
    assert folder.exists(), "a reader removes nothing"
    with pytest.warns(UserWarning, match="damaged"):
        store.put("train", "k", {"a": b"new"}, {})
    assert store.get("train", "k") == {"a": b"new"}


def test_leftovers_of_a_killed_writer_are_no_entries_and_are_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    part = tmp_path / "train" / "k.123.part"
    part.mkdir(parents=True)
    (part / "manifest.json").write_text(json.dumps({"about": {}, "sha256": {}}))
    assert store.get("train", "k") is None
    with store.writing():
        assert not part.exists()


def test_a_second_writer_is_told_so(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom relaxloss.storage.store import Store\n"
        "try:\n  with Store(sys.argv[1]).writing(): pass\nexcept ValueError as e: print(e)"
    )
    with Store(tmp_path).writing():
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert f"is being written by process {os.getpid()}" in done.stdout
    with Store(tmp_path).writing():
        pass


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.put("train", "before", {"a": b"1"}, {})

    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stores, "_write", full)
    with pytest.raises(UserError, match=r"disk of .* is full.*nothing stored before is lost"):
        store.put("train", "k", {"a": b"12345"}, {})
    assert store.get("train", "k") is None
    assert store.get("train", "before") == {"a": b"1"}
    assert [entry.key for entry in store.entries(verify=True)] == ["before"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x" / "table.csv"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(UserError, match=r"cannot write .*table.csv: killed; expected a place with room"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [each.name for each in path.parent.iterdir()] == ["table.csv"]


def test_tied_weights_are_stored_under_each_name() -> None:
    layer = torch.nn.Linear(3, 3)
    tied = torch.nn.ModuleDict({"encoder": layer, "decoder": layer}).state_dict()
    back = unpack_weights(pack_weights(tied))
    assert back.keys() == tied.keys()
    assert all(torch.equal(back[name], tied[name]) for name in tied)


def test_arrays_and_weights_round_trip_without_pickle() -> None:
    arrays = {"x": np.arange(6.0).reshape(2, 3), "flags": np.array([True, False])}
    back = unpack_arrays(pack_arrays(arrays))
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    with pytest.raises(ValueError, match="allow_pickle"):
        pack_arrays({"x": np.array([object()])})
    state = torch.nn.Linear(2, 3).state_dict()
    assert all(torch.equal(unpack_weights(pack_weights(state))[name], state[name]) for name in state)
    with pytest.raises(UserError, match="cannot be read"):
        unpack_weights(b"nonsense")
