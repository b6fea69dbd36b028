"""The encoder of the egocentric glyph crop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from nle import nethack
from torch import Tensor, nn

from polybeast_moe.models.glyphs_inference import GlyphInference
from polybeast_moe.models.initialise import orthogonal

_KERNEL = 3
_STRIDE = 2  # of the second convolution: halves the encoder's cost, and 9 x 9 is still covered without a remainder


class GlyphCropEncoder(nn.Module):
    """Glyph embeddings (by id, plus by group), two 3x3 convolutions without padding, a linear layer.

    [N, C, C] int16 -> [N, out_features]. The group is what kind of thing a glyph is: a monster or pet by its class,
    an object by its class, a map symbol, and so on. It lets rare glyphs share what their kind has learned.
    """

    group_of_glyph: Tensor

    def __init__(self, crop_size: int, embedding: int, channels: int, out_features: int) -> None:
        super().__init__()
        self.crop_size = crop_size
        groups = glyph_groups()
        self.register_buffer("group_of_glyph", groups, persistent=False)
        self.glyph = nn.Embedding(len(groups), embedding)
        self.group = nn.Embedding(int(groups.max()) + 1, embedding)
        nn.init.normal_(self.glyph.weight, std=0.3)
        nn.init.normal_(self.group.weight, std=1.0)
        self.first = orthogonal(nn.Conv2d(embedding, channels, _KERNEL))
        # A crop of three squares is used up by the first convolution: the second then looks at single squares.
        side = crop_size - _KERNEL + 1
        kernel = min(_KERNEL, side)
        self.second = orthogonal(nn.Conv2d(channels, channels, kernel, stride=_STRIDE))
        side = (side - kernel) // _STRIDE + 1
        self.out = orthogonal(nn.Linear(channels * side * side, out_features))
        self._inference: tuple[int, GlyphInference] | None = None

    def forward(self, glyph_crop: Tensor, weights_version: int | None = None) -> Tensor:
        """[N, C, C] -> [N, out_features], after a ReLU.

        With `weights_version` and without gradients, what only depends on the weights is kept until it changes.
        """
        on_host = glyph_crop.device.type == "cpu"
        if weights_version is not None and not torch.is_grad_enabled() and on_host:
            if self._inference is None or self._inference[0] != weights_version:
                self._inference = weights_version, GlyphInference(self.table(), self.first, self.second, self.out)
            return self._inference[1](glyph_crop)
        squares = F.embedding(glyph_crop.int(), self.table()).permute(0, 3, 1, 2)
        hidden = F.relu(self.second(F.relu(self.first(squares))))
        return F.relu(self.out(hidden.flatten(1)))

    def table(self) -> Tensor:
        """[MAX_GLYPH + 1, embedding]: each glyph's embedding and its group's."""
        return self.glyph.weight + F.embedding(self.group_of_glyph, self.group.weight)


def glyph_groups() -> Tensor:
    """[MAX_GLYPH + 1] int32: the group of each glyph, NO_GLYPH included, from NLE's own tables.

    Groups are numbered in the order in which the glyph numbers meet them.
    """
    numbers: dict[tuple[str, int], int] = {}
    kinds = [_kind(glyph) for glyph in range(nethack.MAX_GLYPH)] + [("no glyph", 0)]
    return torch.tensor([numbers.setdefault(kind, len(numbers)) for kind in kinds], dtype=torch.int32)


_MONSTERS = (
    (nethack.glyph_is_normal_monster, "monster"),
    (nethack.glyph_is_pet, "pet"),
    (nethack.glyph_is_ridden_monster, "ridden"),
    (nethack.glyph_is_detected_monster, "detected"),
)
_OTHERS = (
    (nethack.glyph_is_body, "body"),
    (nethack.glyph_is_statue, "statue"),
    (nethack.glyph_is_swallow, "swallow"),
    (nethack.glyph_is_warning, "warning"),
    (nethack.glyph_is_invisible, "invisible"),
)


def _kind(glyph: int) -> tuple[str, int]:
    """What kind of thing a glyph shows, and which class of it."""
    for is_kind, name in _MONSTERS:
        if is_kind(glyph):
            return name, ord(nethack.permonst(nethack.glyph_to_mon(glyph)).mlet)
    for is_kind, name in _OTHERS:
        if is_kind(glyph):
            return name, 0
    if nethack.glyph_is_normal_object(glyph):
        return "object", ord(nethack.objclass(nethack.glyph_to_obj(glyph)).oc_class)
    if nethack.glyph_is_cmap(glyph):  # NLE counts explosions among the map symbols, but not zaps
        return "map", nethack.glyph_to_cmap(glyph)
    return "other", 0
