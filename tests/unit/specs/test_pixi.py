"""``pixi.toml``, and its tables in ``pyproject.toml``."""

from __future__ import annotations

import pytest

from tests.support.cases import cases
from tests.unit.specs.files import Folder
from wetlands_executor.environment import subdir as platforms
from wetlands_executor.environment.spec import EnvironmentSpec

HEAD = '[workspace]\nchannels = ["conda-forge"]\nplatforms = ["linux-64", "osx-arm64", "win-64"]\n'


pytestmark = pytest.mark.usefixtures("linux")


def conda(folder: Folder, lines: str) -> tuple[str, ...]:
    return folder.read("pixi.toml", f"{HEAD}[dependencies]\n{lines}\n").conda


@cases(
    ("entry", "text"),
    [
        ('gdal = "*"', "gdal"),
        ('gdal = ">=3.6, <4"', "gdal >=3.6,<4"),
        ('gdal = "3.6"', "gdal ==3.6"),  # a bare version is exact in pixi
        ('gdal = "==3.6"', "gdal ==3.6"),
        ('gdal = "3.6.*"', "gdal 3.6.*"),
        ('gdal = "3.6|3.7"', "gdal 3.6|3.7"),
        ("gdal = {}", "gdal"),
        ('gdal = { version = "*" }', "gdal"),
        ('gdal = { version = "~=3.6" }', "gdal ~=3.6"),
        ('gdal = { channel = "bioconda" }', "bioconda::gdal"),
        ('gdal = { version = ">=3", channel = "bioconda" }', "bioconda::gdal >=3"),
        ('gdal = { version = "3.6", build = "*_0" }', "gdal[version='==3.6', build='*_0']"),
        ('gdal = { build-number = ">=1" }', "gdal[build_number='>=1']"),
        ('gdal = { channel = "https://example.org/c" }', "gdal[channel='https://example.org/c']"),
        ('gdal = { url = "https://x.example/a-1-0.conda" }', "https://x.example/a-1-0.conda"),
        ('gdal.version = ">=3"', "gdal >=3"),
    ],
)  # fmt: skip
def test_conda_packages(folder: Folder, entry: str, text: str) -> None:
    assert conda(folder, entry) == (text,)


def test_an_archive_in_the_workspace(folder: Folder) -> None:
    assert conda(folder, 'a = { path = "./a-1-0.conda" }') == (
        (folder.path / "a-1-0.conda").as_uri(),
    )


@cases(
    ("entry", "python", "left"),
    [
        ('python = "*"', None, ()),
        ('python = ">=3.9,<3.12"', ">=3.9,<3.12", ()),
        ('python = "3.11.*"', "==3.11.*", ()),
        ('python = "3.11"', "==3.11", ()),
        ('python = "3.10|3.11"', None, ("python 3.10|3.11",)),
        ('python = { version = "3.11.*", build = "*_cpython" }', None,
         ("python[version='3.11.*', build='*_cpython']",)),
        ('python = { version = "3.11.*", channel = "x" }', None, ("x::python 3.11.*",)),
    ],
)  # fmt: skip
def test_python(folder: Folder, entry: str, python: str | None, left: tuple[str, ...]) -> None:
    spec = folder.read("pixi.toml", f"{HEAD}[dependencies]\n{entry}\n")
    assert spec.python == python
    assert spec.conda == left


@cases(
    ("entry", "text"),
    [
        ('a = "*"', "a"),
        ('a = "~=3.5.0"', "a~=3.5.0"),
        ('a = { version = ">=1", extras = ["x", "y"] }', "a[x,y]>=1"),
        ('a = { version = "*", extras = ["x"] }', "a[x]"),
        ('a = { git = "https://example.org/a.git" }', "a @ git+https://example.org/a.git"),
        ('a = { git = "https://example.org/a.git", branch = "b", subdirectory = "s" }',
         "a @ git+https://example.org/a.git@b#subdirectory=s"),
        ('a = { git = "git@x.example:y.git", tag = "1" }', "a @ git+ssh://git@x.example/y.git@1"),
        ('a = { url = "https://example.org/a-1-py3-none-any.whl", extras = ["x"] }',
         "a[x] @ https://example.org/a-1-py3-none-any.whl"),
        ('a = { version = ">=1", env-markers = "sys_platform == \'linux\'" }',
         "a>=1 ; sys_platform == 'linux'"),
    ],
)  # fmt: skip
def test_pypi_packages(folder: Folder, entry: str, text: str) -> None:
    spec = folder.read("pixi.toml", f"{HEAD}[pypi-dependencies]\n{entry}\n")
    assert spec.pypi == (text,)


