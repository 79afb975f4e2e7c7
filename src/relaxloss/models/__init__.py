"""Networks: the paper's MLP, ResNet20 and VGG11-BN, and a user's own as ``package.module:function``."""

from relaxloss.models.base import Custom, Model, ModelField, models, parse
from relaxloss.models.mlp import MLP
from relaxloss.models.resnet import ResNet20
from relaxloss.models.vgg import VGG11BN

register = models.register

__all__ = ["MLP", "VGG11BN", "Custom", "Model", "ModelField", "ResNet20", "models", "parse", "register"]
