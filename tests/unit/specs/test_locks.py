"""Lock files: ``pylock.toml``, ``uv.lock``, ``pixi.lock``, ``@EXPLICIT``."""

from __future__ import annotations

import pytest

from tests.support.cases import cases
from tests.unit.specs.files import Folder
from tests.unit.specs.locks import EXPLICIT, PIXI_5, PIXI_6, PIXI_7, PYLOCK, UV, UV_SCRIPT
from wetlands_executor.environment.spec import EnvironmentSpec

pytestmark = pytest.mark.usefixtures("linux")


@cases(
    ("name", "text", "kind", "python"),
    [
        ("pylock.toml", PYLOCK, "pylock", ">=3.9"),
        ("pylock.dev.toml", PYLOCK, "pylock", ">=3.9"),
        ("uv.lock", UV, "uv", ">=3.9"),
        ("segment.py.lock", UV_SCRIPT, "uv", ">=3.9"),
        ("pixi.lock", PIXI_5, "pixi", None),
        ("pixi.lock", PIXI_6, "pixi", None),
        ("segment.py.pixi.lock", PIXI_7, "pixi", None),
        ("explicit.txt", EXPLICIT, "explicit", None),
        ("anything", EXPLICIT, "explicit", None),
    ],
)
def test_locks_are_kept_as_they_are(
    folder: Folder, name: str, text: str, kind: str, python: str | None
) -> None:
    spec = folder.read(name, text)
    assert spec.lock_format == kind
    assert spec.python == python
    assert spec.needs_conda is (kind in ("pixi", "explicit"))
    assert spec.lock is not None
    # what a lock says is found again in its own text
    again = folder.read(f"again/{name}", spec.lock)
    assert again.lock == spec.lock
    assert EnvironmentSpec(lock=spec.lock).lock_format == kind


def test_the_folder_counts_only_if_the_lock_has_paths(folder: Folder) -> None:
    assert folder.read("uv.lock", UV).lock_folder == str(folder.path)
    assert folder.read("a.py.lock", UV_SCRIPT).lock_folder is None
    assert folder.read("pylock.toml", PYLOCK).lock_folder == str(folder.path)
    without = PYLOCK[: PYLOCK.index('[[packages]]\nname = "local"')]
    one, other = folder.read("a/pylock.toml", without), folder.read("b/pylock.toml", without)
    assert one.lock_folder is None
    assert one.digest() == other.digest()
    assert folder.read("pixi.lock", PIXI_6).lock_folder == str(folder.path)
    assert folder.read("pixi.lock", PIXI_7).lock_folder is None


def test_groups_and_extras_of_locks(folder: Folder) -> None:
    spec = folder.read("uv.lock", UV, groups=["dev"], extras=["gui"])
    assert (spec.lock_groups, spec.lock_extras) == (("dev",), ("gui",))
    spec = folder.read("pylock.toml", PYLOCK, groups=["dev"], extras=["GUI"])
    assert (spec.lock_groups, spec.lock_extras) == (("dev",), ("GUI",))
    assert folder.read("pixi.lock", PIXI_6, environment="test").lock_groups == ("test",)
    assert folder.read("pixi.lock", PIXI_6, environment="default").lock_groups == ()


def test_an_explicit_list_keeps_its_platform_and_drops_comments(folder: Folder) -> None:
    spec = folder.read("explicit.txt", "# any comment\n" + EXPLICIT + "\n\n# another\n")
    assert spec.lock is not None
    assert spec.lock.startswith("# platform: linux-64\n@EXPLICIT\n")
    assert "comment" not in spec.lock
    local = folder.read("explicit.txt", "@EXPLICIT\n./a-1-0.conda\n")
    assert local.lock_folder == str(folder.path)


