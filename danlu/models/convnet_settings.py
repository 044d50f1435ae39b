"""Dials of the convolutional image models: LeNet, VGG, ResNet. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.settings import Settings

if TYPE_CHECKING:
    from torch import nn

Share = Annotated[float, Field(ge=0, lt=1)]


def image_shape(card: DataCard, kind: str) -> tuple[int, int, int]:
    """(channels, height, width); other data are refused."""
    if "channels" not in card.features:
        raise UserError(
            "model.kind", f"{kind} reads images", got=f"{card.kind} data", fix="choose a model that suits the data"
        )
    return card.features["channels"], card.features["height"], card.features["width"]


class Lenet(Settings):
    """LeNet-5 (LeCun et al. 1998), as it was or with what was learned since."""

    kind: Literal["lenet"] = "lenet"
    """LeNet-5."""
    style: Literal["classic", "modern"] = "modern"
    """classic: tanh and mean pooling. modern: ReLU, batch norm, max pooling and wider layers."""
    dropout: Share = 0.25
    """Before the last layers (modern)."""

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """The network; images of at least 12 x 12."""
        from danlu.models.convnet import lenet

        shape = image_shape(card, self.kind)
        if min(shape[1:]) < 12:
            raise UserError("data.size", "must be at least 12 for lenet", got=f"{shape[1]} x {shape[2]}")
        return lenet(self, shape, n_outputs, seed)


class Vgg(Settings):
    """VGG (Simonyan and Zisserman 2015): stacks of 3 x 3 convolutions and three large layers."""

    kind: Literal["vgg"] = "vgg"
    """VGG."""
    depth: Literal[11, 13, 16, 19] | Literal["small"] = "small"
    """Layers with weights, as published; small: six convolutions of 32 to 128 channels and one layer after their mean."""
    batch_norm: bool = True
    """Batch norm after each convolution; the published counts are without."""
    dropout: Share = 0.5
    """Between the large layers."""

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """The network."""
        from danlu.models.convnet import vgg

        return vgg(self, image_shape(card, self.kind), n_outputs, seed)


class Resnet(Settings):
    """ResNet (He et al. 2016), version 1.5: strides in the 3 x 3 convolutions."""

    kind: Literal["resnet"] = "resnet"
    """Residual network."""
    depth: Literal[18, 34, 50, 101, 152] | Literal["small"] = "small"
    """Layers with weights, as published for large images; small: for small images, `blocks` in each of three stages."""
    blocks: Annotated[int, Field(ge=1, le=64)] = 2
    """Blocks of each stage, when small (6 blocks + 2 layers = 20 layers at 3, as in section 4.2 of the paper)."""
    width: Annotated[int, Field(ge=1, le=4096)] = 32
    """Channels of the first stage, when small; they double from stage to stage."""
    stem_stride: Literal[1, 2] = 1
    """Stride of the first convolution, when small; 2 leaves a quarter of the pixels, and of the work."""
    drop_path: Share = 0.0
    """Chance that the last block is passed by in training; earlier blocks less (stochastic depth: Huang et al. 2016)."""
    dropout: Share = 0.0
    """Before the last layer."""

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """The network."""
        from danlu.models.convnet import ResnetModel

        return ResnetModel(self, image_shape(card, self.kind), n_outputs, seed)
