"""What travels between Python versions.

One function per case, which returns a callable and its arguments.

Loaded as ``__main__`` by the sending program, so that everything here goes by value; runs on Python 3.8
and newer. A result is compared by its ``repr`` with what the same call gives at home. This file is
data for the tests beside it; ``CASES`` is filled by the decorator, whose argument is the row of
docs/portable.md that the case stands for.
"""

import abc
import asyncio
import collections
import contextlib
import dataclasses
import enum
import functools
import linecache
import math
import os
import re
import sys
import typing

CASES = {}
#: Case -> the first version whose syntax it is; older ones refuse it.
SINCE = {}


def case(row, since=(3, 8)):
    def add(function):
        CASES[function.__name__] = (row, function)
        SINCE[function.__name__] = since
        return function

    return add


def write(name, text):
    """Execute a text that this file cannot have, because older versions could not read it.

    Return what it has defined.
    """
    filename = "<text of the case %s>" % name
    linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)
    exec(compile(text, filename, "exec", dont_inherit=True), globals())
    return globals()


OFFSET = 40
TABLE = {"a": [1, 2]}


def helper(x):
    return x + OFFSET


@case("functions")
def a_function():
    return helper, (2,)


@case("functions")
def a_function_with_defaults_and_keywords():
    def f(a, b=2, *rest, c=3, **more):
        return a, b, rest, c, sorted(more.items())

    return f, (1, 5, 6)


@case("functions")
def positional_only_parameters():
    def f(a, /, b, *, c=1):
        return a, b, c

    return f, (1, 2)


@case("functions")
def a_lambda():
    return lambda x: helper(x) * 2, (1,)


@case("functions")
def several_lambdas_in_one_line():
    fs = [lambda x: x + 1, lambda x: x + 2, lambda y: y + 3, lambda x: x + 1]
    return lambda: [f(1) for f in fs], ()


@case("functions")
def equal_lambdas_with_other_constants_in_one_line():
    fs = (lambda: 1, lambda: 1.0, lambda: True, lambda: (0.0,), lambda: (-0.0,))
    return lambda: [f() for f in fs], ()


@case("functions")
def equal_lambdas_behind_another_one():
    k = 3
    fs = [lambda: k, lambda: 1, lambda: 1, lambda: 2]
    return lambda: [f() for f in fs], ()


@case("functions")
def lambdas_within_lambdas_in_one_line():
    f = lambda x: lambda y: lambda z: x + y + z
    g = lambda x: lambda y: x * y  # noqa: E702, E731
    return lambda: (f(1)(2)(3), g(2)(3)), ()


@case("functions")
def lambdas_in_comprehensions_of_one_line():
    fs = [lambda x, i=i: x + i for i in range(3)] + [lambda x: x * 9]
    return lambda: [f(10) for f in fs], ()


@case("functions")
def one_lambda_of_a_line_with_several():
    fs = [lambda x: ("first", x), lambda x: ("second", x)]
    return fs[1], (1,)


@case("functions")
def lambdas_as_defaults():
    def f(x, g=lambda v: v + 1, *, h=lambda v: v * 2):
        return g(x), h(x)

    return f, (3,)


@case("functions")
def functions_that_were_moved_or_renamed():
    return lambda f, g, h: (
        f(4, 6),
        g("a", "b"),
        g("a", "ab").end(),
        h("/a/../b"),
        math.isqrt(9),
    ), (math.gcd, re.match, os.path.normpath)


@case("closures")
def a_closure():
    k = 3

    def f(x):
        return x * k

    return f, (5,)


@case("closures")
def closures_that_share_a_cell():
    count = 0

    def add():
        nonlocal count
        count += 1

    def read():
        return count

    return lambda: (add(), add(), read())[2], ()


@case("closures")
def a_recursive_closure():
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    return fib, (12,)


def even(n):
    return True if n == 0 else odd(n - 1)


def odd(n):
    return False if n == 0 else even(n - 1)


@case("closures")
def mutual_recursion():
    return even, (11,)


@case("closures")
def an_empty_cell():
    def f():
        try:
            return later
        except NameError as error:
            return type(error).__name__

    if OFFSET == 0:
        later = 1
    return f, ()


@case("closures")
def functions_in_functions_in_functions():
    def outer(a):
        def middle(b):
            def inner(c):
                return a, b, c

            return inner

        return middle

    return lambda: outer(1)(2)(3), ()


@case("closures")
def globals_of_all_kinds():
    return lambda: (OFFSET, TABLE["a"], collections.Counter("aab")["a"], typing.cast(int, 3)), ()


@case("generators and coroutines")
def a_generator_function():
    def f(n):
        for i in range(n):
            got = yield i * OFFSET
            if got:
                return
        yield from (x for x in "ab")

    return lambda n: list(f(n)), (3,)


@case("generators and coroutines")
def a_coroutine_function():
    async def f(x):
        await asyncio.sleep(0)
        return helper(x)

    return f, (1,)


