"""What a client wants a text to be held to, as it travels: a JSON schema, an expression, a choice or a grammar,
or calls of the tools that come with its prompt."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from speculation.errors import InputError
from speculation.protocol.json_depth import check_depth
from speculation.protocol.text_check import check_text

#: Bytes that it may take.
MAX_GUIDE_BYTES: Final = 1 << 16
#: Objects and lists of a schema within one another: llguidance reads 128, of which some stand around it.
MAX_SCHEMA_DEPTH: Final = 120
#: Any JSON object.
ANY_OBJECT: Final = '{"type": "object"}'


class GuideKind(enum.StrEnum):
    """How it is said, by vLLM's names."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"
    #: One call of one of the prompt's tools, or one or more.
    TOOL_CALL = "tool_call"
    TOOL_CALLS = "tool_calls"

    @property
    def calls_tools(self) -> bool:
        """Whether it is about the tools of a prompt."""
        return self in (GuideKind.TOOL_CALL, GuideKind.TOOL_CALLS)

    @property
    def takes_several(self) -> bool:
        """Whether there may be more texts than one."""
        return self is GuideKind.CHOICE or self.calls_tools


@dataclass(frozen=True, slots=True)
class GuideSpec:
    """``texts``: the schema as JSON, the expression, the grammar (Lark or GBNF), the choices, or the names
    of the tools that may be called.

    ``field``: what whoever asks calls it, for messages; does not travel. ``answer``: a JSON schema, of what may stand
    in the place of calls. Raises InputError, which names the field, for what is empty, too long, too deep, or no JSON.
    Whether it can be compiled, a verifier says.
    """

    kind: GuideKind
    texts: tuple[str, ...]
    field: str = field(default="", compare=False)
    answer: GuideSpec | None = None

    def __post_init__(self) -> None:
        self._check_answer()
        if not self.texts or (len(self.texts) > 1 and not self.kind.takes_several):
            raise InputError(self.name, self.texts, "must be one text; of choices or tools one or more")
        for text in self.texts:
            check_text(self.name, text)
            if not text:
                raise InputError(self.name, text, "is empty", remedy="leave it out for a text that is held to nothing")
        size = sum(len(text.encode()) for text in (*self.texts, *(self.answer.texts if self.answer else ())))
        if size > MAX_GUIDE_BYTES:
            raise InputError(self.name, f"{size} bytes", f"is too long; the limit is {MAX_GUIDE_BYTES} bytes")
        if self.kind is GuideKind.JSON_SCHEMA:
            self._check_schema()

    @classmethod
    def json_schema(cls, schema: str | bool | Mapping[str, Any], *, field: str = "") -> Self:
        """Of a schema, or its JSON; the properties are written in its order. Raises InputError."""
        try:
            text = schema if isinstance(schema, str) else json.dumps(schema, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(field or GuideKind.JSON_SCHEMA, None, f"cannot be written as JSON: {error}") from error
        return cls(GuideKind.JSON_SCHEMA, (text,), field)

    @classmethod
    def json_object(cls, *, field: str = "") -> Self:
        """Any object."""
        return cls(GuideKind.JSON_SCHEMA, (ANY_OBJECT,), field)

    @classmethod
    def regex(cls, expression: str, *, field: str = "") -> Self:
        """The whole text fits a regular expression, without look-around. Raises InputError."""
        return cls(GuideKind.REGEX, (expression,), field)

    @classmethod
    def choice(cls, choices: Iterable[str], *, field: str = "") -> Self:
        """The text is one of these. Raises InputError."""
        return cls(GuideKind.CHOICE, tuple(choices), field)

    @classmethod
    def grammar(cls, grammar: str, *, field: str = "") -> Self:
        """In Lark's notation as llguidance reads it, or llama.cpp's GBNF. Raises InputError."""
        return cls(GuideKind.GRAMMAR, (grammar,), field)

    @classmethod
    def tool_calls(
        cls, names: Iterable[str], *, several: bool, field: str = "", answer: GuideSpec | None = None
    ) -> Self:
        """The text is a call of one of these tools of its prompt, as the model writes calls; ``several``: or more of
        them; ``answer``: or JSON of this schema, if the model calls none. Raises InputError."""
        return cls(GuideKind.TOOL_CALLS if several else GuideKind.TOOL_CALL, tuple(names), field, answer)

    @property
    def name(self) -> str:
        """For messages."""
        return self.field or self.kind.value

    @property
    def asked(self) -> str:
        """What whoever asks calls that which the text is held to: tools that it may call alone hold it to nothing."""
        return self.name if self.answer is None else self.answer.name

    @property
    def schema(self) -> dict[str, Any] | bool:
        """Of a JSON schema, parsed."""
        parsed: dict[str, Any] | bool = self._parsed()
        return parsed

    def _check_schema(self) -> None:
        schema = self._parsed()
        if not isinstance(schema, dict | bool):
            raise InputError(self.name, self.texts[0], "is no JSON schema", remedy='an object: {"type": "object", ...}')
        check_depth(self.name, schema, MAX_SCHEMA_DEPTH)

    def _check_answer(self) -> None:
        if self.answer is not None and not (self.kind.calls_tools and self.answer.kind is GuideKind.JSON_SCHEMA):
            raise InputError(self.answer.name, None, "is no JSON schema beside calls of tools", remedy="json_schema")

    def _parsed(self) -> Any:
        [text] = self.texts
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(self.name, text, f"is not JSON: {error}", remedy="check the schema") from error
