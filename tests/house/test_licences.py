"""Nothing comes along under a licence that would bind who uses Dragoman, and the page of licences is true."""

from __future__ import annotations

import re

import pytest

from tests.support.licences import EXTRAS, installed, licence_of, row_of
from tests.support.repository import ROOT

PACKAGES = installed("dragoman", EXTRAS)
#: Permissive, or (MPL) binding only who changes the package's own files.
WELCOME = {
    "0BSD",
    "Apache-2.0",
    "BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CNRI-Python",
    "ISC",
    "LLVM-exception",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-2.0",
    "PSF-2.0",
    "Zlib",
}


def test_the_packages_are_found():
    assert {"torch", "transformers", "grpcio", "protobuf", "ray", "matplotlib"} <= set(PACKAGES)
    assert "dragoman" not in PACKAGES and "pytest" not in PACKAGES


@pytest.mark.parametrize("name", PACKAGES)
def test_licences_are_welcome(name: str):
    named = set(re.split(r"[\s()]+", licence_of(PACKAGES[name]))) - {"AND", "OR", "WITH", ""}
    assert named and named <= WELCOME, f"{name} is under {licence_of(PACKAGES[name]) or 'no licence that it names'}"


def test_the_page_lists_them():
    lines = (ROOT / "docs" / "licences.md").read_text().splitlines(keepends=True)
    written = set(lines[lines.index("|---|---|\n") + 1 :])
    assert written == {row_of(*each) for each in PACKAGES.items()}, (
        "python -m tests.support.licences > docs/licences.md"
    )