@case("generators and coroutines")
def an_async_generator_function():
    async def numbers(n):
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    async def f(n):
        return [x async for x in numbers(n)] + [x * 2 async for x in numbers(n) if x]

    return f, (3,)


@case("generators and coroutines")
def an_async_context_manager():
    @contextlib.asynccontextmanager
    async def opened(x):
        yield x + 1

    async def f(x):
        async with opened(x) as value:
            return value

    return f, (1,)


@case("decorators")
def a_wrapping_decorator():
    def twice(f):
        @functools.wraps(f)
        def wrapper(*args):
            return f(f(*args))

        return wrapper

    @twice
    def f(x):
        """Text."""
        return x + 1

    return lambda: (f(1), f.__name__, f.__doc__, f.__wrapped__(1)), ()


@case("decorators")
def a_decorator_with_arguments():
    def add(n):
        def decorate(f):
            return lambda *args: f(*args) + n

        return decorate

    @add(1)
    @add(
        10,
    )
    def f(x):
        return x

    return f, (100,)


@case("decorators")
def a_partial():
    return functools.partial(lambda a, b, c=0: (a, b, c), 1, c=5), (2,)


@functools.lru_cache(maxsize=7)
def cached_fib(n):
    return n if n < 2 else cached_fib(n - 1) + cached_fib(n - 2)


@case("decorators")
def a_cached_function():
    return lambda n: (cached_fib(n), cached_fib.cache_info().maxsize, cached_fib.__name__), (30,)


@functools.singledispatch
def describe(x):
    return "other"


@describe.register(int)
def _(x):
    return "int"


@describe.register(list)
def _(x):
    return [describe(each) for each in x]


@case("decorators")
def a_dispatching_function():
    return describe, ([1, "x", [2]],)


@case("decorators")
def a_dispatching_method():
    class C:
        @functools.singledispatchmethod
        def go(self, x):
            return "other"

        @go.register(int)
        def _(self, x):
            return "int"

        bound = functools.partialmethod(go, 1)

    return lambda: (C().go(1), C().go("x")), ()


@case("decorators")
def a_context_manager():
    @contextlib.contextmanager
    def opened(x):
        yield x + OFFSET

    def f(x):
        with opened(x) as value:
            return value

    return f, (1,)


class Base:
    kind = "base"

    def __init__(self, x):
        self.x = x

    def value(self):
        return helper(self.x)

    @property
    def double(self):
        return self.x * 2

    @double.setter
    def double(self, value):
        self.x = value // 2

    @classmethod
    def make(cls, x):
        return cls(x)

    @staticmethod
    def plus(a, b):
        return a + b

    def __secret(self):
        return "secret %s" % self.x

    def open(self):
        return self.__secret()

    def __repr__(self):
        return "%s(%r)" % (type(self).__name__, self.x)

    def __eq__(self, other):
        return isinstance(other, Base) and other.x == self.x

    def __hash__(self):
        return hash(self.x)


class Derived(Base):
    kind = "derived"

    def value(self):
        return super().value() + 1


class Other:
    def value(self):
        return 1000


class Both(Derived, Other):
    def value(self):
        return super(Both, self).value() + Other.value(self)


@case("classes")
def a_class():
    def f(x):
        b = Base(x)
        b.double = 20
        return b, b.value(), b.double, Base.make(2), Base.plus(1, 2), b.open(), {b: 1}

    return f, (1,)


@case("classes")
def inheritance_and_super():
    return lambda: (
        Derived(1).value(),
        Both(1).value(),
        Derived.kind,
        [c.__name__ for c in Both.__mro__],
    ), ()


@case("classes")
def a_bound_method():
    return Derived(5).value, ()


@case("classes")
def methods_of_a_class():
    return lambda f, g: (f(3), g(1, 2)), (Derived.make, Derived.plus)


@case("classes")
def a_class_made_in_a_function():
    def make(n):
        class Local(Base):
            factor = n

            def value(self):
                return super().value() * n * self.factor

        return Local

    return lambda: (make(2)(1).value(), make(2).__qualname__.rpartition(".")[2]), ()


@case("classes")
def an_instance():
    return lambda obj: (obj, obj.value(), obj == Derived(7)), (Derived(7),)


@case("classes")
def nested_classes():
    class Outer:
        class Inner:
            def __hidden(self):
                return "inner"

            def get(self):
                return self.__hidden()

        def get(self):
            return self.Inner().get()

    return lambda: Outer().get(), ()


@case("classes")
def a_callable_instance():
    class Adder:
        def __init__(self, n):
            self.n = n

        def __call__(self, x):
            return x + self.n

    return Adder(3), (4,)


@case("classes")
def classes_with_slots():
    class Slotted:
        __slots__ = ("__private", "x")

        def __init__(self, x):
            self.x = x
            self.__private = 1

        def get(self):
            return self.x, self.__private

    def f(made):
        fresh = Slotted(2)
        try:
            fresh.other = 1
        except AttributeError:
            return made.get(), fresh.get()

    return f, (Slotted(1),)


