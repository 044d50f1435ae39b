"""Dials of the convolutional tagger. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.settings import Settings

if TYPE_CHECKING:
    from torch import nn


class Convtagger(Settings):
    """Residual dilated convolutions along a sequence of tokens: a score a position, or one for the whole."""

    kind: Literal["convtagger"] = "convtagger"
    """Convolutional tagger."""
    width: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Channels."""
    n_layers: Annotated[int, Field(ge=1, le=256)] = 8
    """Residual blocks."""
    kernel: Annotated[int, Field(ge=1, le=101)] = 5
    """Positions that a convolution looks at; odd."""
    dilations: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = (1, 2, 4, 8)
    """Steps between them, block by block, again from the start when they run out (Yu and Koltun 2016)."""
    unit: Literal["plain", "gated"] = "gated"
    """What follows a convolution: plain, GELU; gated, half of its channels times the sigmoid of the others (Dauphin et
    al. 2017)."""
    norm: Literal["layer", "none"] = "layer"
    """Before each convolution, over the channels of a position (Ba et al. 2016)."""
    pool: Literal["mean", "max", "attention"] = "attention"
    """What stands for a whole sequence where the data ask for that: the mean, the maximum, or a mean whose weights are
    learned."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of token vectors, of each block's result, and before the last matrix."""

    @model_validator(mode="after")
    def _odd(self) -> Convtagger:
        """As far to the left as to the right."""
        if self.kernel % 2 == 0:
            raise UserError("model.kernel", "must be odd", got=self.kernel, fix=f"write {self.kernel + 1}")
        return self

    @property
    def reach(self) -> int:
        """Positions to each side that a score depends on."""
        return sum(self.kernel // 2 * self.dilations[i % len(self.dilations)] for i in range(self.n_layers))

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """The network for sequences of tokens."""
        from danlu.models.convtagger import ConvTagger

        if "vocab_size" not in card.features:
            raise UserError("model.kind", "convtagger reads sequences of tokens", got=f"{card.kind} data")
        return ConvTagger(self, card.features, n_outputs, seed)
