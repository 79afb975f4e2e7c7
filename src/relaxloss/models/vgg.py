"""VGG11 with batch normalisation for 32×32 images (Simonyan & Zisserman, 2015, configuration A, one linear layer)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from relaxloss.models.base import Model, models
from relaxloss.models.resnet import he_initialise, image_channels

CONFIGURATION = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)  # channels of a convolution; 0: halve the image


@models.register("vgg11_bn")
@dataclass(frozen=True)
class VGG11BN(Model):
    """Eight convolutions with batch normalisation and ReLU, five poolings, one linear layer."""

    about: ClassVar[str] = "convolutional network for 32x32 images, 9.2 million weights"

    def build(self, shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """``(B, channels, H, W)`` → ``(B, num_classes)``; images of at least 32×32."""
        channels = image_channels(self.name, shape)
        layers: list[nn.Module] = []
        for width in CONFIGURATION:
            if width:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
        he_initialise(network)
        return network
