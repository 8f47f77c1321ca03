"""What ``map`` is made of: items in, calls, results and the joblog out.

::

    items.py      texts, lines, CSV rows or JSON -> Item; read as they are needed
    reader.py     the thread that reads items, ahead of the main thread by a bounded number
    loop.py       the main thread: submits items, takes outcomes, halts
    bulk.py       many short calls at once, and the thread that waits for them
    outcome.py    an outcome -> its line of JSON, its line of the joblog, its failure
    output.py     the order in which these are written: first the result, then the joblog
    joblog.py     the joblog, and what a resumed run need not do again
    halt.py       when to stop because of failures

Guarantee: the joblog's line is the commit of an item. It is written, with one ``write`` of an
``O_APPEND`` descriptor, after the result's line was. So after SIGKILL at any moment an item that
the joblog names is not run again, and has its result; one that it does not name is.
"""
