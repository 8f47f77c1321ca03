"""Any file is read, or refused with a ``SpecError``: nothing else is raised."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.specs import locks
from tests.unit.specs.test_environment_yml import EXAMPLE
from tests.unit.specs.test_pixi import HEAD, MANY
from tests.unit.specs.test_pyproject import PIXI, PROJECT
from tests.unit.specs.test_requirements import LOCK
from tests.unit.specs.test_script import BLOCK
from wetlands_executor.environment.formats.source import Source, Wanted
from wetlands_executor.environment.formats.toml_lines import line_of
from wetlands_executor.environment.pypi_options import PyPIOptions
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.errors import SpecError

GOOD: dict[str, list[str]] = {
    "script": [BLOCK, "# /// script\n# [tool.uv]\n# prerelease = 'allow'\n# ///\n"],
    "pixi_toml": [HEAD, MANY],
    "pyproject": [PROJECT, PIXI],
    "requirements": [LOCK, "-e .\na>=1 # x\n--pre\n"],
    "environment_yml": [EXAMPLE],
    "pylock": [locks.PYLOCK],
    "uv_lock": [locks.UV, locks.UV_SCRIPT],
    "pixi_lock": [locks.PIXI_5, locks.PIXI_6, locks.PIXI_7],
    "explicit": [locks.EXPLICIT],
}
ODD = st.sampled_from(
    ["=", "[", "]", "{", '"', "'", "\n", " ", "#", "*", "&a", "1", "x", "\t", "\\", ": "]
)


@st.composite
def damaged(draw: Any, texts: list[str]) -> str:
    """Return a good text in which a few places were changed."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        kind = draw(st.sampled_from(["cut", "insert", "line"]))
        if kind == "cut":
            text = text[:at] + text[at + draw(st.integers(1, 8)) :]
        elif kind == "insert":
            text = text[:at] + draw(ODD) + text[at:]
        else:
            lines = text.split("\n")
            del lines[draw(st.integers(0, len(lines) - 1))]
            text = "\n".join(lines)
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the files would be: an empty folder for all examples."""
    return str(tmp_path_factory.mktemp("files"))


def read(name: str, text: str, wanted: Wanted, folder: str) -> SpecError | None:
    module = import_module(f"wetlands_executor.environment.formats.{name}")
    source = Source("the file", folder, text)
    try:
        draft = module.read(source, wanted)
        with source.at(None):
            options = PyPIOptions(**draft.options)
            spec = EnvironmentSpec(**draft.fields, options=options)
    except SpecError as error:
        return error
    assert EnvironmentSpec.from_dict(spec.as_dict()) == spec
    return None


@pytest.mark.parametrize("name", GOOD)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(name: str, folder: str, data: st.DataObject) -> None:
    text = data.draw(damaged(GOOD[name]))
    error = read(name, text, Wanted(), folder)
    if error is not None:
        assert error.path
        assert error.line is None or 1 <= error.line <= text.count("\n") + 1


@pytest.mark.parametrize("name", GOOD)
@given(text=st.text(max_size=60), groups=st.lists(st.text(max_size=3), max_size=1).map(tuple))
def test_any_text_is_read_or_refused(
    name: str, folder: str, text: str, groups: tuple[str, ...]
) -> None:
    error = read(name, text, Wanted(groups=groups), folder)
    assert error is None or error.path


@pytest.mark.parametrize("name", GOOD)
def test_the_good_texts_are_good(name: str, folder: str) -> None:
    for text in GOOD[name]:
        error = read(name, text, Wanted(), folder)
        assert error is None or "this machine" in error.reason, str(error)


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)
KEYS = st.sampled_from([
    "dependencies", "channels", "platforms", "workspace", "project", "tool", "uv", "pixi",
    "sources", "index", "a", "git", "url", "path", "version", "extras", "packages", "package",
    "name", "source",
    "environments", "default", "features", "feature", "target", "activation", "env", "manifest",
    "requirements", "dependency-groups", "optional-dependencies", "wheels", "marker",
    "lock-version",
])  # fmt: skip
DOCUMENTS: Any = st.recursive(
    VALUES,
    lambda inner: st.dictionaries(KEYS, inner, max_size=4) | st.lists(inner, max_size=2),
    max_leaves=12,
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{quoted(key)} = {toml(each)}" for key, each in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return quoted(value) if isinstance(value, str) else str(value or 0)


def quoted(text: str) -> str:
    escaped = "".join(
        character if character.isascii() and character.isalnum() or character in "-_.>=[]* "
        else f"\\u{ord(character):04x}" if ord(character) < 0xD800 else "?"
        for character in text
    )  # fmt: skip
    return f'"{escaped}"'


@pytest.mark.parametrize("name", ["script", "pixi_toml", "pyproject", "pylock", "uv_lock"])
@given(document=st.dictionaries(KEYS, DOCUMENTS, max_size=4))
def test_any_table_is_read_or_refused(name: str, folder: str, document: dict[str, Any]) -> None:
    lines = [f"{quoted(key)} = {toml(value)}" for key, value in document.items()]
    if name == "script":
        lines = ["# /// script", *(f"# {line}" for line in lines), "# ///"]
    if name == "uv_lock":
        lines = ["version = 1", *(line for line in lines if not line.startswith('"version"'))]
    error = read(name, "\n".join([*lines, ""]), Wanted(), folder)
    assert error is None or error.path


@given(st.text(max_size=80), st.lists(st.text(max_size=3) | st.integers(0, 2), max_size=3))
def test_looking_for_a_line_finds_one_or_none(text: str, keys: list[Any]) -> None:
    found = line_of(text, tuple(keys), "x")
    assert found is None or 1 <= found <= text.count("\n") + 1
