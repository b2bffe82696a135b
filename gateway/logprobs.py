"""Log-probabilities as OpenAI's two routes have them."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from speculation.protocol.logprobs import TokenLogprobs


def of_chat(places: Sequence[TokenLogprobs]) -> dict[str, Any]:
    """Of /v1/chat/completions."""
    return {"content": told_places(places), "refusal": None}


def told_places(places: Sequence[TokenLogprobs]) -> list[dict[str, Any]]:
    """One for each token, as chats and /v1/responses have them."""
    return [place.to_json() for place in places]


class TextLogprobs:
    """Of one text of /v1/completions, which also tells where in the text each token begins, in characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def told(self, places: Sequence[TokenLogprobs]) -> dict[str, Any]:
        """Of the tokens that come next."""
        offsets = []
        for place in places:
            text = place.chosen.piece.text
            unfinished = bool(self._decoder.getstate()[0]) and not (text and 0x80 <= text[0] < 0xC0)
            offsets.append(self._offset + unfinished)  # which is shown as one character that is none
            self._offset += len(self._decoder.decode(text))
        return {
            "tokens": [place.chosen.piece.shown for place in places],
            "token_logprobs": [place.chosen.logprob for place in places],
            "top_logprobs": [
                {each.piece.shown: each.logprob for each in (place.chosen, *reversed(place.top))} for place in places
            ],
            "text_offset": offsets,
        }
