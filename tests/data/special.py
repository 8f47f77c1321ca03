"""What ``test_special`` needs in workers too, where pytest is not."""


class Refuses:
    """Cannot be rebuilt anywhere."""

    def __reduce__(self):
        return refuse, ()


def refuse():
    """Fail as a user's ``__setstate__`` may."""
    raise ValueError("mine")


def itself(value):
    """Return the argument."""
    return value
