"""Programs that others wrote for OpenAI's API, pointed at a gateway and otherwise unchanged."""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any, Final

import pytest

from tests.support.gateways import MODEL, Front

#: Set where they were installed for the tests (`make test-clients`): one that is not there is an error then.
VARIABLE: Final = "DRAGOMAN_FOREIGN_CLIENTS"
SYSTEM: Final = "be brief"
FIELDS: Final[dict[str, Any]] = {"seed": 5, "temperature": 0.5, "max_tokens": 30}


def foreign(name: str, package: str) -> ModuleType:
    """The module; where it is not installed the test is skipped."""
    if os.environ.get(VARIABLE):
        return importlib.import_module(name)
    module: ModuleType = pytest.importorskip(name, reason=f"{package} is not installed: make test-clients")
    return module


def langchain_model(found: Front, **fields: Any) -> Any:
    """ChatOpenAI of the gateway. At another address than OpenAI's it asks for the usage of a stream only if told to."""
    return foreign("langchain_openai", "langchain-openai").ChatOpenAI(
        base_url=f"{found.url}/v1",
        api_key="none",
        model=MODEL,
        stream_usage=True,
        max_retries=0,
        **{**FIELDS, **fields},
    )


def litellm_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """LiteLLM, which fetches no list of prices."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return foreign("litellm", "litellm")


def litellm_fields(found: Front, *turns: str) -> dict[str, Any]:
    """Of ``acompletion``: a model behind OpenAI's API is named openai/..., or hosted_vllm/..."""
    messages = [{"role": "system", "content": SYSTEM}]
    messages += [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
    to = {"model": f"openai/{MODEL}", "api_base": f"{found.url}/v1", "api_key": "none", "num_retries": 0}
    return {**to, "messages": messages, **FIELDS}
