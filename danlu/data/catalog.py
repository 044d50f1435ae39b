"""Data sets by name: Python's own standard library, well-known sets that are downloaded once, and a folder of yours.

Downloads go to the folder that the environment variable DANLU_DATA names (else ~/.cache/danlu/data), one folder per
set; files that already lie there are used in place. Each file is checked against its SHA-256 before it is read.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from danlu.base.errors import UserError, nearest
from danlu.data.files import TextFile, walk

PYTHON_STDLIB = "python-stdlib"
INSTALLED = frozenset({"site-packages", "dist-packages"})
TEST_FOLDERS = {"test", "tests", "idle_test"}
TIMEOUT_S = 60


@dataclass(frozen=True)
class Download:
    """One file of a set."""

    name: str
    url: str
    sha256: str
    n_bytes: int


@dataclass(frozen=True)
class Entry:
    """One set of the catalog."""

    about: str
    """What it is, one line."""
    licence: str
    """As its source states it."""
    files: tuple[Download, ...] = ()
    """Empty: made on this machine."""


_CHAR_RNN = "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
_EXAMPLES = "https://raw.githubusercontent.com/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8"
_WIKITEXT = f"{_EXAMPLES}/word_language_model/data/wikitext-2"
CATALOG: dict[str, Entry] = {
    PYTHON_STDLIB: Entry("the source of the running Python's standard library, without its tests", "PSF-2.0"),
    "tiny_shakespeare": Entry(
        "40,000 lines of Shakespeare in one file, 1.1 MB",
        "public domain",
        (
            Download(
                "input.txt",
                f"{_CHAR_RNN}/data/tinyshakespeare/input.txt",
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                1_115_394,
            ),
        ),
    ),
    "wikitext2_valid_test": Entry(
        "validation and test files of WikiText-2 (words apart, rare ones as <unk>), 2.4 MB",
        "CC BY-SA 3.0",
        (
            Download(
                "test.txt",
                f"{_WIKITEXT}/test.txt",
                "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
                1_256_449,
            ),
            Download(
                "valid.txt",
                f"{_WIKITEXT}/valid.txt",
                "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
                1_121_681,
            ),
        ),
    ),
}
"""Name -> set. A file or folder of the same name is meant by "./name"."""


def data_folder() -> Path:
    """Where sets lie and downloads go."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("DANLU_DATA") or f"{cache}/danlu/data").expanduser()


def in_data_folder(given: str) -> str:
    """The folder of a set of one's own in DANLU_DATA, when `given` is a bare name that is no path here.

    A bare name that is neither is refused with the nearest catalog name.
    """
    if "/" in given or any(c in given for c in "*?[~") or Path(given).exists():
        return given
    folder = data_folder()
    if (folder / given).is_dir():
        return str(folder / given)
    try:
        own = [path.name for path in folder.iterdir() if path.is_dir()]
    except OSError:
        own = []
    close = nearest(given, [*CATALOG, *own, *(path.name for path in Path().iterdir())])
    known = f"catalog names are {', '.join(CATALOG)}"
    raise UserError(
        "data.path", "names no file or folder here and no data set of the catalog", got=given,
        fix=f'did you mean "{close}"? ({known})' if close else known,
    )  # fmt: skip


def catalog_files(name: str, notes: Counter[str]) -> list[TextFile]:
    """The files of a catalog set, checked; downloads what is not there yet."""
    if name == PYTHON_STDLIB:
        return python_stdlib(notes)
    folder = data_folder() / name
    return [TextFile(fetched(file, folder, name), file.name, "text") for file in CATALOG[name].files]


def python_stdlib(notes: Counter[str]) -> list[TextFile]:
    """Every .py file of the running interpreter's standard library but its test suites and installed packages.

    The tests are left out because many systems install Python without them: so the corpus is the same everywhere.
    """
    root = Path(sysconfig.get_path("stdlib"))
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    names = [name for name in walk(root, Counter(), INSTALLED) if name.endswith(".py")]
    kept = [name for name in names if not TEST_FOLDERS & set(name.split("/")[:-1])]
    notes[f"{PYTHON_STDLIB} ({version}): files of test suites left out"] += len(names) - len(kept)
    found = [TextFile(root / name, name, "text") for name in kept]
    if not found:
        raise UserError(
            "data.path", f"needs the standard library as files, and {root} has none", got=PYTHON_STDLIB,
            fix="name a folder of text files",
        )  # fmt: skip
    return found


def fetched(file: Download, folder: Path, set_name: str) -> Path:
    """The file in its folder, whole and right; downloaded if it is not there."""
    path = folder / file.name
    if not path.exists():
        download(file, path, set_name)
    elif path.stat().st_size != file.n_bytes or sha256_of(path) != file.sha256:
        fix = "delete it, and it is downloaded again; or name the file itself in data.path"
        raise UserError(str(path), f"is not the file {file.name} of {set_name}: its SHA-256 differs", fix=fix)
    return path


def download(file: Download, path: Path, set_name: str) -> None:
    """Fetch one file; it appears under its name only when its SHA-256 is right."""
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        part = Path(name)
        digest, n_bytes = hashlib.sha256(), 0
        request = Request(file.url, headers={"User-Agent": "danlu"})
        with os.fdopen(handle, "wb") as target, urlopen(request, timeout=TIMEOUT_S) as source:
            while (block := source.read(1 << 20)) and n_bytes <= file.n_bytes:
                digest.update(block)
                n_bytes += target.write(block)
            target.flush()
            os.fsync(target.fileno())
        if digest.hexdigest() != file.sha256:
            raise UserError(
                f"{set_name}: {file.name}", "came with a wrong SHA-256 and was not kept", got=digest.hexdigest(),
                fix=f"try again, or put the right file at {path}",
            )  # fmt: skip
        part.chmod(0o644)
        part.replace(path)
    except (URLError, OSError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UserError(
            f"{set_name}: {file.url}",
            f"could not be downloaded ({why})",
            fix=f"put the file at {path}, or set DANLU_DATA",
        ) from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
