"""Classes whose code says when it has run. Importable elsewhere: pytest rewrites no such module."""

from __future__ import annotations

import abc
import collections
import dataclasses
import enum
from collections.abc import Iterator
from typing import Any, NamedTuple

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


class Color(enum.Enum):
    RED = 1
    BLUE = (1, "b")


class Number(enum.IntEnum):
    ONE = 1


class Text(str, enum.Enum):
    A = "a"


class Outer:
    class Inner(enum.Enum):
        B = 2


Pair = collections.namedtuple("Pair", "a b")  # noqa: PYI024 - what is meant


class Triple(NamedTuple):
    a: int
    b: str
    c: float = 1.5


@dataclasses.dataclass(frozen=True)
class Frozen:
    number: int
    text: str
    other: int = dataclasses.field(default=1, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots:
    number: int
    text: str


class Loud(enum.Enum):
    RED = 1

    def __hash__(self) -> int:
        RAN.append("__hash__")
        return 1


class Finding(enum.Enum):
    RED = 1

    @classmethod
    def _missing_(cls, value: object) -> Any:
        RAN.append("_missing_")
        return cls.RED


class Several(enum.Flag):
    A = 1


class NewPair(Pair):
    def __new__(cls, *args: Any) -> Any:
        RAN.append("__new__")
        return super().__new__(cls, *args)


class ListedPair(tuple[int, ...]):
    __slots__ = ()

    def __iter__(self) -> Iterator[int]:
        RAN.append("__iter__")
        return super().__iter__()


@dataclasses.dataclass(frozen=True)
class OwnHash:
    number: int = 1

    def __hash__(self) -> int:
        RAN.append("__hash__")
        return 1


class OwnSlots:
    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        object.__setattr__(self, "value", value)

    def __setattr__(self, name: str, value: Any) -> None:
        RAN.append("__setattr__")


class DerivedSlots(Slots):
    def __init__(self, value: int) -> None:
        super().__init__()
        self.other = value

    @property
    def watched(self) -> int:
        return 1

    @watched.setter
    def watched(self, value: int) -> None:
        RAN.append("watched")
