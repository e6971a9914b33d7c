"""Where attacks take place: two organizations, one connection, and the situations it can be in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, Self

from sqlalchemy import Engine
from sqlalchemy.orm import registry

from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.context import TenantId
from tenantry.exceptions import ConfigurationError
from tenantry.sessions import set_tenant
from tenantry.testing.attacks_observer import Observer
from tenantry.testing.attacks_relations import MappedRelation, RawRelation, Relation, map_table
from tenantry.testing.attacks_rows import Target
from tenantry.testing.attacks_surfaces import (
    Bind,
    ConnectionHand,
    DriverHand,
    Hand,
    SessionHand,
    Surface,
    TextHand,
)

Situation = Literal[
    "own tenant",
    "no tenant",
    "after commit",
    "after rollback",
    "reused connection",
    "reused, no tenant",
]

# The victim had the connection before, and in these the attacker names no tenant.
_REUSED: Final = {"after commit", "after rollback", "reused connection", "reused, no tenant"}
_UNBOUND: Final = {"no tenant", "reused, no tenant"}


class Arena:
    """Two organizations, the engine under attack, and an observer that the attacks cannot reach.

    A context manager; leaving it closes the engine's connections.

    Args:
        engine: of the application's role, protected, with a pool of one (`pool_size=1,
            max_overflow=0`), so that a situation is certain to get the connection it describes.
        observer: sees the victim's rows.
        attacker: the organization whose context the attacks have.
        victim: the organization whose rows they are after.
        config: what the database calls its tenants.
        bind: names the tenant of a Session or Connection; `bind_plainly` for an engine without
            the layer.

    Raises:
        ConfigurationError: one of the two has no row in a tenant table, or they are the same.
    """

    def __init__(
        self,
        engine: Engine,
        observer: Observer,
        *,
        attacker: TenantId,
        victim: TenantId,
        config: TenancyConfig = DEFAULT_CONFIG,
        bind: Bind = set_tenant,
    ) -> None:
        if attacker == victim:
            raise ConfigurationError("attacker and victim are the same organization")
        self.attacker = attacker
        self.victim = victim
        self.targets = observer.targets(attacker, victim)
        self.tenant_tables = frozenset(self.targets)
        self._engine = engine
        self._observer = observer
        self._config = config
        self._bind = bind
        self._digest = observer.digest(victim)
        self._mapping = registry()
        self._relations: dict[Surface, dict[str, Relation]] = {
            "orm": {
                name: MappedRelation(target, map_table(self._mapping, target))
                for name, target in self.targets.items()
            },
            "core": {name: Relation(target) for name, target in self.targets.items()},
            "text": {name: RawRelation(target) for name, target in self.targets.items()},
        }
        self._relations["psycopg2"] = self._relations["text"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._mapping.dispose()
        self._engine.dispose()

    def target(self, table: str) -> Target:
        """Return a tenant table with a row of each side."""
        return self.targets[table]

    def changed_tables(self) -> list[str]:
        """Return the tables in which the victim's rows are no longer byte for byte what they were.

        A change is told once.
        """
        before, self._digest = self._digest, self._observer.digest(self.victim)
        return [name for name, digest in self._digest.items() if before[name] != digest]

    @contextmanager
    def position(self, surface: Surface, situation: Situation) -> Iterator[Hand]:
        """Yield an open hand in the situation; nothing of it stays."""
        if situation in _REUSED:
            with self._hand(surface) as hand:
                hand.bind(self.victim)
                hand.begin()
                hand.commit()
        with self._hand(surface) as hand:
            if situation not in _UNBOUND:
                hand.bind(self.attacker)
            if situation == "after commit":
                hand.begin()
                hand.commit()
            elif situation == "after rollback":
                hand.begin()
                hand.rollback()
            yield hand

    @contextmanager
    def _hand(self, surface: Surface) -> Iterator[Hand]:
        relations = self._relations[surface]
        hand: Hand
        match surface:
            case "orm":
                hand = SessionHand(self._engine, relations, self._bind)
            case "core":
                hand = ConnectionHand(self._engine, relations, self._bind)
            case "text":
                hand = TextHand(self._engine, relations, self._bind)
            case "psycopg2":
                hand = DriverHand(self._engine, relations, self._config)
        try:
            yield hand
        finally:
            hand.close()
