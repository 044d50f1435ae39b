"""Changes of training images, on whole batches of tensors. Each sample's are drawn from its own seed, so they depend on
(seed, epoch, sample) alone: not on workers, history, or the batch's other samples (but for whom mixup mixes with).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.settings import Settings
from danlu.data.order import GOLDEN, mixed

if TYPE_CHECKING:
    from torch import Tensor

Words = NDArray[np.uint64]
Floats = NDArray[np.float32]
Share = Annotated[float, Field(ge=0, le=1)]


class Augment(Settings):
    """Random changes of training images; none by default."""

    flip: Share = 0.0
    """Chance to mirror left and right; not for digits or letters."""
    pad: Share = 0.0
    """Moved by whole pixels, up to this share of the side, over a border of mean pixels (He et al. 2016: 4 of 32)."""
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    """A part of at least this share of the area, of sides between 3:4 and 4:3, brought back to size (Szegedy et al. 2015);
    1: the whole."""
    shift: Share = 0.0
    """Moved by up to this share of the side, in each direction."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Turned by up to so many degrees."""
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Sides made longer or shorter by up to this share, each on its own."""
    shear: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Slanted by up to this share."""
    brightness: Annotated[float, Field(ge=0, le=4)] = 0.0
    """Added to all pixels, up to so many standard deviations of the training pixels."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Pixels multiplied by 1 plus or minus up to this."""
    saturation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Colours stronger or weaker by up to this share. Of colour images."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Colours turned by up to this share of the colour circle. Of colour images."""
    policy: Annotated[int, Field(ge=0, le=10)] = 0
    """RandAugment (Cubuk et al. 2020): so many changes for each image, drawn from fourteen: slant, shift, turn, brightness,
    colour, contrast, sharpness, posterize, solarize, ..."""
    strength: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Of the policy's changes: 0.3 is the paper's 9 of 30."""
    erase: Share = 0.0
    """Chance that a rectangle of up to a third of each side is erased (Zhong et al. 2020)."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Images and targets mixed in pairs, by a share from Beta(a, a) (Zhang et al. 2018); 0: never."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """A rectangle of another image put in, targets mixed by area (Yun et al. 2019); 0: never. With mixup, each in half
    of the batches."""

    @property
    def is_on(self) -> bool:
        """Whether anything is changed."""
        return self.model_dump() != type(self)(strength=self.strength).model_dump()

    @property
    def is_on_bytes(self) -> bool:
        """Whether anything is changed before pixels are normalised."""
        return any((self.policy, self.saturation, self.hue))

    @property
    def is_affine(self) -> bool:
        """Whether pixels are moved off their grid."""
        return self.crop < 1 or any((self.shift, self.rotate, self.zoom, self.shear))


class Draws:
    """Independent uniform numbers for each sample: draw k is a hash of (seed, k)."""

    def __init__(self, seeds: Words) -> None:
        self.seeds, self.k = seeds, 0

    def uniform(self) -> Floats:
        """(B,) in [0, 1)."""
        self.k += 1
        return (
            (mixed(self.seeds + np.array([self.k], np.uint64) * GOLDEN) >> np.uint64(40)).astype(np.float64) / 2**24
        ).astype(np.float32)

    def signed(self, most: float) -> Floats:
        """(B,) in [-most, most)."""
        return (2 * self.uniform() - 1) * np.float32(most)


def recoloured(image: Tensor, seeds: Words, how: Augment) -> Tensor:
    """Pixels (B, C, H, W) in 0 ... 1, changed as policy, saturation and hue say."""
    from danlu.data.augment_policy import apart, coloured, policy

    draws = Draws(apart(seeds))
    if how.policy:
        image = policy(image, draws, how.policy, how.strength)
    if how.saturation or how.hue:
        image = coloured(image, draws, how.saturation, how.hue)
    return image


def augmented(tensors: dict[str, Tensor], seeds: Words, how: Augment, n_classes: int) -> dict[str, Tensor]:
    """The batch changed as [data.augment] says."""
    import torch

    draws, image = Draws(seeds), tensors["image"]
    if how.is_affine:
        image = moved(image, draws, how)
    if how.pad:
        image = stepped(image, draws, how.pad)
    if how.flip:
        flipped = torch.from_numpy(draws.uniform() < how.flip)
        image = torch.where(flipped[:, None, None, None], image.flip(-1), image)
    if how.brightness or how.contrast:
        factor, added = (torch.from_numpy(draws.signed(x)).view(-1, 1, 1, 1) for x in (how.contrast, how.brightness))
        image = image * (1 + factor) + added
    if how.erase:
        image = erased(image, draws, how.erase)
    found = tensors | {"image": image}
    if (how.mixup or how.cutmix) and len(seeds) > 1:
        found |= mixed_pairs(found, seeds, how, n_classes)
    return found


