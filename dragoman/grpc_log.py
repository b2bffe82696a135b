"""What gRPC itself writes on standard error, which it reads from the environment when it is imported.

That a TLS handshake failed, and why, only gRPC's own line can tell a server, so the commands that serve keep it.
Everywhere else the same is said by an error of ours, with what to do about it, and gRPC writes errors alone.
"""

from __future__ import annotations

import os
import sys

_SERVERS = {"verifier", "coordinator"}

# Of `dragoman verifier`, and of the same as a child: `python -m dragoman.end_with_parent dragoman verifier`.
if not _SERVERS & set(sys.argv[1:3]):
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
