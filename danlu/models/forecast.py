"""Linear forecasters. B windows, L history, H horizon, V variables, K targets."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.base.contracts import Batch, Output


class LinearForecast(nn.Module):
    """NLinear (window 0), or DLinear with a moving mean over `window` rows. Every weight starts at 1/L: a mean."""

    def __init__(self, features: dict[str, Any], individual: bool, window: int) -> None:
        super().__init__()
        self.columns, self.window = list(features["target_columns_in_history"]), window
        history, horizon, n = features["history"], features["horizon"], len(self.columns)
        shape = (n, horizon, history) if individual else (1, horizon, history)
        self.weight = nn.Parameter(torch.full(shape, 1.0 / history))
        self.bias = nn.Parameter(torch.zeros(shape[0], horizon))
        self.trend = nn.Parameter(torch.full(shape, 1.0 / history)) if window else None

    def forward(self, batch: Batch) -> Output:
        """history (B, L, V) -> scores (B, H, K)."""
        x = batch.tensors["history"][..., self.columns].transpose(1, 2)
        if self.trend is None:
            last = x[..., -1:]
            return Output(scores=(self.mapped(x - last, self.weight) + last).transpose(1, 2))
        side = self.window // 2
        smooth = F.avg_pool1d(F.pad(x, (side, side), mode="replicate"), self.window, 1)
        return Output(scores=(self.mapped(x - smooth, self.weight) + self.mapped(smooth, self.trend)).transpose(1, 2))

    def mapped(self, x_BKL: Tensor, weight: Tensor) -> Tensor:
        """(B, K, L) -> (B, K, H)."""
        if len(weight) == 1:
            return F.linear(x_BKL, weight[0], self.bias[0])
        return torch.einsum("bkl,khl->bkh", x_BKL, weight) + self.bias