def test_projects_in_the_workspace(folder: Folder) -> None:
    (folder.path / "my tool").mkdir()
    spec = folder.read(
        "pixi.toml",
        f"{HEAD}[pypi-dependencies]\n"
        'a = { path = "./my tool", editable = true, extras = ["x"] }\n'
        'b = { path = "my tool" }\n',
    )
    assert spec.editable == (f"{folder.path / 'my tool'}[x]",)
    assert spec.pypi == (f"b @ {(folder.path / 'my tool').as_uri()}",)


def test_tables_of_this_platform_override_the_general_ones(folder: Folder) -> None:
    spec = folder.read(
        "pixi.toml",
        HEAD
        + """
        [dependencies]
        a = "1.*"
        b = "1.*"
        [target.linux-64.dependencies]
        a = "4.*"
        [target.unix.dependencies]
        a = "2.*"
        b = "2.*"
        c = "2.*"
        [target.linux.dependencies]
        a = "3.*"
        [target.win.dependencies]
        d = "*"
        [target.unix.activation.env]
        HOME_OF_A = "/a"
        [activation.env]
        HOME_OF_A = "nothing"
        B = "1"
        """.replace("        ", ""),
    )
    assert spec.conda == ("a 4.*", "b 2.*", "c 2.*")
    assert spec.variables == {"HOME_OF_A": "/a", "B": "1"}


MANY = """
[workspace]
channels = ["conda-forge"]
platforms = []
channel-priority = "flexible"
exclude-newer = "2026-01-01"
[workspace.dependencies]
shared = ">=2"
table = { version = "1.*", build = "x*" }
[dependencies]
base = "*"
shared = { workspace = true }
[constraints]
openssl = ">=3"
[pypi-options]
extra-index-urls = ["https://a.example/simple"]
find-links = [{ path = "links" }, { url = "https://b.example" }]
no-build = true
[feature.cuda]
channels = ["nvidia", { channel = "first", priority = 1 }]
channel-priority = "disabled"
dependencies = { cuda = "12.*", table = { workspace = true, build = "y*" } }
[feature.test.dependencies]
pytest = "*"
base = ">=2"
[feature.test.pypi-options]
no-build = ["wheel"]
prerelease-mode = "allow"
[environments]
gpu = ["cuda", "test"]
lone = { features = ["test"], no-default-feature = true }
[environments.own]
features = ["test"]
dependencies = { mine = "*" }
solve-strategy = "lowest"
"""


def test_the_default_environment(folder: Folder) -> None:
    spec = folder.read("pixi.toml", MANY)
    assert spec.conda == ("base", "shared >=2")
    assert spec.conda_constraints == ("openssl >=3",)
    assert spec.channels == ("conda-forge",)
    assert spec.channel_priority == "flexible"
    assert spec.exclude_newer == "2026-01-01"
    assert spec.options.extra_index_urls == ("https://a.example/simple",)
    assert spec.options.find_links == (str(folder.path / "links"), "https://b.example")
    assert spec.options.only_binary == (":all:",)
    assert folder.read("pixi.toml", MANY, environment="default") == spec


def test_another_environment(folder: Folder) -> None:
    spec = folder.read("pixi.toml", MANY, environment="gpu")
    assert spec.conda == (
        "cuda 12.*", "table[version='1.*', build='y*']", "pytest", "base >=2", "base", "shared >=2"
    )  # fmt: skip
    assert spec.channels == ("first", "nvidia", "conda-forge")
    assert spec.channel_priority == "disabled"
    assert spec.options.prereleases


def test_an_environment_without_the_default_feature(folder: Folder) -> None:
    spec = folder.read("pixi.toml", MANY, environment="lone")
    assert spec.conda == ("pytest", "base >=2")
    assert spec.conda_constraints == ()
    assert spec.options.only_binary == ("wheel",)


def test_what_stands_in_the_environment_itself(folder: Folder) -> None:
    spec = folder.read("pixi.toml", MANY, environment="own")
    assert spec.conda == ("mine", "pytest", "base >=2", "base", "shared >=2")
    assert spec.strategy == "lowest"


def test_features_for_some_platforms(folder: Folder) -> None:
    text = (
        "[workspace]\nchannels = []\n"
        'platforms = [{ name = "gpu", platform = "linux-64", cuda = "12" }, "osx-64"]\n'
        '[feature.here]\nplatforms = ["gpu"]\n[feature.there]\nplatforms = ["osx-64"]\n'
        '[environments]\none = ["here"]\nother = ["there"]\n'
    )
    assert folder.read("pixi.toml", text, environment="one") == EnvironmentSpec(channels=())
    error = folder.fault("pixi.toml", text, environment="other")
    assert "feature.there.platforms has osx-64" in error.reason
    assert error.line == 7


def test_older_and_odd_manifests(folder: Folder) -> None:
    spec = folder.read(
        "pixi.toml",
        '[project]\nname = "x"\nchannels = []\n'
        'platforms = [{ platform = "linux-64", cuda = "12" }, { name = "win-64" }]\n'
        '[tasks]\na = "echo"\n[system-requirements]\ncuda = "12"\n',
    )
    assert spec == EnvironmentSpec(channels=())


