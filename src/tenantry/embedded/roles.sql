-- The DBA's part of a tenantry database: what the migrations cannot do, since only a superuser may.
-- Run by: a superuser, in any database of the cluster. Can be run twice.

do $$
begin
    if to_regrole('tenantry_migrator') is null then
        create role tenantry_migrator;
    end if;
    if to_regrole('tenantry_login') is null then
        create role tenantry_login;
    end if;
    if to_regrole('tenantry_maintainer') is null then
        create role tenantry_maintainer;
    end if;
    if to_regrole('tenantry_maintenance') is null then
        create role tenantry_maintenance;
    end if;
    if to_regrole('tenantry_courier') is null then
        create role tenantry_courier;
    end if;
    if to_regrole('tenantry_broker') is null then
        create role tenantry_broker;
    end if;
end
$$;

alter role tenantry_migrator login createrole createdb nosuperuser nobypassrls noreplication;
alter role tenantry_login login nocreaterole nocreatedb nosuperuser nobypassrls noreplication;
alter role tenantry_maintainer login nocreaterole nocreatedb nosuperuser nobypassrls noreplication;

-- BYPASSRLS is not inherited: a member has it only after SET ROLE. The migrator is no member, since
-- granting privileges to the role takes no membership.
alter role tenantry_maintenance
    nologin nocreaterole nocreatedb nosuperuser bypassrls noreplication;
grant tenantry_maintenance to tenantry_maintainer;

-- Celery's messages and results: a schema that the application's login cannot look into. Celery names
-- no schema for its tables, hence the search_path; nothing of the tenants' is on it.
alter role tenantry_broker nologin nocreaterole nocreatedb nosuperuser nobypassrls noreplication;
alter role tenantry_courier login nocreaterole nocreatedb nosuperuser nobypassrls noreplication;
grant tenantry_broker to tenantry_courier;
alter role tenantry_courier set search_path = tenantry_broker;

-- Lets the owner of a database run ALTER DATABASE ... SET for these two.
grant set on parameter "app.current_organization", "app.current_user" to tenantry_migrator;
