"""The parts of a conda specification (``MatchSpec``), and its versions as PEP 440 writes them.

Pure functions. What is not understood exactly is left to the solver, which knows better.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from wetlands_executor.environment.notation import conda_name, conda_text


class CondaParts(NamedTuple):
    """What a conda specification says.

    Attributes:
        name: of the package, in small letters.
        version: as conda writes it: ``"1.19"`` is exact, ``"=1.19"`` begins so, ``">=1,<2"``; None
            is any.
        build: the build string, perhaps with ``*``; None is any.
        channel: None is any.
        others: what else is in brackets (``md5``, ``subdir``, ...), by name.
    """

    name: str
    version: str | None = None
    build: str | None = None
    channel: str | None = None
    others: Mapping[str, str] = MappingProxyType({})


def conda_parts(text: str) -> CondaParts | None:
    """Take a conda specification apart; None if it is a URL.

    After conda's documentation of match specifications: ``name=1.19`` begins so, ``name=1.19=h1_0``
    and ``name 1.19 h1_0`` are exactly this version and this build; brackets count more.

    Raises:
        SpecError: it is no such text.
    """
    conda_name(text)
    if "://" in text.partition("[")[0].rpartition("::")[2]:
        return None
    plain, _, inside = conda_text(text).partition("[")
    channel, _, plain = plain.rpartition("::")
    found = re.match(r"[\w.-]+", plain.strip(), re.ASCII)
    name = found[0].lower() if found is not None else ""
    rest = plain.strip()[len(name) :].strip()
    exact = re.fullmatch(r"={1,2}([^=<>!~\s,|]+)(?:=|\s+)([^=<>!~\s,|]+)", rest)
    if exact is not None:
        version, build = exact.groups()
    else:
        version, _, build = rest.partition(" ")
    told = {
        key: value.strip("\"'")
        for key, value in re.findall(r"(\w+)\s*=\s*('[^']*'|\"[^\"]*\"|[^,\]]+)", inside)
    }
    return CondaParts(
        name,
        told.pop("version", "") or version or None,
        told.pop("build", "") or build.strip() or None,
        told.pop("channel", "") or channel or None,
        told,
    )


def conda_versions(text: str) -> str | None:
    """Return the versions of a conda specification as PEP 440 writes them.

    Args:
        text: what follows the name: ``"=3.10"``, ``" 3.10.*"``, ``" >=3.9,<3.12"``.

    Returns:
        None if PEP 440 cannot say it (a choice, a build, a channel, a pattern).
    """
    compact = re.sub(r"\s*([=<>!~,])\s*", r"\1", text.strip())
    clauses = []
    for clause in compact.split(","):
        found = re.fullmatch(r"(==|!=|~=|<=|>=|<|>|=|)(\d[\w.]*?)(\.?\*)?", clause, re.ASCII)
        if found is None:
            return None
        operator, version, star = found.groups()
        if operator == "=" or (star and operator in ("", "==")):
            clauses.append(f"=={version}.*")
        elif operator == "":  # a bare version is exact in conda
            clauses.append(f"=={version}")
        elif star and operator == "!=":
            clauses.append(f"!={version}.*")
        else:  # conda ignores the star behind an order
            clauses.append(f"{operator}{version}")
    return ",".join(clauses)
