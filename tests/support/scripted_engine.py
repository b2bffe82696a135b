"""An engine whose model has learnt one text by heart, so that a test can say what is written, calls of tools say."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from speculation.protocol.tools import ToolFormat
from tests.support.text_engine import TextEngine, TextTokenizer
from tests.support.text_models import TARGET_VOCAB, TextModel, longest_words

#: By how much the learnt token is likelier than any other.
_SURE = 100.0


class ScriptedModel(TextModel):
    """Writes the script, whatever it was asked; where it is made to leave it, it tells its story."""

    def __init__(self, script: str) -> None:
        super().__init__(TARGET_VOCAB, 1)
        self._script = [*longest_words(TARGET_VOCAB)(script), TARGET_VOCAB.end_ids[0]]

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """[V], of the next token after these."""
        logits = super().logits(ids)
        if list(ids) == self._script[: len(ids)] and len(ids) < len(self._script):
            logits = logits.clone()
            logits[self._script[len(ids)]] += _SURE
        return logits


class FormatTokenizer(TextTokenizer):
    """As of a model whose chat template shows calls in this way; None: it has no tools."""

    def __init__(self, tool_format: ToolFormat | None) -> None:
        self.tool_format = tool_format


def scripted(script: str, tool_format: ToolFormat | None = ToolFormat.HERMES) -> TextEngine:
    """An engine that writes this text."""
    engine = TextEngine()
    engine.model = ScriptedModel(script)
    engine.tokenizer = FormatTokenizer(tool_format)
    return engine
