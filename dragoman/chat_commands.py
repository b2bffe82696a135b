"""What begins with a slash in a chat: words for the program, not for the model."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from dragoman.conversation import Conversation
from speculation.errors import InputError
from speculation.plural import count_of

COMMANDS: Final = {
    "/help": "this list",
    "/reset": "forget the conversation; the system message stays",
    "/system TEXT": "set the system message; without TEXT there is none",
    "/save FILE": "write the conversation as JSON, for `generate --messages FILE`",
    "/exit": "leave, as Ctrl-D does",
    "//...": "send a text that begins with a slash",
}
KEYS: Final = {
    "Ctrl-C": "end the answer that is being written; at an empty prompt, leave",
    "Alt-Enter": "a new line, as does Enter after a backslash",
    "Up, Down": "what was typed before; Ctrl-R searches in it",
}


def is_command(words: str) -> bool:
    return words.startswith("/") and not words.startswith("//")


def carry_out(words: str, conversation: Conversation) -> RenderableType:
    """Carry out a command other than /exit; what to say to it. Raises InputError for one that there is not."""
    name, _, rest = words.partition(" ")
    rest = rest.strip()
    match name:
        case "/help":
            listed = Table.grid(padding=(0, 2))
            for key, meaning in {**COMMANDS, **KEYS}.items():
                listed.add_row(Text(key, no_wrap=True), Text(meaning))
            return listed
        case "/reset":
            conversation.reset()
            return Text("forgotten")
        case "/system":
            conversation.system = rest
            return Text("the system message is set" if rest else "no system message")
        case "/save":
            if not rest:
                raise InputError("save", None, "names no file", remedy="write /save FILE")
            conversation.save(Path(rest))
            return Text(f"{count_of(len(conversation.messages), 'message')} saved in {rest}")
    known = [key.partition(" ")[0] for key in COMMANDS]
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    raise InputError("command", name, "is none", remedy=f"{guess}/help lists them; begin with // to send it as text")
