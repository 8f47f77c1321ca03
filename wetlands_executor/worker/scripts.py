"""Functions of this package that run as tasks in a worker.

Whole scripts, and what ``import_module`` asks of a module.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, List, Sequence, Tuple, Union


#: Lines of a script's stderr that go with its exit code.
LINES = 20


class ScriptExit(Exception):  # noqa: N818 - the host knows it as the public exception of this name
    """A script has ended with an exit code other than 0."""

    def __init__(self, message: str, code: int, stderr: str) -> None:
        super().__init__(message)
        self.code = code
        self.stderr = stderr

    def __reduce__(self) -> Tuple[Any, ...]:
        return type(self), (self.args[0], self.code, self.stderr)


def run_script(path: str, run_name: str, *args: Any) -> None:
    """Run a file as ``python path args...`` would, inside this worker.

    ``sys.argv`` and ``sys.path[0]`` are set for its duration.

    Raises:
        ScriptExit: it has ended with another exit code than 0.
    """
    import os

    from . import stdio
    from .system import native

    path = native(path)
    argv = sys.argv
    modules = {name: sys.modules.get(name) for name in (run_name, "__main__", "__mp_main__")}
    sys.argv = [path] + [native(str(arg)) for arg in args]
    folder = os.path.dirname(path)
    sys.path.insert(0, folder)
    said = stdio.remember_stderr()
    try:
        _run_file(path, run_name)
    except SystemExit as error:
        code = _exit_code(error)
        if code:
            stderr = "".join(said)[-65536:].rstrip()
            lines = "\n".join(stderr.splitlines()[-LINES:])
            message = "the script %s ended with exit code %d%s" % (
                path,
                code,
                "; the last lines of its stderr:\n" + lines if lines else "",
            )
            raise ScriptExit(message, code, lines) from error
    finally:
        stdio.forget_stderr(said)
        stdio.renew_stdin()
        sys.argv = argv
        for name, module in modules.items():
            if module is not None:
                sys.modules[name] = module
            elif name != "__mp_main__":
                sys.modules.pop(name, None)
        if modules["__mp_main__"] is None and "__mp_main__" in sys.modules:
            sys.modules["__mp_main__"] = sys.modules["__main__"]
        if folder in sys.path:
            sys.path.remove(folder)


def _run_file(path: str, run_name: str) -> None:
    """As ``runpy.run_path``.

    But its module is known before it runs, so that it is ``__mp_main__`` for ``multiprocessing`` as
    well.
    """
    with open(path, "rb") as stream:
        source = stream.read()
    if b"\0" in source:  # compiled, or an archive
        import runpy

        runpy.run_path(path, run_name=run_name)
        return
    module = type(sys)(run_name)
    module.__dict__.update(
        __file__=path, __cached__=None, __package__="", __builtins__=__builtins__
    )
    sys.modules[run_name] = module
    # else it does so itself when it is imported
    if run_name == "__main__" and "multiprocessing" in sys.modules:
        sys.modules["__mp_main__"] = module
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)


def _exit_code(error: SystemExit) -> int:
    """Return what the process would have ended with.

    As Python does, print to stderr what is neither an integer nor None.
    """
    code = error.code
    if code is None:
        return 0
    if isinstance(code, int):
        return int(code)
    try:
        print(code, file=sys.stderr)
    except Exception as second:  # noqa: BLE001
        # its __str__ is the script's code, and so may be sys.stderr
        sys.stderr.write("(the exit code could not be printed: %s)\n" % type(second).__name__)
    return 1


def call_target(definition: Tuple[Any, ...], *args: Any) -> Any:
    """Call the function that a definition names: an initializer that was given as text."""
    from . import imports

    return imports.resolve(definition)(*args)


def process_chunk(
    function: Union[Callable[..., Any], Tuple[Any, ...]], chunk: Sequence[Tuple[Any, ...]]
) -> List[Any]:
    """Return the results of ``function`` for each tuple of arguments in ``chunk``.

    ``function`` is a callable, or the definition of one.
    """
    if isinstance(function, tuple):
        from . import imports

        call = imports.resolve(function)
    else:
        call = function
    from . import current_task, injection

    where = injection.position_of_task(call)
    if where is None:
        return [call(*args) for args in chunk]
    handle = current_task.current_task()
    found = []
    for given in chunk:
        args, kwargs = injection.with_handle(where, given, None, handle)
        found.append(call(*args, **(kwargs or {})))
    return found


def describe(definition: Tuple[Any, ...]) -> Tuple[List[str], List[str]]:
    """Return (names, callables) of a module: ``dir()`` and those of them that can be called.

    Args:
        definition: a definition of the module's file or reference with an empty qualname (see
            ``imports``).
    """
    module = _module(definition)
    names = dir(module)
    return names, [name for name in names if callable(getattr(module, name, None))]


def get_attribute(definition: Tuple[Any, ...], name: str) -> Any:
    """Return a data attribute of a module."""
    return getattr(_module(definition), name)


def _module(definition: Tuple[Any, ...]) -> Any:
    from . import imports

    if definition[0] == "file":
        return imports.module_of_file(*definition[1:4])
    return imports.import_named(definition[1])
