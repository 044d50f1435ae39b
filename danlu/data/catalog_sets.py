"""Well-known data sets of tables, images, sounds, ... by name: each is a folder in DANLU_DATA, downloaded when it is not there.

sets/<name>.txt lists a set's files: three lines of comment (what it is, its licence, the address they lie under), then for
each file its SHA-256, its bytes, its name, and after a tab an address of its own where it has one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from danlu.base.errors import UserError
from danlu.data.catalog import Download, data_folder, download, sha256_of

SETS = Path(__file__).with_name("sets")
VARIABLE = re.compile(r"\$(?:DANLU_DATA|\{DANLU_DATA\})/([^/*?\[]+)")
AT_ONCE = 8
"""Files that are downloaded at the same time."""


def located(path: str) -> str:
    """A path with ~ and $NAMES filled in. $DANLU_DATA/<set> is the set's folder, which is downloaded when it is not there
    and danlu knows it; without the variable it lies in ~/.cache/danlu/data."""
    if match := VARIABLE.match(path):
        path = str(folder_of(match[1])) + path[match.end() :]
    full = os.path.expanduser(os.path.expandvars(path))
    if "$" in full:
        name = full[full.index("$") :].partition("/")[0]
        raise UserError(
            "data.path", f"names {name}, which is not set in the environment", got=path, fix=f"set {name[1:]}"
        )
    return full


def folder_of(name: str) -> Path:
    """Where a set lies; a folder that is there is used as it is."""
    folder = data_folder() / name
    listing = SETS / f"{name}.txt"
    if not folder.exists() and listing.is_file():
        fetch(name, listed(listing), folder)
    return folder


def listed(listing: Path) -> list[Download]:
    """The files of a set."""
    lines = listing.read_text(encoding="utf-8").splitlines()
    base = lines[2].removeprefix("#").strip()
    files = []
    for line in lines[3:]:
        digest, n_bytes, rest = line.split(" ", 2)
        name, _, own = rest.partition("\t")
        files.append(Download(name, quote(own or base + name, safe=":/"), digest, int(n_bytes)))
    return files


def fetch(name: str, files: Sequence[Download], folder: Path) -> None:
    """Download a set beside its place, each file checked by its SHA-256; it appears there when it is whole. What an
    earlier try has brought is kept."""
    part = folder.with_name(f"{folder.name}.part")
    missing = [f for f in files if not (part / f.name).is_file() or sha256_of(part / f.name) != f.sha256]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda file: download(file, part / file.name, name), missing))
    part.rename(folder)
