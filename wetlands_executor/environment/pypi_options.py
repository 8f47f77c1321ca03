"""``PyPIOptions``: how packages of Python indexes are to be found and chosen, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final, Literal, get_args

from wetlands_executor.environment.notation import (
    FrozenMapping,
    check_requirement,
    check_text,
    checked_mapping,
    checked_texts,
)
from wetlands_executor.errors import SpecError

IndexStrategy = Literal["first-index", "unsafe-first-match", "unsafe-best-match"]
_FLAGS: Final = ("no_index", "prereleases")


@dataclass(frozen=True, slots=True, kw_only=True)
class PyPIOptions:
    """How PyPI packages are to be found and chosen; a backend may refuse what it cannot do.

    Attributes:
        index_url: the package index; None stands for the installer's own (PyPI, or what its
            settings say).
        extra_index_urls: indexes beside it, the most important first. uv prefers them to
            ``index_url``, pip takes the best version of all.
        index_strategy: which of several indexes may serve a package, in uv's words.
        find_links: further pages, archives or folders with packages.
        no_index: True to use ``find_links`` alone.
        sources: normalised name of a package to the URL of the only index that it may come from.
        constraints: requirements that limit versions and ask for nothing.
        overrides: requirements that replace those of any package.
        prereleases: True if pre-releases may be chosen.
        only_binary: names of packages that must not be built here; ``":all:"`` is all.
        no_binary: names of packages that must be built here; ``":all:"`` is all.
    """

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    index_strategy: IndexStrategy | None = None
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    sources: Mapping[str, str] = field(default_factory=FrozenMapping)
    constraints: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    prereleases: bool = False
    only_binary: tuple[str, ...] = ()
    no_binary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "sources":
                self._put(each.name, FrozenMapping(checked_mapping(each.name, value)))
            elif each.name == "index_url":
                if value is not None:
                    check_text(each.name, value)
            elif each.name == "index_strategy":
                if value is not None and value not in get_args(IndexStrategy):
                    known = ", ".join(repr(choice) for choice in get_args(IndexStrategy))
                    raise SpecError(f"index_strategy={value!r} is none of {known}")
            elif each.name in _FLAGS:
                if not isinstance(value, bool):
                    raise SpecError(f"{each.name}={value!r} is neither True nor False")
            else:
                self._put(each.name, checked_texts(each.name, value))
        for name in ("constraints", "overrides"):
            for text in getattr(self, name):
                check_requirement(name, text)

    def _put(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
