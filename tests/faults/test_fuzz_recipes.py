"""2,000 wrong recipes and command lines: one sentence, exit 2, no traceback, nothing written; a misspelt key always
names the right one."""

import random
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from danlu.base.errors import fold
from danlu.base.toml import toml_key, toml_value
from danlu.cli import command_names, main
from danlu.data.samples import SampleSource
from danlu.recipe import SHELVES, SYNONYMS, Recipe
from danlu.shelves import plain_sections
from danlu.tasks import TASKS
from danlu.tasks.language import Language
from danlu.tasks.samples import SampleTask

N = 500
"""Of each of the four kinds of mistakes below."""
VERBS = ("run", "check", "prepare", "plan", "train")


def classes(rng: random.Random) -> dict[str, Any]:
    """A random kind for every section."""
    found = {s: rng.choice(list(table.values())) for s, table in SHELVES.items()} | plain_sections()
    of_samples = [kind for kind in TASKS.values() if issubclass(kind, SampleTask)]
    tasks = of_samples if issubclass(found["data"], SampleSource) else [Language]
    return found | {"task": rng.choice(tasks)}


def default_values(cls: Any) -> dict[str, Any]:
    """Every setting of a class with a plain default, as a recipe would write it."""
    known = {"kind": "text", "path": "x.txt"}
    found = {name: known.get(name, "y") for name, f in cls.model_fields.items() if f.is_required()}
    made = cls(**found).model_dump(mode="json")
    return {k: v for k, v in made.items() if v is not None and not isinstance(v, dict | list)}


def whole_recipe(rng: random.Random) -> dict[str, Any]:
    """A right recipe with some settings written out."""
    raw: dict[str, Any] = {"name": "fuzz", "seed": rng.randrange(100)}
    for section, cls in classes(rng).items():
        values = default_values(cls)
        needed = {"kind", *(name for name, f in cls.model_fields.items() if f.is_required())} & values.keys()
        raw[section] = {k: v for k, v in values.items() if k in needed or rng.random() < 0.5}
    return raw


def as_toml(raw: dict[str, Any]) -> str:
    top = [f"{toml_key(k)} = {toml_value(v)}" for k, v in raw.items() if not isinstance(v, dict)]
    for section, values in raw.items():
        if isinstance(values, dict):
            top += [f"[{toml_key(section)}]", *(f"{toml_key(k)} = {toml_value(v)}" for k, v in values.items())]
    return "\n".join(top) + "\n"


def misspelt(name: str, rng: random.Random) -> str:
    """One typing slip: a letter left out, added, changed, or swapped with its neighbour."""
    i = rng.randrange(len(name))
    letter = rng.choice(string.ascii_lowercase)
    kinds = [name[:i] + name[i + 1 :], name[:i] + letter + name[i:], name[:i] + letter + name[i + 1 :]]
    kinds.append(name[:i] + name[i + 1 : i + 2] + name[i] + name[i + 2 :])
    return rng.choice(kinds)


