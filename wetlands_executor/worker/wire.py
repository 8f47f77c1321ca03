"""What travels between the host and a worker: frame layouts, kinds and limits.

Both ends import this module; it imports only ``struct``.

Three pipes make a channel, all inherited, anonymous and private:

* inbox (host to worker): frames of exactly ``FRAME`` bytes. The size is a power of two that divides
  a page, so that a pipe never holds part of one: a process that reads ``FRAME`` bytes gets one
  whole frame, and the kernel decides which process gets it. The worker takes one frame per task;
  on Linux the host can reclaim what has not started by reading the same pipe. Frames are numbered
  (``marks``).
* bulk (host to worker): records of any size; the worker reads them only when a frame refers to one.
  Records of frames that were reclaimed are skipped. Records are numbered too: a task has the
  descriptors of these pipes, and may have read from them.
* results (worker to host): frames of any size, in the order in which things happened.

Where memory can be shared, a page of it is the *shared page*: single words, each with one writer,
and the latest progress of the running task.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Tuple

#: Bytes of a frame in the inbox.
FRAME = 128

#: kind, flags, length of the inline payload, definition of the function (0: the payload has it),
#: settings, item, mark (see ``marks``).
CALL = struct.Struct("<BBHIIQI")
#: Bytes of arguments that fit into the frame itself.
INLINE = FRAME - CALL.size
#: The same with the inline payload, padded with zeros.
CALL_FRAME = struct.Struct("<BBHIIQI%ds" % INLINE)
#: A mark has 30 bits: CPython is fastest with such numbers. From one call that waits for its turn
#: to the next it grows by ``MARK_STEP``.
MARK_STEP, MARK_BITS = 2, (1 << 30) - 1

# Kinds of inbox frames.
RUN = 1
CANCEL = 2  # only where there is no shared page
# the call that was taken last is this one: it went directly, and such frames are not numbered
AFTER = 3
TRIM = 16  # give the memory of free blocks back
PING = 17  # answer with PONG
# as RUN, for a task inside a task: large results go into blocks that the host lends
RUN_NESTED = 18
TIDY = 19  # read the records up to the FORGET of this number, counted from 1

# Flags of a call frame.
# the payload is a record in the bulk pipe; or lies on the shared page, if the frame has an inline
# payload all the same: the length of the other, in 4 bytes
IN_BULK = 1
# the payload holds no function, class or instance of the user's: any Unpickler will do
NO_REFERENCES = 2
WATCHED = 4  # report when the call begins
NAMED = 8  # the task's name is a record in the bulk pipe
# the payload begins with a list of blocks in shared memory; without IN_BULK, the frame has one
# entry, which says where that payload lies
BLOCKS = 64
# the payload is (steps, arguments, keywords): the callable is made of the function by these steps
# (see ``code_templates.py``)
MADE = 16
KEPT = 128  # the blocks stay the host's (the call may be run again): the worker takes copies
# without blocks: the first step makes instances of classes that the worker knows, of what is plain
OBJECTS = MADE | KEPT
# arguments of several calls: with NO_REFERENCES one pickled list of tuples; else their number,
# their lengths, then one pickle each
MANY = 32
#: MANY and BLOCKS: after the list of one block, a pickled list with an entry per call (see
#: ``batch.py``). What a large value in it is:
BYTES, TEXT, PICKLE = 0, 1, 2

#: The instruction of a pickle that names ``objects.defined``, as short as can be: with it, most
#: calls with an object fit into their frame.
SHORT_MODULE = "_"
DEFINED = b"c_\nd\n"
DEFINED_MODULE, DEFINED_NAME = "wetlands_executor.worker.objects", "defined"

#: Numbers of items have 40 bits. Above them stands the place of a call within a frame of many, from
#: 1.
NUMBER_BITS = 40
NUMBER = (1 << NUMBER_BITS) - 1

# A file of shared memory: a table of words that name each block's owner, one of leases, the blocks.
#: Words of each table.
ARENA_SLOTS = 65536
#: Where the table of leases begins, and where the blocks do, in bytes.
ARENA_LEASES = 4 * ARENA_SLOTS
ARENA_HEADER = 2 * ARENA_LEASES
#: Owners: none, the host; any other number is the incarnation of a worker.
FREE, HOST = 0, 1

#: kind and running number << 8, length, id. Behind a payload its first four bytes stand once more.
RECORD = struct.Struct("<IQQ")
#: Running number of the first record, and the bits that it has.
FIRST_RECORD, RECORD_BITS = 0xA5C3F1, (1 << 24) - 1
# Kinds of bulk records.
BUNDLE = 1
CONFIG = 2
DEFINITION = 3
PAYLOAD = 4
SETTINGS = 5
FORGET = 6
NAME = 7
CONTEXT = 9  # before the NAME of a call: what it takes along of its caller's context
LENT = 10  # blocks that the worker has asked for, with the number of the call that it runs
ATTEMPT = 11  # before the NAME of a call: the number of its try, in 4 bytes, if not the first
PIECE = 8  # content of a large object; FORGET with number 0 names objects and pieces in its payload

#: length of the payload, nonce of the incarnation, pid of the writer, kind, microseconds that the
#: call took, item
RESULT = struct.Struct("<QIIBxxxIQ")
CHILD = 9  # of a task that the running call has submitted; see ``nested.py``

#: First byte of a CHILD record, if it is no outcome (then it is that of a result frame): a value
#: whose large buffers stand behind it; a failure in the host; an event; the answer to a question;
#: blocks that were asked for; named outputs, behind the number of the attempt in 4 bytes; an
#: outcome after which the submitter may want another try.
BUFFERS, FAILED, EVENT, REPLY, GRANT, OUTPUTS, RETRY = 64, 65, 66, 67, 68, 69, 70
#: First entry of the message in a NESTED frame.
SUBMIT, WAIT, CANCEL_CHILD, KILL_CHILD, STATE_OF, LISTEN, LEAVE, LEND = 1, 2, 3, 4, 5, 6, 7, 8
# a task that is not to start yet; whether there is another try
HOLD, AGAIN = 9, 10

# Kinds of result frames.
HELLO = 1
READY = 2
START_FAILED = 3
INITIALIZER_FAILED = 4
VALUE = 5
NONE = 6
ERROR = 7
CANCELLED = 8  # the call has acknowledged its cancellation
STARTED = 9  # the call begins; sent for watched calls only
UPDATE = 10  # progress: in the payload, or on the shared page if the payload is empty
OUTPUT = 11  # a named output
LOG = 12  # a log record
# output of ``sys.stdout`` (first byte 1) or ``sys.stderr`` (2), where the order of different pipes
# cannot be known
PRINTED = 13

# outcomes of consecutive calls of a frame of many (see ``batch.py``), all of which have returned
SEVERAL = 14
PONG = 15  # it has taken a PING
NESTED = 17  # the running call submits a task, or says something of one; see ``nested.py``
VALUE_IN_BLOCKS = 32  # as VALUE; the payload begins with a list of blocks
# as VALUE_IN_BLOCKS, of a task inside a task: the blocks are in the file of arguments
VALUE_IN_LENT = 33

#: Before a payload with blocks: how many entries follow; 1 if the first is the pickle itself.
LIST = struct.Struct("<II")
#: slot, place, offset in the file, capacity, first byte, number of bytes
BLOCK = struct.Struct("<IIQQQQ")
#: Places of a block: the file of arguments, the worker's file of results, behind the pickle in the
#: payload itself.
ARGUMENTS, RESULTS, FOLLOWING = 0, 1, 2
#: Bytes of a call's payload (its list of blocks and its pickle) that fit behind the data of a
#: block.
TAIL = 1024
#: Bytes from which a buffer, or a pickle, travels in a block; measured: below, the pipe is faster.
CROSSOVER = 1 << 17
#: Bytes from which the pickler writes a value by itself, as it is.
UNFRAMED = 1 << 16

#: Bytes of the shared page, and what its 64-bit words mean.
PAGE = 4096 + 65536 + 512 + 2 * 131072
TAKEN = 0  # item that the worker has taken; written by the worker
STARTED_NS = 1  # when, on the system's monotonic clock, in nanoseconds; written by the worker
CANCEL_WORD = 2  # item to cancel; written by the host
# item that the next SIGINT is meant for; written by the host, cleared by the worker
INTERRUPT_WORD = 3
# 1 while an UPDATE frame that refers to the shared page is under way; set by the worker, cleared by
# the host before it reads
WAKEUP = 4
UNSENT_FIRST = 6  # the first call of the unsent outcomes; written by the worker
UNSENT_COUNT = 7  # number of unsent outcomes; written by the worker after the outcome itself
# which of the two progress slots is the latest: its number, ever growing; written by the worker
SLOT = 5
AWAITED = 256  # item whose submitter waits for its answer on the shared page; written by the host
ANSWERED = (
    257  # item whose answer lies on the shared page; written by the worker after the answer itself
)
# kind of the outcome, length of its payload << 8, duration << 32; written by the worker
ANSWER = 258
BULK_READ = 259  # bytes that the worker has read from the bulk pipe; written by the worker
SENT = 260  # bytes that the worker has written to its results pipe; written by the worker
#: The two progress slots: offset and size in bytes. Each: length of the payload (4 bytes), payload.
SLOTS = ((64, 1984), (2112, 1984))
#: Outcomes that have not been sent yet: lengths at the first offset (one 32-bit word each, 0 is
#: None), pickles from the second on.
UNSENT_LENGTHS, UNSENT = 4096, 4096 + 512
UNSENT_MOST = 128
#: Payload of the answer: offset and most bytes.
ANSWER_AT, ANSWER_MOST = 4096 + 65536 + 512, 131072
#: Payload of a call that is sent directly and does not fit into its frame: offset and most bytes.
#: Written by the host while the worker holds no call.
ARGUMENTS_AT, ARGUMENTS_MOST = ANSWER_AT + ANSWER_MOST, 131072


def marks(nonce: int) -> Tuple[int, int]:
    """Return the mark of frames that go directly, and that of the first one that may have to wait.

    Guarantee: a worker notices that something else in its process has read its inbox: a frame is
    missing, or it begins in the middle of one. Frames that the I/O thread writes are numbered in
    their order. A direct frame is written by any thread, to a worker that holds nothing; all of
    them have one mark, which is none of these numbers.
    """
    return nonce & MARK_BITS & ~1, nonce & MARK_BITS | 1


#: Exit codes of a worker that could not start for a reason that a second try would meet again.
EXIT_TOO_OLD = 85
EXIT_START_FAILED = 86
#: The host went away, or the channel broke.
EXIT_CHANNEL_LOST = 87
