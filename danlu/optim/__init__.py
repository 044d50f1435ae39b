"""SHELF: how it learns. One update rule a file; every schedule in schedules.py; who gets which rate in groups.py.

A recipe picks a member by its `kind`. No module here loads torch before an optimizer is built.
"""

from __future__ import annotations

from danlu.optim.adam import Adam
from danlu.optim.adamh import AdamH
from danlu.optim.adamw import AdamW
from danlu.optim.groups import OptimizerSettings
from danlu.optim.lion import Lion
from danlu.optim.muon import Muon
from danlu.optim.rmsprop import RMSprop
from danlu.optim.schedules import (
    Constant,
    Cosine,
    Exponential,
    InverseSqrt,
    InverseTime,
    Linear,
    OneCycle,
    Polynomial,
    ScheduleSettings,
    Step,
    WarmupStableDecay,
)
from danlu.optim.sgd import SGD

OPTIMIZERS: dict[str, type[OptimizerSettings]] = {
    "adamw": AdamW,
    "adam": Adam,
    "adamh": AdamH,
    "lion": Lion,
    "muon": Muon,
    "rmsprop": RMSprop,
    "sgd": SGD,
}
"""kind -> settings of an update rule; `settings.build(model)` gives the optimizer."""

SCHEDULES: dict[str, type[ScheduleSettings]] = {
    "constant": Constant,
    "cosine": Cosine,
    "exponential": Exponential,
    "inverse_sqrt": InverseSqrt,
    "inverse_time": InverseTime,
    "linear": Linear,
    "one_cycle": OneCycle,
    "polynomial": Polynomial,
    "step": Step,
    "wsd": WarmupStableDecay,
}
"""kind -> settings of a learning rate schedule; `settings.lr_at(step, n_steps, peak)` gives the rate."""

__all__ = ["OPTIMIZERS", "SCHEDULES", "OptimizerSettings", "ScheduleSettings"]
