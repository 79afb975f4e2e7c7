"""Data sets: the field's own, any prepared file in the data directory, and a user's CSV, Parquet or NPZ."""

from relaxloss.data.dataset import Column, Dataset, Encoder, Source, directory, sources
from relaxloss.data.source import known_to_workers, listing, load, missing
from relaxloss.data.tabular.frames import from_frame

register = sources.register

__all__ = [
    "Column",
    "Dataset",
    "Encoder",
    "Source",
    "directory",
    "from_frame",
    "known_to_workers",
    "listing",
    "load",
    "missing",
    "register",
    "sources",
]
