"""A user's script.

``test_identity`` loads it under a name that no worker can import, so all of it travels by value.

Syntax of Python 3.8. Each function returns what is true in the process in which the script was
executed, unless its text says otherwise.
"""

import collections
import contextvars
import dataclasses
import enum
import functools
import inspect
import logging
import queue
import threading
import types
import unittest.mock
import weakref

from tests.worker import identity_module
from tests.worker.identity_module import MISSING as THEIRS
from tests.worker.identity_module import NAMED
from tests.worker.identity_module import UNSET as THEIR_UNSET


class Unset:
    pass


MISSING = object()
UNSET = Unset()
NAN = float("nan")
MARK = ("mark", 1)
REGISTRY = {}
ALIAS = REGISTRY
CALLS = []


# --- sentinels: the eight ways, and some more


def default(x=MISSING):
    return x is MISSING


def keyword(*, x=UNSET):
    return x is UNSET


def by_helper():
    return default()


class Store:
    nothing = UNSET
    calls = CALLS

    def get(self, key, default=MISSING):
        return default is MISSING and self.nothing is UNSET and Store.calls is CALLS


def by_method():
    return Store().get("a")


@dataclasses.dataclass
class Record:
    x: object = MISSING
    y: list = dataclasses.field(default_factory=lambda: CALLS)


def by_dataclass():
    return Record().x is MISSING and Record().y is CALLS


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: object = UNSET


FROZEN = Frozen()


def by_frozen():
    return FROZEN.x is UNSET


def _enclosing():
    kept = MISSING
    return lambda: kept is MISSING


by_closure = _enclosing()
by_partial = functools.partial(lambda x: x is MISSING, MISSING)
TABLE = {"a": MISSING, "b": [UNSET], "c": (MISSING, UNSET), MARK: CALLS}


def by_table():
    return (
        TABLE["a"] is MISSING
        and TABLE["b"][0] is UNSET
        and TABLE["c"][1] is UNSET
        and TABLE[MARK] is CALLS
    )


def by_attribute():
    return by_attribute.mark is MISSING and by_attribute.calls is CALLS


by_attribute.mark, by_attribute.calls = MISSING, CALLS


def by_tuple(x=MARK):
    return x is MARK


def by_nan(x=NAN):
    return x is NAN and x in [NAN, 0]


class Colour(enum.Enum):
    RED = 1


RED = Colour.RED


def by_enum(x=Colour.RED):
    return x is RED and RED is Colour.RED


async def by_coroutine(x=MISSING):
    return x is MISSING


def by_generator():
    def steps(x=MISSING):
        yield x is MISSING

    return all(steps())


class Slots:
    __slots__ = ("a", "b")


SLOTS = Slots()
SLOTS.a = CALLS


def by_slots():
    return SLOTS.a is CALLS and not hasattr(SLOTS, "b")


class Items(list):
    pass


ITEMS = Items([CALLS])
ITEMS.mark = MISSING


def by_subclass():
    return ITEMS[0] is CALLS and ITEMS.mark is MISSING and type(ITEMS) is Items


class Custom:
    def __init__(self):
        self.calls, self.lock = CALLS, threading.Lock()

    def __getstate__(self):
        return {"calls": self.calls}

    def __setstate__(self, state):
        self.__dict__.update(state)


CUSTOM = Custom()


def by_state():
    return CUSTOM.calls is CALLS


DEFAULTS = collections.defaultdict(list, a=CALLS)
DEQUE = collections.deque([CALLS, MISSING], maxlen=5)
ORDERED = collections.OrderedDict(a=CALLS)
COUNTER = collections.Counter("aab")
SPACE = types.SimpleNamespace(calls=CALLS, mark=MISSING)
PARTIAL = functools.partial(lambda x, y: x is MISSING and y is REGISTRY, MISSING, REGISTRY)


def by_library():
    found = DEFAULTS["a"], DEQUE[0], ORDERED["a"], SPACE.calls
    return (
        all(each is CALLS for each in found)
        and SPACE.mark is DEQUE[1] is MISSING
        and COUNTER["a"] == 2
        and PARTIAL()
    )


LOOP = []
LOOP.append(LOOP)
CIRCLE = {}


def by_circle():
    return LOOP[0] is LOOP and CIRCLE["me"] is CIRCLE and CIRCLE["f"] is by_circle


CIRCLE.update(me=CIRCLE, f=by_circle)
LARGE = {i: [i, MISSING] for i in range(5000)}
FIRST = LARGE[0]


def by_large():
    return LARGE[0] is FIRST and all(value[1] is MISSING for value in LARGE.values())


WAYS = {
    name: value
    for name, value in list(globals().items())
    if name.startswith("by_") or name in ("default", "keyword")
}

# --- sentinels that belong to modules
OF_DATACLASSES, OF_INSPECT, OF_MOCK = (
    dataclasses.MISSING,
    inspect.Parameter.empty,
    unittest.mock.DEFAULT,
)
LOGGER, DOTS, NOT = logging.getLogger("tests.worker.identity"), ..., NotImplemented


