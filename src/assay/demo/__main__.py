"""`python -m assay.demo`, which `make demo` runs."""

import json
import logging
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final

import typer
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.exc import DBAPIError

from assay.demo.report import Report
from assay.demo.scene import (
    ATTACKER,
    VICTIM,
    Player,
    Sight,
    cast_player,
    import_set,
    look_around,
    record_run,
)
from assay.exceptions import AssayError
from assay.models import Base
from tenantry import (
    ConfigurationError,
    Settings,
    TenancyError,
    create_maintenance_engine,
    create_tenant_engine,
)
from tenantry.config import libpq_url
from tenantry.embedded import default_server
from tenantry.environment import application_url, maintenance_url, migration_url
from tenantry.exceptions import EmbeddedServerError
from tenantry.testing.attacks import Outcome
from tenantry.testing.attacks_arena import Arena
from tenantry.testing.attacks_observer import Observer
from tenantry.testing.matrix import attacks, run_matrix

ROOT: Final = Path(__file__).resolve().parents[3]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def demonstrate(
    every_table: Annotated[
        bool, typer.Option("--all", help="Attack every table, not two of them.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print each attack's outcome as JSON, all else to stderr."),
    ] = False,
) -> None:
    """Migrate a database, attack one organization from another, and audit the result.

    Uses the embedded server, or DATABASE_URL and MIGRATION_DATABASE_URL where they are set. Adds
    two organizations to the database, Demo Harbour and Demo Orchard, and changes no other row.
    Exits with 1 if an attack gets through or the audit finds a fault.
    """
    report = Report(to_stderr=as_json)
    settings = Settings.from_environment()
    with ExitStack() as stack:
        application, migration, maintenance = _connect(report, settings, stack)
        _migrate(report, migration, application)
        engine = create_tenant_engine(
            application,
            mode=settings.mode,
            scope=settings.scope,
            metadata=Base.metadata,
            pool_size=1,
            max_overflow=0,
        )
        stack.callback(engine.dispose)
        attacker, victim = players = _set_the_scene(report, maintenance)
        with report.step("Look as the application role"):
            sights = look_around(engine, players, maintenance)
        report.show_sights(players, sights)
        outcomes = _attack(
            report, engine, maintenance or application, attacker, victim, every_table
        )
        if as_json:
            typer.echo(json.dumps([_as_dict(outcome) for outcome in outcomes], indent=1))
        else:
            report.show_outcomes(outcomes)
    isolated = _audit(report, application, as_json)
    through = [outcome for outcome in outcomes if not outcome.stopped]
    _conclude(report, settings, len(outcomes), through, _misseen(sights), isolated)


def _connect(
    report: Report, settings: Settings, stack: ExitStack
) -> tuple[URL, URL, Engine | None]:
    with report.step("Start PostgreSQL") as step:
        application = application_url(settings)
        migration = migration_url(settings)
        own = settings.database_url is None
        step.done = (
            f"{default_server().version}, embedded, on {application.host}:{application.port}"
            if own
            else f"yours, {application.render_as_string(hide_password=True)}"
        )
    try:
        maintenance = create_maintenance_engine(maintenance_url(settings))
    except ConfigurationError:
        report.say(
            "MAINTENANCE_DATABASE_URL is not set: each run adds two organizations, and what the "
            "attacks did is seen through the victim's own eyes",
            "yellow",
        )
        return application, migration, None
    stack.callback(maintenance.dispose)
    return application, migration, maintenance


def _migrate(report: Report, migration: URL, application: URL) -> None:
    with report.step("alembic upgrade head"):
        config = Config(ROOT / "alembic.ini")
        config.attributes["url"] = migration
        config.attributes["application_url"] = application
        command.upgrade(config, "head")


def _set_the_scene(report: Report, maintenance: Engine | None) -> tuple[Player, Player]:
    with report.step("Create two organizations with users") as step:
        players = cast_player(ATTACKER, maintenance), cast_player(VICTIM, maintenance)
        step.done = "; ".join(
            f"{player.name} {player.id}, {'new' if player.created else 'from an earlier run'}"
            for player in players
        )
    for player in players:
        with report.step("Import a set of tests") as step:
            step.done = import_set(player)
    with report.step("Record a run") as step:
        step.done = "; ".join(record_run(player) for player in players)
    return players


