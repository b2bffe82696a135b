"""`ray start` for a node that only this machine reaches: all that Ray listens with is on 127.0.0.1.

Ray takes 127.0.0.1, wherever it is given, for a mistake that stands for the machine's own address, unless it is told
that there is no cluster; and then it refuses to start a second node. Its servers do bind where their node's address
is, so that here it just has to be left as it was given. `tests/ray_fleet/test_ray_local.py` looks at the sockets.
"""

from __future__ import annotations

import os
from typing import Any, Final

#: Ray's variable. False: a machine is known by 127.0.0.1. Ray reads it once, when it is imported.
CLUSTER: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
HOST: Final = "127.0.0.1"


def stay_on_loopback() -> None:
    """For a process that has not imported Ray yet, and for those that it starts."""
    os.environ[CLUSTER] = "0"


def main() -> Any:
    """As the command `ray`, with its arguments."""
    os.environ.pop(CLUSTER, None)
    from ray._private import services
    from ray.scripts.scripts import main as ray_command

    stay_on_loopback()  # its children import Ray by themselves
    services.resolve_ip_for_localhost = lambda host: host
    return ray_command()


if __name__ == "__main__":
    main()
