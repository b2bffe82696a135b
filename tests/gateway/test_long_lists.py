"""Lists in a body that are longer than any text needs: refused in one line, before they are looked at one by one."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.requests import MAX_MESSAGES
from speculation.errors import InputError
from tests.support.gateways import MODEL, front
from transport.limits import MAX_TOKEN_IDS

TURN = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("path", "field", "value", "said"),
    [
        ("/detokenize", "tokens", [65] * 500_000, "has 500000 token ids; the limit is 131072: send them in parts"),
        ("/detokenize", "tokens", ["a"] * 100_000, "must be a list of token ids"),
        ("/detokenize", "tokens", [65] * 100_000 + [-1], "is no token id"),
        ("/v1/completions", "prompt", [65] * 500_000, "has 500000 entries; the limit is 131072"),
        ("/v1/completions", "prompt", [[65] * 1000] * 500, "has 500000 entries; the limit is 131072"),
        ("/v1/completions", "prompt", [""] * 500_000, "has 500000 entries; the limit is 131072"),
        ("/v1/completions", "prompt", [1.5] * 100_000, "must be a string, a list of strings, a list of token ids"),
        ("/v1/chat/completions", "messages", [TURN] * 50_000, "has 50000 messages; the limit is 4096"),
        ("/v1/chat/completions", "messages", [1] * 500_000, "has 500000 messages; the limit is 4096"),
        ("/tokenize", "messages", [{}] * 500_000, "has 500000 messages; the limit is 4096"),
    ],
)
async def test_a_list_that_is_too_long_or_wrong_is_one_error(path: str, field: str, value: Any, said: str):
    async with front() as found:
        response = await found.post(path, **{field: value, "model": MODEL})
        error = response.json()["error"]
        assert response.status_code == 400 and error["param"] == field, error
        assert error["message"].startswith(f"{field}=") and said in error["message"] and len(error["message"]) < 400


async def test_as_many_as_the_limits_allow_are_taken():
    async with front() as found:
        ids = [65] * MAX_TOKEN_IDS
        assert (await found.post("/detokenize", tokens=ids)).json() == {"prompt": "A" * MAX_TOKEN_IDS}
        told = (await found.post("/tokenize", messages=[TURN] * MAX_MESSAGES)).json()
        assert told["count"] == len(told["tokens"]) > MAX_MESSAGES
        many = await found.post("/tokenize", prompt="A" * (MAX_TOKEN_IDS + 1), return_token_strs=True)
        assert many.status_code == 400 and many.json()["error"]["param"] == "prompt", many.text


@pytest.mark.parametrize("length", [0, 1, 79, 80, 81, 5000])
def test_of_a_long_value_the_ends_are_shown(length: int):
    """As if all of it had been written."""
    values: list[Any] = [list(range(length)), tuple(range(length)), [[]] * length, ["ab"] * length]
    for value in values:
        parts = [repr(part) for part in value]
        whole = parts[0] if isinstance(value, tuple) and length == 1 else f"[{', '.join(parts)}]"
        shown = whole if len(whole) <= 80 else f"{whole[:37]}...{whole[-40:]}"
        assert str(InputError("x", value, "wrong")) == f"x={shown}: wrong"
