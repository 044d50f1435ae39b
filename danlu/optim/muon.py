"""Muon: momentum made orthogonal, so that a step turns every direction of a matrix alike. Jordan 2024
(kellerjordan.github.io/posts/muon); rate and decay as in Liu 2025 (Moonlight), 2502.16982. Not for embeddings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from danlu.base.settings import Auto
from danlu.optim.adam import AdamRule
from danlu.optim.groups import DecaySettings, Factor, Group, Rate, Role, Share, planned

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from danlu.optim.driver import Rule, State

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton-Schulz polynomial a x + b x^3 + c x^5, steep at 0 (Jordan 2024)."""
N_STACK = {"cpu": 1 << 19, "cuda": 1 << 25}
"""Elements orthogonalised together: on a CPU what its cache holds (twice the speed of one by one at 128 x 512), on a
GPU so many that the copies stay small beside the model."""


class Muon(DecaySettings):
    """Muon for the hidden matrices, AdamW for embeddings, head and vectors.

        m <- momentum * m + (1 - momentum) g;  u = Nesterov ? momentum * m + (1 - momentum) g : m
        p <- p - lr * weight_decay * p
        p <- p - lr * s * orthogonal(u)             s = 0.2 sqrt(max(rows, columns)) or sqrt(max(1, rows / columns))

    orthogonal(u) = U V^T of u = U S V^T, by ns_steps Newton-Schulz steps. Kernels with more than two axes are
    taken as (first axis, the rest).
    """

    kind: Literal["muon"] = "muon"
    """Muon (Jordan 2024)."""
    momentum: Share = 0.95
    """Share of the gradient's running mean kept at each update."""
    nesterov: bool = True
    """Look ahead along the momentum."""
    ns_steps: Annotated[int, Field(ge=1, le=20)] = 5
    """Newton-Schulz steps; 5 bring singular values from 0.003..1 to about 0.7..1.2."""
    ns_precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number type of the Newton-Schulz steps. "auto": bf16 where the device multiplies it natively, else fp32."""
    scale: Literal["match_adamw", "spectral"] = "match_adamw"
    """match_adamw: root mean square of a step as AdamW's, so that AdamW's lr and decay fit (Liu 2025);
    spectral: the original, for an lr of about 0.02 (Jordan 2024)."""
    adam_lr_ratio: Rate = 1.0
    """Embeddings, head and vectors learn at this multiple of lr, by AdamW."""
    beta1: Share = 0.9
    """AdamW's share of the gradient's running mean kept."""
    beta2: Share | Auto = 0.95
    """AdamW's share of the squared gradient's running mean kept. "auto": as AdamW's."""
    eps: Rate = 1e-8
    """AdamW's epsilon, in gradient units."""
    weight_decay: Factor | Auto = "auto"
    """Each update takes lr * weight_decay of every matrix away. "auto": answered by the plan."""

    def lr_scale_of(self, role: Role, scales: Mapping[str, float]) -> float:
        """An orthogonal step's size in a layer's output does not grow with the width ("spectral"), or with its root."""
        if role != "hidden":
            return scales.get(role, 1.0)
        return float(scales.get(role, 1.0) ** 0.5) if self.scale == "match_adamw" else 1.0

    def rule(self) -> Rule:
        """The rule for matrices."""
        return MuonRule(self.momentum, self.nesterov, self.ns_steps, self.ns_precision, self.scale)

    def place(self, group: Group) -> list[tuple[Group, Rule]]:
        """Hidden matrices by Muon, the rest by AdamW at its own rate."""
        if group.role == "hidden":
            return [(group, self.rule())]
        group = dataclasses.replace(group, lr_scale=group.lr_scale * self.adam_lr_ratio)
        beta2 = planned(self.beta2, "optimizer.beta2", 0.95)
        return [(group, AdamRule("adamw", self.beta1, beta2, self.eps, is_decoupled=True))]