@case("classes")
def a_cached_property():
    class C:
        calls = 0

        @functools.cached_property
        def value(self):
            type(self).calls += 1
            return 5

    def f():
        c = C()
        return c.value, c.value, C.calls

    return f, ()


@case("classes")
def a_descriptor():
    class Typed:
        def __set_name__(self, owner, name):
            self.name = name

        def __get__(self, obj, owner=None):
            return self if obj is None else obj.__dict__[self.name]

        def __set__(self, obj, value):
            obj.__dict__[self.name] = int(value)

    class C:
        x = Typed()

    def f():
        c = C()
        c.x = "5"
        return c.x, C.x.name

    return f, ()


@case("classes")
def a_metaclass():
    class Meta(type):
        def __call__(cls, *args):
            return ["made", super().__call__(*args)]

        def describe(cls):
            return "described " + cls.__name__

    class C(metaclass=Meta):
        def __repr__(self):
            return "C()"

    return lambda: (C(), C.describe()), ()


@case("classes")
def a_hook_for_subclasses():
    class Plugin:
        known = ["built in"]

        def __init_subclass__(cls, **kwargs):
            super().__init_subclass__(**kwargs)
            cls.mark = "marked " + cls.__name__

    class One(Plugin):
        pass

    def f():
        class Two(Plugin):
            pass

        return One.mark, Two.mark, Plugin.known

    return f, ()


@case("classes")
def a_registry_filled_by_a_metaclass():
    class Meta(type):
        made = []
        count = 0

        def __new__(meta, name, bases, space):
            found = super().__new__(meta, name, bases, space)
            meta.made.append(name)
            found.label = name.lower()
            return found

        def __init__(cls, name, bases, space):
            super().__init__(name, bases, space)
            Meta.count += 1

    class One(metaclass=Meta):
        pass

    class Two(One):
        pass

    def f():
        before = list(Meta.made), Meta.count, Two.label, type(Two) is Meta

        class Three(Two):
            pass

        return before, Meta.made[:3], Meta.count, Three.label

    return f, ()


@case("classes")
def a_registry_filled_by_a_metaclass_on_top_of_another():
    class Meta(abc.ABCMeta):
        made = []

        def __new__(meta, name, bases, space, **options):
            found = super().__new__(meta, name, bases, space, **options)
            Meta.made.append(name)
            return found

    class Shape(metaclass=Meta):
        @abc.abstractmethod
        def area(self):
            """Return it."""

    class Square(Shape):
        def area(self):
            return 4

    def f():
        return (
            list(Meta.made),
            Square().area(),
            isinstance(Square(), Shape),
            sorted(Shape.__abstractmethods__),
        )

    return f, ()


@case("classes")
def a_registry_filled_below_a_generic_class():
    kind = typing.TypeVar("kind")

    class Box(typing.Generic[kind]):
        made = []

        def __init_subclass__(cls, **kwargs):
            super().__init_subclass__(**kwargs)
            Box.made.append(cls.__name__)

    class IntBox(Box[int]):
        pass

    class AnyBox(Box[kind]):
        pass

    def f():
        return (
            list(Box.made),
            IntBox.__orig_bases__ == (Box[int],),
            AnyBox.__parameters__ == (kind,),
            type(AnyBox[int]()) is AnyBox,
        )

    return f, ()


@case("classes")
def arguments_of_a_class_statement():
    class Tagged:
        def __init_subclass__(cls, *, tag, **kwargs):
            super().__init_subclass__(**kwargs)
            cls.tag = tag

    class Meta(type):
        def __new__(meta, name, bases, space, flag=0):
            made = super().__new__(meta, name, bases, space)
            made.flag = flag
            return made

        def __init__(cls, name, bases, space, flag=0):
            super().__init__(name, bases, space)

    class One(Tagged, tag="one"):
        pass

    class Two(metaclass=Meta, flag=5):
        pass

    def f():
        class Three(Tagged, tag="three"):
            pass

        return One.tag, Two.flag, Three.tag

    return f, ()


@case("classes")
def an_abstract_class():
    class Shape(abc.ABC):
        @abc.abstractmethod
        def area(self):
            """Return it."""

        @property
        @abc.abstractmethod
        def name(self):
            """Return it."""

    class Square(Shape):
        name = "square"

        def area(self):
            return 4

    Shape.register(int)

    def f():
        try:
            Shape()
        except TypeError:
            return (
                Square().area(),
                isinstance(Square(), Shape),
                isinstance(1, Shape),
                isinstance("", Shape),
            )

    return f, ()


@case("classes")
def operators_and_iteration():
    class Vector:
        def __init__(self, *xs):
            self.xs = xs

        def __add__(self, other):
            return Vector(*(a + b for a, b in zip(self.xs, other.xs)))

        def __iter__(self):
            return iter(self.xs)

        def __len__(self):
            return len(self.xs)

        def __getitem__(self, i):
            return self.xs[i]

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            return True

        def __lt__(self, other):
            return self.xs < other.xs

    Vector = functools.total_ordering(Vector)

    def f():
        with Vector(1, 2) + Vector(3, 4) as v:
            assert v >= Vector(0)
            first, *rest = v
            return first, rest, len(v), v[0], sum(v)

    return f, ()


