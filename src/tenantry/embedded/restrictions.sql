-- Takes from PUBLIC the built-in functions that look into, or end, other sessions of the same role,
-- and the large objects, which no policy covers.
-- Run by: a superuser, once in template1 (databases made from it inherit this) and in each database
-- that exists already. Can be run twice.

do $$
declare
    routine regprocedure;
begin
    for routine in
        select p.oid
        from pg_catalog.pg_proc as p
        where p.pronamespace = 'pg_catalog'::regnamespace
          and (
              p.proname in (
                  'pg_cancel_backend', 'pg_stat_get_activity', 'pg_stat_get_backend_activity',
                  'pg_terminate_backend', 'loread', 'lowrite'
              )
              or p.proname like 'lo\_%'
          )
    loop
        execute format('revoke execute on function %s from public', routine);
    end loop;
end
$$;

-- The predefined roles keep what they are for.
grant execute on function pg_catalog.pg_stat_get_activity(integer) to pg_read_all_stats;
grant execute on function pg_catalog.pg_stat_get_backend_activity(integer) to pg_read_all_stats;
grant execute on function pg_catalog.pg_cancel_backend(integer) to pg_signal_backend;
grant execute on function pg_catalog.pg_terminate_backend(integer, bigint) to pg_signal_backend;

revoke create on schema public from public;
