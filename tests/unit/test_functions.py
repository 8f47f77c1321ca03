"""What belongs to the host's interpreter, and what to its project."""

from __future__ import annotations

import sysconfig

from tests import interpreters
from wetlands_executor.serialize import references


def test_folders_of_the_installation_are_those_of_sysconfig() -> None:
    """They are put together without the slow half of ``sysconfig``; on every version the result has to be the same."""
    expected = sysconfig.get_paths()
    assert references._installation_paths() == [expected[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]


def test_folders_on_other_versions(tmp_path) -> None:
    import inspect
    import subprocess

    script = tmp_path / "script.py"
    source = inspect.getsource(references._installation_paths)
    script.write_text(
        f"from __future__ import annotations\nimport sys, sysconfig\n{source}\nexpected = sysconfig.get_paths()\n"
        "assert _installation_paths() == [expected[key] for key in ('stdlib', 'platstdlib', 'purelib', 'platlib')], _installation_paths()\n"
    )
    for interpreter in interpreters.find():
        if interpreter.version >= (3, 10):
            subprocess.run([interpreter.path, script], check=True, timeout=60)
