"""conda packages: py-rattler against a channel of our own; the managers where they are found."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.environments.channel import Channel
from tests.environments.conftest import Index, needs_uv
from tests.integration.conda import PLACEHOLDER, CannotMake
from wetlands_executor import (
    CondaEnvExecutor,
    CreationPhase,
    CreationProgress,
    Environment,
    EnvironmentCreationError,
    EnvironmentSpec,
    PyPIOptions,
)
from wetlands_executor.environment.backends import pypi_part
from wetlands_executor.environment.backends.mamba import CondaBackend
from wetlands_executor.environment.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
rattler = pytest.mark.skipif(find_spec("rattler") is None, reason="py-rattler is not installed")


@pytest.fixture(scope="session")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Channel:
    """Give a channel with two versions of Python, and packages that need one or the other."""
    folder = tmp_path_factory.mktemp("channel")
    made = Channel(folder / "channel")
    try:
        for version in ("3.11", "3.12"):
            made.add_python(version, folder / "scratch")
    except CannotMake as error:
        pytest.skip(str(error))
    script = f'export WL_DATA="{PLACEHOLDER}/share/data"\n'
    made.add("wl-gdal", "3.6", "python >=3.11", files={"etc/conda/activate.d/wl.sh": script})
    made.add("wl-gdal", "3.8", "python >=3.12")
    made.add("wl-only-new", "1.0", "python >=3.12", "wl-gdal >=3.8")
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is fetched for the session, apart from the user's."""
    folder = tmp_path_factory.getbasetemp() / "conda-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))


def spec_of(channel: Channel, *conda: str, python: str | None = None) -> EnvironmentSpec:
    return EnvironmentSpec(conda=conda, python=python, channels=(channel.url,))


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder over HTTP; give its URL, and the list of what was asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_request(self, *_: object) -> None:
            asked.append(self.path)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def check_lock(made: Environment, folder: Path) -> None:
    """Make an environment again from its lock, for conda and PyPI packages, and once more."""
    text = made.lock()
    assert text.startswith("version: 6\n")
    assert text.count("sha256: ") == len(made.packages())
    file = folder / "pixi.lock"
    file.write_text(text)
    again = Environment.create(file, backend=made_by(made))
    assert again.prefix != made.prefix
    assert again.packages() == made.packages()
    assert again.lock() == text
    wrong = "".join(
        "  sha256: '" + "0" * 64 + "'\n" if line.startswith("  sha256") else f"{line}\n"
        for line in text.splitlines()
    )
    file.write_text(wrong)
    with pytest.raises(EnvironmentCreationError, match="hash"):
        Environment.create(file, backend=made_by(made))


def made_by(made: Environment) -> str:
    record = Store().owner_of(made.prefix)
    assert record is not None
    return record.backend.split()[0]


