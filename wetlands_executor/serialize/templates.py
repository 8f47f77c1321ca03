"""Callables that are made anew for a call, of a function that workers know.

A lambda in a loop, a bound method and a ``functools.partial`` are other objects each time they are
submitted. What they are made of is not: the code of the lambda, the function of the method, the
function of the partial object. A worker is told of that once (its ``Definition``); each call brings
what is new, as a list of steps (``worker/code_templates.py`` takes them), and its arguments.

A *template* is what is known of a code object: the definition of a function that has it, with what
all functions made of it have in common. Of the values that one of them closes over, and of its
defaults, those that are plain scalars travel with each call; all others have to be the very objects
that they were. The same goes for globals, once the host has bound one to another scalar between two
calls: in a loop at the top of a script, the variable of the loop is one.

Invariant: a template refers to the code weakly, and to nothing else that the host's program uses.
It ends with the code, or when something that it stands for has changed.

Entered by any thread that submits, without a lock.
"""

from __future__ import annotations

import builtins
import dis
import functools
import itertools
import pickle
import sys
import types
import weakref
from functools import partial
from operator import attrgetter, is_
from typing import TYPE_CHECKING, Any

from wetlands_executor.serialize import changes, fast_checks, references
from wetlands_executor.serialize.definitions import Definition
from wetlands_executor.serialize.fast_checks import SHORT, are_short_scalars
from wetlands_executor.serialize.identity import WRITTEN, digest
from wetlands_executor.serialize.pickler import Stream, space_name
from wetlands_executor.serialize.scalars import are_numbers
from wetlands_executor.worker import code_templates, objects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from wetlands_executor.serialize.fast_checks import FastCheck
    from wetlands_executor.serialize.identity import Known, Record

#: A definition, and the steps from its function to the callable.
Made = tuple[Any, tuple[Any, ...]]
#: Templates of a code that may end because the next function closed over other objects: what
#: differs each time is not worth one.
MOST_ENDED = 2
#: Most steps: a partial object of a method.
MOST_STEPS = 4
#: Elements of a container that travels with each call.
MOST_ELEMENTS = 64


