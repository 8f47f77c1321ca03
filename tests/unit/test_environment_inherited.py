"""Which of the host's variables an environment gets.

Nothing is started; the host is a dictionary.
"""

from __future__ import annotations

import json
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.integration import fakes
from tests.support.cases import cases
from wetlands_executor.environment import Environment
from wetlands_executor.environment.activate import activation
from wetlands_executor.environment.inherited import TABLE, without_leaks

PAGE = Path(__file__).parents[2] / "docs" / "environments.md"
HOST = "/r/envs/host"


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fakes.isolate(monkeypatch, tmp_path / "home")


def left(name: str, value: str, prefix: str = "/r/envs/other", **host: str) -> str | None:
    return without_leaks({"CONDA_PREFIX": HOST, **host, name: value}, prefix).get(name)


def test_the_page_has_the_same_table() -> None:
    rows = []
    for names, when, why in TABLE:
        shown = "all" if names == ("*",) else ", ".join(f"`{name}`" for name in names)
        rows.append(f"| {shown} | {when or 'always'} | {why} |")
    page = PAGE.read_text(encoding="utf-8").splitlines()
    start = page.index("| Variables | Removed if | Why |")
    assert page[start + 2 : start + 2 + len(rows)] == rows
    assert not page[start + 2 + len(rows)].startswith("|")


@cases("name", [name for names, when, _ in TABLE if not when for name in names])
def test_names_that_are_always_removed(name: str) -> None:
    assert left(name.replace("*", "1_X"), "anything") is None


@cases(
    "value",
    ["module://matplotlib_inline.backend_inline", "module://backend_interagg",
     "module://ipykernel.pylab.backend_inline", "ipympl", "inline",
     "widget", "nbagg", "notebook", "module://mine", ""],
)  # fmt: skip
def test_backends_of_notebooks_and_tools(value: str) -> None:
    assert left("MPLBACKEND", value) is None


@cases("value", ["agg", "Agg", "QtAgg", "TkAgg", "svg", "module://matplotlib.backends.backend_agg"])
def test_backends_that_matplotlib_has_itself(value: str) -> None:
    assert left("MPLBACKEND", value) == value


@cases(
    ("value", "expected"),
    [
        (f"{HOST}/share/proj", None),
        (HOST, None),
        (f"{HOST}/", None),
        (f"-O2 -isystem {HOST}/include", None),
        (f"-I{HOST}/include", None),
        (f"-Wl,-O2 -Wl,-rpath,{HOST}/lib -L{HOST}/lib", None),
        (f"file://{HOST}/etc/xml/catalog file:///etc/xml/catalog", None),
        (f"--prefix={HOST}", None),
        (f"{HOST}/lib:/opt/lib:{HOST}/lib64", "/opt/lib"),
        (f"/opt/lib:{HOST}/lib:", "/opt/lib:"),
        (f"{HOST}/lib:", None),
        ("/r/envs/host2/share", "/r/envs/host2/share"),
        (f"/data{HOST}/share", f"/data{HOST}/share"),
        ("/r/envs/other/share", "/r/envs/other/share"),
        ("-I/r/envs/host2", "-I/r/envs/host2"),
        ("plain", "plain"),
    ],
)
def test_values_that_point_into_the_host(value: str, expected: str | None) -> None:
    assert left("SOME_DATA", value) == expected


def test_preloaded_libraries() -> None:
    assert left("LD_PRELOAD", f"{HOST}/lib/libjemalloc.so /opt/b.so") == "/opt/b.so"
    assert left("LD_PRELOAD", f"{HOST}/lib/libjemalloc.so") is None


@cases(
    "name",
    [
        "CONDA_EXE",
        "CONDA_PYTHON_EXE",
        "MAMBA_ROOT_PREFIX",
        "CONDA_PKGS_DIRS",
        "HOME",
        "PATH",
        "TMPDIR",
    ],
)
def test_where_managers_and_homes_are_stays(name: str) -> None:
    assert left(name, f"{HOST}/x") == f"{HOST}/x"


def test_an_active_root_is_not_its_other_environments() -> None:
    host = {
        "CONDA_PREFIX": "/r",
        "A": "/r/envs/other/share",
        "B": "/r/share",
        "C": "/r/pkgs",
        "D": "/r/envs/other/lib:/r/lib",
    }
    assert without_leaks(host, "/r/envs/other") == {
        "A": host["A"],
        "C": host["C"],
        "D": "/r/envs/other/lib",
    }


