"""The entry of a Ray job: `dragoman fleet` for a cluster where nothing of Dragoman is installed.

    ray job submit --working-dir . -- python -m deploy.fleet up -c deploy/fleet.yaml

Without a command it is `up`. The job ends; the actors stay.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dragoman.cli import main


def fleet_arguments(arguments: Sequence[str]) -> list[str]:
    """For `dragoman`."""
    bare = not arguments or (arguments[0].startswith("-") and arguments[0] != "--help")
    return ["fleet", *(["up"] if bare else []), *arguments]


if __name__ == "__main__":
    main(fleet_arguments(sys.argv[1:]))
