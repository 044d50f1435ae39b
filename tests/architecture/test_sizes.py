"""Simplicity has its own tests: sizes and names."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "danlu").rglob("*.py"))
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS, MAX_INIT = 400, 60, 8, 60
BANNED_FILES = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "handler"}
BANNED_NAMES = re.compile(r"(^|_)(utils?|helpers?|manager|misc|handler|process_data)($|_)|^(do|maybe)_", re.I)


def is_banned(name: str) -> bool:
    """DataManager and data_manager alike."""
    return bool(BANNED_NAMES.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def too_long(path: Path) -> list[str]:
    """Faults of one file, as sentences."""
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    limit = MAX_INIT if path.name == "__init__.py" else MAX_FILE
    faults = [f"{path.name} has {n_lines} lines, at most {limit}"] if n_lines > limit else []
    for node in functions(tree_of(path)):
        size = (node.end_lineno or 0) - node.lineno + 1
        if size > MAX_FUNCTION:
            faults.append(f"{path.name}:{node.lineno} {node.name} has {size} lines, at most {MAX_FUNCTION}")
        if is_command(node):
            continue  # the parameters of a command are its options
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = len([a for a in given if a.arg not in ("self", "cls")])
        if count > MAX_PARAMETERS:
            faults.append(f"{path.name}:{node.lineno} {node.name} has {count} parameters, at most {MAX_PARAMETERS}")
    return faults


def is_command(node: ast.FunctionDef) -> bool:
    return any("app.command" in ast.unparse(d) for d in node.decorator_list)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_too_long(path: Path) -> None:
    assert too_long(path) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_names_say_what_a_thing_is(path: Path) -> None:
    assert path.stem not in BANNED_FILES
    nodes = [n for n in ast.walk(tree_of(path)) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    assert [n.name for n in nodes if is_banned(n.name)] == []


def test_the_size_test_can_fail(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f(a, b, c, d, e, f, g, h, i):\n" + "    x = 1\n" * 60 + "y = 1\n" * 400)
    assert len(too_long(bad)) == 3
    assert all(map(is_banned, ("do_thing", "DataManager", "maybe_load", "path_utils", "event_handler")))
    assert not any(map(is_banned, ("domain", "document", "Misconduct", "command")))