def test_what_points_into_the_environment_itself_stays() -> None:
    assert left("SOME_DATA", f"{HOST}/share", HOST) == f"{HOST}/share"
    assert left("SOME_DATA", f"{HOST}/inner/share", f"{HOST}/inner") == f"{HOST}/inner/share"


def test_stacked_environments_are_active_both() -> None:
    stacked = {"CONDA_PREFIX_1": "/r/envs/below", "CONDA_STACKED_2": "true"}
    assert left("SOME_DATA", "/r/envs/below/share", **stacked) is None
    del stacked["CONDA_STACKED_2"]
    assert left("SOME_DATA", "/r/envs/below/share", **stacked) == "/r/envs/below/share"


def test_a_link_to_the_prefix_is_the_prefix(tmp_path: Path) -> None:
    (tmp_path / "real" / "share").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    host = {
        "CONDA_PREFIX": str(tmp_path / "link"),
        "A": f"{tmp_path}/link/share",
        "B": f"{tmp_path}/real/share",
    }
    assert without_leaks(host, "/other") == {}


def test_virtual_environment_of_the_host() -> None:
    host = {
        "VIRTUAL_ENV": "/p",
        "PLUGINS": "/p/lib/python3.11/site-packages/cv2/qt/plugins",
        "DATA": "/p/data",
        "CERT": "/p/lib/cacert.pem",
    }
    assert without_leaks(host, "/other") == {"DATA": "/p/data"}


def test_libraries_of_this_interpreter() -> None:
    """What an import has set (cv2 sets QT_QPA_PLATFORM_PLUGIN_PATH), whether or not anything is
    active.
    """
    value = f"{sysconfig.get_path('purelib')}/cv2/qt/plugins"
    assert without_leaks({"QT_QPA_PLATFORM_PLUGIN_PATH": value}, "/other") == {}
    assert without_leaks({"QT_QPA_PLATFORM_PLUGIN_PATH": value}, sys.prefix) == {
        "QT_QPA_PLATFORM_PLUGIN_PATH": value
    }


def test_what_the_host_environment_declares(tmp_path: Path) -> None:
    prefix = fakes.conda(tmp_path / "host")
    (prefix / "etc" / "conda" / "env_vars.d").mkdir(parents=True)
    (prefix / "etc" / "conda" / "env_vars.d" / "p.json").write_text(
        '{"MODE": "package", "lower": "x"}'
    )
    (prefix / "conda-meta" / "state").write_text(
        json.dumps({"env_vars": {"API": "test", "BACK": "declared", "MINE": "a"}})
    )
    host = {
        "CONDA_PREFIX": str(prefix), "CONDA_SHLVL": "2", "MODE": "package", "LOWER": "x",
        "API": "test", "BACK": "declared",
        "__CONDA_SHLVL_1_BACK": "before", "MINE": "changed since",
    }  # fmt: skip
    assert without_leaks(host, "/other") == {"BACK": "before", "MINE": "changed since"}
    assert without_leaks(host, str(prefix)).keys() >= {"MODE", "LOWER", "API", "BACK", "MINE"}
    (prefix / "conda-meta" / "state").write_text("{")
    assert without_leaks(host, "/other")["API"] == "test"


def test_activation_of_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to start there, and the one that keeps everything: this very environment."""
    other = Environment.find(fakes.conda(tmp_path / "other"))
    for name, value in {
        "CONDA_PREFIX": HOST,
        "PROJ_DATA": f"{HOST}/share/proj",
        "MPLBACKEND": "module://x",
        "LD_LIBRARY_PATH": "/a",
    }.items():
        monkeypatch.setenv(name, value)
    for env in (activation(other), other.launch_spec(activate=False).env):
        assert "PROJ_DATA" not in env
        assert "MPLBACKEND" not in env
        assert env["LD_LIBRARY_PATH"] == "/a"
    assert other.launch_spec(worker_env={"PROJ_DATA": "/mine"}).env["PROJ_DATA"] == "/mine"
    here = activation(Environment.find(None))
    assert (here["PROJ_DATA"], here["MPLBACKEND"]) == (f"{HOST}/share/proj", "module://x")
