"""What loads what: imports go down only, nothing heavy before it is needed, nothing that runs code from data."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "danlu").rglob("*.py"))
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
BANNED_CALLS = {"eval", "exec", "torch.load", "extractall", "os.system", "os.popen"}


def loaded_by(code: str, *modules: str) -> list[str]:
    """Which of `modules` a fresh Python has loaded after `code`."""
    probe = f"import sys\n{code}\nprint(*[m for m in {modules!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.split("\n")[-2].split()


def test_settings_load_no_torch() -> None:
    assert loaded_by("import danlu.recipe, danlu.shelves", "torch", "polars", "tokenizers") == []


def test_help_loads_nothing_heavy() -> None:
    code = "from danlu.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    assert loaded_by(code, "torch", "numpy", "polars", "pydantic", "tokenizers") == []


def test_importing_danlu_loads_nothing() -> None:
    assert loaded_by("import danlu", "torch", "numpy", "pydantic", "typer") == []


def test_the_probe_can_fail() -> None:
    assert loaded_by("import json", "json", "torch") == ["json"]


def test_layers() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def unsafe(source: str) -> list[str]:
    """Imports and calls that could run code from data, or hide from a shell."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in BANNED_MODULES]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in BANNED_MODULES:
            found.append(node.module or "")
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in BANNED_CALLS or name.endswith(".extractall"):
                found.append(name)
            found += ["shell=True" for k in node.keywords if k.arg == "shell" and ast.unparse(k.value) == "True"]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_runs_code_from_data(path: Path) -> None:
    assert unsafe(path.read_text(encoding="utf-8")) == []


def test_the_safety_test_can_fail() -> None:
    assert unsafe("import pickle\neval('1')\ntorch.load('x')\nrun('ls', shell=True)\nz.extractall()\nmodel.eval()") == [
        "pickle", "eval", "torch.load", "shell=True", "z.extractall",
    ]  # fmt: skip
