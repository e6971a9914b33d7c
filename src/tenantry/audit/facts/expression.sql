-- Purpose: leaves in the setting tenantry.expression what a policy compares the tenant column with,
--          as one writes it: nullif(current_setting('...', true), '')::uuid. For statements that mend.
-- Run by:  any role, in the audit's transaction, which sets the parameters.
-- Twice:   yes, it reads only.

select
where pg_catalog.set_config('tenantry.expression',
  pg_catalog.format('nullif(current_setting(%L, true), '''')%s',
    pg_catalog.current_setting('tenantry.organization_setting'),
    case when pg_catalog.to_regtype(pg_catalog.current_setting('tenantry.id_type'))
              is distinct from 'pg_catalog.text'::pg_catalog.regtype
      then '::' || pg_catalog.current_setting('tenantry.id_type') else '' end),
  true) is null
