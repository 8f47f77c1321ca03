"""Names of test cases and of their files."""

from __future__ import annotations

import functools

from tests.conftest import LONGEST, ROOT
from tests.support.names import steady


def test_no_address_is_in_a_name() -> None:
    assert (
        steady(functools.partial(steady, object()))
        == "functools.partial(<function steady>, <object object>)"
    )
    assert (
        steady((test_no_address_is_in_a_name, 1)) == "(<function test_no_address_is_in_a_name>, 1)"
    )


def test_sets_are_in_order() -> None:
    assert steady({3, 1, "x"}) == "set('x', 1, 3)"
    assert steady(frozenset()) == "frozenset()"


def test_names_are_ascii() -> None:
    assert steady("ï") == "'\\xef'"


def test_the_files_that_begin_exist() -> None:
    assert [file for file in LONGEST if not (ROOT / "tests" / file).exists()] == []
