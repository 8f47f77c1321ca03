"""Creating an environment: what is in it, how often it is made, how it is found again."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.environments.conftest import Index
from wetlands_executor import (
    CondaEnvExecutor,
    CreationProgress,
    Environment,
    EnvironmentCreationError,
    EnvironmentInUseError,
    EnvironmentNotFoundError,
    EnvironmentSpec,
)
from wetlands_executor.environment.store import VARIABLE, Store

#: Version of this Python, as ``"3.11"``.
MINOR = ".".join(map(str, sys.version_info[:2]))


def creations(store: Store) -> list[Path]:
    folder = store.root / "made"
    return sorted(folder.iterdir()) if folder.exists() else []


def editable_project(project: Path) -> Path:
    project.mkdir()
    (project / "wl_mine.py").write_text("X = 1\n")
    (project / "backend.py").write_text(EDITABLE)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    return project


def version_of_alpha() -> str:
    import wl_alpha

    return str(wl_alpha.VERSION)


class TestContents:
    def test_holds_what_was_asked_for(self, index: Index, backend: str) -> None:
        made = Environment.create(index.spec("wl-beta"), backend=backend)
        assert made.packages()["wl-alpha"] == "1.0"
        assert made.packages()["wl-beta"] == "1.0"

    def test_the_newest_that_fits(self, index: Index, backend: str) -> None:
        made = Environment.create(index.spec("wl-alpha"), backend=backend)
        assert made.packages()["wl-alpha"] == "2.0"

    def test_python_that_fits(self, index: Index, backend: str) -> None:
        wanted = f"=={sys.version_info[0]}.{sys.version_info[1]}.*"
        made = Environment.create(index.spec("wl-alpha", python=wanted), backend=backend)
        text = "import sys; print(sys.version_info[:2])"
        done = made.run(["python", "-c", text], capture_output=True, text=True)
        assert done.stdout.strip() == str(tuple(sys.version_info[:2]))

    def test_nothing_but_python(self, index: Index, backend: str) -> None:
        made = Environment.create(EnvironmentSpec(), backend=backend)
        assert "wl-alpha" not in made.packages()

    def test_editable(self, index: Index, backend: str, tmp_path: Path) -> None:
        """A project whose build needs no network: its backend is its own."""
        project = editable_project(tmp_path / "mine")
        made = Environment.create(index.spec(editable=(str(project),)), backend=backend)
        (project / "wl_mine.py").write_text("X = 2\n")
        text = "import wl_mine; print(wl_mine.X)"
        done = made.run(["python", "-c", text], capture_output=True, text=True)
        assert done.stdout.strip() == "2"

    def test_variables_reach_workers_and_commands(self, index: Index, quick: str) -> None:
        spec = index.spec("wl-alpha", variables={"Wl_Colour": "green"})
        made = Environment.create(spec, backend=quick)
        text = "import os; print(os.environ['Wl_Colour'])"
        done = made.run(["python", "-c", text], capture_output=True, text=True)
        assert done.stdout.strip() == "green"
        with CondaEnvExecutor(made, max_workers=1) as executor:
            assert executor.submit("os:getenv", "Wl_Colour").result() == "green"

    def test_a_package_that_does_not_exist(self, index: Index, backend: str, store: Store) -> None:
        with pytest.raises(EnvironmentCreationError, match="wl-nothing") as caught:
            Environment.create(index.spec("wl-nothing"), backend=backend)
        error = caught.value
        assert error.backend == backend
        assert error.phase == "solving"
        assert "wl-nothing" in error.output
        assert error.command
        assert error.log is not None
        assert "wl-nothing" in Path(error.log).read_text()
        assert creations(store) == []

    def test_versions_that_exclude_each_other(self, index: Index, backend: str) -> None:
        with pytest.raises(EnvironmentCreationError, match="wl-alpha"):
            Environment.create(index.spec("wl-beta", "wl-alpha>=2"), backend=backend)

    def test_no_python_fits(self, index: Index) -> None:
        with pytest.raises(EnvironmentCreationError, match=r"no Python here fits '>=3\.98'"):
            Environment.create(index.spec("wl-alpha", python=">=3.98"), backend="pip")

    def test_a_backend_that_cannot_says_why(self, index: Index) -> None:
        spec = EnvironmentSpec(conda=("gdal",))
        with pytest.raises(EnvironmentCreationError, match="installs no conda packages"):
            Environment.create(spec, backend="pip")
        with pytest.raises(ValueError, match="backend='poetry'"):
            Environment.create(spec, backend="poetry")


EDITABLE = """
import os, zipfile

