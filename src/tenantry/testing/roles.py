"""Proof that the role under test is one that row security applies to."""

from contextlib import closing
from typing import Final

import psycopg2
from sqlalchemy.engine import URL

from tenantry.config import libpq_url
from tenantry.exceptions import WrongRoleError

# pg_shdepend records the owner of every object, whatever its kind, of this database (dbid) and of
# the cluster (dbid 0). A role reaches what the roles it is a member of reach, after SET ROLE.
_FAULTS: Final = """
with reachable as (
  select r.oid, r.rolname, r.rolsuper, r.rolbypassrls
  from pg_catalog.pg_roles r
  where pg_catalog.pg_has_role(current_user, r.oid, 'member')
)
select pg_catalog.format('%I is a superuser', rolname) from reachable where rolsuper
union all
select pg_catalog.format('%I has BYPASSRLS', rolname) from reachable where rolbypassrls
union all
select pg_catalog.format('it is a member of %I', rolname) from reachable where rolname like 'pg\\_%'
union all
(select pg_catalog.format('%I owns %s', r.rolname,
    pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid))
 from pg_catalog.pg_shdepend d
 join reachable r on r.oid = d.refobjid
 where d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and d.deptype = 'o'
   and d.dbid in (0, (select oid from pg_catalog.pg_database
                      where datname = pg_catalog.current_database()))
 limit 5)
"""


def check_unprivileged(url: URL) -> None:
    """Return only if the role is no superuser, has no BYPASSRLS, owns nothing and can become none.

    Otherwise every isolation test that connects with this URL would pass without a wall.

    Raises:
        WrongRoleError: with each reason why the role escapes row security.
    """
    with closing(psycopg2.connect(libpq_url(url))) as connection, connection.cursor() as cursor:
        cursor.execute(_FAULTS)
        faults = [fault for (fault,) in cursor.fetchall()]
    if faults:
        raise WrongRoleError(
            f"role {url.username!r} cannot stand for the application in database "
            f"{url.database!r}: {'; '.join(faults)}. Connect as a login that is a member of the "
            "application role alone"
        )
