-- Purpose: mark, in the database psql is connected to, the functions of chosen operators LEAKPROOF, so
--          that row-level security lets their indexes be searched; or take the marks off again.
-- Run by:  a superuser, once per database; again after a restore and after pg_upgrade, which lose it.
-- Twice:   yes.
--
--   psql -X -d DATABASE -f sql/leakproof.sql                     what is marked, and what would be
--   psql -X -d DATABASE -v mark=on  -f sql/leakproof.sql         mark
--   psql -X -d DATABASE -v mark=off -f sql/leakproof.sql         take the marks off
--   psql -X -d DATABASE -v mark=on -v patterns=on -f sql/leakproof.sql     LIKE and ILIKE too
--
-- This is your promise, for every table and role of the database, that these functions tell nothing of
-- their arguments but what they return: the planner may then run them on rows of other tenants before
-- the policy has hidden those, and search indexes that way. PostgreSQL does not make that promise
-- itself. What we know of each is said beside it. LIKE and ILIKE do not keep it: a pattern that ends
-- in a backslash is an error in the very row that matches so far, so that whoever writes patterns can
-- ask whether a text is there. Mark them where no user writes a pattern, or not at all.
-- docs/search.md has the other way, which takes no superuser and no promise: op.create_tenant_search.

\set ON_ERROR_STOP on
\if :{?mark}
\else
  \set mark show
\endif
\if :{?patterns}
\else
  \set patterns off
\endif
-- Anything else than on and off is a mistake, not a wish.
select :'mark' in ('on', 'off', 'show') and :'patterns' in ('on', 'off') as understood \gset
\if :understood
\else
  do $$ begin raise exception 'mark is on or off, patterns is on or off'; end $$;
\endif

begin;
set local search_path = pg_catalog, pg_temp;
set local client_min_messages = warning;

create temporary table chosen on commit drop as
select p.oid, c.says
from (values
    ('pg_catalog', 'numeric_eq(numeric,numeric)', 'compares; no error'),
    ('pg_catalog', 'numeric_lt(numeric,numeric)', 'compares; no error'),
    ('pg_catalog', 'numeric_le(numeric,numeric)', 'compares; no error'),
    ('pg_catalog', 'numeric_gt(numeric,numeric)', 'compares; no error'),
    ('pg_catalog', 'numeric_ge(numeric,numeric)', 'compares; no error'),
    ('pg_catalog', 'enum_eq(anyenum,anyenum)', 'compares two numbers; no error'),
    ('pg_catalog', 'lower(text)', 'an error for texts of 256 MB, which no index holds'),
    ('pg_catalog', 'jsonb_contains(jsonb,jsonb)', 'goes as deep as the value that is asked for'),
    ('pg_catalog', 'jsonb_object_field_text(jsonb,text)', 'NULL where there is no such key'),
    ('pg_catalog', 'arraycontains(anyarray,anyarray)', 'compares by the = of the elements'),
    ('pg_catalog', 'ts_match_vq(tsvector,tsquery)', 'goes as deep as the query that is asked'),
    ('citext', 'of.citext_eq(of.citext,of.citext)', 'as lower(text)'),
    ('patterns', 'textlike(text,text)', 'TELLS where a row matches up to a last backslash'),
    ('patterns', 'texticlike(text,text)', 'TELLS where a row matches up to a last backslash')
  ) as c (place, signature, says)
left join pg_catalog.pg_extension as e on e.extname = c.place
left join pg_catalog.pg_namespace as n on n.oid = e.extnamespace
join pg_catalog.pg_proc as p on p.oid = case c.place
  when 'citext' then pg_catalog.to_regprocedure(
    pg_catalog.replace(c.signature, 'of.', pg_catalog.quote_ident(n.nspname) || '.'))
  else pg_catalog.to_regprocedure('pg_catalog.' || c.signature) end
-- The marks of patterns are taken off without being asked for.
where c.place <> 'patterns' or :'patterns' = 'on' or :'mark' = 'off';

select pg_catalog.format('alter function %s %s', c.oid::pg_catalog.regprocedure,
                         case :'mark' when 'on' then 'leakproof' else 'not leakproof' end)
from chosen as c
where :'mark' <> 'show'
order by c.oid
\gexec

select c.oid::pg_catalog.regprocedure as function, p.proleakproof as leakproof, c.says
from chosen as c join pg_catalog.pg_proc as p on p.oid = c.oid
order by c.oid;
commit;
