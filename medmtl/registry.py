"""A closed list of kinds per family: tasks, sharing, weighting, encoders.

Configuration names a kind; nothing is ever imported by a name found in data.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from medmtl.errors import ConfigError
from medmtl.spelling import nearest

C = TypeVar("C")


class Registry(Generic[C]):
    """Kinds of one family by name.

    Args:
        family: the configuration's word for the family, such as ``tasks``; used in messages.
        classes: the first kinds, in order.
    """

    def __init__(self, family: str, *classes: type[C]) -> None:
        self.family = family
        self._kinds: dict[str, type[C]] = {}
        for cls in classes:
            self.add(cls)

    def add(self, cls: type[C]) -> type[C]:
        """Register a class under its ``kind``. A second class of that name is refused."""
        kind: str = cls.kind  # type: ignore[attr-defined]
        present = self._kinds.get(kind)
        if present is not None and present is not cls:
            raise ConfigError(f"the {self.family} kind {kind!r} is already registered by {present.__qualname__}")
        self._kinds[kind] = cls
        return cls

    def get(self, kind: str, *, key: str | None = None, line: int | None = None) -> type[C]:
        """The class of ``kind``.

        Args:
            kind: its name.
            key, line: where the name stands in the configuration, for the message.

        Raises:
            ConfigError: the kind is unknown; with the nearest and all names.
        """
        try:
            return self._kinds[kind]
        except (KeyError, TypeError):
            guess = nearest(kind, self._kinds)
            hint = f" Did you mean {guess!r}?" if guess else ""
            raise ConfigError(
                f"unknown {self.family} kind {str(kind)[:40]!r}.{hint} Known: {', '.join(self.names())}",
                key=key,
                line=line,
                code="B137",
            ) from None

    def names(self) -> list[str]:
        """All kinds, in the order in which they were registered."""
        return list(self._kinds)
