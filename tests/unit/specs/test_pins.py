"""What of a lock is installed on one platform, for one Python."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.specs.files import Folder
from tests.unit.specs.locks import (
    EXPLICIT,
    FILES,
    FORGE,
    PIXI_5,
    PIXI_6,
    PIXI_7,
    PYLOCK,
    SHA,
    UV,
    UV_SCRIPT,
)
from wetlands_executor.environment import pins as module
from wetlands_executor.environment.pins import CondaPin, PyPIPin, conda_pins, pypi_pins
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.errors import SpecError

LINUX = "linux-64"


def markers(version: str = "3.11.7", system: str = "linux") -> dict[str, str]:
    return {
        "python_version": ".".join(version.split(".")[:2]), "python_full_version": version,
        "implementation_version": version, "implementation_name": "cpython", "os_name": "posix",
        "platform_machine": "x86_64", "platform_python_implementation": "CPython",
        "platform_release": "", "platform_system": "", "platform_version": "",
        "sys_platform": system,
    }  # fmt: skip


def lines(spec: EnvironmentSpec, **python: str) -> list[str]:
    return [pin.line().split(" --hash")[0] for pin in pypi_pins(spec, LINUX, markers(**python))]


def test_a_spec_without_a_lock_has_none() -> None:
    spec = EnvironmentSpec(conda=("gdal",), pypi=("numpy",))
    assert conda_pins(spec, LINUX) == ()
    assert pypi_pins(spec, LINUX, markers()) == ()


def test_the_lines_of_a_requirements_lock_are_its_own() -> None:
    spec = EnvironmentSpec(lock="numpy==2.0 --hash=sha256:00\n")
    assert pypi_pins(spec, LINUX, markers()) == ()
    assert conda_pins(spec, LINUX) == ()


# ------------------------------------------------------------------------------------------ conda


def test_an_explicit_list(folder: Folder) -> None:
    spec = EnvironmentSpec(lock=EXPLICIT)
    assert conda_pins(spec, LINUX) == (
        CondaPin(url=f"{FORGE}/linux-64/python-3.11-0.conda", md5="1" * 32),
        CondaPin(url=f"{FORGE}/noarch/tzdata-2026-0.conda", sha256=SHA["a"]),
        CondaPin(url=f"{FORGE}/noarch/old-1-0.tar.bz2"),
    )
    written = "".join(f"{pin.line()}\n" for pin in conda_pins(spec, LINUX))
    assert EXPLICIT.endswith(written)
    local = folder.read("explicit.txt", "@EXPLICIT\n./a-1-0.conda\n")
    assert conda_pins(local, LINUX)[0].url == (folder.path / "a-1-0.conda").as_uri()


@pytest.mark.parametrize("text", [PIXI_5, PIXI_6, PIXI_7])
def test_conda_packages_of_a_pixi_lock(text: str) -> None:
    spec = EnvironmentSpec(lock=text, lock_folder="/place")
    first = conda_pins(spec, LINUX)[0]
    assert first.url == f"{FORGE}/linux-64/python-3.11-0.conda"
    assert first.sha256 == SHA["a"]
    assert first.line() in (f"{first.url}#{'1' * 32}", f"{first.url}#sha256:{SHA['a']}")


def test_pypi_packages_of_a_pixi_lock() -> None:
    spec = EnvironmentSpec(lock=PIXI_6, lock_folder="/place")
    assert pypi_pins(spec, LINUX, {}) == (
        PyPIPin(
            name="rich",
            version="13",
            url=f"{FILES}/rich-13-py3-none-any.whl",
            hashes=(f"sha256:{SHA['b']}",),
        ),
        PyPIPin(name="tool", version="0.1.0", url="file:///place/tool", editable=True),
    )
    assert pypi_pins(EnvironmentSpec(lock=PIXI_5), LINUX, {})[0].name == "rich"
    assert pypi_pins(EnvironmentSpec(lock=PIXI_7), LINUX, {})[0].hashes == (f"sha256:{SHA['b']}",)


def test_another_environment_of_a_pixi_lock() -> None:
    spec = EnvironmentSpec(lock=PIXI_6, lock_groups=("test",))
    assert [pin.url for pin in conda_pins(spec, LINUX)] == [f"{FORGE}/noarch/tzdata-2026-0.conda"]
    assert pypi_pins(spec, LINUX, {}) == ()


def test_a_platform_that_the_lock_does_not_have() -> None:
    with pytest.raises(SpecError, match="this machine is zos-z"):
        conda_pins(EnvironmentSpec(lock=PIXI_6), "zos-z")
    with pytest.raises(SpecError, match="gpu-machine"):
        conda_pins(EnvironmentSpec(lock=PIXI_7), "win-64")


# ------------------------------------------------------------------------------------------- PyPI


def test_a_uv_lock_for_several_pythons_and_platforms() -> None:
    spec = EnvironmentSpec(lock=UV, lock_folder="/place/my-tool")
    always = [
        "checkout @ git+https://git.example/x.git@0123456789abcdef#subdirectory=py",
        "h2==4.3", "httpx==0.28", "-e file:///place/my-tool", "sibling @ file:///place/sibling",
    ]  # fmt: skip
    assert lines(spec) == ["anyio==4.16.0", *always]
    assert lines(spec, version="3.9.18") == ["anyio==4.12.1", *always]
    windows = lines(spec, system="win32")
    assert windows == ["anyio==4.16.0", always[0], "colorama==0.4.6", *always[1:]]


def test_groups_and_extras_of_a_uv_lock() -> None:
    spec = EnvironmentSpec(lock=UV, lock_groups=("Dev",), lock_extras=("GUI",), lock_folder="/w")
    found = {pin.name: pin for pin in pypi_pins(spec, LINUX, markers())}
    assert found["pytest"].version == "9.0"
    assert found["pyside6"].url == "https://x.example/pyside6-6.8-py3-none-any.whl"
    assert found["pyside6"].hashes == (f"sha256:{SHA['a']}",)
    assert found["h2"].index == "https://mirror.example/simple"
    assert found["my-tool"].editable
    plain = EnvironmentSpec(lock=UV, lock_folder="/w")
    assert not {"pytest", "pyside6"} & {pin.name for pin in pypi_pins(plain, LINUX, markers())}


def test_hashes_of_every_archive() -> None:
    spec = EnvironmentSpec(lock=UV, lock_folder="/w")
    found = {pin.name: pin for pin in pypi_pins(spec, LINUX, markers("3.9.1"))}
    assert found["anyio"].line() == (
        f"anyio==4.12.1 --hash=sha256:{SHA['a']} --hash=sha256:{SHA['b']}"
    )


def test_the_lock_of_a_script() -> None:
    assert lines(EnvironmentSpec(lock=UV_SCRIPT)) == ["pysocks==1.7", "requests==2.32"]


def test_a_pylock() -> None:
    spec = EnvironmentSpec(lock=PYLOCK, lock_folder="/place")
    always = [
        "checkout @ git+https://git.example/x.git@0123456789#subdirectory=py",
        "archive @ https://x.example/archive-1.zip", "-e file:///place/local",
    ]  # fmt: skip
    assert lines(spec) == ["anyio==4.16.0", *always]
    assert lines(spec, version="3.9.18") == ["anyio==4.12.1", *always]
    wanted = EnvironmentSpec(
        lock=PYLOCK, lock_folder="/place", lock_groups=("dev",), lock_extras=("gui",)
    )
    assert lines(wanted) == ["anyio==4.16.0", "pyside6==6.8", "pytest==9.0", *always]


def test_groups_that_a_pylock_has_by_default() -> None:
    spec = EnvironmentSpec(
        lock=PYLOCK.replace("default-groups = []", 'default-groups = ["dev"]'), lock_folder="/place"
    )
    assert "pytest==9.0" in lines(spec)


def test_archives_at_paths_and_without_a_version() -> None:
    head = 'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "a"\n'
    path = (
        f'wheels = [{{ path = "w/a-1-py3-none-any.whl", hashes = {{ sha256 = "{SHA["a"]}" }} }}]\n'
    )
    pin = pypi_pins(EnvironmentSpec(lock=head + path, lock_folder="/place"), LINUX, markers())[0]
    assert pin.url == "file:///place/w/a-1-py3-none-any.whl"
    assert pin.hashes == (f"sha256:{SHA['a']}",)


WINDOWS = "environments = [\"sys_platform == 'win32'\"]"
WRONG: list[tuple[str, dict[str, str], str]] = [
    (UV, {"version": "3.8.1"}, "for Python >=3.9"),
    (PYLOCK, {"version": "3.8.1"}, "for Python >=3.9"),
    (PYLOCK.replace("extras =", f"{WINDOWS}\nextras ="), {}, "the lock is for"),
    (PYLOCK.replace("'gui' in extras", "nonsense"), {}, "no marker"),
    (UV.replace('name = "h2"\nversion', 'name = "h3"\nversion'), {}, "0 packages for 'h2'"),
    (UV.replace("rev=main#", "lfs=true#"), {}, "comes from"),
    ('lock-version = "1.0"\n[[packages]]\nname = "a"\n', {}, "no archive of 'a'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "python", "reason"), WRONG, ids=[each[2] for each in WRONG])
def test_what_does_not_fit(text: str, python: dict[str, str], reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        pypi_pins(EnvironmentSpec(lock=text, lock_folder="/place"), LINUX, markers(**python))
    assert caught.value.remedy


def test_a_lock_is_not_read_without_a_packaging_that_knows_locks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Old:
        class Marker:
            def __init__(self, text: str) -> None: ...
            def evaluate(self, environment: Any) -> bool:
                return True

        InvalidMarker = UndefinedComparison = LookupError

    spec = EnvironmentSpec(lock=PYLOCK, lock_folder="/place")
    for found in (None, Old):
        monkeypatch.setattr(module.libraries, "packaging", lambda name, found=found: (
            found if name == "markers" else None
        ))  # fmt: skip
        with pytest.raises(SpecError, match="the package 'packaging', 25.0"):
            pypi_pins(spec, LINUX, markers())


def test_the_program_says_what_packaging_says(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from packaging.markers import default_environment

    exec(module.MARKERS_PROGRAM, {})
    assert json.loads(capsys.readouterr().out) == default_environment()
    compile(module.MARKERS_PROGRAM, "program", "exec")
