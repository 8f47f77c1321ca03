"""A first guess at what a Python file needs, from its imports, for a message."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Final

from wetlands_executor.environment.formats.source import Source

#: Packages that are called otherwise on PyPI than where they are imported.
CALLED: Final = {
    "Bio": "biopython", "OpenSSL": "pyOpenSSL", "PIL": "pillow", "attr": "attrs",
    "bs4": "beautifulsoup4", "cairo": "pycairo", "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil", "docx": "python-docx", "dotenv": "python-dotenv",
    "fitz": "PyMuPDF", "git": "GitPython", "google.protobuf": "protobuf", "jose": "python-jose",
    "jwt": "PyJWT", "magic": "python-magic", "mpl_toolkits": "matplotlib", "osgeo": "gdal",
    "pkg_resources": "setuptools", "pylab": "matplotlib", "serial": "pyserial",
    "skimage": "scikit-image", "sklearn": "scikit-learn", "umap": "umap-learn", "usb": "pyusb",
    "win32api": "pywin32", "win32com": "pywin32", "yaml": "PyYAML", "zmq": "pyzmq",
}  # fmt: skip
_OURS = "wetlands_executor"


def suggest(source: Source) -> str:
    """Return a metadata block that asks for what a file imports, as far as that can be told."""
    wanted = sorted({_distribution(name) for name in _foreign(source)}, key=str.lower)
    listed = ", ".join(f'"{name}"' for name in wanted)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return f'# /// script\n# requires-python = ">={version}"\n# dependencies = [{listed}]\n# ///'


def _foreign(source: Source) -> Iterator[str]:
    """List the imported top-level modules that are neither of Python nor beside the file."""
    try:
        tree = ast.parse(source.text)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top != _OURS and not _is_beside(source, top):
                yield name if name in CALLED else top


def _is_beside(source: Source, name: str) -> bool:
    path = os.path.join(source.folder, name)
    return os.path.isdir(path) or os.path.isfile(f"{path}.py")


def _distribution(module: str) -> str:
    """Return the package that has a module: as known, as installed here, else of the same name."""
    if module in CALLED:
        return CALLED[module]
    return next(iter(metadata.packages_distributions().get(module, [])), module)
