"""Messages that a parser lets through, of any content: what arrives from a peer that is broken, or means harm.

They know the schema: every field is filled now and then, with what lies at the borders of its type, and where a field
has to name something (a session, an offset of its text) often with what exists.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from speculation.errors import DragomanError
from tests.support.repository import ROOT

M = TypeVar("M", bound=Message)

#: Of each kind.
MESSAGES = int(os.environ.get("DRAGOMAN_FUZZ", 400))
#: Those that once broke something.
CORPUS = ROOT / "tests" / "fuzz" / "corpus"

#: By the name of a field: what it may hold that means something to who receives it.
Hints = Mapping[str, Callable[[], Any]]

_FLOATS = (0.0, -0.0, 1.0, 0.5, -1.0, 1e-300, 1e300, float("nan"), float("inf"), float("-inf"))
_STRINGS = (
    "",
    "a",
    "d",
    "v",
    "s-0",
    "the cat",
    "\0",
    "é\u202e",
    "127.0.0.1:1",
    "a:b:c",
    "x" * 300,
    "{{ 7 * 7 }}",
    "\n",
)
_WORDS = (b"", b" the", b" cat", b"sat", b".", b"\n", b"\xff\xfe", b"\xc3", b"\0", b"ab" * 200)
_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (31, True),
    FieldDescriptor.CPPTYPE_INT64: (63, True),
    FieldDescriptor.CPPTYPE_UINT32: (32, False),
    FieldDescriptor.CPPTYPE_UINT64: (64, False),
}


class Fuzzer:
    """``seed``: of all that it makes. ``hints``: asked anew for every field, in the share ``hinted`` of cases."""

    #: Messages in messages in messages.
    DEPTH = 4

    def __init__(self, seed: int, hints: Hints | None = None, *, hinted: float = 0.7) -> None:
        self.random = random.Random(seed)
        self.hints = dict(hints or {})
        self._hinted = hinted

    def message(self, kind: type[M]) -> M:
        """One that a peer of any release could send."""
        built = kind()
        self._fill(built, self.DEPTH)
        return built

    def broken(self, data: bytes) -> bytes:
        """The same bytes, but for a few of them: changed, cut out, doubled, or cut off."""
        broken = bytearray(data)
        for _ in range(self.random.choice((1, 1, 2, 8))):
            if not broken:
                break
            at = self.random.randrange(len(broken))
            match self.random.randrange(5):
                case 0:
                    broken[at] ^= 1 << self.random.randrange(8)
                case 1:
                    broken[at] = self.random.choice((0, 1, 0x7F, 0x80, 0xFF, self.random.randrange(256)))
                case 2:
                    del broken[at : at + self.random.choice((1, 4, 64))]
                case 3:
                    broken[at:at] = broken[at : at + self.random.choice((1, 8, 64))]
                case 4:
                    del broken[at + 1 :]
        return bytes(broken)

    def _fill(self, message: Message, depth: int) -> None:
        descriptor = message.DESCRIPTOR
        chosen = {
            oneof.name: str(self.random.choice([field.name for field in oneof.fields])) for oneof in descriptor.oneofs
        }
        for field in descriptor.fields:
            oneof = field.containing_oneof
            if (oneof is not None and chosen[oneof.name] != field.name) or self.random.random() < 0.15:
                continue
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                self._fill_message(message, field, depth)
            elif field.is_repeated:
                getattr(message, field.name).extend(self._value(field) for _ in range(self._count()))
            else:
                setattr(message, field.name, self._value(field))

    def _fill_message(self, message: Message, field: Any, depth: int) -> None:
        if depth == 0:
            return
        if field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields
            for _ in range(self._count()):
                getattr(message, field.name)[self._value(key)] = self._value(value)
        elif field.is_repeated:
            for _ in range(self._count()):
                self._fill(getattr(message, field.name).add(), depth - 1)
        else:
            part = getattr(message, field.name)
            part.SetInParent()
            self._fill(part, depth - 1)

    def _count(self) -> int:
        return self.random.choice((0, 1, 1, 2, 3, 3, 20))

    def _value(self, field: Any) -> Any:
        if field.name in self.hints and self.random.random() < self._hinted:
            return self.hints[field.name]()
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_BOOL:
                return self.random.random() < 0.5
            case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
                return self._float(field)
            case FieldDescriptor.CPPTYPE_ENUM:
                return self.random.choice((*field.enum_type.values_by_number, 99))
            case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
                return self._bytes()
            case FieldDescriptor.CPPTYPE_STRING:
                return self.random.choice(_STRINGS)
            case _:
                bits, signed = _BITS[field.cpp_type]
                small = self.random.choice((0, 1, 2, 3, 5, 17, 64, 1000, self.random.randrange(1 << 16)))
                large = self.random.choice(((1 << bits) - 1, 1 << (bits - 1), -(1 << bits) if signed else 0))
                return large if self.random.random() < 0.15 else small

    def _float(self, field: Any) -> float:
        value = self.random.random() if self.random.random() < 0.5 else self.random.choice(_FLOATS)
        too_large = field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT and 1e38 < abs(value) < float("inf")
        return 1e38 if too_large else value

    def _bytes(self) -> bytes:
        words = self.random.choices(_WORDS, k=self.random.choice((0, 1, 1, 2, 4)))
        return b"".join(words) + (
            self.random.randbytes(self.random.randrange(40)) if self.random.random() < 0.2 else b""
        )


def messages(fuzzer: Fuzzer, kind: type[M], *, often: str = "", count: int = MESSAGES) -> Iterator[M]:
    """Those of the corpus, then made-up ones, each as a parser would give it. ``often``: what every other one is."""
    for path in sorted(CORPUS.glob(f"{kind.DESCRIPTOR.name}-*.txtpb")):
        yield text_format.Parse(path.read_text(), kind())
    for number in range(count):
        message = fuzzer.message(kind)
        if often and number % 2:
            message = kind(**{often: fuzzer.message(type(getattr(message, often)))})
        yield kind.FromString(message.SerializeToString())


@contextlib.contextmanager
def shown(
    message: Message, *, refused: type[Exception] | tuple[type[Exception], ...] = DragomanError
) -> Iterator[None]:
    """What is raised, beside what a message may be refused with, says of which message."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, refused):
            raise AssertionError(f"{type(message).__name__}: {text_format.MessageToString(message)}") from error


