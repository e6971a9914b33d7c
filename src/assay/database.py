"""Assay's Sessions, on the engine that the environment describes."""

from typing import Final

from assay.models import Base
from tenantry import default_sessions

SessionLocal: Final = default_sessions(Base.metadata)
"""Makes Sessions; knowing the tables, errors name a missing migration or organization."""
