"""Classes whose code says when it has run. Importable elsewhere: pytest rewrites no such module."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

#: What has run.
RAN: list[str] = []


class Plain:
    def __init__(self, value: Any = 1) -> None:
        self.value = value
        self.other = None


class Child(Plain, abc.ABC):
    marker = 5


@dataclasses.dataclass
class Data:
    number: int = 3
    text: str = "x"


class Reduced(Plain):
    def __reduce__(self) -> Any:
        RAN.append("__reduce__")
        return Reduced, ()


class Got(Plain):
    def __getattr__(self, name: str) -> Any:
        RAN.append(f"__getattr__ {name}")
        raise AttributeError(name)


class Watched(Plain):
    def __getattribute__(self, name: str) -> Any:
        RAN.append(f"__getattribute__ {name}")
        return object.__getattribute__(self, name)


class WithState(Plain):
    def __getstate__(self) -> dict[str, Any]:
        RAN.append("__getstate__")
        return {"value": 1}

    def __setstate__(self, state: dict[str, Any]) -> None:
        RAN.append("__setstate__")


class Made(Plain):
    def __new__(cls, *args: Any) -> Any:
        if args != ("quiet",):
            RAN.append("__new__")
        return object.__new__(cls)


class Hashed(Plain):
    def __hash__(self) -> int:
        RAN.append("__hash__")
        return 1

    def __eq__(self, other: object) -> bool:
        return self is other


class Slots:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 1


class Dict(dict[str, int]):
    pass


class Registered(Plain):
    pass