@case("exceptions")
def an_exception_class():
    class Failure(ValueError):
        def __init__(self, code, *, detail):
            super().__init__("%s: %s" % (code, detail))
            self.code = code

    def f():
        try:
            raise Failure(3, detail="bad") from KeyError("k")
        except ValueError as error:
            return type(error).__name__, error.code, str(error), repr(error.__cause__)

    return f, ()


@dataclasses.dataclass
class Point:
    x: int
    y: int = 2
    tags: list = dataclasses.field(default_factory=list)
    note: str = dataclasses.field(default="", repr=False, compare=False, metadata={"unit": "px"})
    shared: typing.ClassVar[int] = 9

    def norm(self):
        return self.x**2 + self.y**2


@case("dataclasses")
def a_dataclass():
    def f(given):
        made = Point(3)
        fields = [(each.name, dict(each.metadata)) for each in dataclasses.fields(Point)]
        return (
            made,
            made == Point(3),
            made.norm(),
            Point.shared,
            dataclasses.asdict(given),
            dataclasses.replace(given, x=0),
            fields,
            made.tags is Point(1).tags,
        )

    return f, (Point(1, 5, [1]),)


@case("dataclasses")
def a_frozen_and_ordered_dataclass():
    @dataclasses.dataclass(frozen=True, order=True)
    class Version:
        major: int
        minor: int = 0

        def bump(self):
            return dataclasses.replace(self, minor=self.minor + 1)

    def f(given):
        try:
            given.major = 1
        except dataclasses.FrozenInstanceError:
            return (
                sorted([Version(2), given, given.bump()]),
                {given: 1}[Version(1)],
                Version(1) < Version(1, 1),
            )

    return f, (Version(1),)


@case("dataclasses")
def a_dataclass_with_init_only_fields():
    @dataclasses.dataclass
    class Scaled:
        value: int
        factor: dataclasses.InitVar[int] = 3
        result: int = dataclasses.field(init=False)

        def __post_init__(self, factor):
            self.result = self.value * factor

    return lambda given: (
        Scaled(2),
        Scaled(2, factor=5),
        given,
        [each.name for each in dataclasses.fields(Scaled)],
    ), (Scaled(1),)


@case("dataclasses")
def dataclasses_that_inherit():
    @dataclasses.dataclass
    class Point3(Point):
        z: int = 7

        def norm(self):
            return super().norm() + self.z**2

    return lambda given: (Point3(1), Point3(1, 2, z=3).norm(), given, isinstance(given, Point)), (
        Point3(0),
    )


@case("dataclasses")
def a_dataclass_with_methods_of_its_own():
    @dataclasses.dataclass(eq=False)
    class Own:
        x: int

        def __repr__(self):
            return "own repr %d" % self.x

        def __eq__(self, other):
            return True

        __hash__ = None

    return lambda given: (given, given == 5, Own(3), Own.__hash__), (Own(1),)


@case("dataclasses")
def a_dataclass_that_refers_to_itself():
    @dataclasses.dataclass
    class Node:
        value: int
        next: "typing.Optional[Node]" = None

        def total(self):
            return self.value + (self.next.total() if self.next else 0)

        def push(self, value):
            return Node(value, self)

    return lambda given: (given.push(5).total(), Node(1)), (Node(1, Node(2)),)


if hasattr(dataclasses, "KW_ONLY"):

    @case("dataclasses with slots")
    def a_dataclass_with_slots():
        @dataclasses.dataclass(slots=True)
        class Slotted:
            x: int
            y: int = 2
            z: list = dataclasses.field(default_factory=list)

            def total(self):
                return self.x + self.y

        def f(given):
            made = Slotted(1)
            try:
                made.other = 1
            except AttributeError:
                return (
                    made,
                    made.total(),
                    given,
                    made == Slotted(1),
                    Slotted(1).z is made.z,
                    hasattr(made, "__dict__"),
                )

        return f, (Slotted(4, 5),)

    @case("dataclasses with slots")
    def a_frozen_dataclass_with_slots():
        @dataclasses.dataclass(frozen=True, slots=True)
        class Key:
            name: str
            size: int = 1

        def f(given):
            try:
                given.size = 1
            except (dataclasses.FrozenInstanceError, TypeError):
                return given, Key("b"), {given: 1}[Key("a", 5)]

        return f, (Key("a", 5),)

    @case("dataclasses with slots")
    def a_dataclass_with_keyword_only_fields():
        @dataclasses.dataclass
        class Options:
            first: int = 1
            _: dataclasses.KW_ONLY
            name: str
            size: int = dataclasses.field(default=3)

        def f(given):
            try:
                Options(1, "positional")
            except TypeError:
                return (
                    Options(5, name="n"),
                    Options(name="m", size=0),
                    given,
                    Options(name="m") == Options(name="m"),
                )

        return f, (Options(name="x"),)