@dataclass(frozen=True)
class MuonRule:
    """Muon; matrices of one shape (or its transpose) are orthogonalised in one batch."""

    momentum: float
    nesterov: bool
    ns_steps: int
    ns_precision: str
    scale: str
    name = "muon"
    is_blockwise = False

    def state(self, parameter: Tensor) -> dict[str, Tensor]:
        """The running mean of gradients."""
        import torch

        return {"momentum": torch.zeros_like(parameter)}

    def update(self, parameters: list[Tensor], gradients: list[Tensor], state: State, lr: float, group: Group) -> None:
        """One update in place."""
        import torch

        mean = state["momentum"]
        torch._foreach_lerp_(mean, gradients, 1 - self.momentum)
        ahead = list(torch._foreach_lerp(gradients, mean, self.momentum)) if self.nesterov else mean
        if group.weight_decay:
            torch._foreach_mul_(parameters, 1 - lr * group.weight_decay)
        cuts = {id(p): group.row_parts.get(n) for n, p in zip(group.names, group.parameters, strict=True)}
        flat = [p.reshape(p.size(0), -1) for p in parameters]
        matrices = [piece for p, f in zip(parameters, flat, strict=True) for piece in cut(f, cuts[id(p)])]
        tall = [piece for p, u in zip(parameters, ahead, strict=True) for piece in cut(u.flatten(1), cuts[id(p)])]
        wide = [u.mT if u.size(0) > u.size(1) else u for u in tall]
        for indices in same_shape(wide, N_STACK["cpu" if wide[0].device.type == "cpu" else "cuda"]):
            stack = torch.stack([wide[i] for i in indices])
            turned = orthogonal(stack, self.ns_steps, self.number_type(stack))
            for i, u in zip(indices, turned, strict=True):
                rows, columns = matrices[i].shape
                u = u.mT if rows > columns else u
                matrices[i].add_(u, alpha=-lr * self.step_scale(rows, columns))
        for p, f in zip(parameters, flat, strict=True):
            if not p.is_contiguous():  # then f was a copy (kernels laid out channels last)
                p.copy_(f.view(p.shape))

    def step_scale(self, rows: int, columns: int) -> float:
        """Factor on an orthogonal step of a (rows, columns) matrix."""
        if self.scale == "spectral":
            return float(max(1.0, rows / columns) ** 0.5)
        return float(0.2 * max(rows, columns) ** 0.5)

    def number_type(self, stack: Tensor) -> torch.dtype:
        """What Newton-Schulz runs in; float64 parameters stay float64."""
        import torch

        if stack.dtype == torch.float64:
            return torch.float64
        native = self.ns_precision == "auto" and has_native_bf16(stack.device)
        return torch.bfloat16 if native or self.ns_precision == "bf16" else torch.float32


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices in hardware."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def cut(matrix: Tensor, rows: tuple[int, ...] | None) -> Sequence[Tensor]:
    """Views of the matrices stacked in one."""
    import torch

    pieces: Sequence[Tensor] = torch.split(matrix, list(rows)) if rows else [matrix]
    return pieces


def same_shape(matrices: list[Tensor], n_elements: int) -> list[list[int]]:
    """Indices of matrices with one shape, in order, in batches of two or of at most n_elements."""
    batches: list[list[int]] = []
    open_batch: dict[tuple[int, ...], list[int]] = {}
    for i, matrix in enumerate(matrices):
        shape = tuple(matrix.shape)
        batch = open_batch.get(shape)
        if batch is None or (len(batch) >= 2 and (len(batch) + 1) * matrix.numel() > n_elements):
            batch = open_batch[shape] = []
            batches.append(batch)
        batch.append(i)
    return batches


def orthogonal(stack: Tensor, n_steps: int, dtype: torch.dtype) -> Tensor:
    """(K, rows, columns), rows <= columns, nearly orthogonal: Newton-Schulz on each matrix over its Frobenius norm."""
    import torch

    a, b, c = QUINTIC
    norm = torch.linalg.vector_norm(stack, dim=(-2, -1), keepdim=True)
    x: Tensor = (stack / norm.clamp_min(1e-7)).to(dtype)
    for _ in range(n_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
