-- Purpose: finds event triggers that do not fire: one that guards new tables, as its page has it, is
--          then none, and nobody is told.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

select
  'event_trigger_disabled' as check_id, 'note' as severity, 'event trigger' as object_type,
  pg_catalog.quote_ident(e.evtname) as object,
  pg_catalog.format('%s: what it does at %s is not done',
    case e.evtenabled when 'D' then 'disabled' else 'enabled for replicas alone' end, e.evtevent)
    as problem,
  'enable it, or drop it' as remedy,
  pg_catalog.format('alter event trigger %I enable;', e.evtname) as statement
from pg_catalog.pg_event_trigger as e
where e.evtenabled in ('D', 'R') and e.evtevent <> 'login'
order by e.evtname
