"""What stands around the snippets of a page.

Environments of the names that the pages use, a home folder, files.

The environments are conda prefixes as far as ``Environment.find`` can tell (``conda-meta/history``,
``bin/python``) and hold nothing but the interpreter that runs the tests. Workers in them are real
ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docs import pages

#: Names that the pages use, found through the home folder's ``miniforge3/envs``.
ENVIRONMENTS = ("cellpose", "stardist", "statistics")

#: Of a page: what stands in for what this machine cannot have.
SUBSTITUTIONS: dict[str, dict[str, str]] = {
    "environments.md": {
        "/usr/bin/python3.9": sys.executable,
        "module load cuda/12": "export CUDA=12",
        '"/data"': '"../data"',
    },
    # No screen: an interpreter without windows has the same event loop, which runs until there are
    # fewer windows than this.
    "gui.md": {"tkinter.Tk()": "tkinter.Tcl()", "root.mainloop()": "root.mainloop(-1)"},
}

#: Of a page: files in its folder whose content does not matter to the reader.
FILES: dict[str, dict[str, str]] = {
    "README.md": {
        "segment.py": "def segment(path):\n    return path.replace('.tif', '.mask.tif')\n",
        "measure.py": "def measure(path):\n    return {'file': path, 'cells': len(path)}\n",
    },
}

_VARIABLES_OF_CONDA = (
    "CONDA_",
    "MAMBA_",
    "PIXI_",
    "CONDARC",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "PYTHONHOME",
    "XDG_CONFIG_HOME",
)


def make_environment(prefix: Path, commands: tuple[str, ...] = ()) -> Path:
    """Make a folder that is a conda environment, with commands that do nothing."""
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "conda-meta" / "history").touch()
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python").symlink_to(sys.executable)
    for command in commands:
        (prefix / "bin" / command).write_text("#!/bin/sh\nexit 0\n")
        (prefix / "bin" / command).chmod(0o755)
    return prefix


def variables(home: Path) -> dict[str, str]:
    """Return the environment variables of a page's process.

    Nothing of this machine's conda, the project importable, no screen needed.
    """
    found = {
        key: value for key, value in os.environ.items() if not key.startswith(_VARIABLES_OF_CONDA)
    }
    return {
        **found,
        "HOME": str(home),
        "PYTHONPATH": str(pages.ROOT),
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        "QT_QPA_PLATFORM": "offscreen",
        "NO_COLOR": "1",
    }


def set_up(page: str, folder: Path) -> tuple[Path, dict[str, str]]:
    """Make the folder in which a page runs.

    Returns:
        The working folder and the environment variables.
    """
    home, work = folder / "home", folder / "work"
    for name in ENVIRONMENTS:
        make_environment(home / "miniforge3" / "envs" / name, ("jupyter", "nvcc"))
    work.mkdir()
    for name, text in FILES.get(page, {}).items():
        (work / name).write_text(text)
    if page == "environments.md":
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(work / ".venv")], check=True
        )
        project = folder / "segmentation"
        make_environment(project / ".pixi" / "envs" / "default")
        (project / "pixi.toml").write_text(
            '[workspace]\nname = "segmentation"\nchannels = []\nplatforms = ["linux-64"]\n'
        )
        (folder / "data").mkdir()
    return work, variables(home)
