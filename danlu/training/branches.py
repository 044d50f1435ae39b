"""Branches of a session at larger batches, over the same samples: what planning/critical_batch.py decides on."""

from __future__ import annotations

import dataclasses
import math
from statistics import median

import numpy as np

from danlu.base.runfolder import RunFolder
from danlu.data.order import Joined
from danlu.data.samples import SampleLoader
from danlu.planning.critical_batch import Branch
from danlu.planning.noise_scale import NoiseScale, by_length, noise_scale
from danlu.planning.trials import Trial
from danlu.recipe import Recipe
from danlu.training.fork import TrainStep
from danlu.training.gradient_noise import measure
from danlu.training.trial import Session

N_PIECES = 8
"""Parts of a branch whose losses are compared one by one."""


def rate_factor(k: float, optimizer: str) -> float:
    """The rate at k times the batch, over the rate: sqrt(k), or k under sgd (Malladi 2022, 2205.10287; Goyal 2017, 1706.02677)."""
    return k if optimizer == "sgd" else math.sqrt(k)


class Trunk:
    """A session trained for a while, from which branches grow. `largest`: the factor of the widest branch to come; start and
    branches are rounded up so that every branch gets the same samples in whole updates and pieces."""

    def __init__(
        self, recipe: Recipe, folder: RunFolder, trial: Trial, train_step: TrainStep, start: int, largest: int
    ) -> None:
        self.recipe, self.folder, self.trial, self.train_step, self.largest = recipe, folder, trial, train_step, largest
        self.start = -(-start // largest) * largest
        session = self.opened(1)
        session.advance(self.start)
        self.diverged, self.saved, self.lr = session.diverged, session.save(), session.lr_at(self.start)
        self.optimizer, self.loader = getattr(session.recipe.optimizer, "kind", ""), session.loader
        session.close()

    def opened(self, k: int) -> Session:
        """At its start, with k times the batch, in micro-batches of the trial's at most."""
        batch = k * self.trial.choices.batch
        cut = {"batch": batch, "micro_batch": min(batch, self.trial.choices.micro_batch)}
        choices = self.trial.choices.model_copy(update=cut)
        return Session(self.recipe, self.folder, dataclasses.replace(self.trial, choices=choices), self.train_step)

    def session(self, k: int) -> Session:
        """At its end, with k times the batch, and the trunk's samples to come in the trunk's order."""
        found = self.opened(k)
        if isinstance(found.loader, SampleLoader) and isinstance(self.loader, SampleLoader):
            found.loader.order = Joined(self.loader.order, k)
        found.load(dataclasses.replace(self.saved, step=self.start // k))
        return found

    def whole(self, n_steps: int) -> int:
        """Updates of the trunk that a branch of about so many comes to."""
        unit = self.largest * N_PIECES
        return -(-n_steps // unit) * unit

    def branch(self, k: int, n_steps: int) -> Branch:
        """About n_steps of the trunk's updates, in updates of k times its batch; the rate stays what it was, but for rate_factor."""
        session, n = self.session(k), self.whole(n_steps) // k
        losses = np.full(n, np.inf)
        for i in range(n):
            losses[i], _ = session.update(self.lr * rate_factor(k, self.optimizer))
            if session.diverged:
                losses[i:] = np.inf
                break
        session.close()
        pieces = tuple(float(piece.mean()) for piece in np.split(losses, N_PIECES))
        return Branch(session.choices.batch, pieces, median(session.step_seconds))

    def noise(self, k: int, n_steps: int) -> NoiseScale:
        """The gradient noise scale of the next n_steps updates of k times the batch, at the rate of its branch."""
        session = self.session(k)
        metric, samples = by_length(measure(session, n_steps, lr=self.lr * rate_factor(k, self.optimizer)))
        session.close()
        return noise_scale(samples, metric=metric)
