"""The multilayer perceptron. B samples, F numbers, C categories, D width of the first layer's input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from danlu.base.contracts import Batch, Output
from danlu.base.errors import UserError
from danlu.models.mlp_settings import Mlp

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity, "relu": nn.ReLU, "leaky": nn.LeakyReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh,
    "gelu": nn.GELU, "silu": nn.SiLU,
}  # fmt: skip
FLAT = ("inputs", "image", "history", "frames")
"""Tensors that are flattened, the first that a batch has."""


class Periodic(nn.Module):
    """x -> relu(A [sin 2 pi c x, cos 2 pi c x]) with frequencies c and a matrix A for each number."""

    def __init__(self, n_numbers: int, settings: Mlp) -> None:
        super().__init__()
        k, width = settings.frequencies, settings.number_width
        self.frequencies = nn.Parameter(torch.randn(n_numbers, k) * settings.frequency_scale)
        self.weight = nn.Parameter((torch.rand(n_numbers, 2 * k, width) * 2 - 1) / math.sqrt(2 * k))
        self.bias = nn.Parameter(torch.zeros(n_numbers, width))

    def forward(self, x_BF: Tensor) -> Tensor:
        """(B, F) -> (B, F * width)."""
        angles = 2 * math.pi * x_BF.unsqueeze(-1) * self.frequencies
        waves = torch.cat([angles.sin(), angles.cos()], -1)
        return torch.relu(torch.einsum("bfk,fkw->bfw", waves, self.weight) + self.bias).flatten(1)


class MlpModel(nn.Module):
    """Numbers and embedded categories beside one another, then the layers."""

    def __init__(self, settings: Mlp, features: Mapping[str, Any], n_outputs: int, seed: int) -> None:
        super().__init__()
        self.is_table = "n_numbers" in features
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.embeddings = nn.ModuleList()
            self.periodic: nn.Module = nn.Identity()
            width = self.input_width(settings, features)
            parts: list[nn.Module] = []
            for d_out in settings.layers:
                parts.append(nn.Linear(width, d_out))
                if settings.norm != "none":
                    parts.append(nn.BatchNorm1d(d_out) if settings.norm == "batch" else nn.LayerNorm(d_out))
                parts.append(ACTIVATIONS[settings.activation]())
                if settings.dropout:
                    parts.append(nn.Dropout(settings.dropout))
                width = d_out
            parts.append(nn.Linear(width, n_outputs))
            self.layers = nn.Sequential(*parts)
            if settings.initial == "glorot":
                for module in self.layers:
                    if isinstance(module, nn.Linear):
                        nn.init.xavier_uniform_(module.weight)
                        nn.init.zeros_(module.bias)

    def input_width(self, settings: Mlp, features: Mapping[str, Any]) -> int:
        """D; makes what stands between the features and the first layer."""
        if not self.is_table:
            return flat_width(features)
        width = int(features["n_numbers"])
        if settings.numbers == "periodic" and width:
            self.periodic = Periodic(width, settings)
            width *= settings.number_width
        for n in features.get("categories", []):
            size = min(64, max(2, round(1.6 * n**0.56))) if settings.embedding == "auto" else settings.embedding
            self.embeddings.append(nn.Embedding(n, size))
            width += size
        return width

    def forward(self, batch: Batch) -> Output:
        """Scores (B, n_outputs)."""
        if not self.is_table:
            name = next(name for name in FLAT if name in batch.tensors)
            return Output(scores=self.layers(batch.tensors[name].flatten(1)))
        parts = [self.periodic(batch.tensors["numbers"])]
        parts += [table(batch.tensors["categories"][:, i]) for i, table in enumerate(self.embeddings)]
        return Output(scores=self.layers(torch.cat(parts, 1)))


def flat_width(features: Mapping[str, Any]) -> int:
    """Numbers of one sample, flattened."""
    if "input_shape" in features:
        return math.prod(features["input_shape"])
    if "channels" in features:
        return int(features["channels"] * features["height"] * features["width"])
    if "history" in features:
        return int(features["history"] * features["n_variables"])
    raise UserError("model.kind", "mlp needs a table, vectors, images or series", got=", ".join(sorted(features)))
