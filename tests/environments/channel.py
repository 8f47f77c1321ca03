"""A conda channel in a folder (``file://``), with packages that the tests make themselves."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from tests.integration.conda import PLACEHOLDER, find_interpreter, package_interpreter

SUBDIR = "linux-64"


class Channel:
    """Packages and their index.

    Args:
        folder: where.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._packages: dict[str, dict[str, dict[str, Any]]] = {SUBDIR: {}, "noarch": {}}
        for subdir in self._packages:
            (folder / subdir).mkdir(parents=True)

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    def add_python(self, version: str, scratch: Path) -> str:
        """Repackage an interpreter; return its version."""
        extracted = package_interpreter(find_interpreter(version), scratch)
        index = json.loads((extracted / "info" / "index.json").read_text())
        stem = f"{index['name']}-{index['version']}-{index['build']}"
        with tarfile.open(
            self.folder / SUBDIR / f"{stem}.tar.bz2", "w:bz2", compresslevel=1
        ) as out:
            for path in sorted(extracted.rglob("*")):
                if path.is_symlink() or path.is_file():
                    out.add(path, path.relative_to(extracted).as_posix())
        self._index(SUBDIR, f"{stem}.tar.bz2", index)
        return str(index["version"])

    def add(
        self, name: str, version: str, *depends: str, files: dict[str, str] | None = None
    ) -> None:
        """Make a package for every platform.

        Args:
            name, version: of it.
            depends: what it needs, as conda writes it.
            files: path to text; the placeholder stands for the prefix.
        """
        index = {
            "name": name, "version": version, "build": "0", "build_number": 0, "subdir": "noarch",
            "depends": list(depends), "license": "MIT", "noarch": "generic",
        }  # fmt: skip
        texts = {f"share/{name}.txt": version, **(files or {})}
        paths = []
        for path, text in texts.items():
            data = text.encode()
            entry: dict[str, Any] = {
                "_path": path, "path_type": "hardlink", "size_in_bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }  # fmt: skip
            if PLACEHOLDER in text:
                entry.update(file_mode="text", prefix_placeholder=PLACEHOLDER)
            paths.append(entry)
        texts["info/index.json"] = json.dumps(index)
        texts["info/paths.json"] = json.dumps({"paths": paths, "paths_version": 1})
        file = f"{name}-{version}-0.tar.bz2"
        with tarfile.open(self.folder / "noarch" / file, "w:bz2") as out:
            for path, text in texts.items():
                entry_info = tarfile.TarInfo(path)
                entry_info.size = len(text.encode())
                out.addfile(entry_info, io.BytesIO(text.encode()))
        self._index("noarch", file, index)

    def _index(self, subdir: str, file: str, index: dict[str, Any]) -> None:
        data = (self.folder / subdir / file).read_bytes()
        self._packages[subdir][file] = {
            **index,
            "md5": hashlib.md5(data).hexdigest(),
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
        }
        for each, packages in self._packages.items():
            content = {
                "info": {"subdir": each}, "packages": packages, "packages.conda": {},
                "removed": [], "repodata_version": 1,
            }  # fmt: skip
            (self.folder / each / "repodata.json").write_text(json.dumps(content))
