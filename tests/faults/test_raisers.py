"""Whatever class a task's exception has: its type, message, arguments and attributes arrive."""

from __future__ import annotations

import sys

import pytest

from tests.faults import raisers
from tests.support import interpreters
from tests.support.observe import DEADLINE


@pytest.mark.parametrize(
    "python",
    ["here", interpreters.find()[0], interpreters.find()[-1]],
    ids=lambda what: getattr(what, "minor", what),
)
def test_it_arrives_as_it_was(make, python) -> None:
    executor = make(env=None if python == "here" else python.path, max_workers=1)
    groups = executor.submit(eval, "__import__('sys').version_info >= (3, 11)").result(DEADLINE)
    for name in raisers.MAKERS:
        if "group" in name and not groups:
            continue
        with pytest.raises(BaseException) as here:
            raisers.throw(name)
        task = executor.submit(raisers.throw, name)
        there = task.exception(DEADLINE)
        assert type(there) is type(here.value), name
        assert raisers.picture(there) == raisers.picture(here.value)
        assert "raisers.py" in str(there.__cause__)
        if name == "slots":
            assert (there.code, there.hidden()) == (1, "hidden")
        with pytest.raises(type(here.value)) as again:
            task.result(DEADLINE)
        assert again.value is there


def test_groups_are_tested() -> None:
    assert ("group" in raisers.MAKERS) is (sys.version_info >= (3, 11))
