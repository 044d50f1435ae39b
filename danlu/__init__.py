"""danlu (the alchemist's furnace): trains large models end to end, without alchemy.

    run = danlu.run("recipe.toml")                     prepare, plan, train, evaluate, report
    run = danlu.run(danlu.Recipe(data={"path": "notes/*.md"}))
    run.scores, run.card, run.path, run.generate("Once")
    for report in danlu.train_steps("recipe.toml"): ...    the loop is yours
    run = danlu.fit(net, {"train": (x, y), "test": (x2, y2)}, task="classify")    any torch.nn.Module
    danlu.check("recipe.toml")                         what a run would be, without running it

Every name is loaded when it is first used, so `import danlu` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from danlu.base.errors import DanluError, UserError
    from danlu.batching import batch
    from danlu.fitting import fit
    from danlu.noising import noise
    from danlu.pipeline import Run, check, evaluate, extend, open_run, plan, prepare, report, run, train, train_steps
    from danlu.recipe import Recipe
    from danlu.tuning import tune

__version__ = "0.1.0"
__all__ = [
    "DanluError", "Recipe", "Run", "UserError", "batch", "check", "evaluate", "extend", "fit", "noise", "open_run",
    "plan", "prepare", "report", "run", "train", "train_steps", "tune",
]  # fmt: skip

_HOMES = {
    "DanluError": "danlu.base.errors",
    "UserError": "danlu.base.errors",
    "Recipe": "danlu.recipe",
    "fit": "danlu.fitting",
    "batch": "danlu.batching",
    "noise": "danlu.noising",
    "tune": "danlu.tuning",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its home (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'danlu' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES.get(name, "danlu.pipeline")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