def build_editable(folder, settings=None, metadata=None):
    name = "wl_mine-1.0-py3-none-any.whl"
    info = "wl_mine-1.0.dist-info"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as file:
        file.writestr("wl_mine.pth", os.getcwd())
        file.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: wl-mine\\nVersion: 1.0\\n")
        file.writestr(info + "/WHEEL",
            "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        file.writestr(info + "/RECORD",
            "wl_mine.pth,,\\n%s/METADATA,,\\n%s/WHEEL,,\\n%s/RECORD,,\\n" % (info, info, info))
    return name

build_wheel = build_editable
"""


class TestOnce:
    def test_the_second_time_nothing_runs(
        self, index: Index, quick: str, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[CreationProgress] = []
        spec = index.spec("wl-alpha")
        first = Environment.create(spec, backend=quick, on_progress=seen.append)
        assert seen
        seen.clear()
        monkeypatch.setenv("PATH", "")
        index.add("wl-alpha", "3.0")
        assert Environment.create(spec, on_progress=seen.append) == first
        assert seen == []
        assert len(creations(store)) == 1

    def test_another_content_is_another_environment(self, index: Index, quick: str) -> None:
        first = Environment.create(index.spec("wl-alpha"), backend=quick)
        second = Environment.create(index.spec("wl-alpha<2"), backend=quick)
        assert first.prefix != second.prefix
        assert second.packages()["wl-alpha"] == "1.0"

    def test_order_is_no_content(self, index: Index, quick: str) -> None:
        first = Environment.create(index.spec("wl-alpha", "wl-beta"), backend=quick)
        assert Environment.create(index.spec("wl-beta", "wl-alpha"), backend=quick) == first

    def test_one_whose_interpreter_is_gone_is_made_anew(self, index: Index, quick: str) -> None:
        spec = index.spec("wl-alpha")
        first = Environment.create(spec, backend=quick)
        first.python.unlink()
        for name in ("python3", f"python3.{sys.version_info[1]}"):
            (first.python.parent / name).unlink(missing_ok=True)
        second = Environment.create(spec, backend=quick)
        assert second.packages()["wl-alpha"] == "2.0"

    def test_a_damaged_record_counts_as_none(self, index: Index, quick: str, store: Store) -> None:
        spec = index.spec("wl-alpha")
        Environment.create(spec, backend=quick)
        for record in list(store.records()):
            record.file.write_text(record.file.read_text()[:40])
        assert Environment.create(spec, backend=quick).packages()["wl-alpha"] == "2.0"
        assert len(creations(store)) == 1, "what the damaged record named is swept"


UV_LOCK = """version = 1
revision = 3
requires-python = ">=3.8"
{head}
[[package]]
name = "wl-alpha"
version = "1.0"
source = {{ registry = "my wheels" }}
wheels = [{{ path = "wl_alpha-1.0-py3-none-any.whl" }}]

[[package]]
name = "wl-beta"
version = "1.0"
source = {{ registry = "my wheels" }}
dependencies = [{{ name = "wl-alpha" }}]
wheels = [{{ path = "wl_beta-1.0-py3-none-any.whl" }}]
"""
UV_PROJECT = """
[[package]]
name = "tool"
version = "0.1"
source = { virtual = "." }

[package.optional-dependencies]
more = [{ name = "wl-alpha" }]

