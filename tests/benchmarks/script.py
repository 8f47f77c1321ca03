"""What a user's script defines: executed in ``__main__`` by the driver, and by what imports that.

Functions of a script travel by value with some systems; see ``cases_functions.py``.
"""

import functools

NUMBER = 3
TABLE = {number: str(number) for number in range(1000)}


def plain():
    return None


def with_global():
    return NUMBER and None


def with_table():
    return TABLE and None


def calling():
    return plain()


def _decorate(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


@_decorate
def wrapped():
    return None


def closure(number):
    return lambda: number and None


def closure_over_a_list(number):
    numbers = [number]
    return lambda: numbers and None


def keywords(value=None):
    return None


class Thing:
    def __init__(self, value):
        self.value = value

    def method(self):
        return None


def take(thing):
    return None


def take_all(things):
    return None


def things(shape):
    """Return objects of a class of this script, made once."""
    from tests.benchmarks import payloads

    return payloads.payload(shape)


def same(value):
    return value
