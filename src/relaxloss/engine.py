"""The public path of the engine: ``relaxloss.engine.Engine("processes")`` for every ``engine=`` argument."""

from relaxloss.compute.engine import Engine

__all__ = ["Engine"]
