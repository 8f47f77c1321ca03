"""``pyproject.toml``: the project, its extras and groups, and the tables of uv and pixi."""

from __future__ import annotations

from tests.support.cases import cases
from tests.unit.specs.files import Folder
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.environment.subdir import subdir

PROJECT = """
[project]
name = "My.Tool"
requires-python = ">=3.9"
dependencies = ["numpy<2", "rich"]

[project.optional-dependencies]
gui = ["pyside6"]
all = ["my_tool[gui, extra]", "tqdm"]
extra = ["httpx"]

[dependency-groups]
test = ["pytest>=8", { include-group = "Typing_Tools" }]
typing-tools = ["mypy"]
"""


def test_the_dependencies_of_a_project(folder: Folder) -> None:
    spec = folder.read("pyproject.toml", PROJECT)
    assert spec == EnvironmentSpec(python=">=3.9", pypi=("numpy<2", "rich"))


def test_extras_and_groups_that_are_wanted(folder: Folder) -> None:
    spec = folder.read("pyproject.toml", PROJECT, extras=["all"], groups=["Test"])
    assert spec.pypi == ("numpy<2", "rich", "pyside6", "httpx", "tqdm", "pytest>=8", "mypy")


def test_groups_alone(folder: Folder) -> None:
    text = '[dependency-groups]\ntest = ["pytest"]\n'
    assert folder.read("pyproject.toml", text, groups=["test"]).pypi == ("pytest",)
    assert "groups=('test',)" in folder.fault("pyproject.toml", text).remedy


