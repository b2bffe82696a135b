"""The release of Dragoman, as every side tells it to the others.

A constant, because the code also runs where it is not installed: a Ray worker gets it as a bare working directory.
"""

from __future__ import annotations

from typing import Final

#: The same as in pyproject.toml.
VERSION: Final = "0.1.0"
