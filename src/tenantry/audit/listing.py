"""What protects each table, and who acts as the application: lists, beside the findings."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

COMMANDS: Final = ("select", "insert", "update", "delete", "truncate", "references", "keys")


class Protection(StrEnum):
    """What keeps a command inside its tenant."""

    CLOSED = "closed"
    WALLED = "walled"
    THIN = "thin"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One command on one table.

    Attributes:
        command: one of `COMMANDS`; `keys` stands for unique and foreign keys, which PostgreSQL
            checks without row security.
        protection: what keeps it inside its tenant.
        why: what that rests on, or what is missing; empty where the word says it all.
    """

    command: str
    protection: Protection
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTable:
    """A table that holds tenants' rows.

    Attributes:
        table: its name, qualified and quoted.
        cells: one for each of `COMMANDS`, in that order.
        row_security: `forced`, `not forced` (the owner is exempt) or `off`.
        walls: its restrictive policies.
        policies: its permissive policies.
        granted_to: the roles of the application that hold a privilege on it.
        owner: the role that owns it.
    """

    table: str
    cells: tuple[Cell, ...]
    row_security: str
    walls: str
    policies: str
    granted_to: str
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRole:
    """A role that acts as the application: what it is, and what it can become."""

    role: str
    attributes: str
    can_become: str

    @property
    def login(self) -> bool:
        """True if somebody can connect as it."""
        return self.attributes.partition(", ")[0] == "login"


def listed_table(row: dict[str, str]) -> ListedTable:
    """Return a row of `matrix.sql` as a value."""
    return ListedTable(
        table=row["table"],
        cells=tuple(_cell(command, row[command]) for command in COMMANDS),
        row_security=row["row_security"],
        walls=row["walls"],
        policies=row["policies"],
        granted_to=row["granted_to"],
        owner=row["owner"],
    )


def _cell(command: str, says: str) -> Cell:
    word, _, why = says.partition(": ")
    return Cell(command=command, protection=Protection(word), why=why)
