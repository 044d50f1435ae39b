"""The vision transformer's dials. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.settings import Settings
from danlu.models.convnet_settings import Share, image_shape

if TYPE_CHECKING:
    from torch import nn


class Vit(Settings):
    """Vision transformer (Dosovitskiy et al. 2021, 2010.11929): an image as a row of patches. It knows less of images
    than a convolutional network does, so it wants more of them, or stronger augmentation (Touvron et al. 2021)."""

    kind: Literal["vit"] = "vit"
    """Vision transformer."""
    patch: Annotated[int, Field(ge=1, le=1024)] = 4
    """Side of a patch in pixels; the image's sides must be multiples of it. 16 for images of 224 x 224."""
    n_layers: Annotated[int, Field(ge=1, le=1024)] = 6
    """Blocks."""
    width: Annotated[int, Field(ge=1, le=65536)] = 192
    """Width of every patch's vector."""
    n_heads: Annotated[int, Field(ge=1, le=1024)] = 3
    """Attention heads; they divide the width."""
    hidden: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Width inside the feed-forward parts. auto: 4 times the width."""
    pool: Literal["token", "mean"] = "mean"
    """What the answer is read from: an extra token, as published, or the mean of the patches, which is as good (Beyer et
    al. 2022, 2205.01580)."""
    dropout: Share = 0.0
    """Of both branches' results and of the positions' sum."""
    attention_dropout: Share = 0.0
    """Of the attention weights."""
    drop_path: Share = 0.0
    """Chance that the last block is passed by in training; earlier blocks less (stochastic depth: Huang et al. 2016)."""

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """The network for the data's images."""
        from danlu.models.vit import VitModel

        shape = image_shape(card, self.kind)
        if shape[1] % self.patch or shape[2] % self.patch:
            both = [p for p in range(1, min(shape[1:]) + 1) if shape[1] % p == shape[2] % p == 0]
            near = min(both, key=lambda p: abs(p - self.patch))
            got = f"{self.patch} for images of {shape[1]} x {shape[2]}"
            raise UserError("model.patch", "must divide both sides of the images", got=got, fix=f"write {near}")
        if self.width % self.n_heads:
            raise UserError("model.n_heads", f"must divide model.width, which is {self.width}", got=self.n_heads)
        return VitModel(self, shape, n_outputs, seed)
