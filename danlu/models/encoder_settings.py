"""Dials of the bidirectional Transformer encoder (BERT: Devlin et al. 2019). Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.settings import Auto, Settings

if TYPE_CHECKING:
    from torch import nn

Share = Annotated[float, Field(ge=0, lt=1)]


class Encoder(Settings):
    """Bidirectional Transformer over tokens: one answer a text, or one at each position (tags, masked words)."""

    kind: Literal["encoder"] = "encoder"
    """BERT-like encoder."""
    n_layers: Annotated[int, Field(ge=1, le=1024)] = 2
    """Blocks."""
    width: Annotated[int, Field(ge=4, le=65_536)] = 128
    """Width of the token vectors; a multiple of n_heads."""
    n_heads: Annotated[int, Field(ge=1, le=1024)] = 4
    """Attention heads."""
    hidden: Annotated[int, Field(ge=1, le=262_144)] | Auto = "auto"
    """Width inside the feed-forward part. auto: four times the width."""
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    """Inside the feed-forward part."""
    norm: Literal["pre", "post"] = "pre"
    """Layer norm before each branch (Xiong et al. 2020), or after each sum, as BERT has it."""
    eps: Annotated[float, Field(gt=0, lt=0.1)] = 1e-5
    """Added to the variance in a norm; BERT's is 1e-12."""
    positions: Literal["learned", "sinusoids", "none"] = "learned"
    """A learned vector for each position of data.context, fixed sines (Vaswani et al. 2017), or none."""
    neighbours: Annotated[int, Field(ge=0, le=64)] = 0
    """Tokens on either side that a convolution mixes into each vector before the blocks: near words are seen from the first
    step on, and positions need not be learned for it (after wav2vec 2.0: Baevski et al. 2020). 0: none."""
    segments: Annotated[int, Field(ge=0, le=64)] = 0
    """Segment vectors (BERT: 2), picked by the data's `segments` where there are such, else the first. 0: none."""
    pool: Literal["first", "mean", "max"] = "mean"
    """What stands for a whole text: the first position's vector (see data.start), or the mean or maximum of all."""
    pooler: bool = False
    """A square matrix and tanh after pooling, as in BERT."""
    dropout: Share = 0.1
    """Of token vectors, of both branches' results, and before the last matrix."""
    attention_dropout: Share = 0.0
    """Of attention weights."""
    token_dropout: Share = 0.0
    """Chance that a token is read as unknown in training (Iyyer et al. 2015)."""

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """The network for tokens."""
        from danlu.models.encoder import EncoderModel

        if "vocab_size" not in card.features or "horizon" in card.features:
            raise UserError("model.kind", "encoder reads tokens", got=f"{card.kind} data", fix="see danlu list models")
        if self.width % self.n_heads:
            raise UserError("model.width", f"must be a multiple of model.n_heads, which is {self.n_heads}", got=self.width)  # fmt: skip
        return EncoderModel(self, card.features, n_outputs, seed)
