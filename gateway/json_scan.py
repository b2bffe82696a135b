"""One JSON object, character by character: which may come next, and where the values of its members lie."""

from __future__ import annotations

import enum
import json
import re
from typing import Final

_SPACE: Final = frozenset(" \t\r\n")
_LITERAL: Final = frozenset("-+.0123456789eEtrufalsn")
_WHOLE_LITERAL: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?|true|false|null")
_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f]+')
_HEX: Final = frozenset("0123456789abcdefABCDEF")


class _Expects(enum.Enum):
    """What comes next."""

    OBJECT = enum.auto()
    FIRST_KEY = enum.auto()
    KEY = enum.auto()
    COLON = enum.auto()
    FIRST_ITEM = enum.auto()
    VALUE = enum.auto()
    REST_OF_STRING = enum.auto()
    ESCAPED = enum.auto()
    HEX_DIGIT = enum.auto()
    REST_OF_LITERAL = enum.auto()
    COMMA_OR_END = enum.auto()
    NOTHING = enum.auto()


class ObjectScan:
    """Of the object that the characters given to ``take`` are. The first member of a name counts."""

    def __init__(self) -> None:
        #: The object's own members that are whole: name -> JSON.
        self.members: dict[str, str] = {}
        #: The name of the member that is being read, once it is whole; None between members.
        self.name: str | None = None
        self._expects = _Expects.OBJECT
        self._open: list[str] = []
        self._read: list[str] = []
        self._string_at = self._literal_at = 0
        self._value_at: int | None = None
        self._in_key = False
        self._hex_digits = 0

    def __len__(self) -> int:
        """Characters that were taken."""
        return len(self._read)

    @property
    def over(self) -> bool:
        """The object is whole."""
        return self._expects is _Expects.NOTHING

    @property
    def text(self) -> str:
        """All that was taken."""
        return "".join(self._read)

    @property
    def value(self) -> str | None:
        """What is there of the value of the member that is being read; None before it begins."""
        return None if self._value_at is None else "".join(self._read[self._value_at :])

    @property
    def value_begins(self) -> str | None:
        """Its first character, likewise."""
        return None if self._value_at is None else self._read[self._value_at]

    def take(self, c: str) -> bool:
        """Whether it may come next. After one that may not, the object is none, and nothing more may be given."""
        if self._expects is _Expects.REST_OF_LITERAL and c not in _LITERAL:
            if not _WHOLE_LITERAL.fullmatch("".join(self._read[self._literal_at :])):
                return False
            self._end_value()
        if not self._fits(c):
            return False
        self._read.append(c)
        if c in _SPACE and self._expects not in (_Expects.REST_OF_STRING, _Expects.ESCAPED):
            return True
        self._go_on(c)
        return True

    def take_run(self, text: str, at: int) -> str:
        """All of ``text`` from ``at`` on that is plainly more of a string, as ``take`` takes it; else nothing."""
        if self._expects is not _Expects.REST_OF_STRING or not (run := _PLAIN.match(text, at)):
            return ""
        self._read += run.group()
        return run.group()

    def _fits(self, c: str) -> bool:
        match self._expects:
            case _Expects.REST_OF_STRING:
                return c >= " "
            case _Expects.ESCAPED:
                return c in '"\\/bfnrtu'
            case _Expects.HEX_DIGIT:
                return c in _HEX
            case _Expects.REST_OF_LITERAL:
                return True
            case _Expects.NOTHING:
                return False
        return c in _SPACE or c in self._allowed()

    def _allowed(self) -> frozenset[str]:
        if self._expects is _Expects.COMMA_OR_END:
            return _AFTER_MEMBER if self._open[-1] == "{" else _AFTER_ITEM
        return _ALLOWED[self._expects]

    def _go_on(self, c: str) -> None:
        match self._expects:
            case _Expects.OBJECT:
                self._begin(c)
            case _Expects.FIRST_KEY | _Expects.KEY:
                self._key_or_end(c)
            case _Expects.COLON:
                self._expects = _Expects.VALUE
            case _Expects.FIRST_ITEM | _Expects.VALUE:
                self._value(c)
            case _Expects.REST_OF_STRING:
                self._in_string(c)
            case _Expects.ESCAPED:
                self._expects = _Expects.HEX_DIGIT if c == "u" else _Expects.REST_OF_STRING
                self._hex_digits = 0
            case _Expects.HEX_DIGIT:
                self._hex_digits += 1
                if self._hex_digits == 4:
                    self._expects = _Expects.REST_OF_STRING
            case _Expects.COMMA_OR_END if c == ",":
                self._expects = _Expects.KEY if self._open[-1] == "{" else _Expects.VALUE
            case _Expects.COMMA_OR_END:
                self._end()

    def _begin(self, bracket: str) -> None:
        self._open.append(bracket)
        self._expects = _Expects.FIRST_KEY if bracket == "{" else _Expects.FIRST_ITEM

    def _end(self) -> None:
        """Of an object or a list."""
        self._open.pop()
        if self._open:
            self._end_value()
        else:
            self._expects = _Expects.NOTHING

    def _key_or_end(self, c: str) -> None:
        if c == "}":
            self._end()
            return
        self._in_key = True
        self._begin_string()

    def _value(self, c: str) -> None:
        if c == "]":
            self._end()
            return
        if len(self._open) == 1:
            self._value_at = len(self._read) - 1
        if c in "{[":
            self._begin(c)
        elif c == '"':
            self._begin_string()
        else:
            self._literal_at = len(self._read) - 1
            self._expects = _Expects.REST_OF_LITERAL

    def _begin_string(self) -> None:
        self._string_at = len(self._read) - 1
        self._expects = _Expects.REST_OF_STRING

    def _in_string(self, c: str) -> None:
        if c == "\\":
            self._expects = _Expects.ESCAPED
        elif c == '"' and self._in_key:
            self._in_key = False
            self._expects = _Expects.COLON
            if len(self._open) == 1:
                self.name = json.loads("".join(self._read[self._string_at :]))
        elif c == '"':
            self._end_value()

    def _end_value(self) -> None:
        self._expects = _Expects.COMMA_OR_END
        if len(self._open) == 1 and self.name is not None and self.value is not None:
            self.members.setdefault(self.name, self.value)
            self.name = self._value_at = None


_BEGINS: Final = frozenset('{["-0123456789tfn')
_AFTER_MEMBER: Final = frozenset(",}")
_AFTER_ITEM: Final = frozenset(",]")
_ALLOWED: Final = {
    _Expects.OBJECT: frozenset("{"),
    _Expects.FIRST_KEY: frozenset('"}'),
    _Expects.KEY: frozenset('"'),
    _Expects.COLON: frozenset(":"),
    _Expects.FIRST_ITEM: _BEGINS | {"]"},
    _Expects.VALUE: _BEGINS,
}
