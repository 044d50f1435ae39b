"""The multilayer perceptron's dials. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.base.contracts import DataCard
from danlu.base.settings import Settings

if TYPE_CHECKING:
    from torch import nn

Activation = Literal["identity", "relu", "leaky", "sigmoid", "tanh", "gelu", "silu"]
Width = Annotated[int, Field(ge=1, le=1_000_000)]


class Mlp(Settings):
    """Layers of matrices with an activation between them: for tables, vectors, and anything flattened."""

    kind: Literal["mlp"] = "mlp"
    """Multilayer perceptron."""
    layers: tuple[Width, ...] = (256, 128)
    """Width of each hidden layer; [] is a linear model."""
    activation: Activation = "relu"
    """Between layers; leaky has a slope of 0.01 below 0."""
    norm: Literal["none", "batch", "layer"] = "none"
    """After each hidden matrix: batch norm (Ioffe and Szegedy 2015) or layer norm (Ba et al. 2016)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of each hidden layer dropped in training (Srivastava et al. 2014)."""
    embedding: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """Width of the vector that stands for a category. auto: min(64, 1.6 n^0.56) for n categories."""
    numbers: Literal["plain", "periodic"] = "plain"
    """How a table's numbers come in: as they are, or as sines and cosines of learned frequencies with a small layer for
    each (Gorishniy et al. 2022, 2203.05556, PLR), which often pays on tables."""
    frequencies: Annotated[int, Field(ge=1, le=512)] = 24
    """Frequencies of each number, when periodic."""
    frequency_scale: Annotated[float, Field(gt=0)] = 0.1
    """Standard deviation of the frequencies at the start, when periodic."""
    number_width: Annotated[int, Field(ge=1, le=512)] = 8
    """Width that each number comes to, when periodic."""
    initial: Literal["torch", "glorot"] = "torch"
    """First weights: uniform within 1/sqrt(inputs), as torch has them, or Glorot's uniform with biases of 0, as Keras
    has them (Glorot and Bengio 2010)."""

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """The network for a table's features, or for one input tensor, flattened."""
        from danlu.models.mlp import MlpModel

        return MlpModel(self, card.features, n_outputs, seed)
