-- Purpose: leaves in the setting tenantry.settings, a JSON list of {name, starts}, what the two
--          settings that carry the tenant are where a transaction begins and nobody has set them.
-- Run by:  any role, in the audit's transaction, which sets the parameters.
-- Twice:   yes; it resets the two settings until the transaction ends.

select
where pg_catalog.set_config('tenantry.settings',
  (select pg_catalog.json_agg(pg_catalog.json_build_object(
            'name', s.name,
            -- NULL resets, as RESET does: to what the role, the database, the server's configuration
            -- or the options of this connection say.
            'starts', pg_catalog.set_config(s.name, null, true)))::text
   from (values (pg_catalog.current_setting('tenantry.organization_setting')),
                (pg_catalog.current_setting('tenantry.user_setting'))) as s (name)),
  true) is null
