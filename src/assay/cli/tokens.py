"""`assay tokens …`."""

import json
import uuid
from datetime import datetime, timedelta
from typing import Annotated

import typer

from assay.cli.choices import AsJson, OrganizationOption, chosen_organization
from assay.database import SessionLocal
from assay.services.tokens import LIFETIME, issue_token, list_tokens, revoke_token
from assay.services.users import find_user
from tenantry import tenant_scope

app = typer.Typer(help="API tokens: how a user's requests are recognised.", no_args_is_help=True)


@app.command()
def create(
    user: Annotated[
        str, typer.Argument(metavar="EMAIL", help="Whose it is to be.", show_default=False)
    ],
    organization: OrganizationOption,
    name: Annotated[str, typer.Option(help="What it is for.")] = "made by assay tokens create",
    days: Annotated[int, typer.Option(min=1, max=366, help="After which it ends.")] = LIFETIME.days,
    as_json: AsJson = False,
) -> None:
    """Create a token and print it, this once: what is kept of it is a hash."""
    owner = chosen_organization(organization, command="tokens create")
    with tenant_scope(owner.id, sessions=SessionLocal) as session:
        issued = issue_token(
            session, find_user(session, user).id, name, lifetime=timedelta(days=days)
        )
        made = {"id": str(issued.record.id), "token": issued.text}
    # Only once it is committed.
    typer.echo(json.dumps(made) if as_json else made["token"])


@app.command("list")
def list_all(organization: OrganizationOption, as_json: AsJson = False) -> None:
    """List an organization's tokens: id, how it begins, until when, last use, whose, what for."""
    owner = chosen_organization(organization, command="tokens list")
    with tenant_scope(owner.id, sessions=SessionLocal) as session:
        rows = [
            {
                "id": str(token.id),
                "prefix": token.prefix,
                "user": email,
                "name": token.name,
                "expires_at": _text(token.expires_at),
                "last_used_at": _text(token.last_used_at),
                "revoked_at": _text(token.revoked_at),
            }
            for token, email in list_tokens(session)
        ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        until = (
            f"revoked {row['revoked_at']}" if row["revoked_at"] else f"until {row['expires_at']}"
        )
        used = f"used {row['last_used_at']}" if row["last_used_at"] else "never used"
        typer.echo(f"{row['id']}  {row['prefix']}…  {until}  {used}  {row['user']}  {row['name']}")


@app.command()
def revoke(
    token: Annotated[uuid.UUID, typer.Argument(metavar="ID", help="As `list` shows it.")],
    organization: OrganizationOption,
) -> None:
    """End a token of any user of the organization; from now on it is nobody's."""
    owner = chosen_organization(organization, command="tokens revoke")
    with tenant_scope(owner.id, sessions=SessionLocal) as session:
        revoke_token(session, token)
    typer.echo(f"revoked {token}")


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
