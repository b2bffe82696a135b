"""A conversation: a system message and turns, which can be asked on, forgotten and saved."""

from __future__ import annotations

import json
from pathlib import Path

from speculation.errors import InputError
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.protocol.template_kwargs import parse_template_kwargs


class Conversation:
    """``system``: the system message; empty: none. ``template_kwargs``: as of a ``Prompt``. A turn is a question
    with its answer, or with as much of it as was shown; a question without any answer is none. Raises InputError."""

    def __init__(self, system: str = "", *, template_kwargs: str = "") -> None:
        parse_template_kwargs(template_kwargs)  # now, not at the first question
        self.system = system
        self._template_kwargs = template_kwargs
        self._turns: tuple[ChatMessage, ...] = ()
        self._saved: set[Path] = set()

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        return (*((ChatMessage("system", self.system),) if self.system else ()), *self._turns)

    def reset(self) -> None:
        """Forget the turns; the system message stays."""
        self._turns = ()

    def asking(self, words: str) -> Prompt:
        """The conversation with one more question."""
        messages = (*self.messages, ChatMessage("user", words))
        return Prompt(messages=messages, template_kwargs=self._template_kwargs)

    def answered(self, words: str, answer: str) -> None:
        self._turns = (*self._turns, ChatMessage("user", words), ChatMessage("assistant", answer))

    def save(self, path: Path) -> None:
        """Write the messages as JSON, as `dragoman generate --messages` reads them.

        Raises InputError if it cannot be written, or would overwrite a file that was not saved by this conversation.
        """
        path = path.expanduser()
        written = json.dumps(
            [{"role": m.role, "content": m.content} for m in self.messages], ensure_ascii=False, indent=1
        )
        try:
            with path.open("w" if path.resolve() in self._saved else "x", encoding="utf-8") as file:
                file.write(written + "\n")
        except FileExistsError:
            raise InputError("save", path, "is there already", remedy="name another file, or remove it") from None
        except (OSError, UnicodeError) as error:
            problem = getattr(error, "strerror", None) or str(error)
            raise InputError("save", path, f"cannot be written: {problem}", remedy="check the path") from error
        self._saved.add(path.resolve())
