"""What attacks start from: a row of each side in a tenant table, and values that nobody has."""

import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Column,
    ForeignKeyConstraint,
    Table,
)

from tenantry.exceptions import ConfigurationError

_LENGTH: Final = re.compile(r"\((\d+)\)")
_INTEGERS: Final = {"smallint": 2**14, "integer": 2**30, "bigint": 2**62}


@dataclass(frozen=True, slots=True)
class Row:
    """One row, by column key: as SQLAlchemy reads it, and as PostgreSQL prints it."""

    values: Mapping[str, Any]
    texts: Mapping[str, str | None]

    def replaced(self, other: "Row", keys: frozenset[str]) -> "Row":
        """Return the row with another's values in some columns."""
        return Row(
            {**self.values, **{key: other.values[key] for key in keys}},
            {**self.texts, **{key: other.texts[key] for key in keys}},
        )


@dataclass(frozen=True, slots=True)
class Key:
    """A unique or exclusion index of the database, whatever the models say of it.

    Attributes:
        name: of the index.
        constraint: what ON CONFLICT calls it; None if it does not take it by name.
        columns: by their keys; none where it is over expressions, or partial.
    """

    name: str
    constraint: str | None
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A tenant table under attack.

    Attributes:
        table: as it is mapped.
        tenant: key of the column that holds the tenant.
        types: PostgreSQL's name of each column's type, by column key.
        keys: its unique indexes.
        deferrable: whether a constraint of it may be checked at the end of the transaction.
        own: a row of the attacker's.
        own_count: how many rows the attacker has.
        victim: a row of the victim's.
    """

    table: Table
    tenant: str
    types: Mapping[str, str]
    keys: tuple[Key, ...]
    deferrable: bool
    own: Row
    own_count: int
    victim: Row

    @property
    def writable(self) -> tuple[str, ...]:
        """Return the keys of the columns that an INSERT may name."""
        return tuple(column.key for column in self.table.columns if _is_writable(column))

    @property
    def partitioned(self) -> bool:
        """Tell whether the table's rows are in partitions of it, as its models say."""
        return bool(self.table.dialect_options["postgresql"].get("partition_by"))

    @property
    def identity(self) -> tuple[str, ...]:
        """Return the keys of the columns that tell one row from another."""
        return tuple(column.key for column in self.table.primary_key.columns) or (self.tenant,)

    @property
    def harmless(self) -> str:
        """Return the key of a column that an UPDATE can set to itself."""
        settled = {self.tenant, *self.identity}
        return next((key for key in self.writable if key not in settled), self.writable[0])

    @property
    def references(self) -> Mapping[str, ForeignKeyConstraint]:
        """Return the foreign keys that name more than the tenant, by name or else by columns."""
        return {
            str(key.name or ",".join(key.column_keys)): key
            for key in sorted(
                self.table.foreign_key_constraints, key=lambda key: tuple(key.column_keys)
            )
            if set(key.column_keys) != {self.tenant}
        }

    def reference(self, name: str) -> ForeignKeyConstraint:
        """Return one of the foreign keys.

        Raises:
            ConfigurationError: the table has none of that name.
        """
        if name not in self.references:
            raise ConfigurationError(f"{self.table.fullname!r} has no foreign key {name!r}")
        return self.references[name]

    def planted(self) -> Row:
        """Return the victim's row as the attacker files it: under its own name, if that can be.

        Where the tenant alone is a key, as in the root table, it stays the victim's.
        """
        if self._tenant_is_a_key():
            return self.victim
        return self.victim.replaced(self.own, frozenset({self.tenant}))

    def absent(self, tenant_tables: frozenset[str]) -> Row | None:
        """Return the planted row with other values in all keys and references; None if none can be.

        Its values exist nowhere, so that what the server answers to it tells of nobody.
        """
        sensitive = {column for key in self.keys for column in key.columns}
        for reference in self.references.values():
            names = set(reference.column_keys)
            if reference.referred_table.fullname in tenant_tables:
                sensitive |= names
            else:
                sensitive -= names
        if not self._tenant_is_a_key():
            sensitive.discard(self.tenant)
        planted = self.planted()
        changed: dict[str, Any] = {}
        for key in sorted(sensitive & set(self.types)):
            value = another(planted.values[key], self.types[key])
            if value is not None:
                changed[key] = value
        if not changed:
            return None
        texts = {key: printed(value) for key, value in changed.items()}
        return Row({**planted.values, **changed}, {**planted.texts, **texts})

    def _tenant_is_a_key(self) -> bool:
        return any(key.columns == (self.tenant,) for key in self.keys)


def _is_writable(column: Column[Any]) -> bool:
    identity = column.identity
    return column.computed is None and not (identity is not None and identity.always)


def another(value: Any, type_name: str) -> Any:
    """Return a value of the same type that exists nowhere, or None where none can be invented."""
    if isinstance(value, uuid.UUID):
        return uuid.uuid4()
    if isinstance(value, int) and type_name in _INTEGERS:
        return _INTEGERS[type_name] + secrets.randbelow(_INTEGERS[type_name] // 2)
    if isinstance(value, bytes):
        return secrets.token_bytes(len(value) or 8)
    if type(value) is str:
        # At the end, where it spoils neither a URL nor an address.
        length = _LENGTH.search(type_name)
        kept = value if length is None else value[: max(0, int(length[1]) - 16)]
        return f"{kept}{secrets.token_hex(8)}"
    return None


def printed(value: Any) -> str:
    """Return a value of `another` as PostgreSQL prints it."""
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)
