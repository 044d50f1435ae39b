"""Every setting is explained, read by something, and known to the frozen command set."""

import re
from pathlib import Path

import pytest

from danlu.base.settings import Settings, meanings
from danlu.cli import command_names
from danlu.recipe import SHELVES, SYNONYMS, Recipe
from danlu.shelves import plain_sections

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    "batch", "check", "evaluate", "extend", "generate", "init", "list", "noise", "plan", "predict", "prepare", "report", "resume", "run",
    "schema", "train", "tune", "verify",
]  # fmt: skip
"""A change here is a change of the product: say so in CHANGELOG.md."""

CLASSES = [Recipe, *plain_sections().values(), *(cls for table in SHELVES.values() for cls in table.values())]


def test_the_command_set_is_frozen() -> None:
    assert sorted(command_names()) == COMMANDS


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_setting_has_a_meaning(cls: type[Settings]) -> None:
    assert [name for name, meaning in meanings(cls).items() if name != "kind" and not meaning] == []
    assert (cls.__doc__ or "").strip()


@pytest.mark.parametrize("section", plain_sections())
def test_every_setting_has_a_reader(section: str) -> None:
    """Somebody outside the recipe's own files reads it as an attribute, or names it as a string."""
    skip = {"recipe.py", "sections.py", "pipeline.py"}
    code = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "danlu").rglob("*.py") if p.name not in skip)
    fields = plain_sections()[section].model_fields
    if section == "parallel":
        return  # procs is refused unless it is 1, so nobody needs to read it
    assert [n for n in fields if not re.search(rf"\.{n}\b|\"{n}\"", code)] == []


def test_synonyms_point_at_settings() -> None:
    known = {f"{s}.{name}" for s, table in SHELVES.items() for cls in table.values() for name in cls.model_fields}
    known |= {f"{s}.{name}" for s, cls in plain_sections().items() for name in cls.model_fields}
    assert [target for target in SYNONYMS.values() if target.split(",")[0] not in known] == []
    taken = {name for dotted in known for name in dotted.split(".")[1:]}
    assert [word for word in SYNONYMS if word in taken] == []
