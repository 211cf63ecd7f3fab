"""The bugs that the property tests must find are still to be put in."""

from __future__ import annotations

import pytest

from tests.property.mutants import ALL, LUA, ROOT


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant[3])
def test_what_a_bug_changes_is_there(mutant: tuple[str, str, str, str, tuple[str, ...]]) -> None:
    script, sound = mutant[:2]
    assert sound in (ROOT / LUA / script).read_text()
