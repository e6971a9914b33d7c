-- Purpose: runs the check whose id is in the variable `check_id`, counts its findings for the verdict
--          and prints them, for which it is run a second time. A part of audit.sql.
-- Run by:  any role. Twice: yes.

select :'check' in ('', :'check_id')
       and :'check_id' <> all (pg_catalog.string_to_array(:'skip', ',')) as tenantry_wanted
\gset
\if :tenantry_wanted
  \o :nowhere
  \ir ../../src/tenantry/audit/checks/:check_id.sql
  \o
  \set tenantry_rows :ROW_COUNT
  \set tenantry_denied :ERROR
  select :'tenantry_rows'::integer > 0 as tenantry_any,
         :'tenantry_findings'::integer + :'tenantry_rows'::integer as tenantry_findings,
         :'tenantry_unseen'::integer + (:'tenantry_denied'::boolean)::integer as tenantry_unseen,
         :'tenantry_checks'::integer + 1 as tenantry_checks
  \gset
  \if :tenantry_any
    \ir ../../src/tenantry/audit/checks/:check_id.sql
    \echo
  \endif
\endif
