"""Requirements files of pip: ``requirements.txt``, and the ``pip:`` part of ``environment.yml``.

Owns the lines: comments, continuations, variables, options, files within files, as pip's
documentation of the format has them. What a requirement is, is decided by ``packaging``. A file in
which requirements have hashes is a lock.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from wetlands_executor.environment.formats.detect import LOCKED_REQUIREMENTS
from wetlands_executor.environment.formats.direct import holds_here
from wetlands_executor.environment.formats.draft import Draft
from wetlands_executor.environment.formats.source import Source, Wanted, load
from wetlands_executor.environment.formats.tables import parse
from wetlands_executor.environment.notation import check_requirement
from wetlands_executor.errors import SpecError

_COMMENT = re.compile(r"(^|\s+)#.*$")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_HASH = re.compile(r"\s--hash[= ](\S+)")
_OPTION = re.compile(r"\s--(?!hash\b)([\w-]+)")
_DIRECT = re.compile(r"[A-Za-z0-9][\w.-]*\s*(\[[^\]]*\])?\s*@\s")
_EDITABLE = re.compile(r"(-e\b|--editable\b)[\s=]*")
_EXTRAS = re.compile(r"\s*(\[[\w\s,.-]*\])\s*$")
#: Options of a line of their own that take a value, with their short forms.
_WITH_VALUE: Final = {
    "-r": "--requirement", "-c": "--constraint", "-i": "--index-url",
    "-f": "--find-links", "--requirement": "", "--constraint": "",
    "--index-url": "", "--extra-index-url": "", "--find-links": "", "--no-binary": "",
    "--only-binary": "", "--trusted-host": "", "--use-feature": "",
    "--uploaded-prior-to": "",
}  # fmt: skip
_WITHOUT: Final = ("--no-index", "--pre", "--prefer-binary", "--require-hashes")
#: Of these, what they say is of no account here.
_PASSED_OVER: Final = ("--trusted-host", "--use-feature", "--prefer-binary", "--require-hashes")


@dataclass(slots=True)
class Lines:
    """The lines of requirements that were read so far.

    Attributes:
        draft: what is added to.
        locked: the lines that have hashes, as a lock has them.
        loose: where the first requirement without a hash stands.
        open_files: files that are being read, the innermost last.
    """

    draft: Draft
    locked: list[str] = field(default_factory=list)
    loose: SpecError | None = None
    open_files: list[str] = field(default_factory=list)


def read(source: Source, wanted: Wanted) -> Draft:
    """Read a requirements file.

    Raises:
        SpecError: a line is malformed, or asks for what no backend can do.
    """
    if wanted != Wanted():
        raise source.error("a requirements file has no groups and extras", "Take them out.")
    draft = Draft(source)
    locked = LOCKED_REQUIREMENTS.search(source.text)
    if locked is not None:
        draft.python(f"=={locked[1]}.*", 1)
    read_lines(source, draft)
    return draft


def read_lines(source: Source, draft: Draft, texts: list[tuple[int, str]] | None = None) -> None:
    """Add what lines of a requirements file ask for.

    Args:
        source: the file.
        draft: what is added to.
        texts: the lines with their numbers; None stands for all of the file.

    Raises:
        SpecError: a line is malformed, or asks for what no backend can do.
    """
    lines = Lines(draft, open_files=[os.path.join(source.folder, os.path.basename(source.path))])
    for number, text in texts if texts is not None else logical_lines(source.text):
        _read_line(lines, source, number, text, constraint=False)
    if lines.locked:
        if lines.loose is not None:
            raise lines.loose
        draft.put("lock", "".join(f"{line}\n" for line in lines.locked))
        draft.put("lock_format", "requirements")


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """List the lines without comments, continued ones joined, each with the number of its first."""
    begun = 0
    parts: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        # pip: a comment is not continued, a line within a continuation may be one
        is_comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not is_comment:
            begun = begun if parts else number
            parts.append(line[:-1])
            continue
        if parts and is_comment:
            line = ""
        begun = begun if parts else number
        whole = _COMMENT.sub("", "".join([*parts, line])).strip()
        parts = []
        if whole:
            yield begun, whole


def _read_line(lines: Lines, source: Source, number: int, text: str, *, constraint: bool) -> None:
    text = _VARIABLE.sub(lambda found: os.environ.get(found[1], found[0]), text)
    if text.startswith("-"):
        _read_options(lines, source, number, text)
        return
    hashes = _HASH.findall(text)
    wrong = _OPTION.search(text)
    if wrong:
        raise source.error(
            f"--{wrong[1]} of a single requirement cannot be honoured by any backend here",
            "Take it out, or give a wheel.",
            number,
        )
    requirement = _HASH.sub("", text).strip()
    with source.at(number):
        requirement = _named(source, requirement, number)
        check_requirement("the line", requirement)
    if constraint:
        lines.draft.option("constraints", [requirement])
        return
    if hashes:
        lines.locked.append(" ".join([requirement, *(f"--hash={each}" for each in hashes)]))
    elif lines.loose is None:
        lines.loose = source.error(
            f"{requirement!r} has no hash, and others of the file have one",
            "Give each a hash (uv pip compile --generate-hashes), or none.",
            number,
        )
    if not hashes:
        lines.draft.pypi(requirement, number, "the line")


def _read_options(lines: Lines, source: Source, number: int, text: str) -> None:
    editable = _EDITABLE.match(text)
    if editable:  # all of the line is its value: a path with blanks, extras, a marker
        _editable(lines.draft, source, number, text[editable.end() :].strip())
        return
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise source.error(
            f"{text!r} cannot be read: {error}", "Close the quotes.", number
        ) from error
    while words:
        word = words.pop(0)
        name, equals, value = word[:2], "", word[2:]
        if word.startswith("--"):
            name, equals, value = word.partition("=")
        if name in _WITHOUT:
            _take(lines, source, number, name, "")
            continue
        if name not in _WITH_VALUE:
            raise source.error(
                f"the option {name!r} is not known here",
                "Take it out; what pip reads in such a file is in its documentation.",
                number,
            )
        if not equals and not value:
            if not words:
                raise source.error(f"the option {name!r} lacks its value", "Add it.", number)
            value = words.pop(0)
        _take(lines, source, number, _WITH_VALUE[name] or name, value)


def _take(lines: Lines, source: Source, number: int, name: str, value: str) -> None:
    draft = lines.draft
    if name in ("--requirement", "--constraint"):
        _include(lines, source, number, value, constraint=name == "--constraint")
    elif name == "--index-url":
        draft.option("index_url", value)
    elif name == "--extra-index-url":
        draft.option("extra_index_urls", [value])
    elif name == "--find-links":
        draft.option("find_links", [value if "://" in value else source.absolute(value)])
    elif name == "--no-index":
        draft.option("no_index", True)
    elif name == "--pre":
        draft.option("prereleases", True)
    elif name == "--uploaded-prior-to":
        draft.put("exclude_newer", value, number)
    elif name in ("--no-binary", "--only-binary"):
        if value != ":none:":
            names = [each.strip() for each in value.split(",") if each.strip()]
            draft.option(name.strip("-").replace("-", "_"), names)
    else:
        assert name in _PASSED_OVER


def _include(lines: Lines, source: Source, number: int, path: str, *, constraint: bool) -> None:
    if "://" in path:
        raise source.error(
            f"{path!r} would have to be fetched to be read", "Save it beside this file.", number
        )
    absolute = source.absolute(path)
    if absolute in lines.open_files:
        raise source.error(f"{path!r} is a file that includes this one", "Cut the circle.", number)
    try:
        inner = load(absolute)
    except OSError as error:
        raise source.error(
            f"{path!r} cannot be read: {error.strerror}",
            f"Paths are relative to {source.folder!r}.",
            number,
        ) from error
    lines.open_files.append(absolute)
    for inner_number, text in logical_lines(inner.text):
        _read_line(lines, inner, inner_number, text, constraint=constraint)
    lines.open_files.pop()


def _editable(draft: Draft, source: Source, number: int, value: str) -> None:
    value, _, condition = value.partition(";")
    value, marker = value.strip().strip("\"'"), condition.strip()
    if not value:
        raise source.error("the option '-e' lacks its value", "Add it.", number)
    if marker and not holds_here(source, marker, number):
        return
    if "://" in value and not value.startswith("file:"):
        # Nothing can be edited in an environment of the cache: the checkout is installed as it is.
        draft.pypi(_named(source, value, number), number, "the line")
        return
    path = value
    if value.startswith("file:"):
        from urllib.request import url2pathname  # takes long to import

        path = url2pathname(urlsplit(value).path)
    extras = _EXTRAS.search(path)
    wanted = ""
    if extras and not os.path.exists(source.absolute(path)):
        path, wanted = path[: extras.start()], "".join(extras[1].split())
    if not os.path.isdir(source.absolute(path)):
        raise source.error(
            f"{source.absolute(path)!r} is no folder",
            f"Paths are relative to {source.folder!r}.",
            number,
        )
    draft.add("editable", f"{source.absolute(path)}{wanted}", number)


def _named(source: Source, text: str, number: int) -> str:
    """Return a requirement of PEP 508 for one that may be a bare path or URL."""
    if _DIRECT.match(text):
        return text
    address, _, condition = text.partition(" ;") if " ;" in text else text.partition(";")
    address = address.strip()
    is_url = re.match(r"[\w+.-]+://|file:|git\+", address) is not None
    is_path = not is_url and (
        address.startswith((".", "/", "~"))
        or address.endswith((".whl", ".tar.gz", ".zip"))
        or (os.sep in address and "@" not in address)
    )
    if not is_url and not is_path:
        return text
    extras = _EXTRAS.search(address)
    if extras and not is_url:
        address = address[: extras.start()]
    path = source.absolute(address) if is_path else address
    if is_path and not os.path.exists(path):
        raise source.error(
            f"{path!r} does not exist", f"Paths are relative to {source.folder!r}.", number
        )
    name = _name_of(path if is_path else unquote(urlsplit(address).path), address)
    if name is None:
        raise source.error(
            f"{text!r} does not say what it is the package of",
            f"Write 'name @ {Path(path).as_uri() if is_path else address}'.",
            number,
        )
    url = Path(path).as_uri() if is_path else re.sub(r"#egg=[^&]*&?", "#", address).rstrip("#")
    wanted = extras[1] if extras and is_path else ""
    return f"{name}{wanted} @ {url}" + (f" ; {condition.strip()}" if condition.strip() else "")


def _name_of(path: str, address: str) -> str | None:
    """Return the name of the package at a path, from its file name, its URL or its project."""
    egg = re.search(r"[#&]egg=([\w.-]+)", address)
    if egg:
        return egg[1]
    file = os.path.basename(path.rstrip("/"))
    if file.endswith(".whl"):
        return file.partition("-")[0].replace("_", "-")
    archive = re.fullmatch(r"(.+?)-\d[^-]*\.(?:tar\.gz|zip)", file)
    if archive:
        return archive[1]
    manifest = os.path.join(path, "pyproject.toml")
    if os.path.isfile(manifest):
        return parse(load(manifest)).table("project").text("name")
    return None