Pair = collections.namedtuple("Pair", "a b", defaults=(5,))


class Row(typing.NamedTuple):
    """A row."""

    name: str
    size: int = 3

    def describe(self):
        return "%s x %d" % (self.name, self.size)

    @property
    def twice(self):
        return self.size * 2


class Triple(collections.namedtuple("Triple", ["a", "b", "c"])):
    __slots__ = ()

    def total(self):
        return sum(self)

    def __new__(cls, a, b=0, c=0):
        return super().__new__(cls, a, b, c)


@case("named tuples")
def a_namedtuple():
    return lambda given: (
        given,
        Pair(1),
        Pair(1)._replace(b=0),
        Pair._fields,
        given._asdict(),
        Pair(1) == (1, 5),
    ), (Pair(1, 2),)


@case("named tuples")
def a_typed_namedtuple():
    def f(given):
        return (
            given,
            Row("a").describe(),
            given.twice,
            Row.__doc__,
            Row._field_defaults,
            list(Row.__annotations__),
            type(given).__name__,
        )

    return f, (Row("x", 9),)


@case("named tuples")
def a_class_on_a_namedtuple():
    return lambda given: (given.total(), Triple(1), Triple(1, c=4).total()), (Triple(1, 2, 3),)


class Colour(enum.Enum):
    RED = 1
    GREEN = "g"
    CRIMSON = 1

    @property
    def shout(self):
        return self.name + "!"

    @classmethod
    def _missing_(cls, value):
        return cls.GREEN


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    R = enum.auto()
    W = enum.auto()
    RW = R | W


class Planet(enum.Enum):
    EARTH = (5.976e24, 6.37814e6)
    MARS = (6.421e23, 3.3972e6)

    def __init__(self, mass, radius):
        self.mass = mass
        self.radius = radius

    def gravity(self):
        return round(6.67e-11 * self.mass / self.radius**2, 2)


class Label(str, enum.Enum):
    def __new__(cls, value, text):
        obj = str.__new__(cls, value)
        obj._value_ = value
        obj.text = text
        return obj

    A = ("a", "first")
    B = ("b", "second")


@case("enumerations")
def an_enumeration():
    def f(given):
        return (
            given is Colour.RED,
            Colour("?").name,
            given.shout,
            [c.name for c in Colour],
            Colour.CRIMSON is given,
            Colour["CRIMSON"].name,
            Colour(1).value,
        )

    return f, (Colour.RED,)


@case("enumerations")
def enumerations_of_numbers_and_flags():
    def f(level, access):
        both = Access.R | Access.W
        return (
            level + 1,
            Level.LOW < level,
            int(level),
            both is Access.RW,
            bool(access & Access.R),
            Access.RW.value,
            isinstance(level, int),
        )

    return f, (Level.HIGH, Access.RW)


@case("enumerations")
def enumerations_with_a_constructor():
    return lambda given: (
        given.gravity(),
        Planet.MARS.radius,
        Planet((5.976e24, 6.37814e6)).name,
    ), (Planet.EARTH,)


@case("enumerations")
def enumerations_with_another_constructor():
    return lambda given: (
        given.text,
        Label("b").text,
        given == "a",
        given.upper(),
        Label.B.value,
    ), (Label.A,)


if hasattr(enum, "StrEnum"):

    @case("enumerations")
    def an_enumeration_of_strings():
        class Mode(enum.StrEnum):
            FAST = enum.auto()
            SLOW = enum.auto()

        return lambda given: (
            str(given),
            given.value,
            Mode("slow").name,
            "%s" % Mode.SLOW,
            given == "fast",
        ), (Mode.FAST,)


T = typing.TypeVar("T")


class Stack(typing.Generic[T]):
    def __init__(self) -> None:
        self.items: typing.List[T] = []

    def push(self, item: T) -> "Stack[T]":
        self.items.append(item)
        return self


class IntStack(Stack[int]):
    pass


class HasArea(typing.Protocol):
    def area(self) -> int: ...


@typing.runtime_checkable
class Closes(typing.Protocol):
    def close(self) -> None: ...


class Movie(typing.TypedDict, total=False):
    title: str
    year: int


@case("typing")
def a_generic_class():
    return lambda: (
        Stack[int]().push(1).items,
        IntStack().push(2).items,
        IntStack.__mro__[1].__name__,
    ), ()


Number = typing.NewType("Number", int)


@case("typing")
def a_new_type():
    return lambda: (Number(3), Number.__name__), ()


@case("typing")
def protocols():
    class Square(HasArea):
        def area(self) -> int:
            return 4

    class File:
        def close(self):
            pass

    return lambda: (Square().area(), isinstance(File(), Closes), isinstance(3, Closes)), ()


@case("typing")
def a_typed_dict():
    return lambda: (
        Movie(title="t"),
        sorted(Movie.__annotations__),
        Movie.__total__,
        Movie.__name__,
    ), ()


