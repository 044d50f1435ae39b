"""A torch.nn.Module given in Python. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.settings import Settings

if TYPE_CHECKING:
    from torch import nn


class Module(Settings):
    """Any torch.nn.Module (a Keras 3 model on its torch backend is one), given in Python (danlu.fit)."""

    kind: Literal["module"] = "module"
    name: str
    """Its class."""
    digest: str
    """Hash of its parameters' names, shapes and initial values."""

    given: ClassVar[dict[str, Any]] = {}
    """Modules of this process by digest, as they were given."""

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """A copy of the module with the weights it was given with, whatever the seed."""
        if self.digest not in self.given:
            fix = "call danlu.fit with the same module, or bring it back in Python first (danlu.bring(module))"
            raise UserError(
                "model", f"{self.name} was given in Python, and this process has not been given it", fix=fix
            )
        from danlu.models.module import Given

        return Given(self.given[self.digest])
