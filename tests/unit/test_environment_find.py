"""What a word, a path or an object stands for.

Fake environments of empty files; nothing is started.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.integration import fakes
from tests.support.cases import cases
from wetlands_executor.environment import Environment, _platform
from wetlands_executor.environment.condarc import parse_envs_dirs
from wetlands_executor.errors import EnvironmentNotFoundError


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    fakes.isolate(monkeypatch, tmp_path / "home")

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("find() started a process")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "system", refuse)
    return tmp_path / "home"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def failure(what: object) -> str:
    with pytest.raises(EnvironmentNotFoundError) as caught:
        Environment.find(what)
    return str(caught.value)


# -------------------------------------------------------------------------------------------- paths


def test_none_is_this_environment() -> None:
    assert (
        Environment.find(None)
        == Environment.find()
        == Environment(None, Path(sys.prefix), Path(sys.executable), "current")
    )


def test_environment_is_a_value(tmp_path: Path) -> None:
    found = Environment.find(fakes.conda(tmp_path / "a"))
    assert pickle.loads(pickle.dumps(found)) == found
    assert {found: 1}[Environment.find(str(tmp_path / "a"))] == 1
    assert Environment.find(found) is found
    with pytest.raises(AttributeError):
        found.name = "other"  # type: ignore[misc]


def test_conda_prefix_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = fakes.conda(tmp_path / "home" / "x")
    expected = Environment("x", prefix, prefix / "bin" / "python", "conda")
    monkeypatch.chdir(prefix.parent)
    for what in (
        prefix,
        str(prefix),
        f"{prefix}/",
        "~/x",
        "./x",
        Path("x"),
        Path("~/x"),
        prefix / "bin" / "python",
    ):
        assert Environment.find(what) == expected
    monkeypatch.chdir(prefix)
    assert Environment.find(".") == expected


def test_python3_alone_is_an_interpreter(tmp_path: Path) -> None:
    fakes.interpreter(tmp_path / "p" / "bin" / "python3")
    assert Environment.find(tmp_path / "p") == Environment(
        None, tmp_path / "p", tmp_path / "p/bin/python3", "python"
    )


def test_venv_link_is_not_resolved(tmp_path: Path) -> None:
    prefix = fakes.venv(tmp_path / "v")
    expected = Environment("v", prefix, prefix / "bin" / "python", "venv")
    assert Environment.find(prefix) == expected
    assert Environment.find(prefix / "bin" / "python") == expected
    (prefix / "bin" / "python3").symlink_to("python")
    assert Environment.find(prefix / "bin" / "python3").python == prefix / "bin" / "python3"


def test_plain_interpreter(tmp_path: Path) -> None:
    python = fakes.interpreter(tmp_path / "opt" / "bin" / "python3.9")
    assert Environment.find(str(python)) == Environment(None, tmp_path / "opt", python, "python")
    lone = fakes.interpreter(tmp_path / "opt" / "lone" / "python")
    assert Environment.find(str(lone)).prefix == lone.parent


def test_link_from_elsewhere_into_a_conda_prefix(tmp_path: Path) -> None:
    prefix = fakes.conda(tmp_path / "c")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "py").symlink_to(prefix / "bin" / "python")
    found = Environment.find(tmp_path / "tools" / "py")
    assert (found.kind, found.prefix, found.python) == ("conda", prefix, tmp_path / "tools" / "py")


@pytest.mark.parametrize("manifest", ["pixi.toml", "pyproject.toml"])
def test_pixi_project(tmp_path: Path, manifest: str) -> None:
    project = tmp_path / "proj"
    write(project / manifest, "[project]\nname = 'p'\n\n[tool.pixi.dependencies]\npython = '*'\n")
    assert "pixi install" in failure(project)
    cuda = fakes.conda(project / ".pixi" / "envs" / "cuda")
    assert Environment.find(project) == Environment(
        "proj:cuda", cuda, cuda / "bin" / "python", "pixi"
    )
    cpu = fakes.conda(project / ".pixi" / "envs" / "cpu")
    message = failure(project)
    assert str(cuda) in message
    assert str(cpu) in message
    default = fakes.conda(project / ".pixi" / "envs" / "default")
    expected = Environment("proj", default, default / "bin" / "python", "pixi")
    assert (
        Environment.find(project)
        == Environment.find(project / manifest)
        == Environment.find(default)
        == expected
    )
    assert Environment.find(cpu).name == "proj:cpu"


def test_pyproject_without_pixi_is_no_pixi_project(tmp_path: Path) -> None:
    write(tmp_path / "p" / "pyproject.toml", "# [tool.pixi]\n[tool.pixiedust]\n")
    fakes.venv(tmp_path / "p" / ".venv")
    message = failure(tmp_path / "p")
    assert "no Python environment" in message
    assert repr(str(tmp_path / "p" / ".venv")) in message


@pytest.mark.parametrize("attribute", ["prefix", "path", "base"])
def test_objects_of_other_libraries(tmp_path: Path, attribute: str) -> None:
    prefix = fakes.conda(tmp_path / "x")
    assert Environment.find(SimpleNamespace(**{attribute: str(prefix)})) == Environment.find(
        SimpleNamespace(prefix=None, path=prefix)
    )


def test_environments_of_appose(tmp_path: Path) -> None:
    """From its version 0.12 on ``base`` is a method."""
    prefix = fakes.conda(tmp_path / "x")
    found = Environment.find(SimpleNamespace(base=lambda: str(prefix)))
    assert found == Environment.find(prefix)


# ------------------------------------------------------------------------------------------- errors


def test_numbers_and_other_things_are_type_errors() -> None:
    with pytest.raises(TypeError, match="max_workers=4"):
        Environment.find(4)
    for what in (True, 2.5, b"x", ["x"], SimpleNamespace(path=None), SimpleNamespace(prefix=3)):
        with pytest.raises(TypeError, match="is no environment") as caught:
            Environment.find(what)
        assert repr(what) in str(caught.value)


def test_bad_paths(tmp_path: Path) -> None:
    assert "''" in failure("")
    assert "NUL" in failure("a\0b")
    assert "does not exist" in failure(tmp_path / "nothing")
    assert "cannot be executed" in failure(write(tmp_path / "text", "x"))
    assert "no Python environment" in failure(tmp_path)
    assert "conda install" in failure(fakes.conda(tmp_path / "r", python=False))
    prefix = fakes.venv(tmp_path / "v")
    (tmp_path / "real-v" / "bin" / "python3.11").unlink()
    assert "is gone" in failure(prefix)
    assert "which does not exist" in failure(prefix / "bin" / "python")
    broken = fakes.conda(tmp_path / "b")
    (broken / "bin" / "python").chmod(0o644)
    assert "not executable" in failure(broken)


# -------------------------------------------------------------------------------------------- names


def test_places_that_variables_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (variable, value, folder) in enumerate(
        [
            ("CONDA_ENVS_DIRS", "{0}/a:{0}/b", "b"),
            ("CONDA_ENVS_PATH", "~/c", "home/c"),
            ("CONDA_EXE", "{0}/d/bin/conda", "d/envs"),
            ("CONDA_EXE", "{0}/d2/condabin/conda", "d2/envs"),
            ("MAMBA_ROOT_PREFIX", "{0}/e", "e/envs"),
            ("MAMBA_EXE", "{0}/f/bin/mamba", "f/envs"),
            ("CONDA_PREFIX", "{0}/g/envs/active", "g/envs"),
            ("CONDA_PREFIX", "{0}/h", "h/envs"),
        ]
    ):
        prefix = fakes.conda(tmp_path / folder / f"n{number}")
        with monkeypatch.context() as patch:
            patch.setenv(variable, value.format(tmp_path))
            assert Environment.find(f"n{number}") == Environment(
                f"n{number}", prefix, prefix / "bin" / "python", "conda"
            ), variable
            assert Environment.list() == [Environment.find(prefix)]
        assert f"n{number}" in failure(f"n{number}")


@pytest.mark.parametrize(
    "folder",
    [
        ".conda/envs",
        "micromamba/envs",
        ".local/share/mamba/envs",
        "miniforge3/envs",
        "anaconda3/envs",
    ],
)
def test_places_in_the_home_folder(home: Path, folder: str) -> None:
    prefix = fakes.conda(home / folder / "x")
    assert Environment.find("x").prefix == prefix
    assert [environment.prefix for environment in Environment.list()] == [prefix]


@pytest.mark.parametrize(
    "file",
    [
        ".condarc",
        ".conda/condarc",
        ".config/conda/.condarc",
        ".conda/condarc.d/a.yml",
        "miniconda3/.condarc",
    ],
)
def test_settings_files(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    prefix = fakes.conda(tmp_path / "shared" / "x")
    monkeypatch.setenv("SHARED", str(tmp_path / "shared"))
    write(home / file, "envs_dirs: [$SHARED]\n")
    assert Environment.find("x").prefix == prefix


def test_condarc_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = fakes.conda(tmp_path / "shared" / "x")
    monkeypatch.setenv(
        "CONDARC", str(write(tmp_path / "my.yml", f"envs_dirs:\n- {tmp_path}/shared\n"))
    )
    assert Environment.find("x").prefix == prefix


@cases(
    ("text", "expected"),
    [
        ("envs_dirs:\n  - /a\n  - ~/b # why\n", ["/a", "~/b"]),
        (
            (
                "# c\nchannels: [x]\nenvs_dirs:\n\n# in between\n- /a b/c\n- '/it''s'\n-   "
                '"/q\\"#\\x41"\nssl_verify: true\n- /no\n'
            ),
            ["/a b/c", "/it's", '/q"#A'],
        ),
        ("envs_dirs: [/a, '/b, c', \"/d#e\" ]  # end\n", ["/a", "/b, c", "/d#e"]),
        ("envs_dirs: [\n  /a, # one\n  /b c,\n]\nother: [/no]\n", ["/a", "/b c"]),
        ("envs_dirs: /a:/b\n", ["/a", "/b"]),
        ('"envs_path" : "/a"\r\n', ["/a"]),
        ("envs_dirs:\nother: 1\n", []),
        ("envs_dirs: []\n", []),
        ("envs_dirs: null\n", []),
        ("envs_dirs:\n  -\n  - ~\n  - /a\n", ["/a"]),
        ("nested:\n  envs_dirs:\n    - /no\n", []),
        ("my_envs_dirs: [/no]\nenvs_dirs_x: /no\n", []),
        ('envs_dirs: ["/never closed', []),
        ("envs_dirs: [/never, /closed", ["/never"]),
        ("envs_dirs:\n  - /a#b\n", ["/a#b"]),
        ("\0\n[[[\n- x", []),
        ("", []),
    ],
)
def test_the_yaml_that_is_understood(text: str, expected: list[str]) -> None:
    assert parse_envs_dirs(text) == expected


def test_list_of_environments_with_stale_lines(home: Path, tmp_path: Path) -> None:
    alone = fakes.conda(tmp_path / "project" / "env")
    write(
        home / ".conda" / "environments.txt",
        f"/gone/envs/env\n\nenv\n{alone}/\n{alone}\n# {alone}\n",
    )
    assert Environment.find("env").prefix == alone
    assert [environment.prefix for environment in Environment.list()] == [alone]


def test_ambiguous_name_lists_the_candidates_once(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = fakes.conda(tmp_path / "a" / "x"), fakes.conda(home / ".conda" / "envs" / "x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    monkeypatch.setenv("CONDA_ENVS_DIRS", f"{tmp_path}/a:{tmp_path}/link")
    message = failure("x")
    assert message.startswith("2 environments are called 'x'")
    assert message.index(str(one)) < message.index(str(two))
    assert len(Environment.list()) == 2


def test_one_environment_reached_in_two_ways(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = fakes.conda(tmp_path / "a" / "x")
    (home / "miniforge3").mkdir()
    (home / "miniforge3" / "envs").symlink_to(tmp_path / "a")
    monkeypatch.setenv("CONDA_ENVS_DIRS", str(tmp_path / "a"))
    assert Environment.find("x").prefix == prefix
    assert len(Environment.list()) == 1


def test_missing_name(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.conda(home / ".conda" / "envs" / "cellpose")
    monkeypatch.chdir(tmp_path)
    message = failure("celpose")
    assert "did you mean 'cellpose'?" in message
    assert str(home / ".conda" / "envs") in message
    assert str(home / ".conda" / "environments.txt") in message
    assert "./" not in message
    fakes.conda(tmp_path / "celpose")
    assert repr("./celpose") in failure("celpose")
    fakes.interpreter(tmp_path / "path" / "python3.77")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert str(tmp_path / "path" / "python3.77") in failure("python3.77")


def test_named_folder_that_is_no_environment_is_passed_over(home: Path) -> None:
    (home / ".conda" / "envs" / "x" / "conda-meta").mkdir(parents=True)
    assert "no environment is called" in failure("x")
    fakes.conda(home / ".conda" / "envs" / "r", python=False)
    assert "has no Python" in failure("r")
    assert Environment.list() == []


def test_base(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no environment is called 'base'" in failure("base")
    usual = fakes.conda(home / "miniforge3")
    assert (
        Environment.find("base")
        == Environment.find("root")
        == Environment("base", usual, usual / "bin" / "python", "conda")
    )
    assert Environment.find(usual).name == "base"
    fakes.conda(home / "anaconda3")
    assert failure("base").startswith("2 environments are called 'base'")
    used = fakes.conda(tmp_path / "used")
    monkeypatch.setenv("CONDA_EXE", str(used / "bin" / "conda"))
    assert Environment.find("base").prefix == used
    assert [environment.name for environment in Environment.list()] == ["base"] * 3


def test_conda_within_an_environment_does_not_make_it_base(home: Path) -> None:
    prefix = fakes.conda(home / ".conda" / "envs" / "tools")
    (prefix / "condabin").mkdir()
    assert Environment.find("tools").name == Environment.find(prefix).name == "tools"


def test_everything_listed_can_be_found(home: Path, tmp_path: Path) -> None:
    for name in ("b", "a"):
        fakes.conda(home / "miniconda3" / "envs" / name)
    fakes.conda(home / "miniconda3")
    pixi = fakes.conda(tmp_path / "proj" / ".pixi" / "envs" / "default")
    write(home / ".conda" / "environments.txt", f"{pixi}\n{tmp_path}\n")
    listed = Environment.list()
    assert [environment.name for environment in listed] == ["a", "b", "base", "proj"]
    for environment in listed:
        assert Environment.find(environment.prefix) == environment
        assert Environment.find(environment.name) == environment


def test_unreadable_places_are_passed_over(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = fakes.conda(home / ".conda" / "envs" / "x")
    (home / ".condarc").mkdir()
    (home / ".conda" / "environments.txt").mkdir()
    write(home / "micromamba" / "envs", "a file")
    (home / ".conda" / "condarc").write_bytes(b"\xff\xfe envs_dirs: [\n")
    real = os.listdir

    def listdir(folder: str) -> list[str]:
        if "miniforge3" in str(folder):
            raise PermissionError(13, "no", folder)
        return real(folder)

    monkeypatch.setattr(os, "listdir", listdir)
    assert [environment.prefix for environment in Environment.list()] == [prefix]
    assert Environment.find("x").prefix == prefix


def test_windows_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_platform, "WINDOWS", True)
    prefix = fakes.conda(tmp_path / "c", python=False)
    write(prefix / "python.exe", "")
    assert Environment.find(str(prefix)).python == prefix / "python.exe"
    assert Environment.find(str(prefix / "python.exe")) == Environment.find(str(prefix))
    write(tmp_path / "v" / "pyvenv.cfg", "")
    write(tmp_path / "v" / "Scripts" / "python.exe", "")
    assert Environment.find(str(tmp_path / "v")) == Environment.find(
        str(tmp_path / "v" / "Scripts" / "python.exe")
    )
    assert _platform.conda_path_dirs("P") == [
        "P",
        *(
            os.path.join("P", *p)
            for p in (
                ("Library", "mingw-w64", "bin"),
                ("Library", "usr", "bin"),
                ("Library", "bin"),
                ("Scripts",),
                ("bin",),
            )
        ),
    ]
    assert _platform.venv_path_dirs("P") == [os.path.join("P", "Scripts")]
    assert [
        word for word in ("a", "C:x", "a\\b", "a/b", "a b") if _platform.has_separator(word)
    ] == ["C:x", "a\\b", "a/b"]
    assert _platform.normalized({"Path": "x"}) == {"PATH": "x"}


# ------------------------------------------------------------------------ mamba, pixi, virtual ones


@pytest.mark.parametrize(
    "file",
    [
        ".mambarc",
        ".mamba/.mambarc",
        ".mamba/mambarc",
        ".mamba/mambarc.d/x.yml",
        ".config/mamba/.mambarc",
        ".config/mamba/mambarc",
    ],
)
def test_settings_of_mamba(home: Path, tmp_path: Path, file: str) -> None:
    prefix = fakes.conda(tmp_path / "shared" / "x")
    write(home / file, f"envs_dirs:\n  - {tmp_path}/shared\n")
    assert Environment.find("x").prefix == prefix


@pytest.mark.parametrize(
    "file", ["conda/.condarc", "conda/condarc.d/a.yaml", "mamba/.mambarc", "mamba/mambarc.d/a.yml"]
)
def test_settings_below_xdg_config_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    prefix = fakes.conda(tmp_path / "shared" / "x")
    write(tmp_path / "settings" / file, f"envs_dirs: [{tmp_path}/shared]\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    assert Environment.find("x").prefix == prefix


def test_mambarc_of_a_variable_and_of_a_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = fakes.conda(tmp_path / "a" / "x"), fakes.conda(tmp_path / "b" / "y")
    monkeypatch.setenv("MAMBARC", str(write(tmp_path / "my.yml", f"envs_dirs: [{tmp_path}/a]\n")))
    write(tmp_path / "root" / ".mambarc", f"envs_dirs: [{tmp_path}/b]\n")
    monkeypatch.setenv("MAMBA_ROOT_PREFIX", str(tmp_path / "root"))
    assert [Environment.find(name).prefix for name in ("x", "y")] == [first, second]


def test_default_root_of_mamba_below_xdg_data_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = fakes.conda(tmp_path / "data" / "mamba" / "envs" / "x")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert Environment.find("x") == Environment("x", prefix, prefix / "bin" / "python", "conda")


@pytest.mark.parametrize("record", ["pixi", "python-3.12.1-h1_0.json"])
def test_a_prefix_without_a_history(tmp_path: Path, record: str) -> None:
    project = tmp_path / "proj"
    write(project / "pixi.toml", "[workspace]\n")
    prefix = fakes.conda(project / ".pixi" / "envs" / "default")
    (prefix / "conda-meta" / "history").unlink()
    write(prefix / "conda-meta" / record, "{}")
    expected = Environment("proj", prefix, prefix / "bin" / "python", "pixi")
    assert (
        Environment.find(project)
        == Environment.find(prefix)
        == Environment.find(prefix / "bin" / "python")
        == expected
    )


def test_an_empty_conda_meta_is_no_environment(tmp_path: Path) -> None:
    (tmp_path / "x" / "conda-meta").mkdir(parents=True)
    assert "no Python environment" in failure(tmp_path / "x")


@pytest.mark.parametrize("where", ["home/.pixi", "elsewhere"])
def test_global_environments_of_pixi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    prefix = fakes.conda(tmp_path / where / "envs" / "ipython")
    if where == "elsewhere":
        monkeypatch.setenv("PIXI_HOME", str(tmp_path / where))
    expected = Environment("ipython", prefix, prefix / "bin" / "python", "pixi")
    assert Environment.find("ipython") == Environment.find(prefix) == expected
    assert Environment.list() == [expected]


def test_a_home_folder_that_is_a_pixi_project(home: Path) -> None:
    write(home / "pixi.toml", "[workspace]\n")
    prefix = fakes.conda(home / ".pixi" / "envs" / "default")
    assert Environment.find(home).name == "home"
    assert Environment.find(prefix).name == "home"


def test_a_virtual_environment_in_a_folder_of_environments(home: Path, tmp_path: Path) -> None:
    prefix = fakes.venv(home / "miniforge3" / "envs" / "mine")
    expected = Environment("mine", prefix, prefix / "bin" / "python", "venv")
    assert Environment.find("mine") == Environment.find(prefix) == expected
    assert expected in Environment.list()
    assert "'mine'" in failure("mime")