def sensible(fuzzer: Fuzzer) -> dict[str, Callable[[], Any]]:
    """Of a request, an offer or a plan: so that all of it is sensible now and then."""
    share, below = fuzzer.random.random, fuzzer.random.randrange
    hints: dict[str, Callable[[], Any]] = {
        "rule": lambda: below(1, 5),
        "top_k": lambda: below(9),
        "priority": lambda: 0,
        "template_kwargs": lambda: fuzzer.random.choice(("", "", '{"x": "猫"}')),  # which do not go with a text
    }
    hints |= {"top_p": lambda: 1 - share() / 2, "min_p": lambda: share() / 4, "temperature": lambda: 2 * share()}
    hints |= {"repetition_penalty": lambda: 1 + share(), "patience": lambda: share(), "alternatives": lambda: below(4)}
    hints |= {f"{kind}_penalty": lambda: 2 * share() - 1 for kind in ("presence", "frequency")}
    hints |= {f"{kind}_threshold": share for kind in ("stop", "alternative", "verify")}
    hints |= {"key": lambda: below(20), "value": lambda: 9 * share(), "stop": lambda: b"zebra", "role": lambda: "user"}
    hints |= {"content": lambda: "the cat", "text": lambda: b"a story", "committed": lambda: b"", "vocab_hash": str}
    return hints | {"width": lambda: below(9), "lookahead": lambda: below(9), "span_tokens": lambda: below(1, 4)}
