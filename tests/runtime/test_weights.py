"""Weights in shared memory: whole versions only, whoever reads while the learner publishes."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from polybeast_moe.runtime.weights import SharedWeights


class Mixed(nn.Module):
    """Parameters and buffers of several types and sizes, an empty one and a single number among them."""

    def __init__(self, value: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.full((7, 5), float(value)))
        self.short = nn.Parameter(torch.full((3,), float(value), dtype=torch.bfloat16))
        self.register_buffer("count", torch.tensor(value))
        self.register_buffer("mask", torch.tensor([value % 2 == 0, True]))
        self.register_buffer("nothing", torch.empty(0))


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_reader_gets_what_was_published_last() -> None:
    writer, module = SharedWeights.create(Mixed(0)), Mixed(0)
    reader = SharedWeights(module, writer.fd)
    assert writer.version == reader.version == -1
    for version in (0, 1, 2, 5, 6):
        writer.publish(Mixed(version + 10), version)
        assert reader.version == version
        assert reader.load(module) == version
        assert same(module, Mixed(version + 10))
    assert reader.load(module) == 6  # reading takes nothing away


def test_what_was_published_does_not_follow_the_module() -> None:
    source, target = Mixed(1), Mixed(0)
    weights = SharedWeights.create(source)
    weights.publish(source, 0)
    with torch.no_grad():
        source.matrix.fill_(99)
    weights.load(target)
    assert same(target, Mixed(1))


def test_a_publication_that_breaks_off_leaves_the_last_version() -> None:
    weights, target = SharedWeights.create(Mixed(0)), Mixed(0)
    weights.publish(Mixed(3), 3)
    broken = Mixed(4)
    broken.mask = torch.zeros(9, dtype=torch.bool)  # comes after others that were copied already
    with pytest.raises(RuntimeError):
        weights.publish(broken, 4)
    assert weights.version == 3
    assert weights.load(target) == 3
    assert same(target, Mixed(3))
    weights.publish(Mixed(5), 5)
    assert weights.load(target) == 5
    assert same(target, Mixed(5))


@pytest.mark.parametrize("publications", [1, 2, 3, 4])
def test_a_reader_that_is_overtaken_reads_again(publications: int) -> None:
    """The writer publishes between the reader's copies of two tensors; from the third on it must reuse what is read."""

    def vectors(value: int) -> nn.ParameterList:
        return nn.ParameterList(nn.Parameter(torch.full((3,), float(value))) for _ in range(2))

    class Interrupted(nn.ParameterList):
        def state_dict(self, *args, **options):
            first, second = super().state_dict(*args, **options).values()
            return {"first": first, "second": Interruption(second)}

    class Interruption(torch.Tensor):
        def copy_(self, source):
            while published[-1] < publications:
                published.append(published[-1] + 1)
                weights.publish(vectors(published[-1]), published[-1])
            return super().copy_(source)

    published = [0]
    weights = SharedWeights.create(vectors(0))
    weights.publish(vectors(0), 0)
    target = Interrupted(vectors(9))
    version = weights.load(target)
    assert [parameter.tolist() for parameter in target] == [[version] * 3] * 2
    assert version == (0 if publications < 3 else published[-1])  # two of the three copies are free


WRITER = """
import sys
import torch
from torch import nn
from polybeast_moe.runtime.weights import SharedWeights

torch.set_num_threads(1)
fd, size = map(int, sys.argv[1:])
layers = nn.ParameterList(nn.Parameter(torch.zeros(size)) for _ in range(4))
weights = SharedWeights(layers, fd)
version = 0
while True:
    version += 1
    with torch.no_grad():
        for layer in layers:
            layer.fill_(version)
    weights.publish(layers, version)
"""


def test_weights_are_never_torn() -> None:
    """Another process publishes at full speed vectors whose every number is the version."""
    size = 1000
    layers = nn.ParameterList(nn.Parameter(torch.zeros(size)) for _ in range(4))
    weights = SharedWeights.create(layers)
    weights.publish(layers, 0)
    command = [sys.executable, "-c", WRITER, str(weights.fd), str(size)]
    with subprocess.Popen(command, pass_fds=[weights.fd], env={**os.environ, "OMP_NUM_THREADS": "1"}) as writer:
        try:
            versions = [0]
            while len(set(versions)) < 100:
                assert writer.poll() is None
                versions.append(weights.load(layers))
                numbers = torch.cat([layer.detach() for layer in layers])
                assert numbers.min() == numbers.max() == versions[-1]
                assert weights.version >= versions[-1] >= versions[-2]
                time.sleep(0)
        finally:
            writer.kill()


def test_closing_gives_the_file_back_and_leaves_what_is_mapped() -> None:
    weights, target = SharedWeights.create(Mixed(0)), Mixed(0)
    weights.publish(Mixed(3), 3)
    fd = weights.fd
    weights.close()
    weights.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert weights.load(target) == 3
