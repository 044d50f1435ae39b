"""The dials of the detector; the network is in detector.py. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.settings import Settings

if TYPE_CHECKING:
    from danlu.models.detector import DetectorModel


class Detector(Settings):
    """One-stage, anchor-free detector: a small residual net, a pyramid neck, and two heads on one fine map.

    Centres as in CenterNet (Zhou et al. 2019, 1904.07850), distances to the four sides as in FCOS (Tian et al. 2019,
    1904.01355), neck as in FPN (Lin et al. 2017, 1612.03144). Learns from scratch.
    """

    kind: Literal["detector"] = "detector"
    """One-stage, anchor-free detector."""
    width: Annotated[int, Field(ge=8, le=1024, multiple_of=8)] = 32
    """Channels of the first stage; each later one has twice as many, up to max_width."""
    max_width: Annotated[int, Field(ge=8, le=4096, multiple_of=8)] = 256
    """Most channels of a stage."""
    n_stages: Annotated[int, Field(ge=2, le=6)] = 4
    """Stages, each at half the resolution of the one before; the first works at a quarter of the picture's."""
    n_layers: Annotated[int, Field(ge=1, le=16)] = 2
    """Residual blocks of two convolutions in a stage."""
    neck_width: Annotated[int, Field(ge=8, le=1024, multiple_of=8)] = 64
    """Channels of neck and heads."""
    stride: Literal[4, 8] = 8
    """Pixels between two places where a box can be centred; 4 is half as fast, and tells apart small things that crowd."""

    def build(self, card: DataCard, n_outputs: int, seed: int) -> DetectorModel:
        """The network; its initial weights depend on the seed alone."""
        from danlu.models.detector import DetectorModel

        features = card.features
        if "height" not in features or "channels" not in features or n_outputs < 5:
            raise UserError(
                "model.kind", "must suit the data: a detector looks at pictures for task detect", got=card.kind,
                fix='set data.kind = "boxes" and task.kind = "detect"',
            )  # fmt: skip
        if features["height"] % self.stride or features["width"] % self.stride:
            got = f"{features['height']} x {features['width']}"
            raise UserError("data.size", f"must be multiples of model.stride = {self.stride}", got=got)
        return DetectorModel(self, int(features["channels"]), n_outputs, seed)
