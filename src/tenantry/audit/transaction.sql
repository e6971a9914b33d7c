-- Purpose: makes what the checks read and print the same whatever is stored for the role or the
--          database: names as they resolve, backslashes in literals, time limits. No fact, no check.
-- Run by:  any role, first in the audit's transaction.
-- Twice:   yes; all of it ends with the transaction.

-- With this search path whatever is not the system's own prints with its schema, so that a function
-- or an operator planted under a familiar name cannot pass for it in the text of a policy.
set local search_path = pg_catalog, pg_temp;
set local quote_all_identifiers = off;
-- Off, a literal loses its backslashes, and a pattern with it what it looks for.
set local standard_conforming_strings = on;
set local transform_null_equals = off;
-- A check that may not look is to be counted, and not to end the session.
set local exit_on_error = off;
-- Limits that are meant for the application's own statements would break the audit off.
set local statement_timeout = 0;
set local lock_timeout = 0;
set local idle_in_transaction_session_timeout = 0;
-- The catalogs' queries are short; compiling them would take longer than running them.
set local jit = off;
-- Of PostgreSQL 17 and later.
select
where pg_catalog.current_setting('transaction_timeout', true) is not null
  and pg_catalog.set_config('transaction_timeout', '0', true) is null;
