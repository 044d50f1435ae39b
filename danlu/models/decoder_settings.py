"""The dials of the decoder, and all that follows from them without building it: shape, parameters, FLOPs.

Torch-free, so that a recipe is checked at once; the network is in decoder.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from danlu.base.errors import UserError
from danlu.base.settings import Auto, Settings
from danlu.base.units import CountSetting

if TYPE_CHECKING:
    from danlu.models.decoder import DecoderModel

Count = Annotated[int, Field(ge=1, le=65536)] | Auto
ASPECT = 64
"""Width per layer that `size` aims at (GPT-2 small: 768/12)."""


def heads_for(width: int, head_width: int) -> int:
    """The most heads of an even width of at least `head_width` that divide the width."""
    return next((n for n in range(max(1, width // head_width), 0, -1) if width % n == 0 and width // n % 2 == 0), 1)


@dataclass(frozen=True)
class DecoderShape:
    """Every number of a decoder, derived once. V is the vocabulary."""

    n_layers: int
    width: int
    n_heads: int
    n_kv_heads: int
    head_width: int
    hidden_width: int
    context: int
    vocab_size: int
    gated: bool
    tied: bool
    learned_positions: bool
    biased: bool
    layer_norm: bool

    @property
    def block_parameters(self) -> int:
        """Parameters of one block: matrices, norms and biases."""
        D, H, F = self.width, self.head_width, self.hidden_width
        qkv_width = (self.n_heads + 2 * self.n_kv_heads) * H
        matrices = D * qkv_width + self.n_heads * H * D + (3 if self.gated else 2) * D * F
        biases = qkv_width + D + (2 * F if self.gated else F) + D if self.biased else 0
        return matrices + biases + 2 * D * (2 if self.layer_norm else 1)

    @property
    def n_hidden_parameters(self) -> int:
        """N of the scaling laws: all but embeddings, positions and head."""
        return self.n_layers * self.block_parameters + self.width * (2 if self.layer_norm else 1)

    @property
    def n_parameters(self) -> int:
        """Everything that is trained; tied weights counted once."""
        tables = self.vocab_size * self.width * (1 if self.tied else 2)
        return self.n_hidden_parameters + tables + (self.context * self.width if self.learned_positions else 0)

    def flops_per_token(self, context: int | None = None) -> float:
        """Forward and backward: 6 per matrix parameter (the head's too) + 6 T N H per layer of causal attention.

        (Kaplan et al. 2020, section 2.1, with the attention term halved for causality.)
        """
        T = context or self.context
        D, H, F = self.width, self.head_width, self.hidden_width
        matrices = (
            D * (self.n_heads + 2 * self.n_kv_heads) * H + self.n_heads * H * D + (3 if self.gated else 2) * D * F
        )
        return 6.0 * (self.n_layers * matrices + self.vocab_size * D) + 6.0 * self.n_layers * T * self.n_heads * H


class Decoder(Settings):
    """A GPT: reads tokens, predicts the next one (Radford et al. 2019; modern parts as named below)."""

    kind: Literal["decoder"] = "decoder"
    size: CountSetting | Auto = "auto"
    """Parameters in all, such as "1M" or "124M": width, depth and heads follow from it, unless given one by one."""
    style: Literal["modern", "gpt2"] = "modern"
    """modern: RMSNorm, rotary positions, QK-norm, no biases. gpt2: LayerNorm, learned positions, biases, tied."""
    n_layers: Count = "auto"
    """Blocks. auto: from size."""
    width: Count = "auto"
    """Width of the residual stream. auto: from size."""
    n_heads: Count = "auto"
    """Query heads. auto: heads of 64 (of 32 below width 256)."""
    n_kv_heads: Count = "auto"
    """Key and value heads, shared by groups of query heads (Ainslie et al. 2023). auto: as many as n_heads."""
    context: int = Field(default=256, ge=2, le=1_048_576)
    """Tokens the model sees at once."""
    hidden_factor: Annotated[float, Field(gt=0, le=64)] | Auto = "auto"
    """Width of the feed-forward layer over the model's width. auto: 4, or 8/3 for swiglu."""
    activation: Literal["relu2", "gelu", "relu", "silu", "swiglu", "auto"] = "auto"
    """Feed-forward activation. auto: relu2 (So et al. 2021), gelu for the gpt2 style."""
    qk_norm: bool | Auto = "auto"
    """Normalise queries and keys (Henry et al. 2020). auto: yes, no for the gpt2 style."""
    tied: bool | Auto = "auto"
    """One table for embedding and head. auto: no, yes for the gpt2 style."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of activations dropped after embedding, attention and feed-forward (Srivastava et al. 2014)."""
    rotary_base: float = Field(default=10_000.0, gt=1)
    """Base of the rotary frequencies (Su et al. 2021)."""
    parametrization: Literal["standard", "mup", "completep"] = "standard"
    """How settings carry over to other sizes. mup: widths (Yang & Hu 2022). completep: depth too (Dey et al. 2025)."""
    base_width: int = Field(default=256, ge=8)
    """Width at which mup and completep equal standard."""
    base_layers: int = Field(default=4, ge=1)
    """Depth at which completep equals standard."""
    attention: Literal["auto", "blocks", "fused"] = "auto"
    """Implementation: blocks (matrix products) or fused (scaled_dot_product_attention). auto: timed at this shape."""

    @property
    def is_gpt2(self) -> bool:
        """The style in one word."""
        return self.style == "gpt2"

    @property
    def activation_name(self) -> str:
        """The activation in use."""
        return ("gelu" if self.is_gpt2 else "relu2") if self.activation == "auto" else self.activation

    @property
    def has_qk_norm(self) -> bool:
        """Whether queries and keys are normalised."""
        return (not self.is_gpt2) if self.qk_norm == "auto" else self.qk_norm

    @property
    def width_ratio(self) -> float:
        """m of muP: width over base width; 1 under the standard parametrization."""
        if self.parametrization == "standard" or self.width == "auto":
            return 1.0
        return self.width / self.base_width

    @property
    def depth_ratio(self) -> float:
        """l of CompleteP: depth over base depth; 1 under the other parametrizations."""
        if self.parametrization != "completep" or self.n_layers == "auto":
            return 1.0
        return self.n_layers / self.base_layers

    def shape(self, vocab_size: int) -> DecoderShape:
        """All numbers for a vocabulary. Raises UserError where they do not fit together."""
        if self.width == "auto" or self.n_layers == "auto":
            return self._sized(vocab_size)
        return self._shape(self.n_layers, self.width, vocab_size)

    def _shape(self, n_layers: int, width: int, vocab_size: int) -> DecoderShape:
        head_width = 64 if width >= 256 else 32
        n_heads = heads_for(width, head_width) if self.n_heads == "auto" else self.n_heads
        if width % n_heads:
            raise UserError(
                "model.width",
                f"must be a multiple of n_heads ({n_heads})",
                got=width,
                fix=f"width = {math.ceil(width / n_heads) * n_heads}",
            )
        if (width // n_heads) % 2:
            raise UserError(
                "model.n_heads",
                "must leave an even width per head",
                got=f"{width} / {n_heads}",
                fix="change width or n_heads",
            )
        n_kv_heads = n_heads if self.n_kv_heads == "auto" else self.n_kv_heads
        if n_heads % n_kv_heads:
            raise UserError(
                "model.n_kv_heads",
                f"must divide n_heads ({n_heads})",
                got=n_kv_heads,
                fix=f"n_kv_heads = {math.gcd(n_heads, n_kv_heads)}",
            )
        gated = self.activation_name == "swiglu"
        factor = (8 / 3 if gated else 4.0) if self.hidden_factor == "auto" else self.hidden_factor
        step = 64 if width >= 256 else 8
        return DecoderShape(
            n_layers=n_layers,
            width=width,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_width=width // n_heads,
            hidden_width=max(step, round(factor * width / step) * step),
            context=self.context,
            vocab_size=vocab_size,
            gated=gated,
            tied=self.is_gpt2 if self.tied == "auto" else self.tied,
            learned_positions=self.is_gpt2,
            biased=self.is_gpt2,
            layer_norm=self.is_gpt2,
        )

    def _sized(self, vocab_size: int) -> DecoderShape:
        """The depth and width nearest to `size` parameters at about ASPECT width per layer."""
        if self.size == "auto":
            raise UserError(
                "model.size",
                "is still auto: the plan stage sets it",
                fix='give model.size = "1M", or run danlu plan first',
            )
        best: tuple[float, DecoderShape] | None = None
        for n_layers in range(1, 129) if self.n_layers == "auto" else [self.n_layers]:
            ideal = n_layers * ASPECT
            widths = [*range(32, 256, 32), *range(256, 16 * ideal + 256, 64)] if self.width == "auto" else [self.width]
            for width in widths:
                if self.n_heads != "auto" and width % self.n_heads:
                    continue
                shape = self._shape(n_layers, width, vocab_size)
                miss = abs(math.log(shape.n_parameters / self.size)) + 0.1 * abs(math.log(width / ideal))
                if best is None or miss < best[0]:
                    best = (miss, shape)
                if shape.n_parameters > 4 * self.size:
                    break
        if best is None:
            raise UserError(
                "model.size", "fits no depth and width", got=self.size, fix="give model.n_layers and model.width"
            )
        if abs(math.log(best[1].n_parameters / self.size)) > math.log(1.5):
            smallest = f"the nearest is {best[1].n_parameters:,} parameters with {vocab_size:,} tokens of vocabulary"
            raise UserError(
                "model.size",
                f"cannot be reached: {smallest}",
                got=self.size,
                fix="give another size, vocabulary or width",
            )
        return best[1]

    def resolved(self, vocab_size: int) -> Decoder:
        """The same settings with width, depth and heads written out."""
        shape = self.shape(vocab_size)
        chosen: dict[str, Any] = {k: getattr(shape, k) for k in ("n_layers", "width", "n_heads", "n_kv_heads")}
        return self.model_copy(update=chosen | {"tied": shape.tied, "activation": self.activation_name})

    def build(self, vocab_size: int, seed: int = 0) -> DecoderModel:
        """The network, initialised from the seed alone (not from torch's global generator)."""
        from danlu.models.decoder import DecoderModel

        return DecoderModel(self.resolved(vocab_size), vocab_size, seed)
