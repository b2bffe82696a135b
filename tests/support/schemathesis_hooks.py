"""Loaded by schemathesis in its own process: half of the bodies are right but for one or two fields that it made up.

Of bodies that are made up as a whole nearly all are refused for the first field that is looked at.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

import schemathesis

MODEL: Final = "text-target"
RIGHT: Final[dict[str, dict[str, Any]]] = {
    "/v1/completions": {"prompt": "a story: ", "max_tokens": 8},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a story: "}], "max_tokens": 8},
    "/v1/responses": {"input": "a story: ", "max_output_tokens": 16},
    "/tokenize": {"prompt": "a story: "},
    "/detokenize": {"tokens": [1, 2, 3]},
}


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """The same for the same body, so that a seed stands for a run."""
    right = RIGHT.get(context.operation.path) if context.operation is not None else None
    if right is None or not isinstance(body, dict):
        return body
    kept = zlib.crc32(repr(sorted(body.items(), key=repr)).encode("utf-8", "surrogatepass"))
    names = sorted(body)
    if kept % 2 or not names:
        return {**body, "model": MODEL}
    chosen = {names[kept % len(names)], names[kept // 7 % len(names)]}
    return {**right, "model": MODEL, **{name: body[name] for name in chosen}}