@case("typing")
def annotations_of_typing():
    def f(
        a: typing.Optional[int],
        b: "typing.List[Point]",
        c: Point,
        *args: typing.Callable[[int], str],
    ) -> typing.Dict[str, typing.Any]:
        x: int = 1
        return {"a": a, "n": len(b), "x": x}

    return lambda: (f(1, [2], 3), sorted(f.__annotations__)), ()


if hasattr(list, "__class_getitem__"):

    @case("typing")
    def annotations_that_are_generic_builtins():
        def f(
            a: list[int], b: dict[str, tuple[int, ...]], c: collections.abc.Callable[[int], str]
        ) -> set[Point]:
            return a, b, c

        class C:
            x: list[int]

        return lambda: (f(1, 2, 3), sorted(f.__annotations__), list(C.__annotations__)), ()


try:
    int | None

    @case("typing")
    def annotations_that_are_unions():
        def f(a: int | None, b: list[Point | None] | None = None) -> Point | int:
            return a, b

        @dataclasses.dataclass
        class C:
            x: int | None
            y: Point | str = ""

        return lambda: (f(1), sorted(f.__annotations__), C(1), C(2, "b")), ()

except TypeError:
    pass


# --- quoted annotations: they are objects of typing, and hold bytecode in some versions


class Tree:
    left: typing.Optional["Tree"] = None
    both: "typing.Tuple[Tree, Tree]"


Leaf = typing.TypeVar("Leaf", bound="Tree")
Chosen = typing.TypeVar("Chosen", "Tree", int)


@case("quoted annotations")
def quoted_in_a_signature():
    def f(
        a: typing.Optional["Tree"] = None,
        *rest: typing.Union["Tree", int],
        **more: typing.Dict[str, "Tree"],
    ) -> "typing.List[Tree]":
        return a, rest, more

    def g(
        call: typing.Callable[["Tree"], "Tree"],
        kind: typing.Type["Tree"],
        n: typing.Iterator[typing.Tuple["Tree", ...]] = (),
    ):
        return call(1), kind, n

    return lambda: (
        f(1, 2, x=3),
        g(lambda x: x + 1, 5),
        sorted(f.__annotations__),
        sorted(g.__annotations__),
    ), ()


@case("quoted annotations")
def quoted_in_a_class():
    return lambda given: (
        Tree.left,
        type(given) is Tree,
        list(Tree.__annotations__),
        str(Tree.__annotations__["left"].__args__[0]),
    ), (Tree(),)


@case("quoted annotations")
def quoted_in_a_dataclass():
    @dataclasses.dataclass
    class Node:
        value: int
        next: typing.Optional["Node"] = None
        shared: typing.ClassVar[typing.Optional["Node"]] = None
        factor: dataclasses.InitVar["int"] = 2
        nodes: typing.List["Node"] = dataclasses.field(default_factory=list)

        def __post_init__(self, factor):
            self.value *= factor

        def total(self: "Node") -> "int":
            return self.value + (self.next.total() if self.next else 0)

    return lambda given: (
        given.total(),
        Node(1),
        [f.name for f in dataclasses.fields(Node)],
        Node.shared,
    ), (Node(1, Node(2)),)


class Entry(typing.TypedDict):
    parent: typing.Optional["Entry"]
    children: "typing.List[Entry]"


class Step(typing.NamedTuple):
    before: typing.Optional["Step"] = None
    size: "int" = 1


class Walks(typing.Protocol):
    def walk(self, other: typing.Optional["Walks"]) -> "Walks": ...


class Box(typing.Generic[Leaf]):
    inner: typing.Optional["Box[Leaf]"] = None

    def put(self, leaf: Leaf, other: "typing.Optional[Box[int]]" = None) -> "Box[Leaf]":
        self.leaf = leaf
        return self


@case("quoted annotations")
def quoted_in_what_typing_makes():
    def f(given):
        return (
            Entry(parent=None, children=[]),
            sorted(Entry.__annotations__),
            given,
            Step(Step()),
            Step._fields,
            issubclass(Walks, typing.Generic),
        )

    return f, (Step(),)


@case("quoted annotations")
def quoted_bounds_of_type_variables():
    def f(x: Leaf, y: Chosen) -> Leaf:
        return x

    text = lambda v: getattr(v, "__forward_arg__", v)
    return lambda: (
        f(1, 2),
        Leaf.__name__,
        text(Leaf.__bound__),
        [str(text(c)) for c in Chosen.__constraints__],
        Box().put(3).leaf,
    ), ()


@case("quoted annotations")
def quoted_types_as_values():
    given = (
        typing.Optional["Tree"],
        typing.List["Tree"],
        typing.ForwardRef("Tree"),
        typing.Dict[str, typing.List["Tree"]],
    )
    return lambda *kinds: (
        [k.__args__[-1] is type(None) for k in kinds[:1]],
        kinds[1].__args__[0].__forward_arg__,
        kinds[2].__forward_arg__,
        kinds[3].__args__[1].__args__[0] == typing.ForwardRef("Tree"),
    ), given