[package.dev-dependencies]
test = [{ name = "wl-beta" }]
"""
UV_SCRIPT = """
[manifest]
requirements = [{ name = "wl-beta" }]
"""


class TestLocksOfOtherTools:
    """Their indexes are folders with blanks in the path; so is the place of the environments."""

    @pytest.fixture
    def place(self, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "a place"
        folder.mkdir()
        index.folder.rename(folder / "my wheels")
        monkeypatch.setenv(VARIABLE, str(folder / "the store"))
        return folder

    def check(self, spec: EnvironmentSpec, place: Path, backend: str, *names: str) -> None:
        """Make it, and once more from its lock, written to another folder."""
        made = Environment.create(spec, backend=backend)
        assert [name for name in made.packages() if name not in ("pip", "setuptools")] == list(
            names
        )
        (place / "elsewhere").mkdir()
        file = place / "elsewhere" / "lock.txt"
        file.write_text(made.lock())
        before = made.packages()
        made.remove()
        again = Environment.create(file, backend=backend)
        assert again.packages() == before
        assert again.lock() == file.read_text()

    @pytest.mark.parametrize(
        ("head", "chosen", "names"),
        [
            (UV_PROJECT, {}, []),
            (UV_PROJECT, {"extras": ["more"]}, ["wl-alpha"]),
            (UV_PROJECT, {"groups": ["test"]}, ["wl-alpha", "wl-beta"]),
            (UV_SCRIPT, {}, ["wl-alpha", "wl-beta"]),
        ],
        ids=["project", "extra", "group", "script"],
    )
    def test_uv_lock(
        self, place: Path, backend: str, head: str, chosen: dict[str, list[str]], names: list[str]
    ) -> None:
        file = place / ("tool.py.lock" if head == UV_SCRIPT else "uv.lock")
        file.write_text(UV_LOCK.format(head=head))
        self.check(EnvironmentSpec.from_file(file, **chosen), place, backend, *names)  # type: ignore[arg-type]

    def test_pylock(self, place: Path, backend: str) -> None:
        wheel = place / "my wheels" / "wl_alpha-2.0-py3-none-any.whl"
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        file = place / "pylock.toml"
        file.write_text(
            'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "wl-alpha"\n'
            f'version = "2.0"\nindex = "{wheel.parent.as_uri()}"\nwheels = [{{ url = '
            f'"{wheel.as_uri()}", hashes = {{ sha256 = "{digest}" }} }}]\n'
        )
        self.check(EnvironmentSpec.from_file(file), place, backend, "wl-alpha")

    def test_requirements_with_hashes_and_a_project(self, place: Path, backend: str) -> None:
        editable_project(place / "my tool")
        wheel = place / "my wheels" / "wl_alpha-2.0-py3-none-any.whl"
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        file = place / "requirements.txt"
        file.write_text(
            f'--no-index\n--find-links "my wheels"\nwl-alpha==2.0 --hash=sha256:{digest}\n'
            "-e ./my tool\n"
        )
        self.check(EnvironmentSpec.from_file(file), place, backend, "wl-alpha", "wl-mine")


class TestFound:
    def test_by_name(self, index: Index, quick: str) -> None:
        made = Environment.create(index.spec("wl-alpha"), "wl-cells", backend=quick)
        assert made.name == "wl-cells"
        assert Environment.find("wl-cells") == made
        assert made in Environment.list()

    def test_by_the_name_that_the_list_shows(self, index: Index, quick: str) -> None:
        made = Environment.create(index.spec("wl-alpha"), backend=quick)
        assert made.name is not None
        assert Environment.find(made.name) == made
        assert made in Environment.list()

    def test_by_spec_and_by_file(self, index: Index, quick: str, tmp_path: Path) -> None:
        script = index.script(tmp_path / "wl_script.py", "wl-alpha")
        with pytest.raises(EnvironmentNotFoundError, match="not made yet"):
            Environment.find(script)
        made = Environment.create(script, backend=quick)
        assert Environment.find(script) == made
        assert Environment.find(EnvironmentSpec.from_file(script)) == made

    def test_a_name_that_is_taken(self, index: Index, quick: str) -> None:
        Environment.create(index.spec("wl-alpha"), "wl-cells", backend=quick)
        with pytest.raises(ValueError, match=r"update\(spec\)"):
            Environment.create(index.spec("wl-beta"), "wl-cells", backend=quick)

    @pytest.mark.parametrize("name", ["", "a/b", "..", "base", "a b", "x" * 65, "-x", ".x"])
    def test_a_name_that_cannot_be(self, index: Index, name: str) -> None:
        with pytest.raises(ValueError, match="name="):
            Environment.create(index.spec("wl-alpha"), name)

    def test_a_missing_name_lists_the_store(self, store: Store) -> None:
        with pytest.raises(EnvironmentNotFoundError, match="made by Environment.create"):
            Environment.find("wl-nowhere")

    def test_in_a_shared_store_that_cannot_be_written(
        self, index: Index, quick: str, store: Store, tmp_path: Path
    ) -> None:
        made = Environment.create(index.spec("wl-alpha"), "wl-cells", backend=quick)
        program = f"""
