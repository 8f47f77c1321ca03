"""What PyInstaller collects for ``wetlands_executor``.

Run by PyInstaller while it builds a program.

1. The sources that are shipped to workers, and cloudpickle's: as files, since a bundle holds
   bytecode.
2. Modules that are imported by name only.
3. The names of the packages that are installed here. A frozen program cannot tell its own modules
   from installed packages any more; the ones travel as code, the others are named
   (``environment/frozen.py``).
"""

from __future__ import annotations

import json
import os
from importlib import metadata

from PyInstaller.config import CONF
from PyInstaller.utils.hooks import collect_data_files, collect_submodules

#: Read by ``wetlands_executor.environment.frozen``.
INSTALLED = "frozen-packages.txt"


def _installed_names() -> list[str]:
    editable = set()
    for distribution in metadata.distributions():
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable"):
            editable.add(distribution.metadata["Name"])
    found = metadata.packages_distributions()
    return sorted(name for name, owners in found.items() if not editable.issuperset(owners))


def _write_names() -> tuple[str, str]:
    path = os.path.join(CONF["workpath"], INSTALLED)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("\n".join(_installed_names()) + "\n")
    return path, "wetlands_executor"


# Some modules of these are imported by name when the first function by value is sent.
hiddenimports = [
    *collect_submodules("wetlands_executor.worker"),
    *collect_submodules("wetlands_executor.serialize"),
]
datas = [
    *collect_data_files("wetlands_executor.worker", include_py_files=True),
    *collect_data_files("cloudpickle", include_py_files=True),
    _write_names(),
]
