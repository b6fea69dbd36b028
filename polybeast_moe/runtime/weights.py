"""Weights published by the learner and read by policy workers through shared memory: versioned, never torn."""

from __future__ import annotations

import mmap
import os
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from polybeast_moe import _C

_BUFFERS = 3
_HEADER = 4096
_NOTHING = -1


class SharedWeights:
    """Three copies of a module's parameters and buffers in one memory file, one writer, any number of readers.

    The modules may be on a GPU: a copy from or to this memory, which is not pinned, returns when it is done with it.

    The writer never touches the newest copy: it fills the next one in turn, then points to it. A reader that was
    overtaken (the writer went round while it copied) sees the copy's version changed and reads again. Versions and the
    pointer are words with fences on both sides, so that this holds on processors that reorder stores as well.

    Whoever made the file closes it; the memory goes with the last process that has it mapped.
    """

    def __init__(self, module: nn.Module, fd: int) -> None:
        """Maps the memory file `fd` for a module of the same shapes as the one it was made for."""
        tensors = list(module.state_dict().values())
        self._bytes = sum(_padded(tensor) for tensor in tensors)
        self.fd = fd
        self._memory = mmap.mmap(fd, _HEADER + _BUFFERS * self._bytes)
        header = np.frombuffer(self._memory, dtype=np.int64, count=1 + _BUFFERS)
        self._newest, self._versions = header[:1], header[1:]
        self._copies = [self._views(tensors, _HEADER + i * self._bytes) for i in range(_BUFFERS)]

    @classmethod
    def create(cls, module: nn.Module) -> Self:
        """Makes the memory file; nothing is published yet."""
        tensors = module.state_dict().values()
        fd = os.memfd_create("pbm-weights", os.MFD_CLOEXEC)
        os.ftruncate(fd, _HEADER + _BUFFERS * sum(_padded(tensor) for tensor in tensors))
        weights = cls(module, fd)
        weights._versions.fill(_NOTHING)
        return weights

    @property
    def version(self) -> int:
        """The newest version published; −1 before the first."""
        return _C.load_word(self._versions, _C.load_word(self._newest, 0))

    def publish(self, module: nn.Module, version: int) -> None:
        """Makes the module's weights the newest, under a number that grows."""
        index = (_C.load_word(self._newest, 0) + 1) % _BUFFERS
        _C.store_word(self._versions, index, _NOTHING)
        for view, tensor in zip(self._copies[index], module.state_dict().values(), strict=True):
            view.copy_(tensor)
        _C.store_word(self._versions, index, version)
        _C.store_word(self._newest, 0, index)

    def load(self, module: nn.Module) -> int:
        """Copies the newest weights into the module and returns their version."""
        while True:
            index = _C.load_word(self._newest, 0)
            version = _C.load_word(self._versions, index)
            for tensor, view in zip(module.state_dict().values(), self._copies[index], strict=True):
                tensor.copy_(view)
            if version != _NOTHING and _C.load_word(self._versions, index) == version:
                return version

    def close(self) -> None:
        """Closes the memory file: nobody can be given it any more. Safe to call twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _views(self, tensors: list[Tensor], offset: int) -> list[Tensor]:
        views = []
        for tensor in tensors:
            flat = torch.frombuffer(self._memory, dtype=tensor.dtype, count=max(1, tensor.numel()), offset=offset)
            views.append(flat[: tensor.numel()].view(tensor.shape))
            offset += _padded(tensor)
        return views


def _padded(tensor: Tensor) -> int:
    """Bytes of a tensor, rounded up to a cache line."""
    return (max(1, tensor.numel()) * tensor.element_size() + 63) // 64 * 64
