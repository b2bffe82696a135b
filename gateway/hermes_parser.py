"""Calls as Hermes and Qwen write them."""

from __future__ import annotations

import re

from gateway.tool_parser import SPACE, ToolParser


class HermesParser(ToolParser):
    """``<tool_call>``, an object and ``</tool_call>``, anywhere in the text. The end may be missing."""

    argument_key = "arguments"
    _BEGIN, _END = "<tool_call>", "</tool_call>"
    _PLAIN = re.compile(r"[^< \t\r\n]+")

    def _outside(self) -> None:
        if not self._mark and (plain := self._PLAIN.match(self._text, self._at)):
            self._say(plain.group())
            self._at = plain.end()
            return
        c = self._next()
        if self._BEGIN.startswith(self._mark + c):
            self._mark += c
            if self._mark == self._BEGIN:
                self._begin_call()
        elif self._mark:
            self._at -= 1
            self._say_mark()
        elif c in SPACE:
            self._space += c
        else:
            self._say(c)

    def _say_mark(self) -> None:
        mark, self._mark = self._mark, ""
        self._say(mark)

    def _give_up(self) -> None:
        self._state = self._outside
        self._say_mark()
        self._again(self._scan.text)

    def _behind_braces(self) -> None:
        c = self._next()
        if self._END.startswith(self._mark + c):
            self._mark += c
            if self._mark == self._END:
                self._mark, self._state = "", self._outside
        elif self._mark or c not in SPACE:
            self._at -= 1
            mark, self._mark = self._mark, ""
            self._state = self._outside
            self._again(mark)

    def _in_broken(self) -> None:
        c = self._next()
        if self._END.startswith(self._mark + c):
            self._mark += c
            if self._mark == self._END:
                self._mark, self._space, self._state = "", "", self._outside
        elif self._mark:
            self._at -= 1
            self._argue(self._space + self._mark)
            self._mark = self._space = ""
        else:
            self._argue_on(c)

    def _finish(self) -> None:
        if self._state == self._in_broken:
            self._argue(self._space + self._mark if self._mark else "")
            self._mark = self._space = ""
        elif self._state == self._behind_braces:
            self._mark = ""  # half of the end of a call
        elif self._mark:
            self._say_mark()
