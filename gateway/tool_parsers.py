"""Which parser reads the calls of which models."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from gateway.hermes_parser import HermesParser
from gateway.llama_json_parser import LlamaJsonParser
from gateway.tool_parser import ToolParser
from speculation.protocol.tools import ToolFormat

_PARSERS: Final[Mapping[ToolFormat, type[ToolParser]]] = {
    ToolFormat.HERMES: HermesParser,
    ToolFormat.LLAMA_JSON: LlamaJsonParser,
}


def tool_parser(known: ToolFormat, names: Collection[str]) -> ToolParser | None:
    """None for a format that is not known: its texts stay texts."""
    kind = _PARSERS.get(known)
    return kind(names) if kind is not None else None
