"""schemathesis, unchanged, over the gateway's own OpenAPI schema: whatever it thinks of, nothing is a server error."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from gateway.settings import GatewaySettings
from tests.support.gateways import front
from tests.support.repository import ROOT
from tests.support.service_drivers import baseline

#: Of each operation, beside the examples and the border cases that it derives from the schema.
EXAMPLES = 25


@pytest.mark.process
async def test_no_request_of_schemathesis_is_a_server_error(tmp_path: Path):
    """And no session is left, whatever it sent."""
    async with front(settings=GatewaySettings(max_concurrent=8)) as found:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{found.url}/openapi.json"),
            *("--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing"),
            *("--max-examples", str(EXAMPLES), "--seed", "1", "--no-color", "--request-timeout", "60"),
        ]
        tool = await asyncio.create_subprocess_exec(
            *command,
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await tool.communicate())[0].decode()
        assert tool.returncode == 0, said[-4000:]
        assert "/v1/chat/completions" in (await found.http.get("/openapi.json")).text and "passed" in said
        assert found.verifier.committed_tokens > 100, "some of them were written"
        await baseline(found.verifier, found.engine)