@case("quoted annotations")
def quoted_types_that_were_evaluated():
    typing.get_type_hints(Tree)
    return (
        lambda: (
            typing.get_type_hints(Tree, {"Tree": int, "typing": typing})["left"]
            .__args__[0]
            .__name__
            != ""
        ),
        (),
    )


if hasattr(typing, "Annotated"):

    @case("quoted annotations")
    def quoted_below_a_remark():
        def f(
            x: typing.Annotated[typing.Optional["Tree"], "remark"],
            y: typing.Annotated["Tree", Base(1)] = 2,
        ) -> typing.Literal["Tree"]:
            return x, y

        class C:
            x: typing.Annotated["C", Base(2)] = None
            y: "typing.Annotated[C, 5]" = 3

        return lambda: (f(1), sorted(f.__annotations__), C.x, C.y, list(C.__annotations__)), ()


if hasattr(typing, "ParamSpec"):
    P = typing.ParamSpec("P")

    @case("typing")
    def parameters_of_functions():
        def decorate(f: typing.Callable[P, T]) -> typing.Callable[P, T]:
            @functools.wraps(f)
            def g(*args: P.args, **kwargs: P.kwargs) -> T:
                return f(*args, **kwargs)

            return g

        class Job(typing.Generic[P, T]):
            def __init__(self, f: typing.Callable[P, T]):
                self.f = f

        @decorate
        def h(x: int) -> int:
            return x + 1

        return lambda given: (h(1), Job(h).f(2), P.__name__, given.__name__), (P,)


if hasattr(typing, "TypeVarTuple"):
    Ts = typing.TypeVarTuple("Ts")

    @case("typing")
    def forms_that_are_young():
        def f(self: typing.Self, *args: typing.Unpack[Ts]) -> typing.Never:
            return args

        class Options(typing.TypedDict):
            x: typing.NotRequired[Base]
            y: typing.Required["Base"]

        class C:
            def m(self, other: typing.Annotated[Base, Base(1)]) -> typing.Self:
                return 5

        return lambda: (
            f(1, 2),
            Options(y=1),
            sorted(Options.__annotations__),
            C().m(1),
            Ts.__name__,
        ), ()


if hasattr(functools, "Placeholder"):

    @case("decorators")
    def partials_with_gaps():
        gap = functools.Placeholder

        class C:
            def f(self, a, b, c=0):
                return a, b, c

            g = functools.partialmethod(f, gap, 2, c=3)

        f = functools.partial(lambda a, b, c, d=0: (a, b, c, d), gap, "b", d=4)
        return lambda given: (
            given(1, 3),
            f(1, 3),
            functools.partial(f, 1)(3),
            C().g(1),
            C.g(C(), 1),
        ), (f,)


@case("decorators")
def partial_methods():
    class C:
        def f(self, a, b=0, *rest):
            return a, b, rest

        @classmethod
        def make(cls, a, b):
            return cls.__name__, a, b

        g = functools.partialmethod(f, 1, 2)
        h = functools.partialmethod(make, 1)
        i = functools.partialmethod(lambda self, x: x, 5)

    return lambda: (C().g(3), C.h(2), C().h(2), C().i(), C.g(C(), 4)), ()


@case("annotations")
def annotations_of_local_variables():
    kind, other, k = int, str, 5

    def f(v: kind):
        x: kind = 1
        y: other

        def g(z: other) -> kind:
            return z, x, k

        class C:
            a: other = 3

            def m(self, q: kind):
                b: other = q
                return b, k

        f.attribute: kind = 2
        return v, g(2), C.a, C().m(4)

    class D:
        def m(self, v: other):
            x: kind = 2
            return v, x, k

        a: kind = 3

    return lambda h=(lambda v: (v, k)): (f(0), D().m(3), D.a, h(1)), ()


@case("annotations")
def annotations_of_local_variables_from_the_future():
    text = """from __future__ import annotations
def make():
    kind, k = int, 5
    def f(v: kind):
        x: kind = 1
        def g(z: kind) -> kind:
            return z, x, k
        return v, g(2)
    return f
"""
    return write("future", text)["make"](), (3,)


if sys.version_info >= (3, 9):

    @case("annotations")
    def annotations_that_are_young():
        def f():
            def g(x: list[int], y: dict[str, tuple[int, ...]] = 5) -> set[int]:
                return x, y

            @dataclasses.dataclass
            class C:
                x: list[int]
                y: typing.ClassVar[typing.List[int]] = 7

            return g(1), C(2).x, [each.name for each in dataclasses.fields(C)]

        return f, ()


if sys.version_info >= (3, 10):

    @case("annotations")
    def unions_within_a_function():
        def f():
            def g(x: int | None, *y: str | int) -> Point | None:
                return x, y

            @dataclasses.dataclass
            class C:
                x: int | None = 3

            return g(1, 2), C().x

        return f, ()