def test_tables_over_several_lines(folder: Folder) -> None:
    """TOML 1.1, which pixi writes."""
    spec = folder.read(
        "pixi.toml",
        f'{HEAD}[dependencies]\ngdal = {{\n    version = ">=3",\n    build = "x",\n}}\n',
    )
    assert spec.conda == ("gdal[version='>=3', build='x']",)


WRONG: list[tuple[str, int | None, str, str]] = [
    ('[dependencies]\na = "1"\n', None, "no table [workspace]", "Add [workspace]"),
    ('[package]\nname = "a"\n', None, "only a package to build", "Add [workspace]"),
    (f"{HEAD}[dependancies]\n", 4, "dependancies is not known", "'dependencies'"),
    (
        f"{HEAD}[dependencies]\na = {{ git = 'https://x' }}\n",
        5,
        "built from its source",
        "pypi-dep",
    ),
    (f"{HEAD}[dependencies]\na = {{ workspace = true }}\n", 5, "has no 'a'", "Add 'a'"),
    (f"{HEAD}[dependencies]\na = ['1']\n", 5, "an array, not a table", ""),
    (f"{HEAD}[host-dependencies]\na = '1'\n", 4, "building packages", "Take it out"),
    (f"{HEAD}[pypi-dependencies]\na = {{ lfs = true, git = 'https://x' }}\n", 5, "Git LFS", ""),
    (f"{HEAD}[pypi-dependencies]\na = {{ edit = true }}\n", 5, "not known", ""),
    (f"{HEAD}[pypi-dependencies]\na = '<<1'\n", 5, "no requirement", ""),
    (f"{HEAD}[pypi-options]\nno-build-isolation = true\n", 5, "cannot be honoured", ""),
    (f"{HEAD}[pypi-options]\nindex-strategy = 'x'\n", 5, "is 'x'", "first-index"),
    (f"{HEAD}[exclude-newer]\na = '0d'\n", 4, "for each package", "[workspace]"),
    (f"{HEAD}[environments]\ndefault = ['x']\n", 5, "no feature 'x'", "Add [feature.x]"),
    (f"{HEAD}[feature.cuda]\n[environments]\ndefault = ['cude']\n", 6, "no feature", "'cuda'"),
    (f"{HEAD}[feature.x]\na = 1\n[environments]\ndefault = ['x']\n", 5, "not known", ""),
    ("[workspace]\nchannels = ['a']\nplatforms = ['osx-64']\n", 3, "machine is linux-64", "Add"),
    ("[workspace]\nchannels = ['a']\nplatforms = [1]\n", 3, "not an array of platforms", ""),
    ("[workspace]\nchannels = [1]\nplatforms = []\n", 2, "not an array of channels", ""),
    ("[workspace\n", 1, "no TOML", ""),
]


@cases(("text", "line", "reason", "remedy"), WRONG)
def test_what_is_malformed(
    folder: Folder, text: str, line: int | None, reason: str, remedy: str
) -> None:
    error = folder.fault("pixi.toml", text)
    assert reason in error.reason
    assert remedy in error.remedy
    assert error.line == line


def test_an_environment_that_is_not_there(folder: Folder) -> None:
    error = folder.fault("pixi.toml", MANY, environment="gpo")
    assert "no environment 'gpo'" in error.reason
    assert "'gpu'" in error.remedy
    error = folder.fault("pixi.toml", MANY, environment="something")
    assert "default, gpu, lone, own" in error.remedy


def test_choices_that_it_does_not_have(folder: Folder) -> None:
    assert "no groups" in folder.fault("pixi.toml", HEAD, groups=["a"]).reason


@pytest.mark.parametrize(
    ("system", "machine", "name", "selectors"),
    [
        ("Linux", "x86_64", "linux-64", ("unix", "linux", "linux-64")),
        ("Linux", "aarch64", "linux-aarch64", ("unix", "linux", "linux-aarch64")),
        ("Linux", "ppc64le", "linux-ppc64le", ("unix", "linux", "linux-ppc64le")),
        ("Darwin", "arm64", "osx-arm64", ("unix", "osx", "osx-arm64")),
        ("Darwin", "x86_64", "osx-64", ("unix", "osx", "osx-64")),
        ("Windows", "AMD64", "win-64", ("win", "win-64")),
        ("Windows", "ARM64", "win-arm64", ("win", "win-arm64")),
    ],
)
def test_platforms(
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    machine: str,
    name: str,
    selectors: tuple[str, ...],
) -> None:
    monkeypatch.setattr(platforms.platform, "system", lambda: system)
    monkeypatch.setattr(platforms.platform, "machine", lambda: machine)
    assert platforms.subdir() == name
    assert platforms.selectors(name) == selectors
