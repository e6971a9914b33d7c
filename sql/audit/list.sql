-- Purpose: lists the tenant tables, with what protects each command on them, and the roles that act as
--          the application. A part of audit.sql, for -v list=on.
-- Run by:  any role. Twice: yes.

\pset border 1
\pset linestyle ascii
\pset tuples_only off
\pset expanded auto
\echo 'Tables. closed: not granted. walled: held by the restrictive policy. thin: by less. open: by nothing.'
\ir ../../src/tenantry/audit/matrix.sql
\echo
\echo 'Roles that act as the application'
\ir ../../src/tenantry/audit/roles.sql
\echo
\pset border 0
\pset linestyle old-ascii
\pset tuples_only on
\pset expanded on