if sys.version_info >= (3, 12):

    @case("typing", since=(3, 12))
    def type_parameters():
        text = """
def first[T](xs: list[T]) -> T:
    return xs[0]
class Heap[T: (int, str)]:
    items: list[T]
    def __init__(self): self.items = []
    def push(self, x: T) -> "Heap[T]":
        self.items.append(x)
        return self
class IntHeap(Heap[int]): pass
def closing[T](x: T):
    return lambda y: (T.__name__, x, y)
"""
        made = write("parameters", text)
        first, heap, sub, closing = (made[name] for name in ("first", "Heap", "IntHeap", "closing"))
        inner = closing(1)
        return lambda: (first([1, 2]), heap[int]().push(1).items, sub().push(2).items, inner(2)), ()

    @case("typing")
    def aliases_of_types():
        text = """
type Json = str | dict[str, Json] | list[Json]
type Rows = list[Cells]
type Cells = list[Rows] | int
type Plain = int
def f(x: Json, y: Rows = 2) -> Plain: return x, y, Json is not None, Rows is not None
"""
        return write("aliases", text)["f"], (1,)


if sys.version_info >= (3, 13):

    @case("typing")
    def parameters_with_defaults():
        made = typing.TypeVar("made", default=int, infer_variance=True)
        return lambda x: (typing.cast(made, x), made.__name__), (1,)


if sys.version_info >= (3, 14):

    @case("annotations")
    def annotations_that_are_evaluated_late():
        text = """
if typing.TYPE_CHECKING:
    from nowhere import Nothing
def of_a_function(x: Nothing, *y: list[Later]) -> Nothing | int:
    return x, y
@functools.wraps(of_a_function)
def wrapped(*args): return of_a_function(*args)
class Later:
    me: Later
    other: Nothing
    def m(self, x: Later) -> Nothing: return x
@dataclasses.dataclass
class Chain:
    x: int
    next: Chain | None = None
    other: Nothing = 3
    def total(self) -> Nothing: return self.x + (self.next.total() if self.next else 0)
@dataclasses.dataclass(slots=True)
class Slotted:
    x: int
    next: Slotted | None = None
    other: list[Nothing] = ()
class Keys(typing.TypedDict):
    a: typing.NotRequired[Keys]
    b: Nothing
class Fields(typing.NamedTuple):
    a: Nothing
    b: Fields | None = None
class Walks(typing.Protocol):
    def walk(self, x: Nothing) -> Walks: ...
def all_of_them(given):
    parts = Chain(1, Chain(2)).total(), Slotted(1), Keys(a=1), Fields(1), [f.name for f in dataclasses.fields(Chain)]
    return of_a_function(1, 2), wrapped(3), wrapped.__name__, Later().m(1), parts, given, issubclass(Walks, typing.Generic)
"""
        made = write("late", text)
        return made["all_of_them"], (made["Chain"](5),)

    @case("annotations")
    def annotations_within_a_function_that_are_evaluated_late():
        text = """
if typing.TYPE_CHECKING:
    from nowhere import Nothing
def f():
    from typing import TYPE_CHECKING, ClassVar
    if TYPE_CHECKING:
        from nowhere import Never
    @dataclasses.dataclass
    class Node:
        x: int
        next: Node | None = None
        other: Nothing | None = 7
        shared: ClassVar[int] = 5
        def m(self, q: Node, *r: Never) -> Tree: return q.x
    def g(x: Later, y: Nothing, z: Never, a: Node = 1) -> list[Later]: return x
    class Later: pass
    class Tree:
        kids: list[Tree]
        def add(self, t: Tree) -> Tree: return 3
    return g(1, 2, 3), Node(1, Node(2)).m(Node(4)), [k.name for k in dataclasses.fields(Node)], Tree().add(1), Node.shared
"""
        return write("late within", text)["f"], ()

    @case("functions", since=(3, 14))
    def template_strings():
        text = """
def f(name):
    made = t"hello {name!r:>5} {name}"
    return made.strings, [(each.value, each.conversion, each.format_spec) for each in made.interpolations], other.strings
other = t"a {1 + 1} b"
"""
        return write("templates", text)["f"], ("x",)


@case("defined in the worker")
def what_a_function_defines():
    def f():
        class Local:
            def get(self):
                return [lambda: OFFSET][0]()

        @dataclasses.dataclass
        class D:
            x: int

        N = collections.namedtuple("N", "a")
        E = enum.Enum("E", "X Y")
        return Local().get(), D(1) == D(1), N(1), E.X.name

    return f, ()


LIMIT = 7


@case("defined in the worker")
def a_class_whose_body_uses_globals():
    def f():
        class C(Base):
            limit = LIMIT
            table = [LIMIT for _ in range(2)]

            class D:
                inner = LIMIT + 1

        return C.limit, C.table, C.D.inner

    return f, ()


@case("defined in the worker")
def exec_in_the_worker():
    def f():
        space = {}
        exec("def g(): return 5", space)
        return space["g"](), eval("(lambda x: x + 1)(1)")

    return f, ()
