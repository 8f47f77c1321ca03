"""Programs that lead an environment: with the core dependencies alone, and as the README has it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs import pages
from tests.environments.conftest import Index
from wetlands_executor import Environment, EnvironmentCreationError, EnvironmentSpec

#: What the package depends on, as modules.
CORE = ("cloudpickle", "psutil", "typing_extensions")


def bare_host(folder: Path) -> dict[str, str]:
    """Return variables with which an interpreter without site packages has the core only."""
    folder.mkdir()
    for name in CORE:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        place = origin.parent if origin.name == "__init__.py" else origin
        (folder / place.name).symlink_to(place)
    (folder / "wetlands_executor").symlink_to(ROOT / "wetlands_executor")
    return {**os.environ, "PYTHONPATH": str(folder)}


def test_core_dependencies_alone(index: Index, tmp_path: Path) -> None:
    """Nothing but venv and pip of some Python here; no packaging, no tomli, no uv."""
    index.script(
        tmp_path / "wl_segment.py", "wl-beta",
        body="import wl_alpha\n\n\ndef segment(image):\n    return wl_alpha.VERSION, len(image)\n",
    )  # fmt: skip
    (tmp_path / "main.py").write_text(
        "import sys\n"
        "from wetlands_executor import CondaEnvExecutor\n\n"
        "with CondaEnvExecutor('wl_segment.py', max_workers=1) as ex:\n"
        "    print(ex.submit('wl_segment.py:segment', [1, 2, 3]).result())\n"
        "assert not {'packaging', 'pip', 'uv', 'rattler', 'yaml'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "main.py"],
        cwd=tmp_path,
        env={**bare_host(tmp_path / "core"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "('1.0', 3)"


NUMPY = """# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy"]
# ///
import numpy


def segment(image):
    return int((numpy.asarray(image) > 5).sum())
"""


@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.timeout(400)
class TestRegistry:
    @pytest.fixture(autouse=True)
    def settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let pip and uv find the registry as the user's settings say."""
        for name in ("PIP_CONFIG_FILE", "PIP_RETRIES", "UV_HTTP_RETRIES"):
            monkeypatch.delenv(name, raising=False)

    def create(self, what: Path | EnvironmentSpec, backend: str, **options: bool) -> Environment:
        try:
            return Environment.create(what, backend=backend, **options)
        except EnvironmentCreationError as error:
            if "index could be reached" in str(error):
                pytest.skip("no package registry can be reached from here")
            raise

    def test_numpy(self, backend: str, tmp_path: Path) -> None:
        script = tmp_path / "segment.py"
        script.write_text(NUMPY)
        made = self.create(script, backend)
        assert "numpy" in made.packages()
        assert "sha256" in made.lock()

    def test_uv_offline_with_what_it_has_fetched(self, tmp_path: Path, quick: str) -> None:
        if quick != "uv":
            pytest.skip("uv is neither installed nor on PATH")
        spec = EnvironmentSpec(pypi=("iniconfig",))
        made = self.create(spec, "uv")
        made.remove()
        again = self.create(spec, "uv", offline=True)
        assert "iniconfig" in again.packages()

    def test_the_second_snippet_of_the_readme(self, tmp_path: Path, quick: str) -> None:
        """A reader pastes it into a file and runs that."""
        part = pages.snippets(pages.ROOT / "README.md")[1]
        assert part.title is not None
        file = tmp_path / part.title
        file.write_text("\n".join(part.code) + "\n")
        self.create(file, quick)
        done = subprocess.run(
            [sys.executable, file.name],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "3.0"
