"""ResNet20 for small images (He et al., 2016, section 4.2): three stages of three basic blocks, 16-32-64 channels.

Shortcuts across stages are parameter-free: every second pixel, zeros for the new channels (option A of the paper).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import nn
from torch.nn import functional as F

from relaxloss.errors import UserError
from relaxloss.models.base import Model, models


class Block(nn.Module):
    """Two 3×3 convolutions with a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, inputs, H, W)`` → ``(B, outputs, H / stride, W / stride)``."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        if self.stride > 1 or self.extra:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return F.relu(out + x)


@models.register("resnet20")
@dataclass(frozen=True)
class ResNet20(Model):
    """The CIFAR ResNet of 6n + 2 layers.

    Attributes:
        blocks: n, blocks per stage; 3 makes ResNet20.
        width: channels of the first stage.
    """

    about: ClassVar[str] = "residual network for 32x32 images, 0.27 million weights"
    blocks: PositiveInt = 3
    width: PositiveInt = 16

    def build(self, shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """``(B, channels, H, W)`` → ``(B, num_classes)``."""
        layers: list[nn.Module] = [
            nn.Conv2d(image_channels(self.name, shape), self.width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(self.width),
            nn.ReLU(),
        ]
        inputs = self.width
        for stage in range(3):
            outputs = self.width * 2**stage
            for block in range(self.blocks):
                layers.append(Block(inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes))
        he_initialise(network)
        return network


def image_channels(name: str, shape: tuple[int, ...]) -> int:
    """The number of channels of an image shape; a clear error for anything else."""
    if len(shape) != 3:
        raise UserError(f"model {name} takes images (channels, height, width), got samples of shape {shape}; use mlp")
    return shape[0]


def he_initialise(network: nn.Module) -> None:
    """He et al. (2015): convolution weights normal with variance 2 / fan-out; linear weights normal, 2 / fan-in."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
