"""The command line: exit codes, one sentence for every mistake, the nearest name, what each command prints."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from danlu import cli, pipeline
from danlu.base.errors import GateError, Interrupted

ROOT = Path(__file__).resolve().parents[1]


def danlu(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A real process."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "danlu", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line here and gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.main(list(words))
        return (stopped.value.code, *capsys.readouterr())

    return call


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian", "r.toml"], "danlu trian is not a command. Fix: danlu train."),
        (["zzzzzzzz"], "danlu zzzzzzzz is not a command. Fix: use one of run, check,"),
        (["run", "r.toml", "--ste", "a=1"], "danlu run: --ste is not an option. Fix: write --set."),
        (["run"], "danlu run: missing argument"),
        (["run", "none.toml"], "none.toml is not a file."),
        (["run", "r.toml", "--set", "train.length"], 'Fix: write --set train.length="200 steps".'),
        (["run", "r.toml", "--set", "train.lenght=3 s"], "--set: train.lenght is not a setting of [train]."),
        (["resume", "nowhere"], "nowhere is not a run folder"),
        (["verify", "r.toml"], "r.toml is not a run folder"),
        (["generate", "nowhere", "--temperature=-1"], "temperature must be a number of at least 0"),
        (["list", "adamv"], "danlu list adamv names no shelf, kind or section. Fix: write adam or adamw"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(said: Any, words: list[str], sentence: str) -> None:
    Path("r.toml").write_text('[data]\npath = "x"\n')
    code, out, err = said(*words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert sentence in err
    assert sorted(p.name for p in Path().iterdir()) == ["r.toml"]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = danlu("run", "none.toml", "--debug", cwd=tmp_path)
    assert "Traceback" in done.stderr
    assert "UserError" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [(GateError("diverged"), 3), (Interrupted("saved", 143), 143), (KeyboardInterrupt(), 130), (OSError(28, "No space left", "x"), 2)],
)  # fmt: skip
def test_exit_codes(said: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    def fail(*words: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(pipeline, "run", fail)
    found, _, err = said("run", "r.toml")
    assert found == code
    assert err.count("\n") == 1


def test_our_own_bugs_are_not_hidden(said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*words: Any, **options: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "run", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", "r.toml"])


def test_list_shows_every_kind_and_its_settings(said: Any) -> None:
    code, out, _ = said("list")
    assert code == 0
    for word in ("optimizer", "muon", "cosine", "decoder", "checkpoint"):
        assert word in out
    code, out, _ = said("list", "train")
    assert "max_norm" in out
    assert "Gradients are scaled down" in " ".join(out.split())


def test_schema_is_a_json_schema(said: Any) -> None:
    _, out, _ = said("schema")
    schema = json.loads(out)
    assert schema["required"] == ["data"]
    kinds = {choice["properties"]["kind"]["const"]: choice for choice in schema["properties"]["optimizer"]["anyOf"]}
    assert {"muon", "adamw", "sgd"} <= kinds.keys()
    assert ("kind" in kinds["adamw"]["required"], "required" in kinds["muon"]) == (True, False)
    assert schema["$defs"]["Train"]["properties"]["batch"]["description"].startswith("Samples per update")


def test_a_closed_pipe_is_no_mistake(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-u", "-m", "danlu", "schema"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=tmp_path
    ) as process:
        process.stdout.close()  # type: ignore[union-attr]
        assert process.stderr.read() == b""  # type: ignore[union-attr]


def test_control_c_is_one_sentence(tmp_path: Path) -> None:
    code = (
        "from danlu import cli, pipeline\nimport time\n"
        "pipeline.run = lambda *a, **k: (print('ready', flush=True), time.sleep(30))\ncli.main(['run', 'x'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    with process:
        assert process.stdout.readline() == b"ready\n"  # type: ignore[union-attr]
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"Stopped.\n"  # type: ignore[union-attr]
        assert process.wait(20) == 130
