"""Dials of recurrent networks. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.settings import Settings

if TYPE_CHECKING:
    from torch import nn


class Recurrent(Settings):
    """RNN, LSTM or GRU, read in one or both directions: for sentences and for series."""

    kind: Literal["recurrent"] = "recurrent"
    """Recurrent network."""
    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    """Elman's (1990), long short-term memory (Hochreiter and Schmidhuber 1997), or gated (Cho et al. 2014)."""
    width: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Width of the state, of each direction."""
    n_layers: Annotated[int, Field(ge=1, le=64)] = 1
    """Layers."""
    directions: Literal["forward", "both"] = "forward"
    """both also reads from the end (Schuster and Paliwal 1997)."""
    embedding: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Width of token vectors."""
    pool: Literal["last", "mean", "max"] = "last"
    """What stands for a whole sequence: the last state, or the mean or maximum of all."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of token vectors, between layers, and before the last matrix."""
    token_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance that a token is read as unknown in training (Iyyer et al. 2015)."""
    bag: Literal["none", "fresh", "naive Bayes"] = "none"
    """A linear score of each word, added to a text's answer beside the reader (wide and deep: Cheng et al. 2016). It starts
    at 0, or from how much oftener a word stands in texts of a class (Wang and Manning 2012; needs data.count_words)."""
    bag_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Chance that a word is left out of the bag in training."""

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """The network for tokens or a series."""
        from danlu.models.recurrent import RecurrentModel

        if "horizon" not in card.features and "vocab_size" not in card.features:
            raise UserError("model.kind", "recurrent reads sentences and series", got=f"{card.kind} data")
        if self.bag == "naive Bayes" and "texts_with" not in card.features:
            raise UserError(
                "model.bag",
                "needs counts of words by class",
                got=f"{card.kind} data without",
                fix="set data.count_words = true",
            )
        return RecurrentModel(self, card.features, n_outputs, seed)
