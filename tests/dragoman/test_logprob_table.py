"""`dragoman generate --logprobs`: in JSON as OpenAI has them, and as a table for people."""

from __future__ import annotations

import asyncio
import io
import json
import math

import pytest
from rich.console import Console

from dragoman.logprob_table import show_logprobs
from speculation.protocol.logprobs import TokenLogprob, TokenLogprobs
from speculation.protocol.tokenizing import TokenPiece
from tests.support.commands import dragoman
from tests.support.service_drivers import serving
from tests.support.terminals import Terminal
from tests.support.text_engine import TextEngine

ASK = ("--prompt=a story: ", "--temperature=1", "--seed=0", "--max-tokens=4")


def place(*pieces: tuple[int, str, float], special: str = "") -> TokenLogprobs:
    """The first is the token, all others the likeliest, with their shares."""
    found = [TokenLogprob(token, math.log(share), TokenPiece(text.encode(), special)) for token, text, share in pieces]
    return TokenLogprobs(found[0], tuple(found[1:]))


def shown(*places: TokenLogprobs, width: int = 60) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    show_logprobs(places, console)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_line_for_each_token_with_its_alternatives():
    first = place((1, " for", 0.5), (1, " for", 0.5), (2, "\n", 0.25), (3, " \N{CAT FACE}", 0.125))
    second = place((2, "\n", 0.0001), (1, " for", 0.9))
    assert shown(first, second) == [
        "token   probability  alternatives",
        '" for"        50.0%  "\\n" 25.0%  " \N{CAT FACE}" 12.5%',
        '"\\n"          <0.1%  " for" 90.0%',
    ]


def test_alone_where_no_others_were_asked_for_and_special_tokens_by_their_name():
    end = place((0, "", 1.0), special="<|end|>")
    assert shown(end) == ["token    probability", "<|end|>       100.0%"]
    assert shown() == []


def test_half_a_character_is_its_bytes():
    half = TokenLogprobs(TokenLogprob(0, 0.0, TokenPiece(b" \xe7\x8c")))
    assert shown(half)[1] == '" \\xe7\\x8c"       100.0%'


def test_a_narrow_terminal_has_them_on_several_lines():
    lines = shown(place((0, "a", 0.5), *((n, f" word{n}", 0.1) for n in range(1, 5))), width=42)
    assert len(lines) > 2 and all(len(line) <= 42 for line in lines)
    assert all(f'word{n}" 10.0%' in " ".join(" ".join(lines).split()) for n in range(1, 5))


@pytest.mark.process
async def test_the_command_tells_them_in_json_and_in_a_table():
    async with serving(TextEngine()) as (_, address):
        asked = ("generate", f"--verifier={address}", *ASK)
        done = await asyncio.to_thread(dragoman, *asked, "--logprobs=2", "--json")
        answer = json.loads(done.stdout)
        assert len(answer["logprobs"]) == len(answer["token_ids"]) == 4
        for told in answer["logprobs"]:
            assert len(told["top_logprobs"]) == 2 and told["logprob"] <= 0
        data = b"".join(bytes(told["bytes"] or ()) for told in answer["logprobs"])
        assert data.decode(errors="replace").startswith(answer["text"])
        assert "logprobs" not in json.loads((await asyncio.to_thread(dragoman, *asked, "--json")).stdout)
        piped = await asyncio.to_thread(dragoman, *asked, "--logprobs=0")
        assert "probability" in piped.stderr and "alternatives" not in piped.stderr
        assert "probability" not in piped.stdout, "the text alone can be piped"
        screen = Terminal(80, 60)
        process = await screen.start(*asked, "--logprobs=3")
        assert await process.wait() == 0
    refused = await asyncio.to_thread(dragoman, "generate", *ASK, "--logprobs=21")
    assert refused.returncode == 2 and refused.stderr.startswith("error: logprobs=21: ")
