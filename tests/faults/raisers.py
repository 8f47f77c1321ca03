"""Exceptions that pickle does not rebuild, or not as they were. Imported by Python 3.8 too."""

import builtins
import dataclasses


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int
    text: str = "text"

    def __str__(self):
        return f"{self.code} {self.text}"


@dataclasses.dataclass
class Data(Exception):
    code: int


class Refusing(Exception):
    def __init__(self, code):
        Exception.__init__(self, code)
        self.__dict__["code"] = code

    def __setattr__(self, name, value):
        raise AttributeError("this exception does not change")


class Slots(Exception):
    __slots__ = ("__hidden", "code")

    def __init__(self, code, hidden):
        super().__init__(f"slots {code}")
        self.code = code
        self.__hidden = hidden

    def hidden(self):
        return self.__hidden


class Keyword(Exception):
    def __init__(self, *, code):
        super().__init__(f"keyword {code}")
        self.code = code


class Composed(ValueError):
    def __init__(self, code):
        super().__init__(f"composed {code}")
        self.code = code


class New(Exception):
    def __new__(cls, first, second, *, third):
        self = super().__new__(cls, first, second)
        self.third = third
        return self

    def __init__(self, first, second, *, third):
        super().__init__(f"new {first}")


class File(OSError):
    def __init__(self, number):
        super().__init__(number, "no such thing", "a file")
        self.number = number


class NoReduce(Exception):
    def __reduce__(self):
        raise RuntimeError("not this one")


class ReducesToAnother(Exception):
    def __reduce__(self):
        return ValueError, ("another",)


class Nested(Exception):
    def __init__(self, inner, code):
        super().__init__("nested", inner, [inner])
        self.code = code


MAKERS = {
    "frozen": lambda: Frozen(3),
    "data": lambda: Data(4),
    "refusing": lambda: Refusing(5),
    "slots": lambda: Slots(1, "hidden"),
    "keyword": lambda: Keyword(code=7),
    "composed": lambda: Composed(8),
    "new": lambda: New(1, 2, third=3),
    "file": lambda: File(2),
    "no reduce": lambda: NoReduce("message"),
    "reduces to another": lambda: ReducesToAnother("message"),
    "nested": lambda: Nested(Keyword(code=1), 2),
    "key": lambda: KeyError("k"),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"a", 0, 1, "why"),
    "stop": lambda: StopIteration(3),
    "import": lambda: ImportError("message", name="module"),
    "syntax": lambda: SyntaxError("message", ("file", 1, 2, "text")),
}

Group = getattr(builtins, "ExceptionGroup", None)
if Group is not None:

    class OwnGroup(Group):
        def __new__(cls, errors, code):
            self = super().__new__(cls, "own group", errors)
            self.code = code
            return self

        def __init__(self, errors, code):
            pass

        def derive(self, errors):
            return OwnGroup(errors, self.code)

    MAKERS["group"] = lambda: Group(
        "group", [Keyword(code=1), Composed(2), Group("inner", [Frozen(3), New(1, 2, third=3)])]
    )
    MAKERS["own group"] = lambda: OwnGroup([Keyword(code=1)], 5)


def throw(name):
    error = MAKERS[name]()
    raise error


def picture(error):
    """Return all that there is to an exception, in a form that can be compared."""
    members = [picture(member) for member in getattr(error, "exceptions", ())]
    args = (
        []
        if members
        else [picture(arg) if isinstance(arg, BaseException) else repr(arg) for arg in error.args]
    )
    attributes = {name: value for name, value in vars(error).items() if name != "__notes__"}
    return type(error).__name__, str(error), args, attributes, members