def well_known():
    return (
        OF_DATACLASSES is dataclasses.MISSING
        and OF_INSPECT is inspect.Parameter.empty
        and OF_MOCK is unittest.mock.DEFAULT
        and LOGGER is logging.getLogger("tests.worker.identity")
        and DOTS is ...
        and NOT is NotImplemented
        and THEIRS is identity_module.MISSING
        and THEIR_UNSET is identity_module.UNSET
        and NAMED is identity_module.NAMED
    )


def same(a, b, c):
    return a is MISSING and b is UNSET and c is identity_module.MISSING


def give(which):
    return {"missing": MISSING, "unset": [UNSET], "theirs": THEIRS}[which]


# --- what calls leave behind


def register(function):
    calls = CALLS

    @functools.wraps(function)
    def wrapper(*args):
        calls.append(function.__name__)
        return function(*args)

    REGISTRY[function.__name__] = wrapper
    return wrapper


@register
def one(x):
    return x + 1


@register
def two(x):
    return one(x) + 1


def state():
    """Return what the calls before have left: not what is true in the host."""
    return (
        list(CALLS),
        list(Store.calls),
        REGISTRY["one"] is one and ALIAS is REGISTRY,
        sorted(ALIAS),
    )


def add(name):
    ALIAS[name] = None
    return name in REGISTRY


class Account:
    opened = 0
    log = []

    def __init__(self):
        self.lock, self.items = threading.RLock(), []

    @classmethod
    def open(cls):
        cls.opened += 1
        return cls.opened

    def put(self, item):
        with self.lock:
            self.items.append(item)
        self.log.append(item)
        return len(self.items)


ACCOUNT = Account()
THE_ITEMS = ACCOUNT.items


def open_account():
    return Account.open()


def opened():
    return Account.opened


def put(item):
    return ACCOUNT.put(item)


def items():
    return list(THE_ITEMS), list(Account.log), ACCOUNT.items is THE_ITEMS


def _counter():
    seen = []

    def count():
        seen.append(1)
        return len(seen)

    return count, lambda: len(seen)


count, counted = _counter()


@functools.lru_cache(None)
def cached(x):
    return x


def misses():
    cached(1)
    return cached.cache_info().misses


# --- what each process has for itself

LOCK, RLOCK, LOCAL, EVENT = (
    threading.Lock(),
    threading.RLock(),
    threading.local(),
    threading.Event(),
)
CONDITION, SEMAPHORE, BOUNDED = (
    threading.Condition(LOCK),
    threading.Semaphore(2),
    threading.BoundedSemaphore(3),
)
BARRIER = threading.Barrier(1)
VARIABLE, BARE = contextvars.ContextVar("VARIABLE", default=MISSING), contextvars.ContextVar("BARE")
VALUES, KEYS, SET = (
    weakref.WeakValueDictionary(a=UNSET),
    weakref.WeakKeyDictionary(),
    weakref.WeakSet(),
)
QUEUE, SIMPLE = queue.Queue(5), queue.SimpleQueue()
EVENT.set()
QUEUE.put(1)


class Local(threading.local):
    x = 5


MINE = Local()


def synchronize():
    with RLOCK, SEMAPHORE, BOUNDED:
        pass
    with CONDITION:
        shared = LOCK.locked()
    return shared and not LOCK.locked() and BARRIER.wait(5) == 0


def own():
    """Return what is so in a new process, and not in the host."""
    fresh = not EVENT.is_set() and QUEUE.empty() and not len(VALUES) and not hasattr(LOCAL, "x")
    EVENT.set(), QUEUE.put(2), SIMPLE.put(3)
    LOCAL.x, MINE.x, VALUES["b"], KEYS[Unset] = 1, 6, Unset, 1
    SET.add(Unset)
    return fresh and QUEUE.maxsize == 5 and VARIABLE.get() is MISSING and BARE.get(None) is None


def kept():
    """Return what ``own`` has left."""
    return (
        EVENT.is_set()
        and QUEUE.qsize() == 1
        and SIMPLE.qsize() == 1
        and LOCAL.x == 1
        and MINE.x == 6
        and "b" in VALUES
        and Unset in KEYS
    )


def steps():
    yield 1


STEPS = steps()


def unpicklable():
    return STEPS


def through_helper():
    return unpicklable()


class Holder:
    steps = STEPS


def through_class():
    return Holder


# --- what is changed besides attributes, and what is known


class Left:
    def who(self):
        return "left"


class Right:
    def who(self):
        return "right"


class Child(Left):
    pass


chosen = Left()
chosen.attribute = 1


def who():
    return Child().who(), chosen.who(), chosen.attribute


class Held:
    def __init__(self, value):
        self.value = value

    def get(self, *args):
        return self.value, args

    @classmethod
    def name(cls):
        return cls.__name__


class SlotHeld:
    __slots__ = ("other", "value")

    def __init__(self, value):
        self.value = value


def look(held, several):
    value = held.value
    return held in several, value if type(value) is int else len(value)


def is_class(cls, held):
    return type(held) is cls and cls is Held


def given(a, b=5, *, c=6):
    from wetlands_executor import current_task

    return current_task().inputs


COUNT = 0


def number_of_loop():
    return COUNT


def counting(other):
    return lambda: (COUNT, number_of_loop(), other)


def set_count():
    global COUNT
    COUNT = -1
    return COUNT