def moved(image: Tensor, draws: Draws, how: Augment) -> Tensor:
    """Turned, zoomed, slanted, shifted and cut out in one resampling; the border pixels go on outside."""
    import torch

    from danlu.data.augment_policy import resampled

    angle = draws.signed(math.radians(how.rotate))
    zoom_x, zoom_y = 1 + draws.signed(how.zoom), 1 + draws.signed(how.zoom)
    slant, dx, dy = draws.signed(how.shear), draws.signed(2 * how.shift), draws.signed(2 * how.shift)
    if how.crop < 1:
        area, ratio = how.crop + (1 - how.crop) * draws.uniform(), np.exp(draws.signed(math.log(4 / 3)) / 2)
        wide, high = (np.minimum(1, np.sqrt(area) * r) for r in (ratio, 1 / ratio))
        dx, dy = dx + draws.signed(1) * (1 - wide), dy + draws.signed(1) * (1 - high)
        zoom_x, zoom_y = zoom_x * wide, zoom_y * high
    cos, sin = np.cos(angle), np.sin(angle)
    rows = np.stack([
        np.stack([cos * zoom_x, (slant * cos - sin) * zoom_y, dx], 1),
        np.stack([sin * zoom_x, (slant * sin + cos) * zoom_y, dy], 1),
    ], 1)  # fmt: skip
    return resampled(image, torch.from_numpy(rows.astype(np.float32)))


def stepped(image: Tensor, draws: Draws, most: float) -> Tensor:
    """Moved by whole pixels; 0, the mean, comes in at the border."""
    import torch

    found = image
    for axis in (2, 3):
        side = image.shape[axis]
        by = torch.from_numpy(np.floor(draws.uniform() * (2 * int(most * side) + 1)).astype(np.int64)) - int(
            most * side
        )
        at = torch.arange(side) + by[:, None]  # (B, side): where each row or column comes from
        shape = [len(at), 1, side, 1] if axis == 2 else [len(at), 1, 1, side]
        inside = ((at >= 0) & (at < side)).view(shape)
        found = found.gather(axis, at.clamp(0, side - 1).view(shape).expand_as(found)) * inside
    return found


def rectangles(draws: Draws, height: int, width: int, most: float) -> tuple[Any, ...]:
    """(top, left, bottom, right), (B,) each: random places, sides up to `most` of the image's."""
    h, w = (np.ceil(draws.uniform() * most * side).astype(int) for side in (height, width))
    top, left = (draws.uniform() * (height - h + 1)).astype(int), (draws.uniform() * (width - w + 1)).astype(int)
    return top, left, top + h, left + w


def inside(image: Tensor, box: tuple[Any, ...]) -> Tensor:
    """(B, 1, H, W) whether a pixel lies in its image's rectangle."""
    import torch

    y, x = torch.arange(image.shape[-2])[None, :, None], torch.arange(image.shape[-1])[None, None, :]
    top, left, bottom, right = (torch.from_numpy(np.asarray(v))[:, None, None] for v in box)
    return ((y >= top) & (y < bottom) & (x >= left) & (x < right))[:, None]


def erased(image: Tensor, draws: Draws, chance: float) -> Tensor:
    """A rectangle set to the mean."""
    import torch

    box = rectangles(draws, image.shape[-2], image.shape[-1], 1 / 3)
    chosen = torch.from_numpy(draws.uniform() < chance).view(-1, 1, 1, 1)
    return image.masked_fill(inside(image, box) & chosen, 0.0)


def mixed_pairs(tensors: dict[str, Tensor], seeds: Words, how: Augment, n_classes: int) -> dict[str, Tensor]:
    """Each image mixed with the next of the batch, one share for the whole batch; soft_targets (B, n_classes)."""
    import torch.nn.functional as F

    rng = np.random.default_rng(int(np.bitwise_xor.reduce(seeds)))
    image, targets = tensors["image"], tensors["targets"]
    other = image.roll(1, 0)
    cuts = how.cutmix > 0 and (how.mixup == 0 or rng.random() < 0.5)
    share = float(rng.beta(how.cutmix, how.cutmix) if cuts else rng.beta(how.mixup, how.mixup))
    if cuts:
        height, width = image.shape[-2:]
        h, w = round(height * math.sqrt(1 - share)), round(width * math.sqrt(1 - share))
        top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        image = image.clone()
        image[..., top : top + h, left : left + w] = other[..., top : top + h, left : left + w]
        share = 1 - h * w / (height * width)
    else:
        image = share * image + (1 - share) * other
    soft = F.one_hot(targets, n_classes).float()
    return {"image": image, "soft_targets": share * soft + (1 - share) * soft.roll(1, 0)}
