"""What defenses do to a network's layers: find the last linear one, put a layer in another's place."""

from __future__ import annotations

from torch import nn

from relaxloss.errors import UserError


def last_linear(net: nn.Module, asks: str) -> tuple[str, nn.Linear]:
    """The last `nn.Linear` of a net, in the order of registration, and its name; `asks` is who needs it."""
    for name, layer in reversed(list(net.named_modules())):
        if isinstance(layer, nn.Linear):
            return name, layer
    raise UserError(f"{asks} needs a network with a torch.nn.Linear layer; got {type(net).__name__} without one")


def replaced(net: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """The net with `layer` in the place of its submodule `name`; the layer itself if the name is empty."""
    if not name:
        return layer
    parent, _, attribute = name.rpartition(".")
    setattr(net.get_submodule(parent), attribute, layer)
    return net
