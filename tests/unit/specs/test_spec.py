"""``EnvironmentSpec``: its checks, its canonical form and what it shows."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases import cases
from wetlands_executor.environment.formats.draft import conda_versions
from wetlands_executor.environment.notation import (
    conda_name,
    lock_format_of,
)
from wetlands_executor.environment.spec import EnvironmentSpec, PyPIOptions
from wetlands_executor.errors import SpecError, WetlandsExecutorError

FULL = EnvironmentSpec(
    python=">=3.9,<3.12",
    conda=("gdal", "bioconda::samtools=1.19"),
    pypi=("cellpose==3.*", "numpy<2"),
    channels=("conda-forge", "bioconda"),
    variables={"OMP_NUM_THREADS": "1", "A": "="},
    editable=("/projects/tool[gui]",),
    conda_constraints=("openssl >=3",),
    channel_priority="strict",
    strategy="lowest",
    exclude_newer="2026-01-01",
    options=PyPIOptions(
        index_url="https://example.org/simple",
        sources={"torch": "https://example.org/cpu"},
        constraints=("scipy<2",),
        no_index=True,
    ),
)


def test_what_the_contract_shows() -> None:
    spec = EnvironmentSpec(
        python=">=3.9,<3.12",
        conda=("gdal",),
        pypi=("cellpose==3.*", "numpy<2"),
        channels=("conda-forge",),
        variables={},
        editable=(),
    )
    assert spec.channels == ("conda-forge",)
    assert spec.needs_conda
    assert spec.conda_python == "python >=3.9,<3.12"


def test_it_is_a_value() -> None:
    same = dataclasses.replace(FULL)
    assert same == FULL
    assert hash(same) == hash(FULL)
    assert {FULL: 1}[same] == 1
    assert pickle.loads(pickle.dumps(FULL)) == FULL
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.python = "3.9"  # type: ignore[misc]
    with pytest.raises(TypeError):
        EnvironmentSpec("3.9")  # type: ignore[misc]


def test_sequences_become_tuples_and_mappings_cannot_change() -> None:
    variables = {"A": "1"}
    fields: dict[str, Any] = {"conda": ["gdal"], "pypi": iter(["numpy "])}
    spec = EnvironmentSpec(**fields, variables=variables)
    variables["A"] = "2"
    assert spec.conda == ("gdal",)
    assert spec.pypi == ("numpy",)
    assert spec.variables == {"A": "1"}
    assert not hasattr(spec.variables, "__setitem__")


def test_it_survives_json() -> None:
    plain = json.loads(json.dumps(FULL.as_dict()))
    assert EnvironmentSpec.from_dict(plain) == FULL
    assert EnvironmentSpec.from_dict(plain).digest() == FULL.digest()
    assert EnvironmentSpec().as_dict() == {}
    assert EnvironmentSpec.from_dict({"channels": []}) == EnvironmentSpec(channels=())
    assert EnvironmentSpec(channels=()).as_dict() == {"channels": []}


def test_a_dictionary_of_something_else_is_refused() -> None:
    with pytest.raises(SpecError, match="no spec of an environment"):
        EnvironmentSpec.from_dict({"pythons": "3.9"})


def test_every_field_is_in_the_digest() -> None:
    lock = "@EXPLICIT\nhttps://example.org/linux-64/a-1-0.conda\n"
    other: dict[str, Any] = {
        "python": "3.9", "conda": ("a",), "pypi": ("a",), "channels": ("x",),
        "variables": {"A": "1"}, "editable": ("/a",), "lock": lock, "lock_groups": ("a",),
        "lock_extras": ("a",),
        "lock_folder": "/a", "conda_constraints": ("a",), "channel_priority": "strict",
        "strategy": "lowest", "exclude_newer": "2026-01-01", "options": PyPIOptions(no_index=True),
        "lock_format": "requirements",
    }  # fmt: skip
    assert set(other) == {field.name for field in dataclasses.fields(EnvironmentSpec)}
    of_lock = {"lock_groups", "lock_extras", "lock_folder", "lock_format"}
    digests = {EnvironmentSpec().digest()}
    for name, value in other.items():
        with_lock = {"lock": lock} if name in of_lock else {}
        digests.add(EnvironmentSpec(**with_lock, **{name: value}).digest())
    assert len(digests) == len(other) + 1


def test_the_digest_is_the_same_on_every_machine() -> None:
    """A change of this value makes every environment of every cache be made anew."""
    assert FULL.digest() == "8fc7e538c7e5a67e65539bea6a13f31aede4f979b457169b9eac7aff5472461a"


def test_order_counts_where_it_counts() -> None:
    def digest(**fields: Any) -> str:
        return EnvironmentSpec(**fields).digest()

    assert digest(pypi=("a", "b")) == digest(pypi=("b", "a", "a"))
    assert digest(pypi=("a <2",)) == digest(pypi=(" a  <2 ",))
    assert digest(variables={"A": "1", "B": "2"}) == digest(variables={"B": "2", "A": "1"})
    assert digest(channels=("a", "b")) != digest(channels=("b", "a"))
    urls = ("https://a.example", "https://b.example")
    first, second = (PyPIOptions(extra_index_urls=each) for each in (urls, urls[::-1]))
    assert digest(options=first) != digest(options=second)


def test_line_ends_of_a_lock_do_not_count() -> None:
    lock = "@EXPLICIT\nhttps://example.org/linux-64/a-1-0.conda\n"
    dos = lock.replace("\n", "\r\n")
    assert EnvironmentSpec(lock=lock).digest() == EnvironmentSpec(lock=dos).digest()


@cases(
    ("fields", "needs"),
    [
        ({}, False),
        ({"python": "3.11", "pypi": ("numpy",)}, False),
        ({"conda": ("pip",), "pypi": ("numpy",)}, False),
        ({"conda": ("pip>=24",)}, True),
        ({"conda": ("numpy",)}, True),
        ({"lock": "@EXPLICIT\nhttps://example.org/linux-64/a-1-0.conda\n"}, True),
        ({"lock": "version: 6\nenvironments: {}\n", "lock_format": "pixi"}, True),
        ({"lock": "numpy==2.0 --hash=sha256:00\n"}, False),
    ],
)
def test_what_needs_conda(fields: dict[str, Any], needs: bool) -> None:
    assert EnvironmentSpec(**fields).needs_conda is needs


@cases(
    ("given", "kept", "conda"),
    [
        ("3.11", "==3.11.*", "python 3.11.*"),
        ("=3.11", "==3.11.*", "python 3.11.*"),
        ("3", "==3.*", "python 3.*"),
        ("3.11.*", "==3.11.*", "python 3.11.*"),
        ("3.11.4", "==3.11.4", "python ==3.11.4"),
        ("==3.11", "==3.11", "python ==3.11"),
        ("===3.11.4", "===3.11.4", "python ==3.11.4"),
        ("~=3.9", "~=3.9", "python ~=3.9"),
        ("!=3.10.*", "!=3.10.*", "python !=3.10.*"),
        (" >= 3.9 , < 3.12 ", ">=3.9,<3.12", "python >=3.9,<3.12"),
    ],
)
def test_versions_of_python(given: str, kept: str, conda: str) -> None:
    spec = EnvironmentSpec(python=given)
    assert spec.python == kept
    assert spec.conda_python == conda
    assert EnvironmentSpec(python=kept) == spec


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"python": ""}, "empty"),
    ({"python": 3.11}, "no text"),
    ({"python": "3.10|3.11"}, "among the conda packages"),
    ({"python": "3.x"}, "no set of versions"),
    ({"python": "three"}, "'>=3.9,<3.12'"),
    ({"conda": "gdal"}, "Write conda=('gdal',)"),
    ({"conda": ("",)}, "empty"),
    ({"conda": ("gdal\n--force",)}, "line ends"),
    ({"conda": ("--yes",)}, "option"),
    ({"conda": (">=3",)}, "no conda package"),
    ({"conda": (b"gdal",)}, "no text"),
    ({"conda": ("gdal",), "channels": ()}, "no channels"),
    ({"conda_constraints": ("@",)}, "no conda package"),
    ({"pypi": ("numpy<<2",)}, "no requirement"),
    ({"pypi": ("-r other.txt",)}, "option"),
    ({"pypi": ("./folder",)}, "no requirement"),
    ({"pypi": ("numpy; python_version",)}, "no requirement"),
    ({"pypi": 3}, "no sequence"),
    ({"channels": ("-c",)}, "option"),
    ({"variables": {"A=B": "1"}}, "no process can have"),
    ({"variables": {"A": "1\0"}}, "no process can have"),
    ({"variables": {"A": 1}}, "Write both in quotes"),
    ({"variables": ("A",)}, "no mapping"),
    ({"editable": (3,)}, "no path"),
    ({"channel_priority": "high"}, "'strict', 'flexible', 'disabled'"),
    ({"strategy": "newest"}, "'highest', 'lowest', 'lowest-direct'"),
    ({"exclude_newer": "\n"}, "empty"),
    ({"lock": 3}, "no text"),
    ({"lock": "something"}, "Give lock_format"),
    ({"lock": "@EXPLICIT\n", "lock_format": "conda"}, "none of"),
    ({"lock_format": "uv"}, "without a lock"),
    ({"lock_extras": ("gui",)}, "without a lock"),
    ({"options": {}}, "no PyPIOptions"),
]


@cases(("fields", "words"), WRONG)
def test_what_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        EnvironmentSpec(**fields)
    assert words in str(caught.value)
    assert isinstance(caught.value, (ValueError, WetlandsExecutorError))


@cases(
    ("fields", "words"),
    [
        ({"no_index": 1}, "neither True nor False"),
        ({"index_url": "\t"}, "empty"),
        ({"index_strategy": "best"}, "none of"),
        ({"sources": ("torch",)}, "no mapping"),
        ({"constraints": ("scipy<<2",)}, "no requirement"),
        ({"extra_index_urls": "https://example.org"}, "no sequence"),
    ],
)
def test_options_that_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        PyPIOptions(**fields)


def test_editable_projects_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd[1]").mkdir()
    spec = EnvironmentSpec(editable=(".", Path("sub"), "./tool[a, b]", "odd[1]", "~/x"))
    here = str(tmp_path)
    assert spec.editable == (
        here, os.path.join(here, "sub"), os.path.join(here, "tool[a,b]"),
        os.path.join(here, "odd[1]"), os.path.expanduser("~/x"),
    )  # fmt: skip


def test_passwords_are_not_shown() -> None:
    spec = EnvironmentSpec(
        pypi=("tool @ https://me:secret@example.org/tool.whl",),
        channels=("https://example.org/t/token/channel", "https://me:secret@example.org/c"),
        options=PyPIOptions(index_url="https://secret@example.org/simple"),
        lock="tool==1 --hash=sha256:00\n",
    )
    assert "secret" not in repr(spec)
    assert "***@example.org" in repr(spec)
    assert "25 characters" in repr(spec)


def test_names_of_conda_packages() -> None:
    for text in (
        "gdal", "GDAL>=3", "gdal =3.6", "gdal=3.6=*_0", "conda-forge::gdal", "gdal[version='>=3']",
        "conda-forge/linux-64::gdal==3.6", "gdal!=3", "gdal~=3.6", "gdal *",
    ):  # fmt: skip
        assert conda_name(text) == "gdal"
    assert conda_name("_openmp_mutex") == "_openmp_mutex"
    assert conda_name("https://example.org/linux-64/a-1-0.conda").endswith("a-1-0.conda")
    assert conda_name("gdal[channel='https://example.org/c']") == "gdal"


@cases(
    ("written", "kept"),
    [
        (" numpy >= 1.26 , <2 ", "numpy >=1.26,<2"),
        ("python 3.10 | 3.11", "python 3.10|3.11"),
        ("gdal = 3.6", "gdal =3.6"),
        ("gdal 3.6 *_0", "gdal 3.6 *_0"),
        ("gdal[version='>= 3, <4']", "gdal[version='>= 3, <4']"),
    ],
)
def test_blanks_of_conda_packages(written: str, kept: str) -> None:
    assert EnvironmentSpec(conda=(written,), conda_constraints=(written,)).conda == (kept,)
    assert EnvironmentSpec(conda_constraints=(written,)).conda_constraints == (kept,)


@cases(
    ("text", "kind"),
    [
        ("# platform: linux-64\n@EXPLICIT\nhttps://example.org/a.conda\n", "explicit"),
        ('created-by = "uv"\nlock-version = "1.0"\n', "pylock"),
        ('version = 1\nrequires-python = ">=3.9"\n\n[[package]]\nname = "a"\n', "uv"),
        ("version: 6\nenvironments:\n  default: {}\n", "pixi"),
        ("# comment\nnumpy==2.0 --hash=sha256:00\n", "requirements"),
        ("tool[gui] @ https://example.org/tool.whl\n", "requirements"),
    ],
)
def test_formats_of_locks(text: str, kind: str) -> None:
    assert lock_format_of(text) == kind
    assert EnvironmentSpec(lock=text).lock_format == kind


def test_what_conda_can_say_and_pep_440_cannot() -> None:
    for text in ("3.10|3.11", "=3.10=*_cpython", "3.10 *_cpython", "3.*.1", "[build='x']"):
        assert conda_versions(text) is None
    assert conda_versions("=3.10") == "==3.10.*"
    assert conda_versions("=3.10.*") == "==3.10.*"
    assert conda_versions(" 3.10") == "==3.10"
    assert conda_versions("3.10*") == "==3.10.*"
    assert conda_versions(">=3.9.*") == ">=3.9"


def test_an_error_keeps_its_parts() -> None:
    error = SpecError("it is wrong", "Correct it.", "a.py", 3)
    assert str(error) == "a.py:3: it is wrong. Correct it."
    again = pickle.loads(pickle.dumps(error))
    assert (again.reason, again.remedy, again.path, again.line, str(again)) == (
        "it is wrong", "Correct it.", "a.py", 3, str(error),
    )  # fmt: skip
    assert str(SpecError("it is wrong")) == "it is wrong"
    assert str(SpecError("it is wrong", path="a.py")) == "a.py: it is wrong"
