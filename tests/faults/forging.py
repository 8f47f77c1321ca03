"""What the tests of containment call in workers.

Tasks that write forged frames into their worker's results pipe. Imported by workers.
"""

import os
import pickle
import random
import struct
import sys
import time

RESULT = struct.Struct("<QIIBxxxIQ")


def _runner():
    return sys.modules["_wetlands_worker.running"].main_loop


def _write(data):
    fd = _runner().channel.results
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view[:65536]) :]


def frame(kind, number=None, payload=b"", length=None, nonce=None, pid=None, duration=0):
    runner = _runner()
    number = runner.item if number is None else number
    head = RESULT.pack(
        len(payload) if length is None else length,
        runner.channel.nonce if nonce is None else nonce,
        os.getpid() if pid is None else pid,
        kind,
        duration,
        number & 0xFFFFFFFFFFFFFFFF,
    )
    return head + payload


class Foreign(str):
    """A class that the host could import; it must not."""

    __slots__ = ()


PAYLOADS = {
    "empty": b"",
    "rubbish": b"\x00\xff\x80rubbish",
    "no pickle": b"\x80\x05.",
    "int": pickle.dumps(5),
    "text": pickle.dumps("text"),
    "none": pickle.dumps(None),
    "list": pickle.dumps([1, 2]),
    "dict": pickle.dumps({1: 2}),
    "tuple of 4": pickle.dumps((1, 2, 3, 4)),
    "tuple of 5": pickle.dumps(("ValueError", "x", "y", b"z", b"z")),
    "class": pickle.dumps(Foreign("x")),
    "exit": b"\x80\x04csys\nexit\nK\x07\x85R.",
    "module that is not there": b"\x80\x04cno_such_module\nname\n)R.",
    "extension code": b"\x80\x04\x82\x7a.",
    "memo": b"\x80\x04K\x01r\xff\xff\xff\x7f.",
    "buffer": b"\x80\x05\x97.",
    "persistent": b"\x80\x04K\x01Q.",
    "blocks": struct.pack("<II", 1, 0) + struct.pack("<IIQQQQ", 3, 1, 1 << 40, 1 << 50, 0, 1 << 50),
    "many blocks": struct.pack("<II", 0xFFFFFFFF, 1) + b"x" * 40,
    "outcomes": struct.pack("<III", 2, 5, 5) + b"x" * 10,
    "many outcomes": struct.pack("<I", 0xFFFFFFFF) + b"x" * 40,
    "stream 0": b"\x00text\n",
    "stream 9": b"\x09text\n",
}

#: Changes to the number of the frame's call, the frame's length, nonce and pid.
SHAPES = {
    "as it is": lambda kind, data: frame(kind, None, data),
    "number 0": lambda kind, data: frame(kind, 0, data),
    "unknown number": lambda kind, data: frame(kind, 1 << 39, data),
    "number before": lambda kind, data: frame(kind, _runner().item - 1, data),
    "numbers behind": lambda kind, data: b"".join(
        frame(kind, _runner().item + more, data) for more in range(1, 30)
    ),
    "place 1": lambda kind, data: frame(kind, _runner().item | 1 << 40, data),
    "place behind": lambda kind, data: frame(kind, _runner().item | 3 << 40, data),
    "negative": lambda kind, data: frame(kind, -1, data),
    "twice": lambda kind, data: 2 * frame(kind, None, data),
    "too long": lambda kind, data: frame(kind, None, data, length=len(data) + 1000),
    "far too long": lambda kind, data: frame(kind, None, data, length=1 << 45),
    "absurdly long": lambda kind, data: frame(kind, None, data, length=(1 << 64) - 1),
    "too short": lambda kind, data: frame(kind, None, data, length=max(len(data) - 3, 0)),
    "cut": lambda kind, data: frame(kind, None, data)[:-1],
    "cut in the header": lambda kind, data: frame(kind, None, data)[:13],
    "wrong nonce": lambda kind, data: frame(kind, None, data, nonce=1),
    "wrong pid": lambda kind, data: frame(kind, None, data, pid=1),
}


def forge(kind, payload, shape, address=None):
    """Write one forged frame, and return; or wait until the test says so."""
    _write(SHAPES[shape](kind, PAYLOADS[payload]))
    if address is not None:
        from tests.contract import workload

        return workload.arrive(address, "forged")
    return "forged"


def arrive_and_forge(address, kind, payload, shape):
    """Wait until the test says so, then write one forged frame, and return."""
    from tests.contract import workload

    workload.arrive(address, "forging")
    return forge(kind, payload, shape)


def forge_and_sleep(kind, payload, shape, seconds):
    """Write one forged frame, and go on for some time."""
    _write(SHAPES[shape](kind, PAYLOADS[payload]))
    time.sleep(seconds)


def forge_at(value, wanted, kind, payload, shape):
    """As a call of a map: forge at one value."""
    if value == wanted:
        forge(kind, payload, shape)
    return value * 2


def write_random(seed):
    """Write random bytes, pieces of frames, frames with random parts."""
    rng = random.Random(seed)
    data = b""
    # An outcome of its own and then one of the next call cannot be told from what a worker sends.
    shapes = [shape for shape in SHAPES if shape != "numbers behind"]
    behind = struct.pack("<Q", _runner().item + 1)
    for _ in range(rng.randrange(1, 5)):
        whole = bytearray(
            SHAPES[rng.choice(shapes)](rng.randrange(40), rng.choice(list(PAYLOADS.values())))
        )
        for _ in range(rng.randrange(4)):
            at, byte = rng.randrange(len(whole)), rng.randrange(256)
            before, whole[at] = whole[at], byte
            if behind in whole:
                whole[at] = before
        data += (
            bytes(whole[: rng.randrange(len(whole) + 1)]) if rng.random() < 0.3 else bytes(whole)
        )
        if rng.random() < 0.3:
            data += (
                rng.randbytes(rng.randrange(100))
                if hasattr(rng, "randbytes")
                else bytes(rng.randrange(256) for _ in range(50))
            )
    _write(data)
    return seed


def double(value):
    return 2 * value
