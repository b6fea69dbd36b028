"""Initial weights: orthogonal (Saxe et al. 2014), with small last layers so that a policy starts near uniform."""

from __future__ import annotations

import math
from typing import TypeVar

from torch import nn

HIDDEN_GAIN = math.sqrt(2.0)
LAST_GAIN = 0.01

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def orthogonal(layer: Layer, gain: float = HIDDEN_GAIN) -> Layer:
    """Fills a layer's weight with an orthogonal matrix times `gain` and its bias with zeros; returns the layer."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