class Template:
    """What functions of one code object have in common.

    Args:
        definition: of a function that has the code.
        fast: tells whether what they reach is as it was.
        names: what ``_state_of`` gives of the function.
        space: name of the module whose globals they have.
        expected: the identity of each value that they close over, and of each default; None where
            it varies.
        numbers: what the definition has numbers for that no object of the host has.
        guarded: the objects at the places that do not vary.
        varying: names of globals whose values go with each call.
        annotations: those of the function; None if it has none.
    """

    __slots__ = (
        "_annotations",
        "_cells",
        "_defaults",
        "_fast",
        "_guarded",
        "_names",
        "_space",
        "_varying",
        "definition",
        "holds",
        "mask",
        "numbers",
    )

    def __init__(
        self,
        definition: Any,
        fast: FastCheck,
        names: tuple[Any, ...],
        space: str,
        expected: tuple[list[int | None], list[int | None]],
        numbers: list[int],
        guarded: dict[int, Known],
        varying: tuple[str, ...] = (),
        annotations: dict[str, Any] | None = None,
    ) -> None:
        self.definition = definition
        self._annotations = annotations
        #: What it stands for was unchanged when that was checked last.
        self.holds = True
        self._fast = fast
        self._names = names
        self._space = space
        self._varying = varying
        self._cells, self._defaults = expected
        places = (*self._cells, *self._defaults)
        self.mask = sum(1 << place for place, each in enumerate(places) if each is None)
        self.numbers = numbers
        self._guarded = guarded

    def steps(self, function: Any, record: Record) -> tuple[Any, ...] | None:
        """Return the steps to a function with the code; None if more has changed than may vary."""
        self.holds = False
        module, fast = sys.modules.get(self._space), self._fast
        closure, defaults = function.__closure__ or (), function.__defaults__ or ()
        if (
            _state_of(function) != self._names
            or getattr(module, "__dict__", None) is not function.__globals__
            or (not fast.holds(function) if fast.looks else fast.void)
            or (
                # as a rule there are none, which is found without another function
                (_ARE_LAZY and function.__annotate__ is not None) or function.__annotations__
                if self._annotations is None
                else not _has_annotations(function, self._annotations)
            )
            or len(closure) != len(self._cells)
            or len(defaults) != len(self._defaults)
        ):
            return None
        steps: tuple[Any, ...] = ()
        if self._varying:
            steps = self.globals_of(function)
            if not all(map(_may_be_global, steps[1][2])):
                return None
        self.holds = True
        found: list[Any] = []
        numbered: list[Any] = []
        try:
            for cell, identity in zip(closure, self._cells, strict=True):
                value = cell.cell_contents
                if identity is not None:
                    if id(value) != identity:
                        return None
                elif type(value) in _VALUES or _may_vary(value, record):
                    found.append(value)
                elif type(value) in _CONTAINERS and len(value) <= MOST_ELEMENTS:
                    if not _add_container(numbered, len(found), value, record):
                        return None
                    found.append(None)
                else:
                    return None
                entry = record.known.get(id(cell))
                if entry is not None and entry.shape is WRITTEN and entry.strong is cell:
                    return None
        except (ValueError, RuntimeError):
            return None  # an empty cell; another thread changes a container
        if defaults and not _add_varying(found, defaults, self._defaults, record):
            return None
        if numbered:
            given = (self.mask, tuple(found), tuple(numbered))
            return (*steps, code_templates.NUMBERED, given)
        return (*steps, code_templates.CLOSURE, (tuple(found), self.mask)) if found else steps

    def globals_of(self, function: Any) -> tuple[Any, ...]:
        """Return the step that binds the globals that vary; none if there are none."""
        if not self._varying:
            return ()
        values = tuple(map(function.__globals__.get, self._varying, _ABSENT))
        return (code_templates.GLOBALS, (self._space, self._varying, values))

    def values(self, function: Any, record: Record) -> tuple[Any, ...] | None:
        """Return all that varies of a function, whatever it is, when no steps were found.

        None if more than that has changed.
        """
        found: list[Any] = []
        try:
            contents = [cell.cell_contents for cell in function.__closure__ or ()]
        except ValueError:
            return None
        pairs = zip(
            (*contents, *(function.__defaults__ or ())),
            (*self._cells, *self._defaults),
            strict=True,
        )
        for value, identity in pairs:
            if identity is None:
                if type(value) is types.FunctionType and value.__closure__:
                    return None  # it may refer to this function, and then to this very object
                found.append(value)
            elif id(value) != identity:
                return None
        if any(record.of(cell).shape is WRITTEN for cell in function.__closure__ or ()):
            return None
        return tuple(found)

    def moved(self, function: Any) -> list[int]:
        """Return the places of a function at which other objects stand than did."""
        try:
            contents = [cell.cell_contents for cell in function.__closure__ or ()]
        except ValueError:
            return []
        values = (*contents, *(function.__defaults__ or ()))
        expected, known = (*self._cells, *self._defaults), self._guarded
        return [
            place
            for place, (value, identity) in enumerate(zip(values, expected, strict=False))
            if identity is not None
            and (id(value) != identity or (place in known and known[place].get() is not value))
        ]

    def changed_globals(self, space: dict[str, Any]) -> list[str]:
        """Return the names in a namespace that were bound to something else before."""
        return self._fast.changed_names(space)

    def reached(self) -> list[Known]:
        """Return the objects that the functions refer to."""
        return self._fast.reached()

    def end(self, record: Record) -> None:
        """Let workers forget it."""
        self._fast.end()
        self.definition.end()
        record.forget(self.numbers)


