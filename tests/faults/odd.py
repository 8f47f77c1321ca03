"""What the tests of containment call in workers.

Exceptions, log records and reports of classes that say something else. Imported by workers.
"""

import copyreg
import enum
import logging
import os


class Safe(str):  # noqa: SLOT000 - as other libraries have them
    """Text that stays of its class, whatever is done to it (as Django's SafeString, or numpy's
    str_).
    """

    def __str__(self):
        return self


class Level(enum.IntEnum):
    GOOD = 1


class Share(float):
    pass


def _refuse(*_args):
    raise ValueError("refused")


class StrSubclass(Exception):
    def __str__(self):
        return Safe("odd")


class StrRaises(Exception):
    __str__ = __repr__ = _refuse


class StrExits(Exception):
    def __str__(self):
        raise SystemExit(3)


class StrIsNumber(Exception):
    def __str__(self):
        return 5  # noqa: PLE0307 - as programs have it


class ReduceRaises(Exception):
    __reduce__ = __reduce_ex__ = _refuse


class ReduceIsNonsense(Exception):
    def __reduce__(self):
        return 5


class ReduceExits(Exception):
    """Unpickling it ends the program that does it."""

    def __reduce__(self):
        return os.sys.exit, (7,)


class ReduceInterrupts(Exception):
    def __reduce__(self):
        return _interrupt, ()


def _interrupt():
    raise KeyboardInterrupt


class ReduceRecurses(Exception):
    def __reduce__(self):
        return _recurse, ()


def _recurse():
    return _recurse()


class ReduceIsNoException(Exception):
    def __reduce__(self):
        return int, ()


class ArgsRaise(Exception):
    args = property(_refuse)


class Frozen(Exception):
    def __init__(self, what):
        super().__init__(what)
        object.__setattr__(self, "what", what)

    __setattr__ = _refuse


class CauseRefuses(Exception):
    __cause__ = property(lambda self: None, _refuse)


class ClassRaises(Exception):
    __class__ = property(_refuse)


class DictRaises(Exception):
    __dict__ = property(_refuse)


class _Meta(type):
    def __getattribute__(cls, name):
        if name in ("__qualname__", "__module__", "__name__"):
            raise AttributeError(name)
        return super().__getattribute__(name)


class NameRaises(Exception, metaclass=_Meta):
    pass


class NeedsMore(Exception):
    def __init__(self, first, second):
        super().__init__("needs more")


ERRORS = {
    key: error
    for key, error in list(globals().items())
    if isinstance(error, type) and issubclass(error, Exception)
}


def fail(name):
    """Raise one of the exceptions above."""
    kind = ERRORS[name]
    raise kind("a", "b") if kind is NeedsMore else kind("a")


def fail_nested(name):
    """Raise an exception that holds one of them, as cause and as argument."""
    try:
        fail(name)
    except Exception as error:
        raise ValueError(error) from error


def fail_in_group(name):
    """Raise a group of them."""
    errors = []
    for _ in range(2):
        try:
            fail(name)
        except Exception as error:
            errors.append(error)
    raise ExceptionGroup(Safe("group"), errors)  # noqa: F821 - Python 3.11


def put_out(name):
    """Send one of them as an output, then return it."""
    from wetlands_executor import current_task

    try:
        fail(name)
    except Exception as error:
        try:
            current_task().set_output("error", error)
        except Exception:
            current_task().set_output("error", "it cannot be pickled")
    return 5


def speak(value_of):
    """Log a record with values of classes of its own, or of numpy."""
    values = {
        "enum": lambda: {"value": Level.GOOD},
        "float": lambda: {"value": Share(0.5)},
        "text": lambda: {"value": Safe("x")},
        "key": lambda: {Safe("value"): 1},
        "unprintable": lambda: {"value": StrRaises("a")},
        "class": lambda: {"value": Level},
        "float64": lambda: {"value": __import__("numpy").float64(0.5)},
        "float32": lambda: {"value": __import__("numpy").float32(0.5)},
        "int64": lambda: {"value": __import__("numpy").int64(7)},
        "array": lambda: {"value": __import__("numpy").zeros(3)},
    }
    logging.getLogger("tests.odd").warning("spoken", extra=values[value_of]())
    return 1


def speak_oddly(how):
    """Log with a message, arguments or an error of an odd class."""
    logger = logging.getLogger(Safe("tests.odd"))
    if how == "message":
        logger.warning(Safe("spoken"))
    elif how == "level":
        logger.log(Level.GOOD + 30, "spoken")
    elif how == "argument":
        logger.warning("spoken %s", StrRaises("a"))
    elif how == "error":
        try:
            fail("StrRaises")
        except Exception:
            logger.warning("spoken", exc_info=True)
    return 1


def report(how):
    """Report progress with values of odd classes."""
    from wetlands_executor import current_task

    task = current_task()
    if how == "message":
        task.update(Safe("half"), current=1, maximum=2)
    elif how == "numbers":
        task.update("half", current=Level.GOOD, maximum=Share(2))
    elif how == "unprintable":
        task.update(StrRaises("a"), current=1, maximum=2)
    elif how == "surrogates":
        task.update(os.fsdecode(b"caf\xe9"), current=1, maximum=2)
    return 1


class Numbered:
    """A class that has a number for pickle, in the worker only."""


def put_out_numbered():
    from wetlands_executor import current_task

    copyreg.add_extension(__name__, "Numbered", 0x7B)
    try:
        current_task().set_output("thing", Numbered())
        return Numbered()
    finally:
        copyreg.remove_extension(__name__, "Numbered", 0x7B)


def name_of_task():
    from wetlands_executor import current_task

    return current_task().name


def same(value):
    return value


def size(*values):
    return sum(map(len, values))
