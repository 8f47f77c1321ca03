"""Files as people have them: other line ends and encodings, and slips of every format."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cases import cases
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.errors import SpecError

SCRIPT = '# /// script\n# requires-python = ">=3.10"\n# dependencies = ["numpy"]\n# ///\n'
YML = "channels: [conda-forge]\ndependencies:\n  - gdal\n  - pip:\n    - numpy\n"
EXPLICIT = "@EXPLICIT\nhttps://c/linux-64/a-1-0.conda#" + "ab" * 16 + "\n"
PROJECT = "[project]\nname = 'x'\ndependencies = ['numpy']\n"
GOOD = [
    ("a.py", SCRIPT), ("requirements.txt", "numpy\n\n# a comment\n"), ("environment.yml", YML),
    ("pyproject.toml", PROJECT), ("list.txt", EXPLICIT),
]  # fmt: skip


@cases(("name", "text"), GOOD)
def test_line_ends_and_byte_order_marks(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(text.encode())
    wanted = EnvironmentSpec.from_file(file)
    blank = text.replace("\n", "\n\n") if name.endswith(".txt") else text
    for data in (
        b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
        blank.encode(),
        text.replace("\n", "\r").encode(),
        text.encode("utf-16"),
    ):
        file.write_bytes(data)
        assert EnvironmentSpec.from_file(file) == wanted


def script(*lines: str) -> str:
    return "".join(f"# {line}\n" for line in ("/// script", *lines, "///"))


WRONG = [
    ("a.py", script("dependencies = []") * 2, 4, "second metadata block", "one of the two"),
    ("a.py", script("requires-python = 3.10"), 2, "is a number", 'requires-python = "3.10"'),
    ("a.py", script('dependencies = ["x @ ./x"]'), 2, "does not exist", "relative to"),
    ("requirements.txt", "a\nx @ ./x\n", 2, "does not exist", "relative to"),
    ("environment.yml", "dependencies:\n- numpy\n- gdal>=\n", 3, "no conda package", "Write it"),
    ("environment.yml", "dependencies:\n- 3.10\n", 2, "no conda package", "Write it"),
    ("environment.yml", "dependencies:\n- a\ndependencies:\n- b\n", 3, "twice", "one of the two"),
    ("environment.yml", "- numpy\n", 1, "the file is no mapping", "key: value"),
    ("uv.lock", "", None, "version is missing", "another version"),
]  # fmt: skip


@cases(("name", "text", "line", "reason", "remedy"), WRONG)
def test_slips(
    name: str, text: str, line: int | None, reason: str, remedy: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SpecError) as caught:
        EnvironmentSpec.from_file(tmp_path / name)
    assert caught.value.line == line
    assert reason in caught.value.reason
    assert remedy in caught.value.remedy


def test_a_direct_reference_to_a_path(tmp_path: Path) -> None:
    (tmp_path / "tool").mkdir()
    (tmp_path / "requirements.txt").write_text("tool[gui] @ ./tool ; python_version > '3'\n")
    spec = EnvironmentSpec.from_file(tmp_path / "requirements.txt")
    url = (tmp_path / "tool").as_uri()
    assert spec.pypi == (f"tool[gui] @ {url} ; python_version > '3'",)


def test_what_was_published_later() -> None:
    with pytest.raises(SpecError, match="neither a date nor a duration"):
        EnvironmentSpec(exclude_newer="yesterday")
