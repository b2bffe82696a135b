"""The parts of a GGUF file that llama.cpp split: ``name-00001-of-00003.gguf`` and on.

Only the first part has the metadata, and each has tensors of its own: any one of them is no model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speculation.errors import UnknownModelError, WeightsError

if TYPE_CHECKING:
    from gguf import GGUFReader

_PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE)
_COUNT, _NUMBER, _TENSORS = "split.count", "split.no", "split.tensors.count"


def is_gguf(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() == ".gguf"


def model_name(path: Path) -> str:
    """The name of the file without suffix and number of the part."""
    part = _PART.fullmatch(path.name)
    return part["name"] if part else path.stem


def parts_of(path: Path) -> list[Path]:
    """All files of the model that ``path`` is a part of, in order; itself alone if it is none.

    Raises UnknownModelError, WeightsError naming the missing ones.
    """
    part = _PART.fullmatch(path.name)
    if not path.is_file():
        raise UnknownModelError(f"there is no file {path}", remedy="check the path")
    if part is None:
        return [path]
    count = int(part["count"])
    parts = [path.with_name(f"{part['name']}-{i:05}-of-{count:05}{part['suffix']}") for i in range(1, count + 1)]
    if missing := [file.name for file in parts if not file.is_file()]:
        raise WeightsError(
            f"{path} is one of {count} files, and its folder lacks "
            f"{', '.join(missing[:3])}{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}",
            remedy="download them into the same folder",
        )
    return parts


def join_parts(parts: Sequence[Path], joined: Path, progress: Callable[[str, int, int], None]) -> None:
    """Write one GGUF file with the metadata of the first part and the tensors of all.

    Raises WeightsError if they are not the parts of one file.
    """
    import gguf

    readers = [_reader(part) for part in parts]
    _check(parts, readers)
    first = readers[0]
    writer = gguf.GGUFWriter(joined, arch=_value(first, gguf.Keys.General.ARCHITECTURE), endianess=first.endianess)
    try:
        alignment = _value(first, gguf.Keys.General.ALIGNMENT)
        if alignment is not None:
            writer.data_alignment = alignment
        for name, field in first.fields.items():
            if name.startswith(("GGUF.", "split.")) or name == gguf.Keys.General.ARCHITECTURE:
                continue
            kind = field.types[0]
            writer.add_key_value(
                name, field.contents(), kind, field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
            )
        tensors = [tensor for reader in readers for tensor in reader.tensors]
        for tensor in tensors:
            data = tensor.data
            writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        total, done = sum(int(tensor.n_bytes) for tensor in tensors), 0
        for tensor in tensors:
            writer.write_tensor_data(tensor.data, tensor_endianess=first.endianess)
            done += int(tensor.n_bytes)
            progress("joining", done, total)
    finally:
        writer.close()


def part_of_more(path: Path) -> str:
    """How many files ``path`` says it is one of, whatever its name; "" if it is whole or says nothing."""
    try:
        reader = _reader(path)
        count, number = _value(reader, _COUNT), _value(reader, _NUMBER)
    except WeightsError:
        return ""
    return f"it is file {number + 1} of {count}" if count and count > 1 and number is not None else ""


def _check(parts: Sequence[Path], readers: Sequence[GGUFReader]) -> None:
    expected = _value(readers[0], _TENSORS)
    for i, (part, reader) in enumerate(zip(parts, readers, strict=True)):
        count, number = _value(reader, _COUNT), _value(reader, _NUMBER)
        if (count, number) != (len(parts), i):
            found = "no split file" if count is None or number is None else f"file {number + 1} of {count}"
            raise WeightsError(
                f"{part} is {found} by its metadata", remedy="download it again under the name that it had"
            )
    names = [tensor.name for reader in readers for tensor in reader.tensors]
    if expected != len(names) or len(set(names)) != len(names):
        raise WeightsError(
            f"the {len(parts)} parts of {parts[0]} have {len(set(names))} tensors of {expected}",
            remedy="download them again",
        )


def _reader(path: Path) -> GGUFReader:
    import gguf

    try:
        return gguf.GGUFReader(path)
    except Exception as error:  # whatever numpy raises where a file ends too early
        raise WeightsError(f"{path} is cut short or damaged: {error}", remedy="download it again") from error


def _value(reader: GGUFReader, key: str) -> Any:
    field = reader.fields.get(key)
    return None if field is None else field.contents()
