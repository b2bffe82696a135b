"""Reading a file of settings: YAML, checked by a pydantic model; a mistake names its line, field, value and remedy."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from speculation.errors import InputError
from transport.durations import parse_duration
from transport.sizes import parse_size


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong at a ``place`` of the file: names of settings, and indexes in lists."""

    place: tuple[int | str, ...]
    value: object
    problem: str
    remedy: str


_DEVICE = re.compile(r"(auto|cpu|(cuda|mps|xpu)(:\d+)?)")


def _device(written: str) -> str:
    if not _DEVICE.fullmatch(written):
        raise ValueError("is no device: write auto, cpu, cuda, or cuda:1")
    return written


#: A share of something.
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=1, le=65_535)]
Device = Annotated[str, AfterValidator(_device)]
#: None and 0: what torch takes, which Ray sets to an actor's CPUs.
Threads = Annotated[int | None, Field(ge=0, le=1024, description="CPU threads; 0: all cores")]


def _seconds(written: object) -> object:
    """Of a duration with its unit; a number is seconds already."""
    if not isinstance(written, str):
        return float(written) if isinstance(written, int) and not isinstance(written, bool) else written
    try:
        return parse_duration("", written)
    except InputError as error:
        raise ValueError(f"{error.problem}: {error.remedy}") from error


def _size(written: object) -> object:
    """Checked, and left as it is written."""
    if isinstance(written, str):
        try:
            parse_size("", written)
        except InputError as error:
            raise ValueError(f"{error.problem}: {error.remedy}") from error
    return written


#: Seconds, or a number with its unit: 40ms, 1.5s, 5m.
Duration = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False), BeforeValidator(_seconds)]
#: A number with its unit: 8GiB, 512MiB; ``parse_size`` makes it bytes.
MemorySize = Annotated[str | None, BeforeValidator(_size)]


class Settings(BaseModel):
    """Base of every section of a file: unknown names are mistakes, and nothing is converted in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def mistakes(self) -> Iterator[Mistake]:
        """Of a whole file: what is wrong although each setting by itself is right."""
        yield from ()


_S = TypeVar("_S", bound=Settings)


def read_settings(path: Path, model: type[_S], *, field: str, remedy: str) -> _S:
    """The file at ``path`` as a ``model``; an empty one is all defaults.

    ``field``: what the file is called in errors about it as a whole; ``remedy``: where settings are explained.
    Raises InputError.
    """
    try:
        text = path.read_text("utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        twice = _twice(root)
        values = yaml.safe_load(text)
    except OSError as error:
        raise InputError(field, str(path), f"cannot be read: {error.strerror}", remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise InputError(field, str(path), f"is not UTF-8 at byte {error.start}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise InputError(field, str(path), f"is not YAML{where}: {problem}", remedy=remedy) from error
    except (ValueError, RecursionError) as error:  # of a plain value that looks like a date and is none, or worse
        raise InputError(field, str(path), f"cannot be parsed: {error}", remedy=remedy) from error
    if twice is not None:
        raise InputError(
            ".".join(map(str, twice.place)),
            twice.value,
            f"{path}, lines {', '.join(map(str, twice.lines))}: set more than once",
            remedy="keep one of them",
        )
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise InputError(field, str(path), "holds no settings", remedy="write `name: value` lines")
    try:
        settings = model.model_validate(values)
        mistake = next(settings.mistakes(), None)
    except ValidationError as error:
        mistake = _mistake(model, error, remedy)
    if mistake is None:
        return settings
    name = ".".join(str(part) for part in mistake.place)
    where = f"{path}, line {_line(root, mistake.place)}"
    raise InputError(name, mistake.value, f"{where}: {mistake.problem}", remedy=mistake.remedy)


def _mistake(model: type[Settings], error: ValidationError, remedy: str) -> Mistake:
    """The first thing that pydantic finds wrong."""
    first = error.errors(include_url=False)[0]
    place, kind, value = first["loc"], first["type"], first["input"]
    problem = first["msg"].removeprefix("Value error, ")
    problem = problem[:1].lower() + problem[1:]
    if kind == "extra_forbidden":
        problem = "no such setting"
        remedy = _one_of(str(place[-1]), list(_settings_at(model, place[:-1]).model_fields))
    elif kind == "model_type":
        problem = "has settings of its own, a line each below it"
    elif kind == "missing":
        problem, value = "is missing", None
    return Mistake(place=place, value=value, problem=problem, remedy=remedy)


def _one_of(written: str, names: Sequence[str]) -> str:
    """A remedy for a name that is none of these."""
    near = difflib.get_close_matches(written, names, n=1)
    return f"did you mean {near[0]}? It is one of {', '.join(names)}" if near else f"one of {', '.join(names)}"


@dataclass(frozen=True, slots=True)
class _Twice:
    """A key that a mapping of the file has more than once. ``value``: the last one's; ``lines``: all, from 1."""

    place: tuple[int | str, ...]
    value: object
    lines: tuple[int, ...]


def _twice(root: yaml.Node | None) -> _Twice | None:
    """The first such key in the file, at whatever depth; YAML forbids it, and the library takes the last in silence."""
    waiting: list[tuple[tuple[int | str, ...], yaml.Node]] = [((), root)] if root is not None else []
    seen: set[int] = set()
    while waiting:
        place, node = waiting.pop()
        if id(node) in seen:  # what an alias names was looked at where its anchor stands
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += reversed([((*place, index), value) for index, value in enumerate(node.value)])
        if not isinstance(node, yaml.MappingNode):
            continue
        keys: dict[tuple[str, str], list[yaml.Node]] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                keys.setdefault((key.tag, key.value), []).append(key)
        for (_, name), places in keys.items():
            if len(places) > 1:
                last = next(value for key, value in node.value if key is places[-1])
                value = yaml.SafeLoader("").construct_document(last)
                return _Twice((*place, name), value, tuple(each.start_mark.line + 1 for each in places))
        waiting += reversed([((*place, str(key.value)), value) for key, value in node.value])
    return None


def _settings_at(model: type[Settings], place: Sequence[int | str]) -> type[Settings]:
    for part in place:
        if isinstance(part, str):
            model = _section(model.model_fields[part].annotation) or model
    return model


def _section(annotation: object) -> type[Settings] | None:
    """The settings that a field holds, in a list or not."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    found = (_section(inner) for inner in typing.get_args(annotation))
    return next((section for section in found if section is not None), None)


def _line(node: yaml.Node | None, place: Sequence[int | str]) -> int:
    """Where the setting stands in the file, counted from 1; that of its section if it is not there itself."""
    line = 1
    for part in place:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
            continue
        if not isinstance(node, yaml.MappingNode):
            break
        found = next(((key, value) for key, value in node.value if key.value == part), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
