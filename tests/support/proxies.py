"""The environment's proxies, which no test shall depend on."""

from __future__ import annotations

from typing import Final

import pytest

VARIABLES: Final = ("grpc_proxy", "https_proxy", "http_proxy")


def forget_proxies(patch: pytest.MonkeyPatch) -> None:
    """As if there were none, and no word on whom they are for."""
    for name in (*VARIABLES, "no_grpc_proxy", "no_proxy", "DRAGOMAN_PROXY"):
        patch.delenv(name, raising=False)
