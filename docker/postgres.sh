#!/bin/sh
# Usage: by the postgres image, once, when it has made the database.
#
# Makes the roles with the passwords of the environment; the migrations then need no superuser.
set -eu
psql --no-psqlrc --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --file=/srv/sql/roles.sql
