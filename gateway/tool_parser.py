"""Calls of tools in a text as it grows: what is said beside them, what is called, and with which arguments.

A state machine without I/O. What it tells depends on the text alone, not on how it is cut into pieces; what may still
become a call is held back, and what proves to be none is said. A call is told once its function's name is read and its
arguments begin; from there on they are passed on as the model writes them, valid or not. White space between a call and
what is said beside it is left out.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from gateway.json_scan import ObjectScan

#: Between the parts of JSON.
SPACE: Final = " \t\r\n"
#: Characters of a call whose name and arguments are still open: what goes on like that is none.
_MOST_HELD: Final = 1 << 16
#: Characters that are read at once: what is to be read again is copied together with the rest of them.
_SLICE: Final = 1 << 12


@dataclass(frozen=True, slots=True)
class Said:
    """Text beside calls."""

    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A call begins."""

    name: str


@dataclass(frozen=True, slots=True)
class Argued:
    """More of the arguments of the call that began last: JSON, as the model wrote it."""

    text: str


ToolEvent = Said | Called | Argued


class ToolParser(ABC):
    """Of one text. ``names``: of the functions that may be called; who calls another one calls none.

    ``feed`` it the text, then ``finish`` it.
    """

    argument_key: str

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        #: What is to be told, text in pieces, as more of it may follow.
        self._events: list[tuple[type[Said | Called | Argued], list[str]]] = []
        self._text, self._at = "", 0  # what is to be read, and how far it is
        self._state: Callable[[], None] = self._outside
        self._space = ""  # after what was said, and said only if more follows
        self._behind_call = False  # and nothing said since
        self._mark = ""  # what was read of what stands before or behind a call
        self._scan = ObjectScan()

    def feed(self, text: str) -> list[ToolEvent]:
        """What the text tells that follows."""
        for begin in range(0, len(text), _SLICE):
            self._text, self._at = text[begin : begin + _SLICE], 0
            self._run()
        return self._taken()

    def finish(self) -> list[ToolEvent]:
        """What is left to tell at the end."""
        while self._state == self._in_call:
            self._text, self._at = "", 0
            self._give_up()
            self._run()
        self._finish()
        if not self._behind_call:
            self._say("")
        return self._taken()

    def _run(self) -> None:
        while self._at < len(self._text):
            self._state()

    def _taken(self) -> list[ToolEvent]:
        events, self._events = self._events, []
        return [kind("".join(pieces)) for kind, pieces in events]

    # ---- what the formats differ in ---------------------------------------------------------------------------

    @abstractmethod
    def _outside(self) -> None:
        """Read on where a call may begin."""

    @abstractmethod
    def _behind_braces(self) -> None:
        """Read on behind a call."""

    @abstractmethod
    def _in_broken(self) -> None:
        """Read on in arguments that are no JSON."""

    @abstractmethod
    def _give_up(self) -> None:
        """What is being read is no call: say what is certain, and read the rest once more."""

    @abstractmethod
    def _finish(self) -> None:
        """The text has ended outside of what may become a call."""

    # ---- what they share --------------------------------------------------------------------------------------

    def _next(self) -> str:
        self._at += 1
        return self._text[self._at - 1]

    def _again(self, text: str) -> None:
        """Read this once more, and then on."""
        self._text, self._at = text + self._text[self._at :], 0

    def _say(self, text: str) -> None:
        """With the white space before it, unless that stands behind a call."""
        said = text if self._behind_call else self._space + text
        self._space = ""
        self._behind_call = self._behind_call and not text
        self._add(Said, said)

    def _argue(self, text: str) -> None:
        self._add(Argued, text)

    def _argue_on(self, c: str) -> None:
        """With the white space before it; that alone waits for more."""
        self._space += c
        if c not in SPACE:
            self._argue(self._space)
            self._space = ""

    def _add(self, kind: type[Said | Argued], text: str) -> None:
        if self._events and self._events[-1][0] is kind:
            self._events[-1][1].append(text)
        elif text:
            self._events.append((kind, [text]))

    def _begin_call(self) -> None:
        self._scan = ObjectScan()
        self._state = self._in_call

    def _in_call(self) -> None:
        """Read on in what may be a call."""
        c, scan = self._next(), self._scan
        if not scan.take(c):
            self._at -= 1
            self._give_up()
        elif not self._may_be_known() or len(scan) > _MOST_HELD:
            self._give_up()
        elif self._arguments_begin():
            self._tell(c)
            self._state = self._in_arguments
        elif scan.over:
            self._tell_whole()

    def _arguments_begin(self) -> bool:
        """The first ones, of a call whose name is known."""
        scan, key = self._scan, self.argument_key
        return scan.name == key and key not in scan.members and scan.value_begins == "{" and "name" in scan.members

    def _may_be_known(self) -> bool:
        name = self._scan.members.get("name")
        return name is None or _string(name) in self._names

    def _tell(self, arguments: str) -> None:
        self._space = self._mark = ""
        self._behind_call = True
        self._events.append((Called, [_string(self._scan.members["name"]) or ""]))
        self._argue(arguments)

    def _tell_whole(self) -> None:
        """Of an object with its members in another order, or with arguments in another shape."""
        arguments = _arguments(self._scan.members.get(self.argument_key))
        if arguments is None or "name" not in self._scan.members:
            self._give_up()
            return
        self._tell(arguments)
        self._state = self._behind_braces

    def _in_arguments(self) -> None:
        """Read on in an object that is a call."""
        scan, told = self._scan, self.argument_key in self._scan.members
        if run := scan.take_run(self._text, self._at):
            self._at += len(run)
            self._argue("" if told else run)
            return
        c = self._next()
        if scan.take(c):
            if not told:
                self._argue(c)
            if scan.over:
                self._state = self._behind_braces
            return
        self._at -= 1
        # A brace less than there should be at the end is forgiven.
        self._state = self._behind_braces if self.argument_key in scan.members else self._in_broken


def _string(value: str) -> str | None:
    """Of a JSON value; None if it is none. Other values may be of any size and depth, and are not read."""
    return json.loads(value) if value.startswith('"') else None


def _arguments(value: str | None) -> str | None:
    """As an object: none are an empty one, and some models write it as a string. None: they are no arguments."""
    if value is None or value == "null":
        return "{}"
    inner = _string(value) if value.startswith('"') else value
    if inner is None or not inner.lstrip(SPACE).startswith("{"):
        return None
    scan = ObjectScan()
    return inner.strip(SPACE) if all(map(scan.take, inner.strip(SPACE))) and scan.over else None
