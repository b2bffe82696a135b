"""What `import dragoman` offers: sorted, importable, documented."""

from __future__ import annotations

import pytest

import dragoman
from dragoman.transcript import generation_request
from speculation.errors import InputError
from speculation.protocol.messages import Prompt


def test_exported_members_are_sorted_there_and_documented():
    assert list(dragoman.__all__) == sorted(dragoman.__all__)
    for name in dragoman.__all__:
        assert getattr(dragoman, name).__doc__, name


def test_nothing_else_is_public():
    public = {name for name in vars(dragoman) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(dragoman, name)).__name__ == "module"}
    assert public - modules == set(dragoman.__all__)


@pytest.mark.parametrize(
    "options, field", [({"stop": ("a", "\udcff")}, "stop"), ({"prediction": "\udcff"}, "prediction")]
)
def test_text_that_is_none_is_named_by_its_own_field(options, field: str):
    with pytest.raises(InputError, match=rf"^{field}=.*is not UTF-8") as caught:
        generation_request(Prompt(text="x"), **options)
    assert caught.value.field == field
