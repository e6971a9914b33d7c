"""Tenant isolation for PostgreSQL with SQLAlchemy."""
