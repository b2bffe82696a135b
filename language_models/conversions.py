"""The folders of converted weights in ``$DRAGOMAN_HOME/models``.

Invariant: a folder there with a manifest is complete: it is built under another name and then renamed, under a lock.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from language_models.gguf_conversion import convert_gguf
from speculation.errors import InputError, UnknownModelError, WeightsError
from speculation.plural import count_of

#: (stage, done, total), in bytes or steps.
Progress = Callable[[str, int, int], None]

MANIFEST = "dragoman-manifest.json"
#: 2: made by a converter that refuses files which lack tensors.
VERSION = 2
_BLOCK = 1 << 22
#: What the system says where a folder cannot be written at all.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class Original:
    """What is converted. ``name``: of the folder. ``label``: what messages call it. ``oldest``: the first version of
    the manifest that will do; ``remedy``: where the folder is damaged."""

    name: str
    source: str
    sha256: str
    label: str
    remedy: str
    oldest: int = VERSION


@dataclass(frozen=True, slots=True)
class Conversion:
    """A model in the folder. ``source``: the file that it came from, or an embedded model's name; "" if unknown."""

    name: str
    source: str
    bytes_on_disk: int


def home() -> Path:
    """Where converted weights live: ``DRAGOMAN_HOME``. Raises InputError if there is no such place to name."""
    named = os.environ.get("DRAGOMAN_HOME")
    try:
        return Path(named).expanduser() if named else Path.home() / ".cache" / "dragoman"
    except RuntimeError as error:  # nobody's home
        raise InputError(
            "DRAGOMAN_HOME", named or "", f"is no folder: {error}", remedy="set it to one that can be written"
        ) from error


def models_folder() -> Path:
    return home() / "models"


def converted(original: Original, gguf: Callable[[Path], Path], progress: Progress, *, force: bool = False) -> Path:
    """The folder of ``original``'s converted weights, made if it is not there or of a version that will not do.

    ``gguf``: makes or finds the file to convert, given a temporary folder. ``force`` converts anew.
    Raises WeightsError.
    """
    folder = models_folder() / original.name
    if force or _version(folder) < original.oldest:
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _lock(folder):  # another process may be at it
                if force or _version(folder) < original.oldest:
                    _remove(folder)
                    _convert(original, gguf, folder, progress)
    _check_manifest(folder, original)
    return folder


def _convert(original: Original, gguf: Callable[[Path], Path], folder: Path, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        built = Path(temporary) / "built"
        file = gguf(Path(temporary))
        progress("converting", 0, 1)
        convert_gguf(file, built, name=original.label)
        progress("converting", 1, 1)
        _write_manifest(built, original, progress)
        built.rename(folder)


def conversions() -> list[Conversion]:
    """All that are complete, by name."""
    found = []
    for manifest in sorted(models_folder().glob(f"*/{MANIFEST}")):
        folder = manifest.parent
        try:
            source = str(json.loads(manifest.read_text()).get("source", ""))
        except (OSError, ValueError, AttributeError):
            source = ""
        found.append(Conversion(folder.name, source, size_of(folder)))
    return found


def size_of(folder: Path) -> int:
    """Bytes of the files in it; 0 if there is none."""
    return sum(file.stat().st_size for file in folder.glob("*")) if folder.is_dir() else 0


def remove(name: str) -> int:
    """Delete a conversion; returns the bytes that this frees.

    Raises UnknownModelError, WeightsError if another process is converting it.
    """
    folder = models_folder() / name
    known = {conversion.name: conversion for conversion in conversions()}
    unknown = UnknownModelError(
        f"nothing named {name!r} is converted in {models_folder()}", remedy="see `dragoman models list --all`"
    )
    # Only what stands in the folder itself; one that is being made has a lock and nothing else yet.
    plain = Path(name).name == name != ".."
    if name not in known and not (plain and _lock_file(folder).is_file()):
        raise unknown
    with writing(folder):
        try:
            with _lock(folder, timeout=0):
                _remove(folder)
        except Timeout as error:
            raise WeightsError(f"another process is converting {name}", remedy="try again when it is done") from error
    if name not in known:
        raise unknown
    return known[name].bytes_on_disk


def digest(files: Iterable[Path], progress: Progress, stage: str = "checking") -> str:
    """sha256 of the files' contents, one after the other."""
    files = list(files)
    total, done, sha256 = sum(f.stat().st_size for f in files), 0, hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                sha256.update(block)
                done += len(block)
                progress(stage, done, total)
    return sha256.hexdigest()


def verify(folder: Path, *, remedy: str, progress: Progress | None = None) -> None:
    """Compare every file of a converted folder with its digest. Raises WeightsError."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for name, entry in manifest["files"].items():
        found = digest([folder / name], progress or (lambda stage, done, total: None), "verifying")
        if found != entry["sha256"]:
            raise WeightsError(f"{folder / name}: sha256 is {found}, not {entry['sha256']}", remedy=remedy)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what the system says into a WeightsError that names the folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        room = "free some space there, or " if error.errno in _NO_ROOM else ""
        raise WeightsError(
            f"{folder} cannot be written: {reason}",
            remedy=f"{room}set DRAGOMAN_HOME to a folder that can be written and has room",
        ) from error


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _lock(folder: Path, timeout: float = -1) -> FileLock:
    return FileLock(_lock_file(folder), timeout=timeout)


def _remove(folder: Path) -> None:
    """The folder, and what a conversion that was killed left of it. Under its lock."""
    temporary = re.compile(rf"\.{re.escape(folder.name)}-\w{{8}}")
    for path in (folder, *(path for path in folder.parent.iterdir() if temporary.fullmatch(path.name))):
        if path.is_symlink():
            path.unlink()  # the link, not what it points to
        elif path.exists():
            shutil.rmtree(path)


def _version(folder: Path) -> int:
    """Of the manifest; 0 if there is none. One that cannot be read is for ``_check_manifest`` to say."""
    if not (folder / MANIFEST).is_file():
        return 0
    try:
        return int(json.loads((folder / MANIFEST).read_text()).get("version", 1))
    except (OSError, ValueError, TypeError, AttributeError):
        return VERSION


def _write_manifest(folder: Path, original: Original, progress: Progress) -> None:
    files = {
        f.name: {"size": f.stat().st_size, "sha256": digest([f], progress, "noting digests")}
        for f in sorted(folder.iterdir())
    }
    manifest = {"version": VERSION, "source": original.source, "source_sha256": original.sha256, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _check_manifest(folder: Path, original: Original) -> None:
    """Whether all files are there in full; their digests are checked by ``verify``, which takes seconds."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        expected = {name: entry["size"] for name, entry in manifest["files"].items()}
        source = manifest["source_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"the manifest in {folder} cannot be read: {error}", remedy=original.remedy) from error
    if source != original.sha256:
        raise WeightsError(f"{folder} was converted from other weights (sha256 {source})", remedy=original.remedy)
    for name, size in expected.items():
        file = folder / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            problem = "is missing" if found is None else f"has {count_of(found, 'byte')} instead of {size:,}"
            raise WeightsError(f"{file} {problem}", remedy=original.remedy)
