"""What the tests of progress have besides the shared fixtures."""

from tests.support.fixtures import (  # noqa: F401
    default_workers,
    executor,
    executor_class,
    make,
    rendezvous,
    single,
)
