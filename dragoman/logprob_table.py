"""How likely the tokens of a text were, as people see it: a line for each."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from speculation.protocol.logprobs import TokenLogprob, TokenLogprobs
from speculation.protocol.tokenizing import TokenPiece

#: Of a token that another was likelier than.
_SURPRISE_STYLE = "yellow"


def show_logprobs(places: Sequence[TokenLogprobs], console: Console) -> None:
    """Each token with its probability, and the others that were told at its place; nothing without tokens."""
    if places:
        console.print(logprob_table(places))


def logprob_table(places: Sequence[TokenLogprobs]) -> Table:
    """Tokens are in quotes, line breaks and the like as in JSON, bytes of half a character as in
    Python; special tokens stand bare."""
    tells_others = any(place.top for place in places)
    table = Table("token", "probability", *(["alternatives"] if tells_others else []), box=None, pad_edge=False)
    table.columns[1].justify = "right"
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for place in places:
        likeliest = not place.top or place.top[0].logprob <= place.chosen.logprob
        style = "" if likeliest else _SURPRISE_STYLE
        row = [Text(_shown(place.chosen.piece), style=style), Text(_percent(place.chosen), style=style)]
        table.add_row(*row, *([_others(place)] if tells_others else []))
    return table


def _others(place: TokenLogprobs) -> Text:
    others = [each for each in place.top if each.token != place.chosen.token]
    words = [f"{_shown(each.piece)} {_percent(each)}" for each in others]
    return Text("  ".join(words), style="dim")


def _shown(piece: TokenPiece) -> str:
    quoted = json.dumps(piece.text.decode(errors="surrogateescape"), ensure_ascii=False)
    return piece.special or quoted.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _percent(found: TokenLogprob) -> str:
    share = math.exp(found.logprob)
    return "<0.1%" if 0 <= share < 0.0005 else f"{share:.1%}"
