"""What a conversation tells a model's chat template beside the messages: ``enable_thinking: false``, say, as vLLM's
``chat_template_kwargs`` does."""

from __future__ import annotations

from typing import Any, Final

from speculation.errors import InputError
from speculation.protocol.tools import json_object

#: Bytes that they may take.
MAX_BYTES: Final = 1 << 12
#: What a template is given by others: the messages, how the prompt ends, what comes back, names of special tokens.
RESERVED: Final = frozenset(
    {
        *("messages", "conversation", "conversations", "tools", "documents", "chat_template"),
        *("tokenizer_kwargs", "kwargs", "self"),
        *("add_generation_prompt", "continue_final_message", "tokenize", "sanitize_control_tokens"),
        *("padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
        *(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")),
        "additional_special_tokens",
    }
)
_FIELD: Final = "chat_template_kwargs"


def parse_template_kwargs(text: str) -> dict[str, Any]:
    """Parsed; ``text``: a JSON object, empty for none. Raises InputError for anything else, and for reserved names."""
    if not isinstance(text, str):
        raise InputError(_FIELD, text, "is no JSON text", remedy="json.dumps(...) makes one")
    if not text:
        return {}
    if (size := len(text.encode(errors="replace"))) > MAX_BYTES:
        raise InputError(_FIELD, f"{size} bytes", f"is too long; the limit is {MAX_BYTES} bytes")
    found = json_object(_FIELD, text)
    for name in RESERVED.intersection(found):
        raise InputError(f"{_FIELD}.{name}", found[name], "is not for a conversation to say", remedy="leave it out")
    return found