SEVEN = "version: 7\nenvironments:\n  default:\n    packages:\n      linux-64:\n      "
ONE = "lock-version = '1.0'\n"
WRONG: list[tuple[str, str, int | None, str, str]] = [
    ("pylock.toml", "created-by = 'x'\n", None, "lacks 'lock-version'", "Add"),
    ("pylock.toml", "lock-version = '2.0'\npackages = []\n", 1, "only 1.x", "older"),
    ("pylock.toml", "lock-version = '1.0'\n", None, "lacks 'packages'", "anew"),
    ("pylock.toml", f"{ONE}created-by = 'x'\n[[packages]]\na = 1\n", 3, "packages[0]", "anew"),
    ("pylock.toml", "lock-version = 1\n", 1, "is a number", "quotes"),
    ("pylock.toml", PYLOCK.replace("aaaa", "aaaa\n"), 13, "no TOML", "toml.io"),
    ("uv.lock", "version = 2\n[[package]]\n", 1, "only 1 is known", "another version of uv"),
    ("uv.lock", "", None, "version is missing", "another version"),
    ("uv.lock", "version = 1\n[[package]]\nversion = '1'\n", 2, "lacks 'name'", "Add"),
    ("uv.lock", "version = 1\n[[package]]\nname = 'a'\n", 2, "lacks its source", "uv lock"),
    ("uv.lock", f"conflicts = [[{{ extra = 'a' }}]]\n{UV}", 1, "exclude each other", "uv export"),
    ("uv.lock", "version = 1\n[manifest]\nmembers = ['a']\n", 2, "of a workspace", "--package"),
    ("pixi.lock", "environments: {}\n", None, "version is missing", "another version"),
    ("pixi.lock", "version: 99\n", 1, "version is 99", "another version"),
    ("pixi.lock", "version: 6\nenvironments:\n  x: {}\n", 3, "no environment 'default'", "x"),
    ("pixi.lock", PIXI_6.replace("linux-64:", "osx-64:"), 12, "this machine is linux-64", "Add"),
    ("pixi.lock", PIXI_6.replace("/python-3.11-0.conda", ""), 13, "from its source", ""),
    ("pixi.lock", f"{SEVEN}- conda_source: a[1] @ b\n", 6, "from its source", ""),
    ("pixi.lock", f"{SEVEN}- npm: a\n", 6, "neither", "pixi lock"),
    ("pixi.lock", "a: [\n", 2, "no YAML", "Correct"),
    ("explicit.txt", "@EXPLICIT\nnumpy=1\n", 2, "no address of a conda package", "URL"),
    ("explicit.txt", "@EXPLICIT\nhttps://x.example/a.conda#12\n", 2, "has 2 digits", "32"),
    ("explicit.txt", "@EXPLICIT\nhttps://x.example/a.whl\n", 2, "no address", ".conda"),
]  # fmt: skip


@cases(("name", "text", "line", "reason", "remedy"), WRONG)
def test_what_is_malformed(
    folder: Folder, name: str, text: str, line: int | None, reason: str, remedy: str
) -> None:
    error = folder.fault(name, text)
    assert reason in error.reason
    assert remedy in error.remedy
    assert error.line == line


CHOICES = [
    ("uv.lock", UV, {"groups": ["dv"]}, "no group 'dv'", "'dev'"),
    ("uv.lock", UV, {"extras": ["x"]}, "no extra 'x'", "gui"),
    ("uv.lock", UV_SCRIPT, {"extras": ["x"]}, "no extra 'x'", "has none"),
    ("uv.lock", UV, {"environment": "x"}, "no environments", "groups"),
    ("pylock.toml", PYLOCK, {"groups": ["x"]}, "no group 'x'", "dev"),
    ("pylock.toml", PYLOCK, {"extras": ["x"]}, "no extra 'x'", "gui"),
    ("pixi.lock", PIXI_6, {"environment": "tst"}, "no environment 'tst'", "'test'"),
    ("pixi.lock", PIXI_6, {"groups": ["x"]}, "no groups", "environment"),
    ("explicit.txt", EXPLICIT, {"groups": ["x"]}, "no groups", "Take them out"),
]


@cases(("name", "text", "wanted", "reason", "remedy"), CHOICES)
def test_choices_that_are_not_there(
    folder: Folder, name: str, text: str, wanted: dict[str, object], reason: str, remedy: str
) -> None:
    error = folder.fault(name, text, **wanted)
    assert reason in error.reason
    assert remedy in error.remedy
