"""Dials of the linear forecasters. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.settings import Settings

if TYPE_CHECKING:
    from torch import nn


class Nlinear(Settings):
    """One matrix from a variable's history to its future, both less its last value (Zeng et al. 2023, 2205.13504)."""

    kind: Literal["nlinear"] = "nlinear"
    """NLinear."""
    individual: bool = False
    """A matrix of its own for each variable."""

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """The network for a series."""
        from danlu.models.forecast import LinearForecast

        return LinearForecast(checked(card, self.kind), self.individual, 0)


class Dlinear(Settings):
    """NLinear's rival: one matrix for the trend and one for the rest (Zeng et al. 2023, 2205.13504)."""

    kind: Literal["dlinear"] = "dlinear"
    """DLinear."""
    individual: bool = False
    """Matrices of its own for each variable."""
    window: Annotated[int, Field(ge=3, le=10_001)] = 25
    """Rows of the moving mean that is the trend; odd."""

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """The network for a series."""
        from danlu.models.forecast import LinearForecast

        if self.window % 2 == 0:
            raise UserError("model.window", "must be odd", got=self.window, fix=f"write {self.window + 1}")
        return LinearForecast(checked(card, self.kind), self.individual, self.window)


def checked(card: DataCard, kind: str) -> dict[str, int | list[int]]:
    """The features of a series."""
    if "horizon" not in card.features:
        raise UserError(
            "model.kind", f"{kind} reads series", got=f"{card.kind} data", fix="choose a model that suits the data"
        )
    return dict(card.features)
