"""`assay tokens …` as an operator runs it: how the first user gets a token."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import sessionmaker

from assay.models import Base
from assay.services.tokens import TokenOwner, find_owner
from tenantry import create_tenant_engine
from tenantry.testing import Database

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def engine(tenantry_database: Database) -> Iterator[Engine]:
    """Return an engine of the application's role."""
    engine = create_tenant_engine(
        tenantry_database.app_url, mode="database", metadata=Base.metadata
    )
    yield engine
    engine.dispose()


@pytest.fixture
def run(tenantry_database: Database) -> Run:
    """Return what runs the command, with the application's login alone."""
    environ = {k: v for k, v in os.environ.items() if not k.endswith("DATABASE_URL")} | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TENANTRY_MODE": "database",
        "DATABASE_URL": tenantry_database.app_url.render_as_string(hide_password=False),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "assay.cli", *arguments],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def owner_of(engine: Engine, token: str) -> TokenOwner | None:
    """Return whose token it is, as a request would find out."""
    with sessionmaker(engine)() as session:
        return find_owner(session, token)


def test_first_user_gets_a_token_that_ends(run: Run, engine: Engine) -> None:
    """From nothing to a token: made, printed alone, recognised, listed without it, revoked."""
    made = run("organizations", "create", "Tokens", "--user", "ada@example.org")
    organization = made.stdout.strip()
    of = ("--organization", organization)
    created = run("tokens", "create", "ada@example.org", *of, "--name", "CI", "--days", "1")
    assert created.returncode == 0, created.stderr
    token = created.stdout.strip()
    owner = owner_of(engine, token)
    assert owner is not None
    assert str(owner.organization_id) == organization

    listed = run("tokens", "list", *of)
    assert token not in listed.stdout
    assert all(
        part in listed.stdout for part in (token[:12], "ada@example.org", "CI", "never used")
    )
    (row,) = json.loads(run("tokens", "list", *of, "--json").stdout)
    assert row["revoked_at"] is None

    assert run("tokens", "revoke", row["id"], *of).returncode == 0
    assert owner_of(engine, token) is None
    assert "revoked 20" in run("tokens", "list", *of).stdout


def test_command_reaches_one_organization(run: Run, engine: Engine) -> None:
    """Neither a user nor a token of another organization is found; the way out is named."""
    first, second = (
        run("organizations", "create", "Tokens", "--user", f"{name}@example.org").stdout.strip()
        for name in ("ada", "grace")
    )
    made = json.loads(
        run("tokens", "create", "ada@example.org", "--organization", first, "--json").stdout
    )
    refused = run("tokens", "create", "ada@example.org", "--organization", second)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "no user with the email address 'ada@example.org'" in refused.stderr
    assert run("tokens", "revoke", made["id"], "--organization", second).returncode == 1
    assert owner_of(engine, made["token"]) is not None
    assert run("tokens", "list", "--organization", second).stdout == ""
    unknown = run("tokens", "list", "--organization", str(uuid.uuid4()))
    assert (unknown.returncode, "no organization has the id" in unknown.stderr) == (1, True)
