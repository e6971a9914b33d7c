"""Runs the checks on a connection, in one read-only transaction."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import psycopg2
from psycopg2.extensions import connection as DriverConnection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import Connection

from tenantry.audit.baseline import Allowance, Baseline
from tenantry.audit.catalogue import Check, checks, listing
from tenantry.audit.listing import ListedRole, listed_table
from tenantry.audit.parameters import DEFAULT_AUDIT, AuditConfig
from tenantry.audit.report import (
    AllowedFinding,
    Finding,
    Report,
    Severity,
    StaleAllowance,
    Unseen,
    ordered,
)
from tenantry.audit.transaction import driver_of, first_line, prepared, rows_of, set_all
from tenantry.config import TenancyConfig
from tenantry.exceptions import AuditError, ConfigurationError

_COLUMNS: Final = (
    "check_id",
    "severity",
    "object_type",
    "object",
    "problem",
    "remedy",
    "statement",
)
_NO_BASELINE: Final = Baseline()


def run_audit(
    connection: Connection | DriverConnection,
    config: AuditConfig | TenancyConfig = DEFAULT_AUDIT,
    *,
    baseline: Baseline = _NO_BASELINE,
    only: Sequence[str] = (),
) -> Report:
    """Return every way in which the database's wall is down, as far as this role can see.

    Reads the catalogs alone, in one read-only, repeatable-read transaction that is rolled back, and
    leaves the connection as it was. Any role that can connect will do.

    Args:
        connection: of SQLAlchemy or psycopg2, outside a transaction.
        config: what the database calls its tenants.
        baseline: findings that are allowed.
        only: ids of the checks to run; empty for all.

    Raises:
        AuditError: the connection is in a transaction, the server is older than PostgreSQL 15, or
            the catalogs that every check needs are closed to the role.
        ConfigurationError: a check that was named does not exist.
    """
    chosen = _chosen(only)
    driver = driver_of(connection)
    with prepared(driver, AuditConfig.of(config)) as cursor:
        cursor.execute(
            "select pg_catalog.current_database()::text, current_user::text,"
            " pg_catalog.current_setting('server_version'),"
            " pg_catalog.json_array_length(pg_catalog.current_setting('tenantry.tables')::json)"
        )
        [(database, role, version, tables)] = rows_of(cursor)
        found: list[Finding] = []
        unseen: list[Unseen] = []
        for check in chosen:
            try:
                found += _findings(check, _rows(cursor, check.query))
            except psycopg2.errors.InsufficientPrivilege as error:
                unseen.append(Unseen(check=check.id, why=first_line(error), blind=True))
        found = _with_fingerprints(cursor, found)
        listed: dict[str, list[dict[str, Any]]] = {"matrix": [], "roles": []}
        unlisted: list[str] = []
        for name in listed:
            try:
                listed[name] = _rows(cursor, listing(name))
            except psycopg2.errors.InsufficientPrivilege as error:
                unlisted.append(f"{name}: {first_line(error)}")
    unseen += [
        Unseen(check=finding.object, why=finding.problem, blind=False)
        for finding in found
        if finding.check == "audit_limited" and finding.object not in {u.check for u in unseen}
    ]
    kept, allowed, stale = _allow(found, baseline, chosen)
    return Report(
        database=database,
        role=role,
        server_version=version,
        tables=tables,
        checks=tuple(check.id for check in chosen),
        findings=ordered(kept),
        allowed=tuple(allowed),
        stale=tuple(stale),
        unseen=tuple(unseen),
        matrix=tuple(listed_table(row) for row in listed["matrix"]),
        roles=tuple(ListedRole(**row) for row in listed["roles"]),
        unlisted=tuple(unlisted),
    )


def _chosen(only: Sequence[str]) -> tuple[Check, ...]:
    known = {check.id: check for check in checks()}
    for check_id in only:
        if check_id not in known:
            raise ConfigurationError(
                f"there is no check {check_id!r}; there are {', '.join(known)}"
            )
    return tuple(check for check in known.values() if not only or check.id in only)


def _rows(cursor: Cursor, query: str) -> list[dict[str, Any]]:
    """Return the query's rows; where it may not look, the transaction is as it was before."""
    cursor.execute("savepoint tenantry_check")
    try:
        cursor.execute(query)
    except psycopg2.errors.InsufficientPrivilege:
        cursor.execute("rollback to savepoint tenantry_check")
        raise
    columns = [column.name for column in cursor.description or ()]
    rows = [dict(zip(columns, row, strict=True)) for row in rows_of(cursor)]
    cursor.execute("release savepoint tenantry_check")
    return rows


def _findings(check: Check, rows: list[dict[str, Any]]) -> Iterator[Finding]:
    for row in rows:
        if tuple(row) != _COLUMNS:
            raise AuditError(f"check {check.id} returns {tuple(row)}, not {_COLUMNS}")
        yield Finding(
            check=row["check_id"],
            severity=Severity.named(row["severity"]),
            object_type=row["object_type"],
            object=row["object"],
            problem=row["problem"],
            remedy=row["remedy"],
            statement=row["statement"],
        )


def _with_fingerprints(cursor: Cursor, found: list[Finding]) -> list[Finding]:
    """Return the findings, each with the fingerprint of what it is about."""
    if not found:
        return []
    objects = [{"type": each.object_type, "object": each.object} for each in found]
    set_all(cursor, {"tenantry.found": json.dumps(objects, ensure_ascii=False)})
    try:
        rows = _rows(cursor, listing("definitions"))
    except psycopg2.errors.InsufficientPrivilege:
        rows = []
    digests = {(row["object_type"], row["object"]): row["digest"] for row in rows}
    return [
        replace(
            each,
            fingerprint=_fingerprint(each, digests.get((each.object_type, each.object)) or ""),
        )
        for each in found
    ]


def _fingerprint(finding: Finding, digest: str) -> str:
    told = (str(finding.severity), finding.object_type, finding.problem, finding.statement or "")
    return hashlib.sha256("\0".join((*told, digest)).encode()).hexdigest()[:16]


def _allow(
    found: list[Finding], baseline: Baseline, chosen: Sequence[Check]
) -> tuple[list[Finding], list[AllowedFinding], list[StaleAllowance]]:
    entries = {(each.check, each.object, each.found): each for each in baseline.allowances}
    kept, allowed, used = [], [], set()
    for finding in found:
        key = (finding.check, finding.object, finding.fingerprint)
        entry = entries.get(key)
        if entry is None:
            kept.append(finding)
        else:
            used.add(key)
            allowed.append(AllowedFinding(finding=finding, reason=entry.reason))
    ran = {check.id for check in chosen}
    known = {check.id for check in checks()}
    stale = [
        StaleAllowance(allowance=entry, why=_why_stale(entry, kept, known))
        for key, entry in entries.items()
        if key not in used and (entry.check in ran or entry.check not in known)
    ]
    return kept, allowed, stale


def _why_stale(entry: Allowance, kept: list[Finding], known: set[str]) -> str:
    if entry.check not in known:
        return "there is no such check"
    now = [
        f'found = "{each.fingerprint}"'
        for each in kept
        if (each.check, each.object) == (entry.check, entry.object)
    ]
    if not now:
        return "it has no such finding"
    wrong = (
        "what was found is no longer what was allowed"
        if entry.found
        else "it does not say what was found"
    )
    return f"{wrong}: read the finding, and if you allow it write {' or '.join(now)}"
