"""What an administrator does on a server for tests: logins, and what a database admits."""

import hashlib
import hmac
import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy.engine import URL

from tenantry.config import libpq_url
from tenantry.embedded import Login, provisioning
from tenantry.embedded.bootstrap import ROLES
from tenantry.exceptions import ConfigurationError, DatabaseUnreachableError, WrongRoleError

# ON DELETE SET NULL (column), which tenant-safe foreign keys need, came with 15.
OLDEST_VERSION: Final = 15

# Only a CREATEROLE and CREATEDB role is at hand: it cannot hand out BYPASSRLS.
_ORDINARY: Final[Mapping[Login, str]] = {
    "app": "login nocreaterole nocreatedb",
    "owner": "login createrole createdb",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What is known of a server once its logins exist."""

    version: str
    superuser: bool
    logins: Mapping[Login, URL] = field(repr=False)


def create_logins(admin: URL) -> Prepared:
    """Leave the logins on the server, with passwords of this run, whether or not they were there.

    The roles are those of the embedded server, made by the same script. An administrator who is
    no superuser gets the application's and the migrator's alone.

    Raises:
        ConfigurationError: the server is older than PostgreSQL 15.
        DatabaseUnreachableError: it lets nobody in with this URL.
        WrongRoleError: the role can create neither roles nor databases.
    """
    with connected(admin) as cursor:
        version, superuser = _capabilities(cursor, admin)
        known: list[Login] = (
            ["app", "owner", "maintenance", "courier"] if superuser else [*_ORDINARY]
        )
        passwords = {login: _password(admin, login) for login in known}
        # Two runs that begin at once would otherwise update the same roles at once.
        cursor.execute("select pg_advisory_lock(hashtext('tenantry.testing'))")
        if superuser:
            provisioning.create_roles(cursor)
        else:
            _create_ordinary(cursor)
        for login, password in passwords.items():
            provisioning.set_password(cursor, ROLES[login], password)
    logins: dict[Login, URL] = {"superuser": admin}
    for login, password in passwords.items():
        logins[login] = admin.set(username=ROLES[login], password=password)
    return Prepared(version=version.split()[0], superuser=superuser, logins=logins)


def _capabilities(cursor: Cursor, admin: URL) -> tuple[str, bool]:
    cursor.execute(
        "select current_setting('server_version'),"
        " current_setting('server_version_num')::int / 10000,"
        " rolsuper, rolcreaterole and rolcreatedb"
        " from pg_catalog.pg_roles where rolname = current_user"
    )
    version, major, superuser, capable = _row(cursor)
    if major < OLDEST_VERSION:
        raise ConfigurationError(
            f"the test server runs PostgreSQL {version}: use {OLDEST_VERSION} or later"
        )
    if not (superuser or capable):
        raise WrongRoleError(
            f"role {admin.username!r} may not create roles and databases: name a superuser's URL "
            "in TEST_DATABASE_URL, or give the role CREATEROLE and CREATEDB"
        )
    return version, superuser


def _password(admin: URL, login: Login) -> str:
    if not admin.password:
        return secrets.token_urlsafe(24)
    key = str(admin.password).encode()
    return hmac.new(key, f"tenantry.testing {login}".encode(), hashlib.sha256).hexdigest()


def _create_ordinary(cursor: Cursor) -> None:
    for login, attributes in _ORDINARY.items():
        cursor.execute("select to_regrole(%s) is null", [ROLES[login]])
        if _row(cursor)[0]:
            cursor.execute(
                sql.SQL("create role {} " + attributes).format(sql.Identifier(ROLES[login]))
            )


def copy_privileges(cursor: Cursor, source: str, target: str) -> None:
    """Grant on the target what is granted on the source, whose owner is the same."""
    cursor.execute(
        "select a.privilege_type, a.is_grantable, r.rolname"
        " from pg_catalog.pg_database d"
        " cross join lateral pg_catalog.aclexplode(d.datacl) a"
        " left join pg_catalog.pg_roles r on r.oid = a.grantee"
        " where d.datname = %s and a.grantee <> d.datdba",
        [source],
    )
    for privilege, grantable, role in cursor.fetchall():
        cursor.execute(
            sql.SQL("grant {} on database {} to {}{}").format(
                sql.SQL(privilege),
                sql.Identifier(target),
                sql.Identifier(role) if role else sql.SQL("public"),
                sql.SQL(" with grant option" if grantable else ""),
            )
        )


def _row(cursor: Cursor) -> tuple[Any, ...]:
    row = cursor.fetchone()
    if row is None:
        raise WrongRoleError("the server shows the connected role nothing of itself")
    return row


@contextmanager
def connected(url: URL) -> Iterator[Cursor]:
    """Yield a cursor of a connection in autocommit, which is closed afterwards.

    Raises:
        DatabaseUnreachableError: the server lets nobody in with this URL.
    """
    with closing(_connect(url)) as connection, connection.cursor() as cursor:
        yield cursor


def _connect(url: URL) -> Connection:
    try:
        connection = psycopg2.connect(
            libpq_url(url), connect_timeout=10, application_name="tenantry testing"
        )
    except psycopg2.OperationalError as error:
        raise DatabaseUnreachableError(
            f"the test server at {url.render_as_string()} lets nobody in: {str(error).strip()}. "
            "Check TEST_DATABASE_URL, or choose --tenantry-server=embedded"
        ) from error
    connection.autocommit = True
    return connection
