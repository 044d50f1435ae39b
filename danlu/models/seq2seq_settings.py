"""Dials of the translator. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.settings import Auto, Settings

if TYPE_CHECKING:
    from torch import nn

Layers = Annotated[int, Field(ge=1, le=100)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Seq2Seq(Settings):
    """Transformer encoder and decoder, normalised before each branch: reads one sentence, writes another."""

    kind: Literal["seq2seq"] = "seq2seq"
    """Transformer of Vaswani et al. (2017), pre-norm (Xiong et al. 2020)."""
    encoder_layers: Layers = 4
    """Blocks that read the source."""
    decoder_layers: Layers = 4
    """Blocks that write the target."""
    width: Annotated[int, Field(ge=2, le=65_536)] = 128
    """Width of the residual stream."""
    n_heads: Annotated[int, Field(ge=1, le=1024)] = 4
    """Attention heads; they must divide the width."""
    hidden: Annotated[int, Field(ge=1, le=1_048_576)] | Auto = "auto"
    """Width inside the feed-forward parts. auto: four times the width."""
    activation: Literal["gelu", "relu", "silu"] = "relu"
    """Of the feed-forward parts."""
    dropout: Share = 0.1
    """Of the sum of table and position, and of what each branch adds."""
    attention_dropout: Share = 0.0
    """Of the attention weights."""
    tie: Literal["all", "output", "none", "auto"] = "auto"
    """Which matrices are one (Press and Wolf 2017): all = source table, target table and output matrix, under a joint
    vocabulary; output = target table and output matrix. auto: all where the vocabulary is joint, else output."""

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """The network for pairs."""
        from danlu.models.seq2seq import Seq2SeqModel

        if "source_vocab_size" not in card.features:
            raise UserError("model.kind", "seq2seq reads pairs of texts", got=f"{card.kind} data")
        if self.width % (2 * self.n_heads):
            raise UserError(
                "model.n_heads", f"must divide half of model.width, which is {self.width // 2}", got=self.n_heads
            )
        if self.tie == "all" and not card.features["joint"]:
            raise UserError("model.tie", "can be all under a joint vocabulary only", got="all", fix="set data.joint")
        return Seq2SeqModel(self, card.features, n_outputs, seed)
