"""Where made environments are kept, without making any; and interpreters that fit."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from wetlands_executor.environment import libraries, python_finding
from wetlands_executor.environment.cancellation import Cancellation
from wetlands_executor.environment.contents import CondaPackage, Contents, missing
from wetlands_executor.environment.creation_run import variables_for
from wetlands_executor.environment.described import description_file, project_environment
from wetlands_executor.environment.locks import CreationLock, Lease
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.environment.store import VARIABLE, Record, Store, key_of, new_record
from wetlands_executor.errors import EnvironmentNotFoundError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def complete(store: Store, name: str | None = None, digest: str = "0" * 16) -> Record:
    """Publish what looks like an environment."""
    folder = store.begin(digest)
    record = new_record(
        store.root, name, digest, folder, backend="pip 1", python="3.11.7", seconds=1.0, spec={}
    )
    (record.prefix / "bin").mkdir(parents=True)
    (record.prefix / "bin" / "python").symlink_to(sys.executable)
    store.publish(record)
    return record


class TestRecords:
    def test_what_was_published_is_found(self, store: Store) -> None:
        cached, named = complete(store), complete(store, "cells", "1" * 16)
        assert store.cached("0" * 16) == cached
        assert store.named("cells") == named
        assert store.called("cells") == [named]
        assert store.called(cached.name) == [cached]
        assert store.owner_of(named.prefix) == named
        assert {record.name for record in store.records()} == {cached.name, "cells"}

    def test_what_was_only_begun_is_not(self, store: Store) -> None:
        store.begin("0" * 16)
        assert store.cached("0" * 16) is None
        assert list(store.records()) == []

    @pytest.mark.parametrize(
        "content", ["", "[]", "{}", '{"version": 1}', "\x00", '{"version": 9}']
    )
    def test_a_damaged_record_is_none(self, store: Store, content: str) -> None:
        record = complete(store)
        record.file.write_text(content)
        assert store.cached("0" * 16) is None

    def test_a_store_that_was_moved_is_empty(self, store: Store, tmp_path: Path) -> None:
        complete(store)
        store.root.rename(tmp_path / "moved")
        assert list(Store(tmp_path / "moved").records()) == []

    def test_one_without_its_interpreter_is_none(self, store: Store) -> None:
        record = complete(store)
        (record.prefix / "bin" / "python").unlink()
        assert store.cached("0" * 16) is None

    def test_sweep_keeps_the_complete_one(self, store: Store) -> None:
        record, half = complete(store), store.begin("0" * 16)
        store.sweep("0" * 16, record)
        assert record.folder.exists()
        assert not half.exists()

    def test_several_roots(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = complete(store)
        monkeypatch.setenv(VARIABLE, os.pathsep.join([str(tmp_path / "mine"), str(store.root)]))
        both = Store()
        assert both.root == tmp_path / "mine"
        assert both.cached("0" * 16) == record

    def test_the_usual_place_is_the_users(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(VARIABLE, raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
        monkeypatch.setenv("HOME", str(tmp_path))
        assert tmp_path in Store().root.parents

    def test_keys_are_short_and_differ(self) -> None:
        one, other = (key_of(EnvironmentSpec(pypi=(name,)).digest()) for name in ("a", "b"))
        assert one != other
        assert len(one) == 16


class TestLocks:
    def test_one_has_it(self, tmp_path: Path) -> None:
        first, second = CreationLock(tmp_path / "lock"), CreationLock(tmp_path / "lock")
        first.acquire(Cancellation(), lambda owner: None)
        cancellation, seen = Cancellation(), []

        def wait(owner: str) -> None:
            seen.append(owner)
            first.release()

        second.acquire(cancellation, wait)
        second.release()
        assert str(os.getpid()) in seen[0]

    def test_leases(self, tmp_path: Path) -> None:
        file = tmp_path / "used"
        file.touch()
        one, two = Lease.take(file), Lease.take(file)
        assert one is not None
        assert two is not None
        assert Lease.take(file, alone=True) is None
        one.close()
        two.close()
        alone = Lease.take(file, alone=True)
        assert alone is not None
        alone.close()
        assert Lease.take(tmp_path / "none") is None


class TestDescribed:
    def test_what_is_a_description(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("a.py", "environment.yml", "x.toml"):
            Path(name).touch()
        assert description_file("a.py") == "a.py"
        assert description_file("./environment.yml") == "./environment.yml"
        assert description_file(Path("environment.yml")) == "environment.yml"
        for other in ("environment.yml", "cellpose", "./none.yml", None, 4, ".", "./folder/"):
            assert description_file(other) is None
        with pytest.raises(EnvironmentNotFoundError, match="there is no file"):
            description_file("b.py")

    def test_a_project_that_its_manager_has_installed(self, tmp_path: Path) -> None:
        manifest = tmp_path / "pixi.toml"
        manifest.write_text('[workspace]\nname = "x"\nchannels = []\nplatforms = []\n')
        assert project_environment(str(manifest)) is None
        prefix = tmp_path / ".pixi" / "envs" / "default"
        (prefix / "conda-meta").mkdir(parents=True)
        (prefix / "conda-meta" / "history").touch()
        (prefix / "bin").mkdir()
        (prefix / "bin" / "python").symlink_to(sys.executable)
        found = project_environment(str(manifest))
        assert found is not None
        assert found.prefix == prefix


class TestInterpreters:
    def test_this_one_first(self) -> None:
        first = next(python_finding.candidates(None))
        assert os.path.realpath(first) == os.path.realpath(sys.executable)

    @pytest.mark.parametrize(
        ("version", "requires", "fits"),
        [
            ("3.11.7", ">=3.9,<3.12", True),
            ("3.12.1", ">=3.9,<3.12", False),
            ("3.11.7", "==3.11.*", True),
            ("3.8.0", None, True),
            ("3.15.0", ">=3.9", True),
        ],
    )
    def test_fits(self, version: str, requires: str | None, fits: bool) -> None:
        assert python_finding.fits(version, requires) is fits

    @pytest.mark.parametrize(
        ("minor", "requires", "may"),
        [
            (11, "==3.11.7", True),
            (12, "==3.11.7", False),
            (11, ">3.11.4,<3.12", True),
            (9, None, True),
        ],
    )
    def test_minors_that_cannot_fit_are_not_started(
        self, minor: int, requires: str | None, may: bool
    ) -> None:
        assert python_finding._may_fit(minor, requires) is may

    def test_packaging_of_the_pip_beside_ensurepip(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where neither packaging nor pip is installed."""
        first = libraries._first
        monkeypatch.setattr(
            libraries,
            "_first",
            lambda *names: first(*(n for n in names if not n.startswith(("packaging", "pip.")))),
        )
        assert python_finding.fits("3.11.7", ">=3.9,<3.12")


