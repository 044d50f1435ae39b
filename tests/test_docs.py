"""The documents keep their word: every command and Python block in them runs, every link leads somewhere.

Each page is played in a folder that holds what the pages speak of: my-texts/, recipe.toml, recipes/ and a finished run,
which stands in for any run folder that a page names and did not make. Commands on a recipe get small settings. A block that cannot be run
here says so on the line above it: <!-- not run: reason -->. A new page in docs/guides is picked up by itself.
"""

import itertools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+?) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
SHELL = ("console", "sh", "bash", "shell")
SMALL = (
    "data.path=my-texts", "model.size=auto", "model.n_layers=1", "model.width=32", "model.n_heads=2", "model.context=32",
    "train.length=6 steps", "train.batch=4", "train.compile=false", "plan.budget=1 s", "evaluate.bootstrap=100",
    "evaluate.max_new_tokens=8", "evaluate.samples=1",
)  # fmt: skip
RECIPE = """
name = "small"
[data]
path = "my-texts"
[data.tokenizer]
kind = "bytes"
[model]
n_layers = 1
width = 32
n_heads = 2
context = 32
[train]
length = "6 steps"
batch = 4
[plan]
budget = "1 s"
[evaluate]
bootstrap = 100
max_new_tokens = 8
samples = 1
"""
SENTENCE = (
    "the furnace is lit and the elixir is refined again by a patient hand under the old moon of the western hills"
)
WORDS = SENTENCE.split()


@dataclass
class Block:
    page: Path
    line: int
    kind: str
    text: str
    reason: str | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: m.start()].count("\n") + 1, m["kind"], m["text"], m["reason"]) for m in BLOCK.finditer(text)
    ]


def script(block: Block) -> str:
    """What to run. With "$ " before some lines, those are the commands and the rest is output; else every line is one."""
    prompted = re.findall(r"^\$ ((?:.*\\\n)*.*)$", block.text, re.M)
    return "\n".join(prompted) if prompted else block.text


def small(words: list[str]) -> list[str]:
    """A page's danlu command as it is run here: the made run for a run that is not there, small settings for a recipe."""
    out = words[:1]
    for before, word in itertools.pairwise(words):
        is_run = re.fullmatch(r"RUN|runs/[\w.-]+", word) and before != "--out" and not Path(word).exists()
        out.append("runs/made" if is_run else word)
    if (
        words[:1]
        and words[0] in ("run", "prepare", "plan", "train", "check", "tune", "batch", "noise")
        and words[1:2][0].endswith(".toml")
    ):
        out += [part for setting in SMALL for part in ("--set", setting)]
    return out


def play(words: list[str], cwd: Path) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DANLU_")}
    first = os.pathsep.join([str(cwd / "bin"), str(Path(sys.executable).parent), kept.get("PATH", "")])
    env = kept | {"PATH": first, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "PYTHONPATH": str(ROOT)}
    env["DANLU_HOME"] = str(cwd / "home")
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=400, env=env, check=False)


def said(done: subprocess.CompletedProcess) -> str:
    return f"exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """What pages speak of: texts, recipes, a finished run (runs/made), and a danlu that takes small settings."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "my-texts").mkdir()
    for i in range(40):
        lines = (" ".join(WORDS[(i * 7 + j * j) % len(WORDS) :] + WORDS[: j % 9]) for j in range(30))
        (folder / "my-texts" / f"{i:02}.txt").write_text(f"Text {i} {i * i}\n" + "\n".join(lines), encoding="utf-8")
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shim = folder / "bin" / "danlu"
    shim.parent.mkdir()
    arguments = f"import os, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_docs import small"
    run = 'os.execv(sys.executable, [sys.executable, "-m", "danlu", *small(sys.argv[1:])])'
    shim.write_text(f"#!{sys.executable}\n{arguments}\n{run}\n", encoding="utf-8")
    shim.chmod(0o755)
    done = play(["danlu", "run", "recipe.toml", "--out", "runs/made"], folder)
    assert done.returncode == 0, said(done)
    return folder


@pytest.fixture
def place(made, tmp_path) -> Path:
    """A copy of it for one page."""
    return Path(shutil.copytree(made, tmp_path / "place"))


@pytest.mark.parametrize("page", [p for p in PAGES if any(b.kind in SHELL for b in blocks(p))], ids=lambda p: p.stem)
def test_commands_run(page, place):
    if "--out recipe.toml" in page.read_text(encoding="utf-8"):  # this page makes its own
        (place / "recipe.toml").unlink()
    for block in blocks(page):
        if block.kind in SHELL and block.reason is None:
            done = play(["bash", "-e", "-c", script(block)], place)
            assert done.returncode == 0, f"{page.name}:{block.line}: {said(done)}"


@pytest.mark.parametrize("page", [p for p in PAGES if any(b.kind == "python" for b in blocks(p))], ids=lambda p: p.stem)
def test_python_runs(page, place):
    """The Python blocks of a page run one after the other, as one program."""
    parts = [block.text for block in blocks(page) if block.kind == "python" and block.reason is None]
    code = re.sub(r'(?<!out=)(["\'])(?:RUN|runs/[\w.-]+)\1', '"runs/made"', "\n".join(parts))
    (place / "page.py").write_text(code, encoding="utf-8")
    done = play([sys.executable, "page.py"], place)
    assert done.returncode == 0, f"{page.name}: {said(done)}"


def test_every_toml_block_is_a_recipe(tmp_path):
    from danlu.recipe import Recipe

    found = [b for page in PAGES for b in blocks(page) if b.kind == "toml" and b.reason is None]
    assert found
    for i, block in enumerate(found):
        path = tmp_path / f"{i}.toml"
        has_data = re.search(r"^\[data\]", block.text, re.M)
        path.write_text(block.text + ("" if has_data else '\n[data]\npath = "x.txt"\n'), encoding="utf-8")
        Recipe.load(path)


def test_every_link_leads_somewhere():
    for page in [*PAGES, ROOT / "README.zh-CN.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not re.match(r"https?://|mailto:", target):
                assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_both_readmes_say_the_same():
    """The same commands, programs and recipes in the same order, comments aside, and as many sections."""

    def bare(name: str) -> list[str]:
        texts = [block.text for block in blocks(ROOT / name)]
        return [re.sub(r"[ \t]*#.*", "", text) for text in texts]

    assert bare("README.md") == bare("README.zh-CN.md")
    count = [(ROOT / name).read_text(encoding="utf-8").count("\n## ") for name in ("README.md", "README.zh-CN.md")]
    assert count[0] == count[1]


def test_a_broken_command_would_be_seen(place):
    block = Block(
        ROOT, 1, "console", "$ danlu list  # shows\nsome output\n$ danlu check no-such.toml \\\n  --set b=c\n", None
    )
    assert script(block) == "danlu list  # shows\ndanlu check no-such.toml \\\n  --set b=c"
    assert play(["bash", "-e", "-c", script(block)], place).returncode == 2
