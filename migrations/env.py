"""Runs Assay's migrations; what it takes is in `tenantry.alembic`."""

from logging.config import fileConfig

from alembic import context

from assay.models import Base
from tenantry.alembic import run_migrations

if context.config.config_file_name is not None and context.config.cmd_opts is not None:
    # Only for the command line: a program that calls Alembic has its own logging.
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)

run_migrations(context, Base.metadata)
