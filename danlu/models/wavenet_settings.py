"""Dials of WaveNet. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.settings import Settings

if TYPE_CHECKING:
    from torch import nn

Width = Annotated[int, Field(ge=1, le=65_536)]


class Wavenet(Settings):
    """WaveNet (van den Oord et al. 2016, arXiv 1609.03499): dilated causal convolutions over samples, one after another."""

    kind: Literal["wavenet"] = "wavenet"
    """WaveNet."""
    width: Width = 64
    """Width of the residual stream."""
    gates: Width | Literal["width"] = "width"
    """Gated units of a layer; as many as the width if not said otherwise."""
    skip: Width = 128
    """Width of what all layers hand to the head, and of the head's hidden layer."""
    cycles: Annotated[int, Field(ge=1, le=64)] = 2
    """How often the dilations 1, 2, 4, ... are gone through."""
    dilations: Annotated[int, Field(ge=1, le=16)] = 10
    """Layers of one cycle; the last has dilation 2^(dilations - 1)."""
    knots: Annotated[int, Field(ge=0, le=4096)] = 0
    """Where in the clip a sample lies is told by this many learned vectors for each value of the first condition, with
    straight lines between: a course of the sound, as text gives one to a speaking model. 0: it is not told."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of what the head reads."""

    @property
    def steps(self) -> list[int]:
        """Dilation of each layer."""
        return [2**i for i in range(self.dilations)] * self.cycles

    @property
    def looks_back(self) -> int:
        """Samples before the one that is predicted, which the prediction depends on."""
        return sum(self.steps) + 2

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """The network for waveforms."""
        from danlu.models.wavenet import WavenetModel

        if "level_counts" not in card.features:
            raise UserError("model.kind", "wavenet reads waveforms", got=f"{card.kind} data")
        if card.features["context"] < self.looks_back:
            fix = f"set it to {self.looks_back}, or have fewer model.cycles or model.dilations"
            got = card.features["context"]
            raise UserError("data.context", "must reach as far as the model looks back", got=got, fix=fix)
        if self.knots == 1:
            raise UserError("model.knots", "must be 0, or at least 2: the beginning and the end", got=1)
        return WavenetModel(self, card.features, n_outputs, seed)
