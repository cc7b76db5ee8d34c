"""What a worker remembers between jobs, by key: so many, then the one unused longest is forgotten.

Spec: "Uses LRU cache with max 100 concurrent streams".
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MOST_SESSIONS: Final = 100


class Sessions(Generic[T]):
    """A value per key, made when it is first asked for.

    Args:
        factory: Makes a new value.
        limit: How many are remembered.
    """

    def __init__(self, factory: Callable[[], T], limit: int = MOST_SESSIONS) -> None:
        self._factory = factory
        self._limit = limit
        self._values: OrderedDict[str, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> T:
        """The value of `key`, which is now the last to be forgotten."""
        if key not in self._values:
            self._values[key] = self._factory()
            if len(self._values) > self._limit:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]

    def forget(self, key: str) -> None:
        """Forget the value of `key`, if there is one."""
        self._values.pop(key, None)
