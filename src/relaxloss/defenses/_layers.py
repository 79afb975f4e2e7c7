"""What defenses do to a network's layers: find the last linear one, put a layer in another's place."""

from __future__ import annotations

import contextlib

from torch import nn

from relaxloss.errors import UserError
from relaxloss.training.task import Network, Samples, predict


def last_linear(net: nn.Module, asks: str) -> tuple[str, nn.Linear]:
    """The last `nn.Linear` of a net, in the order of registration, and its name; `asks` is who needs it."""
    for name, layer in reversed(list(net.named_modules())):
        if isinstance(layer, nn.Linear):
            return name, layer
    raise UserError(f"{asks} needs a network with a torch.nn.Linear layer; got {type(net).__name__} without one")


def check_last(network: Network, samples: Samples, asks: str) -> nn.Linear:
    """The `last_linear`; `UserError` if it is not the last layer of weights that computes, as seen on two samples."""
    net, ran = network.net, list[nn.Module]()
    with contextlib.ExitStack() as hooks:
        for layer in net.modules():
            if any(weight.ndim > 1 for weight in layer.parameters(recurse=False)):
                hooks.enter_context(layer.register_forward_hook(lambda layer, *_: ran.append(layer)))
        predict(network, samples.x[:2])
    name, last = last_linear(net, asks)
    if ran[-1:] != [last]:
        names = {layer: of for of, layer in net.named_modules()}
        what = f"{names[ran[-1]]} ({type(ran[-1]).__name__}) computes" if ran else "no layer is called as one that runs"
        raise UserError(
            f"{asks} needs a torch.nn.Linear that gives the logits, and takes the last one of the network, {name}; but "
            f"{what} last: let it be a Linear, and assign it last in {type(net).__name__}"
        )
    return last


def replaced(net: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """The net with `layer` in the place of its submodule `name`; the layer itself if the name is empty."""
    if not name:
        return layer
    parent, _, attribute = name.rpartition(".")
    setattr(net.get_submodule(parent), attribute, layer)
    return net