import os, sys
sys.path[:] = {sys.path!r}
from wetlands_executor import CondaEnvExecutor, Environment
shared = {str(store.root)!r}

def watch(event, arguments):
    writes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.utime", "os.chmod")
    if event == "open" and isinstance(arguments[2], int):
        writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes and any(isinstance(each, (str, os.PathLike)) and os.fspath(each).startswith(shared)
                      for each in arguments):
        if event != "os.utime":
            print("WRITES", event, arguments, flush=True)
        raise PermissionError(30, "Read-only file system")

sys.addaudithook(watch)
with CondaEnvExecutor("wl-cells", max_workers=1) as executor:
    print(executor.submit("wl_alpha:where").result())
"""
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={
                **__import__("os").environ,
                "WETLANDS_EXECUTOR_ENVIRONMENTS": f"{tmp_path / 'mine'}:{store.root}",
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "WRITES" not in done.stdout
        assert str(made.prefix) in done.stdout
        assert not (tmp_path / "mine").exists()


class TestUpkeep:
    def test_update_replaces_in_one_step(self, index: Index, quick: str, store: Store) -> None:
        first = Environment.create(index.spec("wl-alpha"), "wl-cells", backend=quick)
        second = first.update(index.spec("wl-beta"), backend=quick)
        assert Environment.find("wl-cells") == second
        assert second.packages()["wl-alpha"] == "1.0"
        assert [path.name for path in creations(store)] == [second.prefix.parent.name]

    def test_a_failed_update_changes_nothing(self, index: Index, quick: str) -> None:
        first = Environment.create(index.spec("wl-alpha"), "wl-cells", backend=quick)
        with pytest.raises(EnvironmentCreationError):
            first.update(index.spec("wl-nothing"), backend=quick)
        assert Environment.find("wl-cells") == first
        assert first.packages()["wl-alpha"] == "2.0"

    def test_update_beside_workers(self, index: Index, quick: str) -> None:
        first = Environment.create(index.spec("wl-alpha"), "wl-cells", backend=quick)
        with CondaEnvExecutor("wl-cells", max_workers=1) as executor:
            where = executor.submit("wl_alpha:where").result()
            second = first.update(index.spec("wl-beta"), backend=quick)
            assert Path(where).exists()
            assert executor.submit("wl_alpha:where").result() == where
        assert second.prefix != first.prefix

    def test_what_has_no_name_does_not_change(self, index: Index, quick: str) -> None:
        made = Environment.create(index.spec("wl-alpha"), backend=quick)
        with pytest.raises(ValueError, match="cached by its content"):
            made.update(index.spec("wl-beta"))

    def test_remove(self, index: Index, quick: str, store: Store) -> None:
        made = Environment.create(index.spec("wl-alpha"), "wl-cells", backend=quick)
        made.remove()
        assert creations(store) == []
        with pytest.raises(EnvironmentNotFoundError):
            Environment.find("wl-cells")

    def test_what_is_in_use_is_not_removed(self, index: Index, quick: str) -> None:
        made = Environment.create(index.spec("wl-alpha"), "wl-cells", backend=quick)
        with CondaEnvExecutor(made, max_workers=1):  # no worker yet
            with pytest.raises(EnvironmentInUseError, match="an executor"):
                made.remove()
        for program in ("python", "cat"):  # one of the environment, and one while it is activated
            with made.popen([program], stdin=subprocess.PIPE) as process:
                with pytest.raises(EnvironmentInUseError, match=str(process.pid)):
                    made.remove()
        assert Environment.find("wl-cells") == made
        made.remove()

    def test_in_a_store_that_is_not_the_first_or_cannot_be_written(
        self,
        index: Index,
        quick: str,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        first = Environment.create(index.spec("wl-alpha"), "wl-cells", backend=quick)
        second = Environment.create(index.spec("wl-beta"), backend=quick)
        monkeypatch.setenv(VARIABLE, f"{tmp_path / 'mine'}{os.pathsep}{store.root}")
        first.remove()
        with pytest.raises(EnvironmentNotFoundError):
            Environment.find("wl-cells")
        monkeypatch.setenv(VARIABLE, str(store.root))
        for file in (store.root / "locks").iterdir():
            file.unlink()
        (store.root / "locks").rmdir()
        (store.root / "locks").write_text("")
        assert Environment.prune(0) == []
        with pytest.raises(ValueError, match="cannot be removed"):
            second.remove()
        assert Environment.find(index.spec("wl-beta")) == second

    def test_what_another_program_has_made_is_not_removed(self) -> None:
        with pytest.raises(ValueError, match="not made by this library"):
            Environment.find(sys.executable).remove()

    def test_prune(self, index: Index, quick: str, store: Store) -> None:
        kept = Environment.create(index.spec("wl-alpha"), "wl-cells", backend=quick)
        used = Environment.create(index.spec("wl-beta"), backend=quick)
        run = Environment.create(index.spec("wl-beta", "wl-alpha"), backend=quick)
        record = store.owner_of(run.prefix)
        assert record is not None
        os.utime(record.folder / "used", (1, 1))
        made = record.last_used
        run.run(["python", "-c", ""])
        assert record.last_used > made
        run.remove()
        old = Environment.create(index.spec("wl-alpha<2"), backend=quick)
        assert Environment.prune(timedelta(days=1)) == []
        with CondaEnvExecutor(used, max_workers=1):
            assert Environment.prune(0) == [old.name]
        assert {path.name for path in creations(store)} == {
            kept.prefix.parent.name,
            used.prefix.parent.name,
        }

    def test_lock_makes_the_same_again(self, index: Index, backend: str, tmp_path: Path) -> None:
        made = Environment.create(index.spec("wl-beta"), backend=backend)
        text = made.lock()
        assert "sha256" in text
        index.add("wl-beta", "9.0")
        file = tmp_path / "pylock.toml"
        file.write_text(text)
        again = Environment.create(file, backend=backend)
        assert again.prefix != made.prefix
        assert again.packages() == made.packages()

    def test_lock_of_what_was_changed_since(
        self, index: Index, backend: str, tmp_path: Path
    ) -> None:
        """The hashes are looked at."""
        made = Environment.create(index.spec("wl-beta"), backend=backend)
        file = tmp_path / "pylock.toml"
        file.write_text(made.lock())
        index.add("wl-alpha", "1.0", size=64)
        with pytest.raises(EnvironmentCreationError, match="(?i)hash"):
            Environment.create(file, backend=backend)

    def test_lock_of_an_environment_of_another_program(self, tmp_path: Path) -> None:
        text = Environment.find(None).lock()
        assert "pytest==" in text
        file = tmp_path / "requirements.txt"
        file.write_text(text)
        assert EnvironmentSpec.from_file(file).pypi or EnvironmentSpec.from_file(file).lock
        assert EnvironmentSpec.from_file(file).python == f"=={MINOR}.*"

    @pytest.mark.parametrize("name", ["requirements.txt", "l.toml", "pylock.toml", "l"])
    def test_lock_of_an_empty_environment(self, backend: str, tmp_path: Path, name: str) -> None:
        made = Environment.create(EnvironmentSpec(python=f"=={MINOR}.*"), backend=backend)
        file = tmp_path / name
        file.write_text(made.lock())
        again = Environment.create(file, backend=backend)
        assert again.packages() == made.packages()
