"""The attack matrix: every tenant table, command, surface and situation, from the metadata."""

from collections.abc import Iterable, Iterator
from typing import Final, get_args

from tenantry.testing.attacks import Attack, Command, Outcome
from tenantry.testing.attacks_arena import Arena, Situation
from tenantry.testing.attacks_surfaces import Surface

SURFACES: Final[tuple[Surface, ...]] = get_args(Surface)
SITUATIONS: Final[tuple[Situation, ...]] = get_args(Situation)
COMMANDS: Final[tuple[Command, ...]] = get_args(Command)

# What only some surfaces can say.
_SAID_BY: Final[dict[Command, frozenset[Surface]]] = {
    "copy out": frozenset({"psycopg2"}),
    "copy in": frozenset({"psycopg2"}),
    "truncate": frozenset({"text", "psycopg2"}),
}


def attacks(
    arena: Arena,
    *,
    tables: Iterable[str] | None = None,
    commands: Iterable[Command] = COMMANDS,
    surfaces: Iterable[Surface] = SURFACES,
    situations: Iterable[Situation] = SITUATIONS,
) -> Iterator[Attack]:
    """Yield every attack on the arena's tables.

    `refer` comes once for each foreign key to a tenant table, `on conflict do update` once for
    each unique constraint.

    Args:
        arena: where they will be run.
        tables: full names; None for all tenant tables.
        commands: to try.
        surfaces: to go by.
        situations: to be in.
    """
    commands, situations = tuple(commands), tuple(situations)
    for table in arena.targets if tables is None else tables:
        for surface in surfaces:
            for situation in situations:
                for command in commands:
                    if surface in _SAID_BY.get(command, SURFACES):
                        for constraint in _constraints(arena, table, command):
                            yield Attack(
                                command=command,
                                table=table,
                                surface=surface,
                                situation=situation,
                                constraint=constraint,
                            )


def run_matrix(arena: Arena, chosen: Iterable[Attack] | None = None) -> list[Outcome]:
    """Run the attacks, by default all of them, and return what came of each."""
    return [attack.run(arena) for attack in (attacks(arena) if chosen is None else chosen)]


def _constraints(arena: Arena, table: str, command: Command) -> list[str | None]:
    target = arena.targets[table]
    if command == "refer":
        return [
            name
            for name, key in target.references.items()
            if key.referred_table.fullname in arena.targets
        ]
    if command == "probe, do update":
        return [key.constraint for key in target.keys if key.constraint is not None]
    return [None]
