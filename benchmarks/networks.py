"""The networks that the peers run, layer by layer (standard library only: the peers' environment has little else)."""

from __future__ import annotations

from dataclasses import dataclass

CLASSES = 10


@dataclass(frozen=True)
class Conv:
    """3x3 convolution with padding 1 over maps of size x size, then tanh."""

    inputs: int
    outputs: int
    size: int

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return 9 * self.inputs * self.outputs + self.outputs

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample, without those of the padding."""
        return self.inputs * self.outputs * (3 * self.size - 2) ** 2

    @property
    def nodes(self) -> int:
        """Units."""
        return self.outputs * self.size**2


@dataclass(frozen=True)
class Pool:
    """Maximum over 2x2."""


@dataclass(frozen=True)
class Dense:
    """Every unit to every unit, then tanh unless it is the output."""

    inputs: int
    outputs: int
    tanh: bool = True

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.inputs * self.outputs + self.outputs

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample."""
        return self.inputs * self.outputs

    @property
    def nodes(self) -> int:
        """Units."""
        return self.outputs


Layer = Conv | Pool | Dense


def cnn(d: int) -> list[Layer]:
    """The network of Oripov et al. 2025, width d."""
    convolutions = [
        layer
        for size, inputs, outputs in ((28, 1, d), (14, d, 2 * d), (7, 2 * d, 4 * d))
        for layer in (Conv(inputs, outputs, size), Conv(outputs, outputs, size), Pool())
    ]
    return [*convolutions, Dense(36 * d, 4 * d), Dense(4 * d, 4 * d), Dense(4 * d, CLASSES, tanh=False)]


def mlp(hidden: int = 128) -> list[Layer]:
    """784-128-128-10."""
    return [Dense(784, hidden), Dense(hidden, hidden), Dense(hidden, CLASSES, tanh=False)]


def network(work: dict) -> list[Layer]:
    """The layers that a work order names."""
    return cnn(work["d"]) if work["network"] == "cnn" else mlp()


def input_shape(work: dict) -> tuple[int, ...]:
    """Shape of one sample."""
    return (1, 28, 28) if work["network"] == "cnn" else (784,)
