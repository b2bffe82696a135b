"""A model named with the digest of its files, ``FOLDER@sha256:HEX``: whatever else is found there is refused.

Of a .gguf file it is its sha256. Of a folder it is the sha256 of what ``sha256sum`` prints for all files in it and in
its folders, names in the order of their bytes: weights, tokenizer, templates and code together, as any of them changes
texts. Names that begin with a dot, which no model is loaded from, are left out.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

from language_models.conversions import Progress, digest
from language_models.gguf_parts import is_gguf, parts_of
from speculation.errors import InputError, UnknownModelError, WeightsError

#: Between a model's name and its digest.
MARK: Final = "@sha256:"
_HEX: Final = re.compile(r"[0-9a-f]{64}")


def split_pin(model: str) -> tuple[str, str | None]:
    """The model's name, and the digest that its files must have; None: any. Raises InputError for one that is none."""
    name, mark, pin = model.partition(MARK)
    if not mark:
        return model, None
    if not _HEX.fullmatch(pin.lower()):
        remedy = "64 hexadecimal digits, as `dragoman models digest` prints them"
        raise InputError("model", model, "ends with no sha256", remedy=remedy)
    return name, pin.lower()


def pinned(path: Path, progress: Progress) -> str:
    """The digest of a folder or .gguf file. Raises WeightsError, and UnknownModelError if it is neither."""
    try:
        if path.is_dir():
            inside = [(file.relative_to(path), file) for file in path.rglob("*") if file.is_file()]
            names = {name.as_posix(): file for name, file in inside if not any(part[0] == "." for part in name.parts)}
            lines = [f"{digest([names[name]], progress)}  {name}\n" for name in sorted(names, key=str.encode)]
            return hashlib.sha256("".join(lines).encode()).hexdigest()
        if is_gguf(path):
            return digest(parts_of(path), progress)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}", remedy="check its permissions") from error
    remedy = "download it, and name the folder" if not path.exists() else "name the folder that it is in"
    raise UnknownModelError(f"{path} is no folder or .gguf file, so it has no digest", remedy=remedy)


def check_pin(name: str, *, found: str, pin: str | None) -> None:
    """Raises WeightsError if it is another."""
    if pin is not None and found != pin:
        remedy = "get the files that were meant, or pin those that are there"
        raise WeightsError(f"{name}: sha256 is {found}, not {pin}", remedy=remedy)