class TestContents:
    def holds(self, spec: EnvironmentSpec, **pypi: str) -> list[str]:
        gdal = CondaPackage("3.6", "0", "https://conda.anaconda.org/conda-forge")
        return missing(spec, Contents("3.11.7", pypi, {"gdal": gdal}), {"sys_platform": "linux"})

    def test_what_is_missing(self) -> None:
        spec = EnvironmentSpec(pypi=("Num_Py<2", "six; sys_platform == 'win32'", "x[extra]"))
        assert self.holds(spec, **{"num-py": "1.0", "x": "1"}) == []
        assert self.holds(spec, **{"num-py": "2.0"}) == ["Num_Py is 2.0, not <2", "x is not there"]

    def test_python(self) -> None:
        assert self.holds(EnvironmentSpec(python=">=3.12")) == ["python is 3.11.7, not >=3.12"]

    def test_conda(self) -> None:
        spec = EnvironmentSpec(conda=("gdal >=3", "conda-forge::proj"))
        assert self.holds(spec) == ["proj (conda) is not there"]


def test_variables_of_package_managers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/x")
    monkeypatch.setenv("PIP_TARGET", "/x")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mine")
    found = variables_for({"A": "1", "PIP_INDEX_URL": ""})
    assert not {"PYTHONPATH", "PIP_TARGET", "PIP_INDEX_URL"} & set(found)
    assert found["A"] == "1"
    json.dumps(found)