def _attack(
    report: Report,
    engine: Engine,
    observed: Engine | URL,
    attacker: Player,
    victim: Player,
    every_table: bool,
) -> list[Outcome]:
    with ExitStack() as stack:
        if isinstance(observed, URL):
            observed = create_engine(observed)
            stack.callback(observed.dispose)
        observer = Observer(observed, Base.metadata)
        arena = stack.enter_context(Arena(engine, observer, attacker=attacker.id, victim=victim.id))
        with report.step(f"{attacker.name} attacks {victim.name}") as step:
            if every_table:
                outcomes = run_matrix(arena)
            else:
                outcomes = run_matrix(arena, attacks(arena, tables=["test_sets"]))
                # A set refers to no other row of its tenant; a test's place in a set does.
                referring = attacks(arena, tables=["test_set_tests"], commands=["refer"])
                outcomes += run_matrix(arena, referring)
            stopped = sum(outcome.stopped for outcome in outcomes)
            step.done = f"{stopped} of {len(outcomes)} attacks stopped"
    return outcomes


def _audit(report: Report, application: URL, as_json: bool) -> bool:
    with report.step("Audit with psql"):
        program = _psql()
    script = ROOT / "sql" / "audit.sql"
    report.say(f"psql -v ON_ERROR_STOP=1 -f {script.relative_to(ROOT)}", "bold")
    report.console.file.flush()
    # The password goes through the environment, since every user can read arguments.
    address = URL.create(
        application.drivername,
        application.username,
        None,
        application.host,
        application.port,
        application.database,
        application.query,
    )
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    if application.password:
        variables["PGPASSWORD"] = str(application.password)
    options = ["--no-psqlrc", "--quiet", "--pset=pager=off", "--set=ON_ERROR_STOP=1"]
    finished = subprocess.run(
        [program, *options, f"--file={script}", f"--dbname={libpq_url(address)}"],
        env=variables,
        stdout=sys.stderr if as_json else sys.stdout,
        check=False,
    )
    return finished.returncode == 0


def _psql() -> str:
    try:
        return str(default_server().psql())
    except EmbeddedServerError:
        found = shutil.which("psql")
        if found is None:
            raise
        return found


def _misseen(sights: list[Sight]) -> list[str]:
    """Return the tables in which somebody without a tenant sees rows, or a player sees none."""
    return [sight.table for sight in sights if sight.nobody or not all(sight.players)]


def _conclude(
    report: Report,
    settings: Settings,
    tried: int,
    through: list[Outcome],
    misseen: list[str],
    isolated: bool,
) -> None:
    faults = [f"{outcome}" for outcome in through[:10]]
    if len(through) > len(faults):
        faults.append(f"and {len(through) - len(faults)} more attacks")
    if misseen:
        faults.append(f"the tenants do not see what is theirs in {', '.join(misseen)}")
    if not isolated:
        faults.append("the audit found faults, see above")
    if settings.database_url is None:
        report.say("The server keeps running; `tenantry db stop` stops it.", "dim")
    if faults:
        report.say("TENANTS ARE NOT ISOLATED", "bold white on red")
        for fault in faults:
            report.say(f"  {fault}", "red")
        raise typer.Exit(1)
    report.say(f"All {tried} attacks were stopped, and the audit found no fault.", "bold green")


def _as_dict(outcome: Outcome) -> dict[str, str | None]:
    attack = outcome.attack
    return {
        "attack": attack.command,
        "table": attack.table,
        "surface": attack.surface,
        "context": attack.situation,
        "constraint": attack.constraint,
        "verdict": outcome.verdict,
        "how": outcome.how,
    }


def main() -> None:
    """Run the demonstration; an error that the user can act on is one line and exit code 1."""
    logging.basicConfig(format="%(message)s")
    # An interrupt while a connection goes back to its pool would be logged with its traceback.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    try:
        app(prog_name="python -m assay.demo")
    except (AssayError, CommandError, TenancyError) as error:
        fault = str(error)
    except DBAPIError as error:
        fault = f"the database reports: {str(error.orig).strip().partition(chr(10))[0]}"
    else:
        return
    typer.echo(f"error: {' '.join(fault.splitlines())}", err=True)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