def test_a_project_that_can_be_built_is_installed_too(folder: Folder) -> None:
    built = (
        PROJECT + '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    )
    spec = folder.read("pyproject.toml", built)
    assert spec.editable == (str(folder.path),)
    assert spec.pypi == ("numpy<2", "rich")
    spec = folder.read("pyproject.toml", built, extras=["gui", "extra"])
    assert spec.editable == (f"{folder.path}[gui,extra]",)
    not_package = built + "[tool.uv]\npackage = false\n"
    assert folder.read("pyproject.toml", not_package).editable == ()
    package = PROJECT + "[tool.uv]\npackage = true\n"
    assert folder.read("pyproject.toml", package).editable == (str(folder.path),)


def test_dependencies_that_the_build_finds_out(folder: Folder) -> None:
    text = '[project]\nname = "a"\ndynamic = ["dependencies", "optional-dependencies"]\n'
    error = folder.fault("pyproject.toml", text)
    assert error.line == 3
    assert "[build-system]" in error.remedy
    spec = folder.read("pyproject.toml", text + "[build-system]\nrequires = []\n", extras=["x"])
    assert spec.editable == (f"{folder.path}[x]",)


def test_sources_of_uv(folder: Folder) -> None:
    spec = folder.read(
        "pyproject.toml",
        PROJECT
        + """
[tool.uv]
default-groups = ["test"]
some-setting-of-a-later-uv = 1
[tool.uv.sources]
rich = { git = "https://example.org/rich" }
pyside6 = [{ index = "https://a.example/simple", extra = "gui" }]
numpy = [{ url = "https://example.org/numpy.whl", group = "test" }]
""",
        extras=["gui"],
    )
    assert spec.pypi == ("numpy<2", "rich @ git+https://example.org/rich", "pyside6")
    assert spec.options.sources == {"pyside6": "https://a.example/simple"}


def test_projects_of_a_workspace_of_uv(folder: Folder) -> None:
    root = '[project]\nname = "root"\n[tool.uv.workspace]\nmembers = ["packages/*"]\n'
    folder.write("pyproject.toml", root + 'exclude = ["packages/old"]\n')
    for name in ("old", "seeds", "no-project"):
        folder.write(f"packages/{name}/pyproject.toml", '[project]\nname = "Seeds_X"\n')
    folder.write("packages/no-project/pyproject.toml", "")
    spec = folder.read(
        "packages/bird/pyproject.toml",
        '[project]\nname = "bird"\ndependencies = ["seeds-x[fast]", "root"]\n[tool.uv.sources]\n'
        "seeds-x = { workspace = true }\nroot = { workspace = true }\n",
    )
    assert spec.editable == (f"{folder.path / 'packages/seeds'}[fast]", str(folder.path))
    error = folder.fault(
        "packages/bird/pyproject.toml",
        '[project]\nname = "bird"\ndependencies = ["none"]\n[tool.uv.sources]\n'
        "none = { workspace = true }\n",
    )
    assert "has no project 'none'" in error.reason
    assert error.line == 5


PIXI = (
    PROJECT
    + f"""
[tool.pixi.workspace]
channels = ["conda-forge"]
platforms = ["{subdir()}"]
[tool.pixi.dependencies]
numpy = ">=1.26"
[tool.pixi.pypi-dependencies]
my-tool = {{ path = ".", editable = true }}
[tool.pixi.feature.gpu.dependencies]
cuda = "*"
[tool.pixi.environments]
test = ["test", "gpu"]
"""
)


def test_tables_of_pixi(folder: Folder) -> None:
    spec = folder.read("pyproject.toml", PIXI)
    assert spec.python == ">=3.9"
    assert spec.conda == ("numpy >=1.26",)
    assert spec.pypi == ("rich",)  # numpy is there from conda
    assert spec.editable == (str(folder.path),)


def test_groups_are_features_of_pixi(folder: Folder) -> None:
    spec = folder.read("pyproject.toml", PIXI, environment="test")
    assert spec.conda == ("cuda", "numpy >=1.26")
    assert set(spec.pypi) == {"rich", "pytest>=8", "mypy"}


def test_how_pixi_builds_a_package_is_of_no_account(folder: Folder) -> None:
    text = PROJECT + '[tool.pixi.package.build]\nbackend = { name = "pixi-build-python" }\n'
    assert folder.read("pyproject.toml", text).pypi == ("numpy<2", "rich")


WRONG: list[tuple[str, int | None, str, str]] = [
    ("[tool.other]\nx = 1\n", None, "neither [project] nor [tool.pixi]", "Add [project]"),
    ("[tool.poetry]\nname = 'x'\n[tool.poetry.dependencies]\n", 1, "Poetry", "export"),
    ("[project]\ndependencies = 'a'\n", 2, "not an array", '["a"]'),
    ("[project]\ndependencies = ['a', 'b<<1']\n", 2, "'b<<1'", "numpy"),
    ("[project]\nrequires-python = 'x'\n", 2, "no set of versions", ">=3.9"),
    (
        "[project]\nname = 'a'\n[tool.pixi.dependencies]\nb = '1'\n",
        None,
        "[tool.pixi.workspace]",
        "Add",
    ),
    ("project = 1\n", 1, "is a number, not a table", "[project]"),
]


@cases(("text", "line", "reason", "remedy"), WRONG)
def test_what_is_malformed(
    folder: Folder, text: str, line: int | None, reason: str, remedy: str
) -> None:
    error = folder.fault("pyproject.toml", text)
    assert reason in error.reason
    assert remedy in error.remedy
    assert error.line == line


CHOICES = [
    ({"groups": ["tst"]}, "no dependency group 'tst'", "'test'"),
    ({"extras": ["guy"]}, "no extra 'guy'", "'gui'"),
    ({"extras": ["zzzz"]}, "no extra 'zzzz'", "gui, all, extra"),
    ({"environment": "x"}, "no [tool.pixi]", "groups"),
]


@cases(("wanted", "reason", "remedy"), CHOICES)
def test_choices_that_are_not_there(
    folder: Folder, wanted: dict[str, object], reason: str, remedy: str
) -> None:
    error = folder.fault("pyproject.toml", PROJECT, **wanted)
    assert reason in error.reason
    assert remedy in error.remedy


GROUPS = [
    ("a = [{ include-group = 'b' }]\nb = [{ include-group = 'a' }]", "includes itself"),
    ("a = [{ include-group = 'c' }]", "no dependency group 'c'"),
    ("a = [{ include = 'b' }]", "holds {'include': 'b'}"),
    ("a = 'pytest'", "not an array"),
    ("a = [1]", "holds 1"),
    ("A-b = []\na_B = []\na = [{ include-group = 'a.b' }]", "are one group"),
]


@cases(("lines", "reason"), GROUPS)
def test_malformed_groups(folder: Folder, lines: str, reason: str) -> None:
    text = f"[dependency-groups]\n{lines}\n"
    error = folder.fault("pyproject.toml", text, groups=["a"])
    assert reason in error.reason
    assert error.line is not None


def test_an_extra_that_asks_for_itself(folder: Folder) -> None:
    text = "[project]\nname = 'x'\n[project.optional-dependencies]\na = ['x[b]']\nb = ['x[a]']\n"
    error = folder.fault("pyproject.toml", text, extras=["a"])
    assert "asks for itself" in error.reason
    assert error.line == 4
