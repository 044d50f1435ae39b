"""Dials of the folding network. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.settings import Settings

if TYPE_CHECKING:
    from torch import nn

Width = Annotated[int, Field(ge=1, le=65_536)]
Heads = Annotated[int, Field(ge=1, le=1024)]


class Fold(Settings):
    """AlphaFold 2 in small, from one sequence: pair-biased attention, triangle updates, invariant point attention (Jumper
    et al. 2021 and its supplement, whose algorithm numbers the code names)."""

    kind: Literal["fold"] = "fold"
    """Folding network."""
    width: Width = 128
    """Width of the single representation: a vector a residue."""
    pair_width: Width = 64
    """Width of the pair representation: a vector for each two residues."""
    n_blocks: Annotated[int, Field(ge=1, le=256)] = 4
    """Blocks of the trunk (48 in the paper)."""
    n_heads: Heads = 4
    """Heads of the attention along the sequence."""
    outer_width: Width = 16
    """Width of each side of the outer product by which residues inform pairs."""
    triangle_width: Width = 64
    """Hidden width of the triangle multiplicative updates."""
    triangle_attention: bool = True
    """Whether pairs also attend to pairs that share a residue with them: the dearest part, cubic in the length."""
    triangle_heads: Heads = 4
    """Heads of that attention."""
    expansion: Annotated[int, Field(ge=1, le=64)] = 4
    """Hidden width of the transitions, in widths."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the branches that update pairs (whole rows or columns at once; 0.25 in the paper)."""
    n_layers: Annotated[int, Field(ge=1, le=64)] = 4
    """Layers of the structure module, which share their weights (8 in the paper)."""
    structure_heads: Heads = 8
    """Heads of the invariant point attention."""
    query_points: Annotated[int, Field(ge=1, le=64)] = 4
    """Points of each head's queries and keys."""
    value_points: Annotated[int, Field(ge=1, le=64)] = 8
    """Points of each head's values."""
    recycles: Annotated[int, Field(ge=0, le=32)] = 1
    """How often the result goes in again. Training draws a number up to this each step and learns from the last pass."""
    max_offset: Annotated[int, Field(ge=1, le=1024)] = 32
    """Distance along the sequence from which all are alike."""
    lddt_bins: Annotated[int, Field(ge=2, le=1000)] = 50
    """Bins of the predicted lDDT."""

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """The network; n_outputs are the bins of the distogram."""
        from danlu.models.fold import FoldModel

        if "residue_types" not in card.features:
            fix = 'set data.kind = "structure"'
            raise UserError("model.kind", "fold needs protein structures", got=f"{card.kind} data", fix=fix)
        for name, heads in (("width", "n_heads"), ("pair_width", "triangle_heads")):
            if getattr(self, name) % getattr(self, heads):
                raise UserError(
                    f"model.{name}", f"must be a multiple of model.{heads} = {getattr(self, heads)}",
                    got=getattr(self, name),
                )  # fmt: skip
        return FoldModel(self, len(card.features["residue_types"]), n_outputs, seed)
