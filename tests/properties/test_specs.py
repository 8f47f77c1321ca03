"""What holds for any spec, any script with a block and any requirements file."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.specs.test_script import content, source
from wetlands_executor.environment.formats import script
from wetlands_executor.environment.formats.draft import conda_versions
from wetlands_executor.environment.formats.requirements import logical_lines
from wetlands_executor.environment.notation import FrozenMapping, python_specifier
from wetlands_executor.environment.spec import EnvironmentSpec, PyPIOptions
from wetlands_executor.errors import SpecError

# ---------------------------------------------------------------------------------------- specs

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,3})?", fullmatch=True)
VERSIONS = st.lists(st.integers(0, 30), min_size=1, max_size=3).map(
    lambda parts: ".".join(map(str, parts))
)
OPERATORS = st.sampled_from(["==", "!=", ">=", "<=", "<", ">"])
CLAUSES = st.builds("{}{}".format, OPERATORS, VERSIONS)
REQUIREMENTS = st.builds("{}{}".format, NAMES, st.lists(CLAUSES, max_size=2).map(",".join))
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
SPECS = st.builds(
    EnvironmentSpec,
    python=st.none() | st.lists(CLAUSES, min_size=1, max_size=3).map(",".join) | VERSIONS,
    conda=st.lists(REQUIREMENTS, max_size=3),
    pypi=st.lists(REQUIREMENTS, max_size=3),
    channels=st.lists(NAMES, min_size=1, max_size=3),
    variables=st.dictionaries(NAMES, TEXTS, max_size=3),
    editable=st.lists(NAMES, max_size=2),
    strategy=st.sampled_from([None, "highest", "lowest"]),
    options=st.builds(
        PyPIOptions, constraints=st.lists(REQUIREMENTS, max_size=2), prereleases=st.booleans()
    ),
)


@given(SPECS)
def test_any_spec_survives_json_and_pickle(spec: EnvironmentSpec) -> None:
    again = EnvironmentSpec.from_dict(json.loads(json.dumps(spec.as_dict())))
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.digest() == spec.digest()
    assert pickle.loads(pickle.dumps(spec)) == spec


@given(SPECS, st.randoms())
def test_the_order_of_packages_is_of_no_account(spec: EnvironmentSpec, random: Any) -> None:
    conda, pypi = list(spec.conda), list(spec.pypi)
    random.shuffle(conda)
    random.shuffle(pypi)
    assert dataclasses.replace(spec, conda=conda, pypi=pypi).digest() == spec.digest()


@given(SPECS, SPECS)
def test_different_specs_have_different_digests(
    one: EnvironmentSpec, other: EnvironmentSpec
) -> None:
    def content(spec: EnvironmentSpec) -> Any:
        plain = spec.as_dict()
        for part, name in itertools.product(
            (plain, plain.get("options", {})), ("conda", "pypi", "editable", "constraints")
        ):
            if name in part:
                part[name] = sorted(set(part[name]))
        return plain

    assert (one.digest() == other.digest()) == (content(one) == content(other))


@given(st.lists(CLAUSES, min_size=1, max_size=3).map(",".join) | VERSIONS)
def test_versions_are_kept_once_they_are_written_so(text: str) -> None:
    kept = python_specifier(text)
    assert python_specifier(kept) == kept


@given(st.text(max_size=30))
def test_no_text_breaks_the_checks(text: str) -> None:
    for name in ("python", "conda", "pypi", "lock", "exclude_newer"):
        try:
            EnvironmentSpec(
                **{name: text if name in ("python", "lock", "exclude_newer") else (text,)}
            )  # type: ignore[arg-type]
        except SpecError:
            continue


@given(st.lists(CLAUSES, min_size=1, max_size=3).map(",".join))
def test_versions_of_conda_become_those_of_pep_440(text: str) -> None:
    versions = conda_versions(text)
    assert versions == text
    assert conda_versions(f" {text.replace(',', ' , ')}") == text


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5)))
def test_a_frozen_mapping_is_one(items: dict[str, str]) -> None:
    frozen = FrozenMapping(items)
    assert frozen == items
    assert dict(frozen) == items
    assert hash(frozen) == hash(FrozenMapping(reversed(list(items.items()))))
    assert eval(repr(frozen)) == items


# -------------------------------------------------------------------------------------- scripts

LINES = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=12)
CONTENTS = st.lists(LINES.filter(lambda line: not line.startswith("///")), max_size=6)


@given(st.lists(LINES.filter(lambda line: not line.startswith("#")), max_size=3), CONTENTS)
def test_what_is_written_as_a_block_is_read(before: list[str], lines: list[str]) -> None:
    written = [f"# {line}" if line else "#" for line in lines]
    text = "\n".join([*before, "# /// script", *written, "# ///", "after = 1", ""])
    assert content(text) == "".join(f"{line}\n" for line in lines or [""])


@given(st.text(max_size=40) | st.lists(st.sampled_from([
    "# /// script\n", "# ///\n", "#\n", "# a = 1\n", "x = 1\n", "# /// b\n", "#/// script\n",
]), max_size=8).map("".join))  # fmt: skip
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    refused: SpecError | None = None
    try:
        script.block(source(text))
    except SpecError as error:
        refused = error
    if refused is not None:
        assert refused.line is not None
        assert 1 <= refused.line <= text.count("\n") + 1


# --------------------------------------------------------------------------------- requirements

WORDS = st.sampled_from(["a", "b>=1", "#", " # c", "\\", "  ", "--pre", ""])


@given(st.lists(st.tuples(WORDS, st.sampled_from(["\n", " ", ""])), max_size=12))
def test_lines_are_numbered_where_they_begin(parts: list[Any]) -> None:
    text = "".join(word + end for word, end in parts)
    lines = text.split("\n")
    numbers = []
    for number, line in logical_lines(text):
        numbers.append(number)
        assert line
        assert line == line.strip()
        assert not line.startswith("#")
        assert 1 <= number <= len(lines)
        assert lines[number - 1].strip()
    assert numbers == sorted(set(numbers))
