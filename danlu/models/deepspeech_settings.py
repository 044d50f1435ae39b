"""Dials of Deep Speech 2. Torch-free."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.settings import Settings

if TYPE_CHECKING:
    from torch import nn

Size = Annotated[int, Field(ge=1, le=65_536)]
Side = Annotated[int, Field(ge=0, le=1024)]
Step = Annotated[int, Field(ge=1, le=64)]


class Deepspeech(Settings):
    """Deep Speech 2 (Amodei et al. 2016, 1512.02595): convolutions over the frames, recurrent layers, scores of each
    frame; for data with classes, one answer from the mean of all frames."""

    kind: Literal["deepspeech"] = "deepspeech"
    """Deep Speech 2."""
    channels: tuple[Size, ...] = (32, 32)
    """Channels of each convolution."""
    kernels: tuple[tuple[Side, Side], ...] = ((11, 11), (11, 11))
    """Frames and bins that each convolution sees, odd numbers; 0 bins: all at once (a convolution over time alone)."""
    strides: tuple[tuple[Step, Step], ...] = ((2, 2), (1, 2))
    """Frames and bins from place to place."""
    cell: Literal["rnn", "gru", "lstm"] = "gru"
    """rnn: ReLU cut at 20, as most of the paper's networks. gru: gated (section 3.5). lstm: long short-term memory."""
    width: Size = 256
    """Width of the recurrent layers, of each direction; the directions are added up."""
    n_layers: Annotated[int, Field(ge=0, le=64)] = 2
    """Recurrent layers."""
    directions: Literal["forward", "both"] = "both"
    """both also reads from the end; both directions see the input through the same matrix, as in the paper."""
    lookahead: Annotated[int, Field(ge=0, le=1024)] = 0
    """Frames ahead that a forward network sees through a row convolution after the recurrent layers (section 3.7)."""
    n_dense: Annotated[int, Field(ge=0, le=16)] = 0
    """Full layers of `width` after the recurrent ones."""
    batch_norm: bool = True
    """Batch norm of every layer's input product over all frames of a batch (section 3.2), padding left out."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Before each recurrent layer and before the last matrix; the same for all frames of a sound."""

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """The network; refused where the frames of a sound would not reach for its transcript."""
        from danlu.models.deepspeech import DeepspeechModel

        features = card.features
        if "n_bins" not in features:
            raise UserError(
                "model.kind",
                "deepspeech reads sound",
                got=f"{card.kind} data",
                fix="choose a model that suits the data",
            )
        if not len(self.channels) == len(self.kernels) == len(self.strides):
            got = f"{len(self.channels)}, {len(self.kernels)} and {len(self.strides)}"
            raise UserError("model.channels", "must have as many entries as model.kernels and model.strides", got=got)
        if any(time % 2 == 0 or (bins and bins % 2 == 0) for time, bins in self.kernels):
            raise UserError("model.kernels", "must be odd numbers", got=str(list(map(list, self.kernels))))
        stride, most = math.prod(time for time, _ in self.strides), features.get("frames_per_unit", math.inf)
        if stride > most:
            wanted = f"must multiply to at most {most:.3g} over time: some sound has no more frames for each unit of its text"
            raise UserError("model.strides", wanted, got=stride, fix="lower a stride, or raise data.frames_per_unit")
        return DeepspeechModel(self, int(features["n_bins"]), n_outputs, seed, pooled="classes" in features)