class Code(weakref.ref):  # type: ignore[type-arg]
    """A code object of which a function by value was submitted.

    Attributes:
        template: None for the first function; made for the second.
        varying: globals that were bound to another scalar between two of them.
        ended: how many templates have ended without a change of what they stand for.
        moving: places of variables and defaults at which another object stood each time.
        whole: functions with other objects at these places. One that is submitted again is pickled
            as it is, once.
    """

    __slots__ = ("ended", "key", "moving", "record", "template", "varying", "whole")

    def __new__(cls, code: types.CodeType, _record: Record) -> Self:  # noqa: D102
        return super().__new__(cls, code, _gone)

    def __init__(self, code: types.CodeType, record: Record) -> None:
        super().__init__(code, _gone)  # type: ignore[call-arg]
        self.key = id(code)
        self.record = record.itself
        self.template: Template | None = None
        self.varying: frozenset[str] = frozenset()
        self.moving: frozenset[int] = frozenset()
        self.whole: weakref.WeakSet[Any] = weakref.WeakSet()
        self.ended = 0

    def keep(self, template: Template | None) -> None:
        """Keep what is known of functions with the code."""
        self.template = template

    def learn(self, function: Any) -> None:
        """Note which globals have been bound to another scalar, and which objects are others."""
        if self.template is not None:
            self.moving = self.moving.union(self.template.moved(function))
            space = function.__globals__
            changed = self.template.changed_globals(space)
            self.varying |= {name for name in changed if _may_be_global(space.get(name, _ABSENT))}

    def reached(self) -> list[Known]:
        """Return the objects that the functions refer to."""
        return [] if self.template is None else self.template.reached()

    def end(self, record: Record) -> None:
        """Let go of the template: something that it stands for has changed."""
        template, self.template = self.template, None
        if template is not None:
            self.ended += template.holds
            template.end(record)


def _gone(code: Code) -> None:
    record = code.record()
    if record is not None and record.codes.get(code.key) is code:
        record.codes.pop(code.key, None)
        if code.template is not None:
            code.end(record)


def is_value(value: Any) -> bool:
    """Return True for what has no identity that a function could tell: it may travel as a copy."""
    return are_short_scalars(value if type(value) is tuple else (value,))


_state_of = attrgetter(
    "__kwdefaults__", "__dict__", "__name__", "__qualname__", "__doc__", "__module__"
)
#: Annotations are evaluated when they are asked for, which runs code of the user's.
_ARE_LAZY = sys.version_info >= (3, 14)
#: Containers that travel with each call if they hold few scalars, and their kinds.
_CONTAINERS: dict[Any, int] = {list: objects.LIST, dict: objects.DICT, set: objects.SET}
#: What is a value in any case.
_VALUES = frozenset((int, bool, type(None)))


#: What a namespace gives for a name that it does not have.
_ABSENT = itertools.repeat(Ellipsis)


def _may_be_global(value: Any) -> bool:
    """Return True for a value of a global that may go with a call.

    Its ``repr`` is the same in all versions of Python: see ``namespaces.bind``.
    """
    kind = type(value)
    if kind is str:
        return len(value) <= SHORT and value.isascii()
    return kind in _VALUES or (kind is float and value == value)


def _add_varying(
    found: list[Any], values: Sequence[Any], expected: list[int | None], record: Record
) -> bool:
    """Add the values that vary; False if one may not, or another is not the one that it was."""
    for value, identity in zip(values, expected, strict=True):
        if identity is None:
            if type(value) not in _VALUES and not _may_vary(value, record):
                return False
            found.append(value)
        elif id(value) != identity:
            return False
    return True


def _add_container(found: list[Any], place: int, value: Any, record: Record) -> bool:
    """Add a container of scalars, with its number and its version; False if it holds others.

    It is one object for workers, and has the version that ``by_value`` would give it.

    Raises:
        RuntimeError: another thread changes it.
    """
    kind = type(value)
    content = tuple(itertools.chain.from_iterable(value.items()) if kind is dict else value)
    if not are_short_scalars(content):
        return False
    number, version = record.of(value).number, digest(content)
    record.note_small()
    found.append((place, _CONTAINERS[kind], number, version, *content))
    return True


def _may_vary(value: Any, record: Record) -> bool:
    """Return True for a value that may travel as a copy.

    Not for a number that is none, nor for a tuple that a namespace of the host has: a function may
    ask whether it is that very object.
    """
    if type(value) is float and value != value:
        return False
    if type(value) is tuple:
        entry = record.known.get(id(value))
        if entry is not None and entry.get() is value:
            return False
    return is_value(value)


def again(function: Any, record: Record) -> Made | None:
    """Return how a function is made whose code has a template. Runs no code of the user's."""
    code = record.codes.get(id(function.__code__))
    template = None if code is None else code.template
    if template is None:
        return None
    steps = template.steps(function, record)
    return None if steps is None else (template.definition, steps)


