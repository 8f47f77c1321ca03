"""What belongs to the host's interpreter, and what to its project."""

from __future__ import annotations

import sysconfig

from wetlands_executor.serialize import project


def test_folders_of_the_installation_are_those_of_sysconfig() -> None:
    """They are put together without the slow half of ``sysconfig``.

    On every version the result has to be the same.
    """
    expected = sysconfig.get_paths()
    assert project._installation_paths() == [
        expected[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")
    ]
