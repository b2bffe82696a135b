"""Whatever JSON a client sends is a request or is refused by field: no value of any field is an unforeseen error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway import translation
from gateway.fields import check_best_of, check_refused
from gateway.http_errors import HttpError, http_error_of, of_validation
from gateway.json_bytes import json_bytes
from gateway.requests import ChatBody, CompletionBody, TextBody
from speculation.errors import InputError
from speculation.protocol.generation import GenerationRequest
from speculation.protocol.messages import Prompt

FIELDS = sorted({*CompletionBody.model_fields, *ChatBody.model_fields} - {"prompt", "messages"})
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1, 2**31, 2**32, 2**63, 2**64, 10**30, "", "5", "content", "text", "猫", "\ud800"])
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "content", "role", "0", "7", str(1 << 32), "9" * 5000]), inner
        )
        | st.just({"type": "content", "content": [{"type": "text", "text": "a"}]})
    ),
    max_leaves=6,
)


def request_of(body: TextBody) -> GenerationRequest:
    check_refused(body.model_extra or {})
    check_best_of((body.model_extra or {}).get("best_of"), 1 if body.n is None else body.n)
    if isinstance(body, ChatBody):
        prompt = translation.prompt_of(body.messages)
    else:
        assert isinstance(body, CompletionBody)
        prompt = Prompt(text=next(iter(each for each in translation.prompts_of(body) if isinstance(each, str)), "x"))
    translation.number_of_choices(body, 1, most=128)
    request = translation.request_of(body, prompt, seed=translation.seed_of(body.seed, 1))
    return translation.choices_of(request, 2)[1]


def refusal(body: dict[str, Any], kind: type[TextBody]) -> HttpError | None:
    """Of a body; None: it is a request."""
    try:
        request_of(kind.model_validate(body))
    except InputError as error:
        return http_error_of(error)
    except ValidationError as error:
        return of_validation(error.errors())
    return None


@given(st.sampled_from(FIELDS), VALUES, st.booleans())
@example("logit_bias", {str(1 << 32): 1.0}, True)
@example("logit_bias", {"9" * 5000: 1.0}, True)
@example("logit_bias", {"²": 1.0}, True)
def test_any_value_of_any_field(field: str, value: Any, chat: bool):
    prompt = {"messages": [{"role": "user", "content": "x"}]} if chat else {"prompt": "x"}
    refused = refusal({**prompt, field: value}, ChatBody if chat else CompletionBody)
    if refused is not None:
        assert refused.status == 400 and refused.param is not None and refused.param.startswith(field), refused
        assert json.loads(json_bytes(refused.body))["error"]["param"] == refused.param


@given(VALUES)
def test_any_prompt(value: Any):
    refused = refusal({"prompt": value}, CompletionBody)
    assert refused is None or refused.param == "prompt", refused


@given(st.lists(st.dictionaries(st.sampled_from(["role", "content", "name", "tool_calls"]), VALUES), max_size=3))
def test_any_messages(messages: list[Any]):
    refused = refusal({"messages": messages}, ChatBody)
    assert refused is None or (refused.param or "").startswith("messages"), refused


@pytest.mark.parametrize("value", [{}, {"text": "x"}, {"type": "content"}])
def test_predictions_that_say_nothing_are_refused(value: dict[str, Any]):
    refused = refusal({"prompt": "x", "prediction": value}, CompletionBody)
    assert refused is not None and (refused.param or "").startswith("prediction")