def of_function(
    function: Any,
    record: Record,
    dump: Callable[[Any, frozenset[str]], tuple[bytes, Any]],
    dump_values: Callable[[tuple[Any, ...]], tuple[bytes, Any]],
) -> Made | None:
    """Return how a function by value is made, if others with its code were submitted before.

    None for the first one, and for what has to be pickled as it is.

    Args:
        function: what is submitted.
        record: of the pool.
        dump: pickles a function by value, without globals of these names.
        dump_values: pickles values as those that a function by value reaches.
    """
    code = function.__code__
    found = record.codes.get(id(code))
    if found is None or found() is not code:
        if _is_eligible(function):
            record.codes[id(code)] = Code(code, record)
        return None
    if found.template is None and found.ended < MOST_ENDED:
        found.keep(_make_template(function, record, dump, found.varying, found.moving))
    template = found.template
    if template is None:
        return None
    steps = template.steps(function, record)
    if steps is not None:
        return template.definition, steps
    values = template.values(function, record) if template.holds else None
    if values is None:
        found.learn(function)
        found.end(record)
        return None
    if function in found.whole:
        return None
    found.whole.add(function)
    stream = _stream_of(values, dump_values)
    if stream is None:
        return None
    record.note_change()
    return template.definition, (
        *template.globals_of(function),
        code_templates.CLOSURE,
        (stream, template.mask),
    )


def _stream_of(
    values: tuple[Any, ...], dump_values: Callable[[tuple[Any, ...]], tuple[bytes, Any]]
) -> Stream | None:
    try:
        data, pickler = dump_values(values)
    except Exception:  # noqa: BLE001
        # It is met again where the function is pickled as it is, which can say which variable it
        # is of.
        return None
    return None if pickler.keeps else Stream(data, pickler)


def _is_eligible(function: Any) -> bool:
    """Return True if functions of a code may be made of a common one.

    Not those that write to what they close over: that is state, and belongs to one function.
    """
    code = function.__code__
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return (
        space_name(function.__globals__) is not None
        and not function.__kwdefaults__
        and not function.__dict__
        and not getattr(function, "__type_params__", ())
        and _has_fixed_annotations(function)
        and "task" not in arguments
        and written(code).isdisjoint(code.co_freevars)
    )


def _has_fixed_annotations(function: Any) -> bool:
    """Return True if all functions of its code have its annotations: texts and builtin types only.

    Evaluating others again may give others. From Python 3.14 on that would run code of the user's.
    """
    return getattr(function, "__annotate__", None) is None and all(
        type(value) is str or value is None or _is_builtin_type(value)
        for value in function.__annotations__.values()
    )


def _is_builtin_type(value: Any) -> bool:
    return type(value) is type and vars(builtins).get(value.__name__) is value


def _has_annotations(function: Any, expected: dict[str, Any]) -> bool:
    """Return True if these very objects annotate it. Calls no ``__eq__`` of the user's."""
    if getattr(function, "__annotate__", None) is not None:
        return False
    found = function.__annotations__
    return list(found) == list(expected) and all(map(is_, found.values(), expected.values()))


def written(code: types.CodeType) -> set[str]:
    """Return the variables of enclosing functions that a code, or one within it, binds."""
    found = {
        str(each.argval)
        for each in dis.get_instructions(code)
        if each.opname in ("STORE_DEREF", "DELETE_DEREF")
    }
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= written(constant)
    return found


def _function_like(
    function: Any, varying: list[bool], others: list[bool], annotated: bool
) -> types.FunctionType:
    """Return a function with nothing in it that varies: what is pickled stays with workers.

    Args:
        function: the one that it is like.
        varying: which of the variables that it closes over vary.
        others: which of its defaults vary.
        annotated: whether it has annotations.
    """
    cells, defaults = function.__closure__ or (), function.__defaults__ or ()
    like = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        tuple(None if each else value for each, value in zip(others, defaults, strict=True))
        or None,
        tuple(
            types.CellType(None) if each else cell
            for each, cell in zip(varying, cells, strict=True)
        ),
    )
    names = ("__module__", "__qualname__", "__doc__", *(("__annotations__",) if annotated else ()))
    functools.update_wrapper(like, function, names, ())
    del like.__wrapped__  # type: ignore[attr-defined]
    return like


def _guard(fast: FastCheck, fixed: dict[int, Any], record: Record) -> dict[int, Known]:
    """Let a check become void when one of these values dies; return their entries by place."""
    fast.guard(list(fixed.values()), record)
    entries = {place: record.known.get(id(value)) for place, value in fixed.items()}
    return {place: known for place, known in entries.items() if known is not None}


