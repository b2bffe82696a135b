"""What `import dragoman` offers: sorted, importable, documented."""

from __future__ import annotations

import dragoman


def test_exported_members_are_sorted_there_and_documented():
    assert list(dragoman.__all__) == sorted(dragoman.__all__)
    for name in dragoman.__all__:
        assert getattr(dragoman, name).__doc__, name


def test_nothing_else_is_public():
    public = {name for name in vars(dragoman) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(dragoman, name)).__name__ == "module"}
    assert public - modules == set(dragoman.__all__)
