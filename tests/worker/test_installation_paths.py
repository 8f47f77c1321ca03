"""The folders of an installation, put together under the interpreters that may be hosts."""

from __future__ import annotations

import inspect
import subprocess
from pathlib import Path

from tests.support import interpreters
from wetlands_executor.serialize import project


def test_folders_on_other_versions(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    source = inspect.getsource(project._installation_paths)
    script.write_text(
        f"from __future__ import annotations\nimport sys, sysconfig\n{source}\n"
        "expected = sysconfig.get_paths()\n"
        "names = ('stdlib', 'platstdlib', 'purelib', 'platlib')\n"
        "assert _installation_paths() == [expected[key] for key in names], _installation_paths()\n"
    )
    for interpreter in interpreters.find():
        if interpreter.version >= (3, 10):
            subprocess.run([interpreter.path, script], check=True, timeout=60)
