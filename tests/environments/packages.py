"""Small packages that the tests make themselves: wheels, and a project whose build can be held."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

#: A build backend (PEP 517) without dependencies. It says by a FIFO that it has begun, and waits
#: until the other side closes it, or for ever.
HELD_BACKEND = """
import os

def build_wheel(*args, **kwargs):
    with open(os.environ["WL_HOLD"], "w") as line:
        line.write(str(os.getpid()))
    with open(os.environ["WL_HOLD"] + ".go") as line:
        line.read()
    raise RuntimeError("the build was let go")

build_editable = build_wheel

def prepare_metadata_for_build_wheel(folder, settings=None):
    os.makedirs(os.path.join(folder, "wl_held-1.0.dist-info"))
    with open(os.path.join(folder, "wl_held-1.0.dist-info", "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: wl-held\\nVersion: 1.0\\n")
    return "wl_held-1.0.dist-info"

prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel

def get_requires_for_build_wheel(settings=None):
    return []

get_requires_for_build_editable = get_requires_for_build_wheel
"""


def wheel(
    folder: Path, name: str, version: str, *, requires: tuple[str, ...] = (), size: int = 0
) -> Path:
    """Make a wheel with one module, which knows its version.

    Args:
        folder: where.
        name: of the package; the module has underscores.
        version: of the package.
        requires: requirements of it.
        size: bytes of a file that it has beside the module.
    """
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {each}\n" for each in requires)
    files = {
        f"{module}.py": f"VERSION = {version!r}\n\n\ndef where():\n    return __file__\n".encode(),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
    }
    if size:
        files[f"{module}_data.bin"] = hashlib.sha256(name.encode()).digest() * (size // 32)
    record = "".join(
        f"{path},sha256={_digest(content)},{len(content)}\n" for path, content in files.items()
    )
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for place, content in files.items():
            archive.writestr(place, content)
    return path


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def held_project(folder: Path) -> Path:
    """Make a project whose build begins, says so, and does not go on."""
    project = folder / "held"
    project.mkdir()
    (project / "backend.py").write_text(HELD_BACKEND)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "wl-held"\nversion = "1.0"\n'
    )
    return project
