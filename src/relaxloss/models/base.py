"""Models as specs: hyper-parameters in fields, `build` makes the network."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast

from pydantic import BeforeValidator, InstanceOf
from torch import nn

from relaxloss.errors import UserError, one_line
from relaxloss.specs import Registry, Spec, digest


@dataclass(frozen=True)
class Model(Spec):
    """A network architecture. A subclass overrides `build`."""

    about: ClassVar[str] = ""

    def build(self, shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A fresh network from inputs ``(B, *shape)`` float32 to logits ``(B, num_classes)``.

        Layers initialise themselves from torch's global generator; the caller isolates it (`seeds.isolated`).
        """
        raise NotImplementedError


models: Registry[Model] = Registry("model", "relaxloss.models")


@dataclass(frozen=True)
class Custom(Model):
    """A user's own network: ``package.module:function``, called with the input shape and the number of classes."""

    name: ClassVar[str] = "custom"
    function: str = ""
    source: str = ""  # `specs.digest` of the function, so that a changed architecture is another model

    def __post_init__(self) -> None:
        super().__post_init__()
        function = self._load()
        object.__setattr__(self, "source", digest(function))
        if self.function.startswith("__main__:"):  # which is another module in a worker process: take it along
            object.__setattr__(self, "_own", function)

    def __str__(self) -> str:
        return self.function

    def _load(self) -> Callable[..., Any]:
        """Import the function; the current directory counts as importable."""
        if "_own" in vars(self):
            return cast(Callable[..., Any], vars(self)["_own"])
        module_name, _, attribute = self.function.partition(":")
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        wanted = "expected package.module:function that can be imported"
        try:
            function: Callable[..., Any] = getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError) as error:
            raise UserError(f"model {self.function!r}: {error}; {wanted}") from None
        if not callable(function):
            raise UserError(f"model {self.function!r}: is {type(function).__name__} and no function; {wanted}")
        return function

    def build(self, shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """Call the function."""
        try:
            network = self._load()(shape, num_classes)
        except Exception as error:  # the user's code
            raise UserError(
                f"model {self.function!r} failed when it was called with the shape {shape} and {num_classes} classes: "
                f"{one_line(error)}; expected function(shape, num_classes) -> torch.nn.Module"
            ) from error
        if not isinstance(network, nn.Module):
            raise UserError(
                f"model {self.function!r} returned {type(network).__name__}; "
                "expected function(shape, num_classes) -> torch.nn.Module"
            )
        return network


def parse(given: str | Mapping[str, Any] | Model) -> Model:
    """A model from its spec, or from ``package.module:function``."""
    if isinstance(given, str):
        module, _, function = given.partition(":")
        if function.isidentifier() and module not in models.names():
            return Custom(function=given)
        if "." in module and "=" not in given:
            raise UserError(f"model {given!r}: expected package.module:function")
    if isinstance(given, Mapping) and given.get("name") == Custom.name:
        return Custom(function=str(given.get("function", "")))
    return models.parse(given)


ModelField = Annotated[InstanceOf[Model], BeforeValidator(parse)]