def _make_template(
    function: Any,
    record: Record,
    dump: Callable[[Any, frozenset[str]], tuple[bytes, Any]],
    varying_globals: frozenset[str],
    moving: frozenset[int] = frozenset(),
) -> Template | None:
    if not _is_eligible(function):
        return None
    cells, defaults = function.__closure__ or (), function.__defaults__ or ()
    try:
        contents = [cell.cell_contents for cell in cells]
        annotations = function.__annotations__
    except Exception:  # noqa: BLE001
        return None  # an empty cell; annotations that cannot be evaluated
    if any(record.of(cell).shape is WRITTEN for cell in cells):
        return None
    count = len(contents)
    varying = [is_value(value) or place in moving for place, value in enumerate(contents)]
    others = [is_value(value) or place in moving for place, value in enumerate(defaults, count)]
    like = _function_like(function, varying, others, bool(annotations))
    data, pickler = dump(like, varying_globals)
    checks = pickler.checks
    if checks is None or pickler.keeps:
        return None
    record.note_change()
    own = [record.of(cell) for cell in like.__closure__ or ()]
    for known in own:  # once each: another function may have the same cell
        own_check = next(
            check for check in checks if check[0] == changes.CONTENT and check[1] is known
        )
        checks.remove(own_check)
    fast = fast_checks.make(checks, record, like)
    if fast is None or not all(changes.holds(check, record) for check in checks):
        return None
    values = (*contents, *defaults)
    fixed = {place: values[place] for place, each in enumerate(varying + others) if not each}
    definition = Definition(
        pickle.dumps(("value", data), 4),
        references.display_name(function),
        pickler.by_value,
        bytecode=pickler.bytecode,
        needs=tuple(pickler.needs.values()),
    )
    record.follow(definition)
    return Template(
        definition,
        fast,
        _state_of(function),
        str(function.__globals__["__name__"]),
        (
            [None if each else id(value) for each, value in zip(varying, contents, strict=True)],
            [None if each else id(value) for each, value in zip(others, defaults, strict=True)],
        ),
        [record.of(like).number]
        + [known.number for each, known in zip(varying, own, strict=True) if each],
        _guard(fast, fixed, record),
        tuple(sorted(varying_globals)),
        dict(annotations) or None,
    )


def take_apart(fn: Any, record: Record | None) -> tuple[Any, tuple[Any, ...]] | None:
    """Return the function of a bound method or a partial object, and the steps that lead back.

    None for everything else, and for what hides what it is.

    Args:
        fn: what is submitted.
        record: of the pool, if there is one yet.
    """
    steps: tuple[Any, ...] = ()
    for _ in range(MOST_STEPS):
        if type(fn) is partial and not fn.__dict__:
            steps = (code_templates.PARTIAL, (fn.args, fn.keywords), *steps)
            fn = fn.func
        elif type(fn) is types.MethodType and type(fn.__func__) is types.FunctionType:
            owner = fn.__self__
            if issubclass(type(owner), type) and (
                record is None
                or id(owner) not in record.functions
                or fn.__func__.__module__ != owner.__module__
            ):
                return None  # a method of a class that workers do not know: it goes with the class
            steps = (code_templates.METHOD, fn.__self__, *steps)
            return fn.__func__, steps
        else:
            break
    return (fn, steps) if steps else None


def is_plain(steps: tuple[Any, ...]) -> bool:
    """Return True if any unpickler reads the steps: they hold scalars only."""
    if len(steps) == 2 and steps[0] == code_templates.CLOSURE:
        return type(steps[1][0]) is tuple  # and no stream
    if len(steps) == 2 and steps[0] == code_templates.PARTIAL and are_numbers(*steps[1]):
        return True
    for kind, value in zip(steps[::2], steps[1::2], strict=True):
        if kind == code_templates.METHOD or (
            kind == code_templates.CLOSURE and type(value[0]) is not tuple
        ):
            return False
        if kind == code_templates.PARTIAL and not (
            are_short_scalars(value[0]) and are_short_scalars(value[1])
        ):
            return False
    return True


def pickled(
    steps: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any] | None
) -> bytes | None:
    """Return the payload of a call whose parts are scalars; None for every other call."""
    if kwargs or not is_plain(steps) or (args and not are_short_scalars(args)):
        return None
    return pickle.dumps((steps, args, None), 5)
