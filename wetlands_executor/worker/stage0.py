"""The first lines that a fresh interpreter executes: what the host passes with ``-c``.

They have to parse on every Python there is, so that an interpreter that is too old can say so
itself. They take the current folder off ``sys.path`` before anything is imported that a file there
could shadow, find the bundle, with compiled code if there is some for this very interpreter, and
hand over to ``bootstrap.main``. Arguments: the numbers of inbox, bulk, results, life pipe, shared
page, the files of large arguments and results, the wakeup, and the file of the bundle (-1 where
there are none), separated by commas (on Windows: handles).

The bulk pipe says how long the bundle is, and it follows; or 0, and it is in its file by now. Of it
(``pool/bundle.py``) only what is imported is decoded. It is mapped privately: many kernels map no
sealed file in any other way.

It asks ``os.name`` itself, the only branch on the platform outside ``system.py``: that module is in
the bundle, which these lines have yet to read, and on Windows from a pipe that comes as a handle.

What is called later keeps what it needs in its own defaults: these lines run in ``__main__``, whose
variables become those of the user's script.
"""

STAGE0 = """\
import sys
if not getattr(sys.flags, 'safe_path', False) and sys.path and sys.path[0] == '': del sys.path[0]
import os
if sys.version_info < (3, 8):
    sys.stderr.write('wetlands_executor needs Python 3.8 or newer in the environment, '
                     'and %s is Python %s\\n' % (sys.executable, sys.version.split()[0]))
    sys.stderr.flush()
    os._exit(85)
fds = [int(x) for x in sys.argv[1].split(',')]
if os.name == 'nt':
    import msvcrt
    fds = [x if x < 0 else msvcrt.open_osfhandle(x, 0 if i == 2 else os.O_RDONLY)
           for i, x in enumerate(fds)]
def take(n):
    b = b''
    while len(b) < n:
        c = os.read(fds[1], n - len(b))
        if not c: os._exit(87)
        b += c
    return b
size = int.from_bytes(take(8), 'little')
if size:
    data = take(size)
else:
    import mmap
    data = mmap.mmap(fds[8], 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
for fd in fds[8:]:
    if fd >= 0: os.close(fd)
end = 8 + int.from_bytes(data[:8], 'little')
def sources(data=data, end=end):
    parts = data[8:end].decode('utf-8').split('\\0')
    return dict(zip(parts[::2], parts[1::2]))
code = {}
at = end + 8
if at < len(data):
    import _frozen_importlib_external as external
    magic = ('%s-%s\\0' % (sys.implementation.name, external.MAGIC_NUMBER.hex())).encode()
    if data[at:at + len(magic)] == magic:
        at += len(magic)
        first = data.find(b'\\0', at) + 1
        for line in data[at:first - 1].decode().split():
            name, _, length = line.partition(':')
            code[name] = (first, first + int(length))
            first += int(length)
def find(name, data=data, code=code):
    import marshal
    first, last = code.get(name, (0, 0))
    return marshal.loads(data[first:last]) if first else None
space = {'__name__': '_wetlands_worker.bootstrap'}
exec(find('bootstrap') or compile(sources()['bootstrap'], '<wetlands_executor>/bootstrap.py',
                                  'exec', dont_inherit=True), space)
space['main'](fds[:8], sources, find)
"""