@pytest.fixture(params=["uv", "pip"])
def with_uv(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Let the PyPI packages be installed by one or the other."""
    if request.param == "uv":
        needs_uv()
        return True
    monkeypatch.setattr(pypi_part, "program", lambda: None)
    return False


@rattler
class TestRattler:
    def test_two_versions_of_python_and_activation(self, channel: Channel) -> None:
        seen: list[CreationProgress] = []
        older = Environment.create(
            spec_of(channel, "wl-gdal", python="3.11"), on_progress=seen.append, backend="rattler"
        )
        newer = Environment.create(spec_of(channel, "wl-only-new"), backend="rattler")
        assert older.kind == "conda"
        assert older.packages()["wl-gdal"] == "3.6"
        assert newer.packages()["wl-gdal"] == "3.8"
        phases = [progress.phase for progress in seen]
        assert phases[0] is CreationPhase.SOLVING
        assert CreationPhase.INSTALLING in phases
        assert phases[-1] is CreationPhase.CHECKING
        with CondaEnvExecutor(older, max_workers=1) as executor:
            version = executor.submit("platform:python_version").result()
            assert version.startswith("3.11.")
            assert executor.submit("os:getenv", "WL_DATA").result() == f"{older.prefix}/share/data"
        with CondaEnvExecutor(newer, max_workers=1) as executor:
            assert executor.submit("platform:python_version").result().startswith("3.12.")

    def test_explicit_list_and_back(self, channel: Channel, tmp_path: Path) -> None:
        made = Environment.create(spec_of(channel, "wl-gdal", python="3.12"), backend="rattler")
        text = made.lock()
        assert "@EXPLICIT" in text.splitlines()
        assert text.count("file://") == 2
        file = tmp_path / "explicit.txt"
        file.write_text(text)
        again = Environment.create(file)
        assert again.prefix != made.prefix
        assert again.packages() == made.packages()
        assert again.lock() == text

    def test_pypi_packages_against_what_conda_has_installed(
        self, channel: Channel, index: Index, tmp_path: Path, with_uv: bool
    ) -> None:
        spec = EnvironmentSpec(
            python="3.12", conda=("wl-gdal",), channels=(channel.url,), pypi=("wl-beta",),
            options=PyPIOptions(find_links=(str(index.folder),), no_index=True),
        )  # fmt: skip
        made = Environment.create(spec, backend="rattler")
        assert made.packages()["wl-gdal"] == "3.8"
        assert made.packages()["wl-alpha"] == "1.0"
        check_lock(made, tmp_path)

    def test_offline_asks_no_server(
        self, channel: Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        with serving(channel.folder) as (url, asked):
            spec = EnvironmentSpec(conda=("wl-gdal",), python="3.12", channels=(url,))
            with pytest.raises(EnvironmentCreationError, match="offline=True"):
                Environment.create(spec, backend="rattler", offline=True)
            assert asked == []
            made = Environment.create(spec, backend="rattler")
            assert asked
            asked.clear()
            text, held = made.lock(), made.packages()
            made.remove()
            for what in (spec, EnvironmentSpec(lock=text)):
                again = Environment.create(what, backend="rattler", offline=True)
                assert again.packages() == held
            other = EnvironmentSpec(conda=("wl-gdal",), python="3.11", channels=(url,))
            with pytest.raises(EnvironmentCreationError, match="was not fetched before"):
                Environment.create(other, backend="rattler", offline=True)
            assert asked == []

    def test_what_cannot_be_solved(self, channel: Channel) -> None:
        with pytest.raises(EnvironmentCreationError, match="wl-gdal") as caught:
            Environment.create(spec_of(channel, "wl-gdal >=3.8", python="3.11"), backend="rattler")
        assert caught.value.phase == "solving"
        assert caught.value.backend == "rattler"

    def test_a_package_that_does_not_exist(self, channel: Channel) -> None:
        with pytest.raises(EnvironmentCreationError, match="wl-nothing"):
            Environment.create(spec_of(channel, "wl-nothing"), backend="rattler")

    def test_a_file_that_was_changed_since_it_was_locked(
        self, channel: Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        made = Environment.create(spec_of(channel, "wl-gdal", python="3.12"), backend="rattler")
        lines = made.lock().splitlines()
        file = tmp_path / "explicit.txt"
        file.write_text("\n".join(line.split("#")[0] + "#" + "0" * 64 if "gdal" in line else line
                                  for line in lines))  # fmt: skip
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other-cache"))
        with pytest.raises(EnvironmentCreationError):
            Environment.create(file, backend="rattler")

    def test_environment_yml(self, channel: Channel, tmp_path: Path) -> None:
        if find_spec("yaml") is None:
            pytest.skip("PyYAML is not installed")
        file = tmp_path / "environment.yml"
        file.write_text(
            f"channels: [{channel.url}]\n"
            "dependencies: [python=3.11, wl-gdal]\nvariables: {WL_COLOUR: green}\n"
        )
        with CondaEnvExecutor(file, max_workers=1) as executor:
            assert executor.submit("os:getenv", "WL_COLOUR").result() == "green"
            assert executor.environment.kind == "conda"


def test_lock_of_a_conda_environment_of_another_program(tmp_path: Path) -> None:
    """An explicit list, from what conda itself has noted."""
    from tests.integration.conda import CondaPrefixFactory

    try:
        prefix = CondaPrefixFactory(tmp_path / "factory")(tmp_path / "other")
    except CannotMake as error:
        pytest.skip(str(error))
    text = Environment.find(prefix).lock()
    assert "@EXPLICIT" in text


@pytest.mark.parametrize("name", ["micromamba", "mamba", "conda"])
def test_the_real_manager(
    name: str,
    channel: Channel,
    index: Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if CondaBackend(name).program() is None:
        pytest.skip(f"{name} is not on PATH")
    monkeypatch.setenv("CONDA_PKGS_DIRS", str(tmp_path / "pkgs"))
    seen: list[CreationProgress] = []
    made = Environment.create(
        spec_of(channel, "wl-gdal=3.6=0", python="3.11"), backend=name, on_progress=seen.append
    )
    assert made.packages()["wl-gdal"] == "3.6"
    assert {CreationPhase.SOLVING, CreationPhase.INSTALLING} <= {each.phase for each in seen}
    with CondaEnvExecutor(made, max_workers=1) as executor:
        assert executor.submit("os:getenv", "WL_DATA").result() == f"{made.prefix}/share/data"
    file = tmp_path / "explicit.txt"
    file.write_text(made.lock())
    again = Environment.create(file, backend=name, offline=True)
    assert again.packages() == made.packages()
    assert again.lock() == made.lock()
    spec = EnvironmentSpec(
        python="3.12", conda=("wl-only-new",), channels=(channel.url,), pypi=("wl-beta",),
        options=PyPIOptions(find_links=(str(index.folder),), no_index=True),
    )  # fmt: skip
    check_lock(Environment.create(spec, backend=name), tmp_path)
    with pytest.raises(EnvironmentCreationError, match="wl-nothing") as caught:
        Environment.create(spec_of(channel, "wl-nothing"), backend=name)
    assert caught.value.phase == "solving"
    listed = Path.home() / ".conda" / "environments.txt"
    assert not listed.exists() or str(made.prefix) not in listed.read_text()


def test_the_real_pixi(channel: Channel) -> None:
    if shutil.which("pixi") is None:
        pytest.skip("pixi is not on PATH")
    assert subprocess.run(["pixi", "--version"], check=True).returncode == 0
    made = Environment.create(spec_of(channel, "wl-gdal", python="3.12"), backend="pixi")
    assert made.packages()["wl-gdal"] == "3.8"
