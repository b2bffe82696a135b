"""Prompts to measure with: the built-in ones, or any JSONL file with ``prompt`` or ``messages`` in each line."""

from __future__ import annotations

import json
from pathlib import Path

from dragoman.prompts import PROMPTS
from speculation.errors import InputError
from speculation.protocol.messages import ChatMessage, Prompt


def load_prompts(path: Path | None, *, limit: int, task: str = "") -> list[Prompt]:
    """The first ``limit`` prompts of a file (of one ``task``, if its lines have that field), or the built-in ones.

    Raises InputError naming the file, or its line.
    """
    if path is None:
        return list(PROMPTS[:limit])
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError("prompts", path, f"cannot be read: {error}", remedy="name a JSONL file") from None
    prompts = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if task and entry.get("task") != task:
                continue
            if "messages" in entry:
                messages = tuple(ChatMessage(m["role"], m["content"]) for m in entry["messages"])
                prompts.append(Prompt(messages=messages))
            else:
                prompts.append(Prompt(text=entry["prompt"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError("prompts", f"{path}:{number}", f"is no prompt: {error!r}") from error
        if len(prompts) == limit:
            break
    if not prompts:
        raise InputError("prompts", str(path), f"has no prompts{f' of task {task}' if task else ''}")
    return prompts
