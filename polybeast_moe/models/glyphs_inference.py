"""The glyph crop's encoder for inference on a CPU: the same values up to rounding, with less work.

Squares hold one of 5,977 glyphs, so that what a glyph adds to the first convolution at each place of its kernel is a
table, made once for each version of the weights; the convolution is then a sum of nine rows a square.
"""

# numba infers the types of the kernels' arguments.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from polybeast_moe.ops.compiled import compiled


class GlyphInference:
    """`GlyphCropEncoder` at the weights of the moment in which it is made."""

    def __init__(self, glyphs: Tensor, first: nn.Conv2d, second: nn.Conv2d, out: nn.Linear) -> None:
        """Takes the embedding of each glyph [G, embedding] and the encoder's layers."""
        self._kernel, self._stride = first.kernel_size[0], second.stride[0]
        self._second_kernel = second.kernel_size[0]
        # [channels, embedding, k, k] -> [k * k * channels, embedding], applied to every glyph.
        places = first.weight.permute(2, 3, 0, 1).flatten(0, 2)
        self._table = F.linear(glyphs, places).view(len(glyphs), -1, len(first.weight))
        assert first.bias is not None
        self._first_bias, self._second_bias = first.bias, second.bias
        self._second = second.weight.permute(0, 2, 3, 1).flatten(1)  # channels last, as the first convolution writes
        self._out = out.weight.view(len(out.weight), len(second.weight), -1).transpose(1, 2).flatten(1)
        self._out_bias = out.bias

    def __call__(self, glyph_crop: Tensor) -> Tensor:
        """[N, C, C] -> [N, out_features]."""
        rows, side = len(glyph_crop), glyph_crop.shape[1] - self._kernel + 1
        hidden = self._table.new_empty(rows, side, side, self._table.shape[2])
        table, bias = self._table.detach().numpy(), self._first_bias.detach().numpy()
        _first_convolution(glyph_crop.contiguous().numpy(), table, bias, hidden.numpy())
        kernel, stride = self._second_kernel, self._stride
        patches = hidden.unfold(1, kernel, stride).unfold(2, kernel, stride).permute(0, 1, 2, 4, 5, 3)
        squares = F.linear(patches.flatten(3).flatten(0, 2), self._second, self._second_bias).relu_()
        return F.linear(squares.view(rows, -1), self._out, self._out_bias).relu_()


@compiled
def _first_convolution(glyphs, table, bias, out):
    """ReLU(bias + the sum of table[glyph, place] over the places of the kernel), [N, C, C] -> [N, S, S, channels]."""
    zero = np.float32(0)
    kernel = glyphs.shape[1] - out.shape[1] + 1
    for n in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                square = out[n, y, x]
                square[:] = bias
                for i in range(kernel):
                    for j in range(kernel):
                        row = table[glyphs[n, y + i, x + j], i * kernel + j]
                        for c in range(square.size):
                            square[c] += row[c]
                for c in range(square.size):
                    square[c] = max(square[c], zero)
