"""A command that a person may paste to ask a gateway for a text."""

from __future__ import annotations

import json
import shlex

from transport.security import Security


def curl(url: str, security: Security) -> str:
    """A command that asks for a text, on two lines; words in capitals are for the reader to replace."""
    words = ["curl", f"{url}/v1/completions", "-H", "content-type: application/json"]
    if security.tokens is not None:
        words += ["-H", "authorization: Bearer KEY"]
    if security.tls_ca is not None:
        words += ["--cacert", security.tls_ca]
    if security.asks_for_certificates:
        words += ["--cert", "CERTIFICATE", "--key", "KEY"]
    asked = {"prompt": "def fibonacci(n):", "max_tokens": 64, "temperature": 0}
    return f"  {shlex.join(words)} \\\n    -d {shlex.quote(json.dumps(asked))}"
