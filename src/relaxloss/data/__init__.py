"""Data sets: the field's own, any prepared file in the data directory, and a user's CSV, Parquet or NPZ."""

from relaxloss.data.base import Column, Dataset, Encoder, Source, directory, sources
from relaxloss.data.frames import from_frame
from relaxloss.data.loading import known_to_workers, listing, load, missing

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
