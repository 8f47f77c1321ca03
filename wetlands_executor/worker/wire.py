"""What travels between the host and a worker: frame layouts, kinds and limits. Both ends import this module; it imports only ``struct``.

Three pipes make a channel, all inherited, anonymous and private:

* inbox (host to worker): frames of exactly ``FRAME`` bytes. The size is a power of two that divides a page, so that a pipe never holds
  part of one: whoever reads ``FRAME`` bytes gets one whole frame, and the kernel decides who got it. The worker takes one frame per
  task; on Linux the host can take back what has not started by reading the same pipe.
* bulk (host to worker): records of any size; the worker reads them only when a frame refers to one. Records of frames that were taken
  back are skipped.
* results (worker to host): frames of any size, in the order in which things happened.
"""

import struct

#: Bytes of a frame in the inbox.
FRAME = 128

#: kind, flags, length of the inline payload, definition of the function (0: the payload has it), context, item.
CALL = struct.Struct("<BBHIIQ")
#: Bytes of arguments that fit into the frame itself.
INLINE = FRAME - CALL.size

# Kinds of inbox frames.
RUN = 1

# Flags of a call frame.
IN_BULK = 1  # the payload is a record in the bulk pipe
PLAIN = 2  # the payload holds no function, class or instance of the user's: any Unpickler will do

#: kind, length, id
RECORD = struct.Struct("<BxxxQQ")
# Kinds of bulk records.
BUNDLE = 1
CONFIG = 2
DEFINITION = 3
PAYLOAD = 4
CONTEXT = 5
FORGET = 6

#: length of the payload, nonce of the incarnation, pid of the writer, kind, item
RESULT = struct.Struct("<QIIBxxxxxxxQ")
# Kinds of result frames.
HELLO = 1
READY = 2
START_FAILED = 3
INITIALIZER_FAILED = 4
VALUE = 5
NONE = 6
ERROR = 7

#: Exit codes of a worker that could not start for a reason that a second try would meet again.
EXIT_TOO_OLD = 85
EXIT_START_FAILED = 86
#: The host went away, or the channel broke.
EXIT_CHANNEL_LOST = 87
