"""The part that is shipped to the environment and runs there.

Standard library only, Python 3.8 or newer, imports nothing of the host.

The host sends the sources of this package over a private pipe; in the worker they live under the
name ``_wetlands_worker`` (so that a real ``wetlands_executor`` that is installed in the environment
stays what it is). Read in this order: ``stage0`` (the first lines that a fresh interpreter
executes), ``bootstrap``, ``wire`` (what travels), ``runner`` (the main loop), ``calls`` (bytes to a
call, a result to bytes), ``imports`` (where functions come from), ``namespaces`` (globals of
functions that travel by value), ``stdio`` and ``current_task``.
"""
