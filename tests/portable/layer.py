"""One end of the portable layer alone, without a pool: ``python layer.py BUNDLE send|receive ...``.

Runs on Python 3.8 and newer.

The shipped modules come from the bundle, under the worker's name for them. ``send FILE`` writes
(case -> pickled call, expected result); ``receive FOLDER OWN SENDERS`` loads and calls each of what
those senders have written there, and writes what came out.
"""

import json
import os
import pickle
import sys
import types

FAILED = "failed: "


def run(function, args):
    """Return the ``repr`` of a call's result."""
    value = function(*args)
    if isinstance(value, types.CoroutineType):
        import asyncio

        value = asyncio.run(value)
    return repr(value)


def attempt(function, *args):
    """Return the result, or the text of the exception."""
    import traceback

    try:
        return function(*args)
    except BaseException as error:  # whatever it is, it is this case's
        return FAILED + "".join(traceback.format_exception(type(error), error, error.__traceback__))


def load_package(bundle):
    """Make ``_wetlands_worker`` importable."""
    with open(bundle, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        parts = stream.read(length).decode().split("\0")
    sources = dict(zip(parts[::2], parts[1::2]))
    module = types.ModuleType("bootstrap")
    exec(sources["bootstrap"], module.__dict__)
    sys.meta_path.insert(0, module.BundleFinder(lambda: sources, lambda name: None))


def load_cases():
    """Execute ``cases.py`` as ``__main__``; return its cases."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases.py")
    main = sys.modules["__main__"].__dict__
    with open(path, encoding="utf-8") as stream:
        exec(compile(stream.read(), path, "exec", dont_inherit=True), main)
    return main["CASES"], main["SINCE"]


def send(target):
    from _wetlands_worker import calls, pickler

    calls.use_sources(sys.version.split()[0])
    found = {}
    cases, since = load_cases()
    for name, (_row, make) in cases.items():
        call = attempt(make)
        if isinstance(call, str):
            found[name] = (call, None, since[name])
            continue
        data = attempt(pickler.dumps_by_value, call, "another")
        found[name] = (data, attempt(run, *call), since[name])
    with open(target, "wb") as stream:
        pickle.dump(found, stream)


def receive(folder, own, senders):
    """Try what each sender has sent, each in a child, so that a crash concerns one pair only."""
    from _wetlands_worker import calls

    calls.use_sources("another")
    calls.cloudpickle_module()
    for sender in senders.split(","):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _receive(
                    os.path.join(folder, sender), os.path.join(folder, "%s-%s.json" % (sender, own))
                )
                status = 0
            finally:
                os._exit(status)
        os.waitpid(child, 0)


def _receive(given, report):
    from _wetlands_worker import calls

    with open(given, "rb") as stream:
        found = pickle.load(stream)
    results = {}
    for name, (data, expected, since) in found.items():
        if isinstance(data, str):
            results[name] = ("cannot be sent", data, expected)
            continue
        call = attempt(calls.loads_rich, data)
        got = call if isinstance(call, str) else attempt(run, *call)
        if sys.version_info < since:
            expected = got if "cannot run in Python" in got else "a refusal"
        if got != expected:
            results[name] = ("differs", got, expected)
    with open(report, "w") as stream:
        json.dump({"failed": results, "count": len(found)}, stream)


if __name__ == "__main__":
    load_package(sys.argv[1])
    {"send": send, "receive": receive}[sys.argv[2]](*sys.argv[3:])
