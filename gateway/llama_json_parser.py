"""Calls as Llama 3 writes them."""

from __future__ import annotations

from gateway.tool_parser import SPACE, ToolParser


class LlamaJsonParser(ToolParser):
    """The text is an object, or several with semicolons between them."""

    argument_key = "parameters"

    def _outside(self) -> None:
        c = self._next()
        if c in SPACE:
            self._mark += c
        elif c == "{":
            self._at -= 1
            self._begin_call()
        else:
            self._at -= 1
            self._say_rest()

    def _give_up(self) -> None:
        self._again(self._scan.text)
        self._say_rest()

    def _say_rest(self) -> None:
        """No call comes any more."""
        self._state = self._in_rest
        mark, self._mark = self._mark, ""
        self._say(mark)

    def _in_rest(self) -> None:
        rest = self._text[self._at :]
        self._at = len(self._text)
        self._say(rest.lstrip(SPACE) if self._behind_call else rest)

    def _behind_braces(self) -> None:
        c = self._next()
        if c == ";" and ";" not in self._mark:
            self._mark = ";"
        elif c in SPACE:
            self._mark += c if self._mark else ""
        elif c == "{" and self._mark:
            self._at -= 1
            self._begin_call()
        else:
            self._at -= 1
            self._say_rest()

    def _in_broken(self) -> None:
        self._argue_on(self._next())

    def _finish(self) -> None:
        if self._state == self._in_broken:
            self._space = ""
        elif self._mark:
            self._say_rest()
