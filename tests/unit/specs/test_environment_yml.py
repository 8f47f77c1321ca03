"""``environment.yml`` of conda and mamba."""

from __future__ import annotations

import pytest  # noqa: TC002 - for annotations, as elsewhere

from tests.support.cases import cases
from tests.unit.specs.files import Folder
from wetlands_executor.environment import subdir as platforms
from wetlands_executor.environment.spec import EnvironmentSpec

EXAMPLE = """
name: stats
channels:
  - conda-forge
  - nodefaults
  - https://me:secret@example.org/channel
dependencies:
  - python=3.10   # or 3.11
  - numpy>=1.26, <2
  - bioconda::samtools
  - "pip"
  - pip:
      - flask-testing
      - --extra-index-url https://a.example/simple
      - torch==2.1 ; sys_platform != 'darwin'
prefix: /somewhere
variables:
  A: yes
  B: 1.10
  C: "x y"
"""


def test_an_ordinary_file(folder: Folder) -> None:
    spec = folder.read("environment.yml", EXAMPLE)
    assert spec.python == "==3.10.*"
    assert spec.conda == ("numpy>=1.26,<2", "bioconda::samtools", "pip")
    assert spec.pypi == ("flask-testing", "torch==2.1 ; sys_platform != 'darwin'")
    assert spec.channels == ("conda-forge", "https://me:secret@example.org/channel")
    assert spec.options.extra_index_urls == ("https://a.example/simple",)
    # as they are written, not what YAML 1.1 makes of them
    assert spec.variables == {"A": "yes", "B": "1.10", "C": "x y"}
    assert spec.needs_conda


def test_python_and_pip_alone_do_not_need_conda(folder: Folder) -> None:
    spec = folder.read(
        "environment.yml", "dependencies: [python>=3.9, pip, {pip: [numpy]}]\nname: x\n"
    )
    assert spec.python == ">=3.9"
    assert spec.pypi == ("numpy",)
    assert spec.channels == ("conda-forge",)
    assert not spec.needs_conda


@cases(
    ("entry", "python", "conda"),
    [
        ("python", None, ()),
        ("python=3.10.4", "==3.10.4.*", ()),
        ("python 3.10", "==3.10", ()),
        ("python=3.10=*_cpython", None, ("python=3.10=*_cpython",)),
        ("conda-forge::python=3.10", None, ("conda-forge::python=3.10",)),
        ("python =3.10", "==3.10.*", ()),
        ("3dchess", None, ("3dchess",)),
        ("python-dateutil", None, ("python-dateutil",)),
        ("r-base=4.3", None, ("r-base=4.3",)),
    ],
)
def test_python_and_what_is_called_alike(
    folder: Folder, entry: str, python: str | None, conda: tuple[str, ...]
) -> None:
    spec = folder.read("environment.yml", f"dependencies:\n  - {entry}\n")
    assert (spec.python, spec.conda) == (python, conda)


def test_editable_projects_and_files(folder: Folder) -> None:
    (folder.path / "tool").mkdir()
    folder.write("more.txt", "rich\n")
    spec = folder.read(
        "environment.yml",
        "dependencies:\n  - pip:\n    - -e ./tool[gui]\n    - -r more.txt\n",
    )
    assert spec.editable == (f"{folder.path / 'tool'}[gui]",)
    assert spec.pypi == ("rich",)


def test_selectors_of_micromamba(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "dependencies:\n  - a\n  - sel(unix): b\n  - sel(win): c\n  - sel(osx): d\n"
    monkeypatch.setattr(platforms.platform, "machine", lambda: "x86_64")
    for system, expected in (("Linux", ("a", "b")), ("Darwin", ("a", "b", "d"))):
        monkeypatch.setattr(platforms.platform, "system", lambda system=system: system)
        assert folder.read("environment.yml", text).conda == expected


def test_aliases_and_keys_of_other_tools(folder: Folder) -> None:
    spec = folder.read(
        "environment.yaml",
        "dependencies: &all\n  - a\ncategory: main\nplatforms: [linux-64]\nother: *all\n",
    )
    assert spec == EnvironmentSpec(conda=("a",))


WRONG: list[tuple[str, int | None, str, str]] = [
    ("", 1, "empty", "dependencies:"),
    ("# nothing\n", 1, "empty", "dependencies:"),
    ("name: x\n", 1, "lacks 'dependencies'", "dependencies:"),
    ("dependencies:\n", 1, "lacks 'dependencies'", "dependencies:"),
    ("name: x\ndependancies:\n  - a\n", 3, "'dependancies' is not known", "'dependencies'"),
    ("dependencies:\n  a: 1\n", 2, "dependencies is no list", "'- '"),
    ("dependencies: numpy\n", 1, "dependencies is no list", "'- '"),
    ("- a\n", 1, "no mapping", "key: value"),
    ("dependencies:\n  - a\n  - 'b c]'\n  - '?'\n", 4, "no conda package", "Write it like"),
    ("dependencies:\n  - a\n  -\n", 3, "is no text", "Write one value"),
    ("dependencies:\n  - [a]\n", 2, "is no text", "Write one value"),
    ("dependencies:\n  - npm: [a]\n", 2, "packages of 'npm'", "pip:"),
    ("dependencies:\n  - pip: numpy\n", 2, "is no list", "'- '"),
    ("dependencies:\n  - pip:\n    - a\n    - b<<1\n", 4, "no requirement", "Write it like"),
    ("dependencies: [a]\nchannels: x\n", 2, "channels is no list", "'- '"),
    ("dependencies: [a]\nchannels:\n  - {}\n", 3, "is no text", "Write one value"),
    ("dependencies: [a]\nvariables: [A=1]\n", 2, "no mapping", "key: value"),
    ("dependencies: [a]\nvariables:\n  A:\n", 3, "has no value", "Write one"),
    ("dependencies: [a]\nvariables:\n  A=B: 1\n", 3, "no process can have", ""),
    ("dependencies:\n\t- a\n", 2, "no YAML", "tabs"),
    ("dependencies: [a\n", 2, "no YAML", "Correct"),
    ("dependencies: *x\n", 1, "no YAML", "Correct"),
    ("dependencies:\n  - a: &x [*x]\n", 2, "", ""),
]


@cases(("text", "line", "reason", "remedy"), WRONG)
def test_what_is_malformed(
    folder: Folder, text: str, line: int | None, reason: str, remedy: str
) -> None:
    error = folder.fault("environment.yml", text)
    assert reason in error.reason
    assert remedy in error.remedy
    assert error.line == line


def test_aliases_of_aliases_cost_nothing(folder: Folder) -> None:
    """Each level doubles what it stands for; nothing of it is written out."""
    lines = ["dependencies: [a]", "l0: &l0 [x, x]"]
    lines += [f"l{n}: &l{n} [*l{n - 1}, *l{n - 1}]" for n in range(1, 15)]
    assert folder.read("environment.yml", "\n".join(lines)).conda == ("a",)
    lines += [f"l{n}: &l{n} [*l{n - 1}, *l{n - 1}]" for n in range(15, 60)]
    assert "too deep" in folder.fault("environment.yml", "\n".join(lines)).reason


def test_choices_that_it_does_not_have(folder: Folder) -> None:
    assert "no groups" in folder.fault("environment.yml", EXAMPLE, environment="x").reason