class Refused:
    """Runs a command line that must be refused, and gives its one sentence."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def __call__(self, *words: str) -> str:
        before = sorted(p.name for p in self.folder.rglob("*"))
        with pytest.raises(SystemExit) as stopped:
            main(list(words))
        out, err = self.capsys.readouterr()
        assert stopped.value.code == 2, (words, out, err)
        assert err.count("\n") == 1, (words, err)
        assert re.search(r"[.?]\n$", err), (words, err)
        assert "Traceback" not in err, err
        assert (len(err) < 2000, out) == (True, ""), (words, err, out)
        assert sorted(p.name for p in self.folder.rglob("*")) == before, words
        return err


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)
    return Refused(tmp_path, capsys)


def test_a_misspelt_key_names_the_right_one(refused: Callable[..., str]) -> None:
    rng, known = random.Random(1), Recipe.model_fields
    for _ in range(N):
        raw = whole_recipe(rng)
        section = rng.choice([*(s for s in raw if isinstance(raw[s], dict) and raw[s]), ""])
        table = raw[section] if section else raw
        right = rng.choice(list(table))
        siblings = classes_of(raw, section).model_fields if section else known
        wrong = misspelt(right, rng)
        if fold(wrong) in {*map(fold, siblings), *SYNONYMS, ""}:
            continue
        table[wrong] = table.pop(right)
        Path("recipe.toml").write_text(as_toml(raw))
        said = refused(rng.choice(VERBS), "recipe.toml")
        assert re.search(rf"Fix: .*\b{right}\b", said), (wrong, right, said)


def classes_of(raw: dict[str, Any], section: str) -> Any:
    return SHELVES[section][raw[section]["kind"]] if section in SHELVES else plain_sections()[section]


def test_a_wrong_value_is_told(refused: Callable[..., str]) -> None:
    rng = random.Random(2)
    wrong = ["", "zzz", -1e30, float("nan"), float("inf"), [[1]], {"a": {"b": 1}}, {}, "\x1b[31m", "é" * 5000, 10**40]
    for _ in range(N):
        raw = whole_recipe(rng)
        section = rng.choice([s for s in raw if isinstance(raw[s], dict)])
        cls = classes_of(raw, section)
        name, value = rng.choice(list(cls.model_fields)), rng.choice(wrong)
        if is_right(cls, raw[section], name, value):
            continue
        raw[section][name] = value
        Path("recipe.toml").write_text(as_toml(raw), encoding="utf-8")
        assert f"{section}" in refused(rng.choice(VERBS), "recipe.toml")


def is_right(cls: Any, values: dict[str, Any], name: str, value: Any) -> bool:
    try:
        cls(**values | {name: value})
    except ValueError:
        return False
    return True


def test_a_broken_file_is_told(refused: Callable[..., str]) -> None:
    rng = random.Random(3)
    for i in range(N):
        data = as_toml(whole_recipe(rng)).encode()
        cut = rng.randrange(len(data))
        kind = i % 5
        if kind == 0:
            data = data[:cut] + bytes([rng.choice([0, 7, 0x80, 0xFF])]) + data[cut:]
        elif kind == 1:
            data = data[:cut] + rng.choice([b'"', b"[[", b"]", b"= =", b"\n=\n", b'"""', b"\n[a\n"]) + data[cut:]
        elif kind == 2:
            data = rng.randbytes(200)
        elif kind == 3:
            data += b"\nx = " + rng.choice([b"[" * 5000, b"9" * 5000, b"{a={" * 900, b"1e", b"0x", b"nope", b"'"])
        else:
            data += rng.choice(
                [b"\n[train]\n[train]\n", b"\nname.x = 1", b"\n[[name]]", b'\nname = "a/b"', b"\ndata = 3"]
            )
        Path("recipe.toml").write_bytes(data)
        if kind == 1 and not is_broken(data):
            continue
        refused(rng.choice(VERBS), "recipe.toml")


def is_broken(data: bytes) -> bool:
    try:
        Recipe.load(Path("recipe.toml"))
    except ValueError:
        return True
    return False


def test_a_wrong_command_line_is_told(refused: Callable[..., str]) -> None:
    rng = random.Random(4)
    Path("recipe.toml").write_text('[data]\npath = "x.txt"\n')
    Path("folder").mkdir()
    for _ in range(N):
        verb = rng.choice(VERBS)
        bad_set = rng.choice(["", "=", "a", ".=1", "train.=1", "train.batch=0", "data.path.x=1", "x=1", "train.lr=1\n"])
        option = misspelt(rng.choice(["--allow-code", "--set"]), rng)
        command = misspelt(rng.choice(command_names()), rng)
        lines: list[list[str]] = [
            [verb, "recipe.toml", "--set", bad_set],
            [verb, "recipe.toml", "--set"],
            [verb],
            [verb, rng.choice(["missing.toml", "folder", "\x00", "a" * 300, ".", "", "/dev/null"])],
            [verb, "recipe.toml", "more", "words"],
            [rng.choice(["resume", "verify", "generate"]), rng.choice(["folder", "recipe.toml", "missing", "\udcff"])],
            ["list", misspelt(rng.choice(["optimizer", "cosine", "adamw"]), rng) + "q"],
            [verb, "recipe.toml", "--set", "optimizer.kind=my_lab.optim:Tiger"],
        ]
        if command not in command_names() and not command.startswith("-") and command:
            lines.append([command, "recipe.toml"])
        if option not in ("--allow-code", "--set", "--") and option.startswith("--"):
            lines.append([verb, option, "x", "recipe.toml"])
        refused(*rng.choice(lines))
