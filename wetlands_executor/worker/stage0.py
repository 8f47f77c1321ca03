"""The first lines that a fresh interpreter executes: what the host passes with ``-c``.

They have to parse on every Python there is, so that an interpreter that is too old can say so itself. They take the current folder off
``sys.path`` before anything is imported that a file there could shadow, read the bundle (names and sources, separated by NUL) from the
bulk pipe, with compiled code if there is some for this very interpreter, and hand over to ``bootstrap.main``. Arguments: the numbers of
inbox, bulk, results, life pipe, board, the files of large arguments and results, and the bell (-1 where there are none), separated by
commas (on Windows: handles).
"""

STAGE0 = """\
import sys
if not getattr(sys.flags, 'safe_path', False) and sys.path and sys.path[0] == '': del sys.path[0]
import os
if sys.version_info < (3, 8):
    sys.stderr.write('wetlands_executor needs Python 3.8 or newer in the environment, and %s is Python %s\\n'
                     % (sys.executable, sys.version.split()[0]))
    sys.stderr.flush()
    os._exit(85)
fds = [int(x) for x in sys.argv[1].split(',')]
if os.name == 'nt':
    import msvcrt
    fds = [msvcrt.open_osfhandle(x, os.O_RDONLY if i != 2 else 0) if x >= 0 else x for i, x in enumerate(fds)]
def take(n):
    b = b''
    while len(b) < n:
        c = os.read(fds[1], n - len(b))
        if not c: os._exit(87)
        b += c
    return b
parts = take(int.from_bytes(take(8), 'little')).decode('utf-8').split('\\0')
sources = dict(zip(parts[::2], parts[1::2]))
code = {}
data = take(int.from_bytes(take(8), 'little'))
if data:
    import marshal
    import _frozen_importlib_external as external
    magic, _, data = data.partition(b'\\0')
    if magic == ('%s-%s' % (sys.implementation.name, external.MAGIC_NUMBER.hex())).encode():
        code = marshal.loads(data)
if 'bootstrap' not in code:
    code['bootstrap'] = compile(sources['bootstrap'], '<wetlands_executor>/bootstrap.py', 'exec', dont_inherit=True)
space = {'__name__': '_wetlands_worker.bootstrap'}
exec(code['bootstrap'], space)
space['main'](fds, sources, code)
"""
