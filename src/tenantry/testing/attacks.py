"""Attacks of one organization on another's rows, as values that can be run and judged.

An attack passes for stopped when the server or the layer answered it in one of the ways in which
a wall answers: no row of the victim's, a refusal, or the very answer that a value gets which does
not exist. Any other error proves nothing and counts as a failure of its own (`inconclusive`), so
that a mistake in an attack cannot pass for a wall.

LOCK TABLE is not among them: PostgreSQL lets whoever may update a table lock it, and has no policy
for that. It delays all tenants and tells and changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import psycopg2
from sqlalchemy import Text, cast, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from tenantry.diagnosis import diagnostics, sqlstate
from tenantry.exceptions import (
    ConfigurationError,
    CrossTenantError,
    IsolationNotEnforcedError,
    MissingTenantError,
    TenancyError,
    TenantSwitchError,
    UnfilterableStatementError,
)
from tenantry.testing.attacks_arena import Arena, Situation
from tenantry.testing.attacks_rows import Row, Target
from tenantry.testing.attacks_surfaces import Answer, DriverHand, Hand, Surface, TextHand

Command = Literal[
    "read",
    "read by key",
    "count",
    "lock rows",
    "insert",
    "update",
    "update everything",
    "delete",
    "move own row away",
    "move everything away",
    "take a row over",
    "refer",
    "probe",
    "probe, do nothing",
    "probe, do update",
    "copy out",
    "copy in",
    "truncate",
]
Verdict = Literal["stopped", "got through", "inconclusive"]

# insufficient_privilege: a policy's check, or a missing grant.
_DENIED: Final = "42501"
# unique_violation and exclusion_violation: the value is there already.
_TELLING: Final = {"23505", "23P01"}
# What the same values get when no row has them: a row written, a denial, a reference to nothing,
# object_not_in_prerequisite_state for ON CONFLICT beside a deferrable key.
_SILENT: Final = {None, _DENIED, "23503", "55000"}
_REFUSALS: Final = {
    error.__name__
    for error in (
        CrossTenantError,
        IsolationNotEnforcedError,
        MissingTenantError,
        TenantSwitchError,
        UnfilterableStatementError,
    )
}
_READS: Final[set[Command]] = {"read", "read by key", "count", "lock rows", "copy out"}
_STOPS: Final[dict[Command, frozenset[str]]] = {
    # foreign_key_violation of a key that carries the tenant; compared with an absent row's.
    "refer": frozenset({_DENIED, "23503"}),
    # feature_not_supported: COPY FROM does not exist for a table with row security.
    "copy in": frozenset({_DENIED, "0A000"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an attack: the verdict, and in one line what stopped it or what it got."""

    attack: "Attack"
    verdict: Verdict
    how: str

    @property
    def stopped(self) -> bool:
        """Tell whether the attack is proven to have failed."""
        return self.verdict == "stopped"

    def __str__(self) -> str:
        """Return the outcome as one line of a report."""
        return f"{self.attack}: {self.verdict.upper()}: {self.how}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One command of the attacker's against one table, by one way, in one situation.

    Attributes:
        command: what is tried.
        table: full name of the tenant table.
        surface: the way to the database.
        situation: whose the connection was, and whose it says to be.
        constraint: the foreign key or unique constraint that is tried, where there are several.
    """

    command: Command
    table: str
    surface: Surface
    situation: Situation
    constraint: str | None = None

    @property
    def name(self) -> str:
        """Return the command, with the constraint where there is one."""
        return self.command if self.constraint is None else f"{self.command} ({self.constraint})"

    def __str__(self) -> str:
        """Name the attack in full."""
        return f"{self.name} {self.table} by {self.surface}, {self.situation}"

    def run(self, arena: Arena) -> Outcome:
        """Try it, leave nothing behind, and say what came of it.

        What was written is rolled back. Only an attack that claims to have written nothing is
        committed, so that the victim's digest shows whether that is true.
        """
        target = arena.target(self.table)
        if self.command == "refer" or self.command.startswith("probe"):
            verdict, how = self._compare(arena, target)
        else:
            answer = self._try(arena, lambda hand: self._perform(hand, target))
            verdict, how = self._judge(arena, target, answer)
            if verdict == "stopped" and not answer.failed and self.command not in _READS:
                changed = arena.changed_tables()
                if changed:
                    verdict = "got through"
                    how = f"it was told of 0 rows, and the victim's changed in {', '.join(changed)}"
        return Outcome(attack=self, verdict=verdict, how=how)

    def _try(self, arena: Arena, act: Callable[[Hand], Answer]) -> Answer:
        try:
            with arena.position(self.surface, self.situation) as hand:
                answer = act(hand)
                if answer.count == 0:
                    hand.commit()
                else:
                    hand.rollback()
                return answer
        except TenancyError as error:
            return Answer(refusal=type(error).__name__, message=_first_line(error))
        except (DBAPIError, psycopg2.Error) as error:
            original: Any = error.orig if isinstance(error, DBAPIError) else error
            return Answer(
                sqlstate=sqlstate(original) or "client",
                constraint=getattr(diagnostics(original), "constraint_name", None),
                message=_first_line(original),
            )

    def _perform(self, hand: Hand, target: Target) -> Answer:
        relation = hand.relation(target)
        own, victim = target.own, target.victim
        match self.command:
            case "read":
                return hand.execute(relation.owners())
            case "read by key":
                return hand.find(target, victim)
            case "count":
                counted = select(cast(func.count(), Text)).select_from(relation.entity)
                return Answer(count=int(hand.execute(counted).owners[0]))
            case "lock rows":
                return hand.execute(relation.owners().with_for_update())
            case "insert":
                return hand.insert(target, victim)
            case "update" | "update everything":
                harmless = target.harmless
                name = next(iter(relation.assigned(victim, (harmless,))))
                statement = update(relation.entity).values({name: relation.column(harmless)})
                if self.command == "update":
                    statement = statement.where(relation.is_owned_like(victim))
                return hand.execute(statement)
            case "delete":
                return hand.remove(target, victim)
            case "move own row away":
                return hand.alter(target, own, victim, (target.tenant,))
            case "move everything away":
                # Without a condition, since one would have the new row checked as a row to be read.
                moved = relation.assigned(victim, (target.tenant,))
                return hand.execute(update(relation.entity).values(moved))
            case "take a row over":
                return hand.alter(target, victim, own, (target.tenant,))
            case "copy in" if isinstance(hand, DriverHand):
                return hand.copy_in(target, victim)
            case "copy out" if isinstance(hand, DriverHand):
                return hand.copy_out(target)
            case "truncate" if isinstance(hand, DriverHand | TextHand):
                return hand.truncate(target)
        raise ConfigurationError(f"{self.command!r} is no attack by {self.surface}")

    def _judge(self, arena: Arena, target: Target, answer: Answer) -> tuple[Verdict, str]:
        if answer.failed:
            return self._judge_error(answer)
        stolen = answer.owners.count(str(arena.victim))
        if stolen:
            return "got through", f"{stolen} rows of the victim's"
        if self.command in {"count", "update everything"}:
            if answer.count > target.own_count:
                return "got through", f"{answer.count} rows, and {target.own_count} are its own"
        elif self.command not in _READS and answer.count:
            return "got through", f"{answer.count} rows"
        return "stopped", "0 rows"

    def _judge_error(self, answer: Answer) -> tuple[Verdict, str]:
        shown = _shown(answer)
        if answer.refusal is not None:
            return "stopped" if answer.refusal in _REFUSALS else "inconclusive", shown
        if answer.sqlstate in _STOPS.get(self.command, {_DENIED}):
            return "stopped", shown
        if self.command == "truncate" and answer.sqlstate == "0A000":
            return "got through", f"nothing but a foreign key stands in the way: {shown}"
        if str(answer.sqlstate).startswith("23"):
            # Row security looks at a row before any constraint does.
            return "got through", f"past the policies, up to a constraint: {shown}"
        return "inconclusive", shown

    def _compare(self, arena: Arena, target: Target) -> tuple[Verdict, str]:
        """Judge by whether the answer differs from the one for a value that does not exist."""
        perform: Callable[[Hand, Target, Row], Answer]
        if self.command == "refer":
            referred = self._referred(arena, target)
            perform, present, absent = self._refer, referred.victim, referred.absent
        else:
            perform, present, absent = self._probe, target.planted(), target.absent
        missing = absent(arena.tenant_tables)

        def attempt(hand: Hand, row: Row) -> Answer:
            answer = perform(hand, target, row)
            if target.deferrable:
                hand.settle()
            return answer

        answer = self._try(arena, lambda hand: attempt(hand, present))
        control = None if missing is None else self._try(arena, lambda hand: attempt(hand, missing))
        told = _shown(answer)
        if answer.refusal is not None:
            return self._judge_error(answer)
        if self.command == "refer" and answer.count:
            return "got through", "the victim's row is referred to"
        if answer.sqlstate not in _SILENT | _TELLING:
            return "inconclusive", told
        if control is not None and control.sqlstate in _SILENT and control.value != "nothing":
            if answer.observable == control.observable:
                return "stopped", f"{told}; the same for an absent value"
            return "got through", f"{told}; for an absent value: {_shown(control)}"
        # No value can be invented, or it breaks another rule: there is nothing to compare with.
        if answer.sqlstate in _TELLING or answer.value == "nothing":
            return "got through", f"a key tells of the row: {told}"
        return "stopped", told

    def _referred(self, arena: Arena, target: Target) -> Target:
        reference = target.reference(str(self.constraint))
        referred = arena.targets.get(reference.referred_table.fullname)
        if referred is None:
            raise ConfigurationError(f"{self.constraint!r} does not refer to a tenant table")
        return referred

    def _refer(self, hand: Hand, target: Target, referred: Row) -> Answer:
        reference = target.reference(str(self.constraint))
        values, texts = dict(target.own.values), dict(target.own.texts)
        changed = []
        for element in reference.elements:
            if element.parent.key != target.tenant:
                changed.append(element.parent.key)
                values[element.parent.key] = referred.values[element.column.key]
                texts[element.parent.key] = referred.texts[element.column.key]
        return hand.alter(target, target.own, Row(values, texts), tuple(changed))

    def _probe(self, hand: Hand, target: Target, row: Row) -> Answer:
        if self.command == "probe":
            return hand.insert(target, row)
        relation = hand.relation(target)
        statement = insert(relation.entity).values(relation.assigned(row, target.writable))
        if self.command == "probe, do nothing":
            answer = hand.execute(statement.on_conflict_do_nothing())
            return replace(answer, value="nothing") if answer.count == 0 else answer
        harmless = target.harmless
        name = relation.name(harmless)
        statement = statement.on_conflict_do_update(
            constraint=self.constraint, set_={name: relation.value(row, harmless)}
        )
        if target.partitioned:
            # No system column can be returned there: an inserted row is one more than before.
            before = hand.execute(relation.owners()).count
            answer = hand.execute(statement)
            if not answer.count:
                return replace(answer, value="nothing")
            inserted = hand.execute(relation.owners()).count > before
            return replace(answer, value="inserted" if inserted else "updated")
        # xmax is 0 in a row that was inserted, and not in one that was updated.
        answer = hand.execute(
            statement.returning(
                literal_column("case when xmax = 0 then 'inserted' else 'updated' end")
            )
        )
        return replace(answer, value=answer.owners[0] if answer.owners else "nothing", owners=())


def _shown(answer: Answer) -> str:
    if answer.failed:
        return f"{answer.refusal or answer.sqlstate}: {answer.message}"
    rows = "1 row" if answer.count == 1 else f"{answer.count} rows"
    return rows if answer.value is None else f"{rows} ({answer.value})"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
