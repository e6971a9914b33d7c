"""What the documentation shows is what happens."""

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.conftest import RequireService
from tests.fixtures.redis_servers import new_redis, redis_program
from tests.fixtures.task_workers import stop

import tenantry
from tenantry.testing import Database

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_first_example_prints_what_the_readme_says(
    fresh_database: Database, tmp_path: Path
) -> None:
    """A newcomer who copies the first example sees the lines printed below it."""
    script = tmp_path / "example.py"
    script.write_text(_blocks("python")[0])
    console = next(block for block in _blocks("console") if "example.py" in block)
    expected = [line for line in console.splitlines() if line and not line.startswith("$")]

    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ
        | {"DATABASE_URL": fresh_database.app_url.render_as_string(hide_password=False)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines() == expected


_BEFORE_CELERY = """
from celery import Celery
from assay.models import TaskRecord
"""
_AFTER_CELERY = """
from sqlalchemy import text
from tenantry.celery import BaseTask, with_tenant_context

@app.task(base=BaseTask, name="shop.count")
@with_tenant_context
def count(db):
    return db.scalar(text("select count(*) from organizations"))
"""
_LAUNCH = """
import uuid
from types import SimpleNamespace
from assay.models import Organization
from shop import count
from tenantry import tenant_scope
from tenantry.celery import task_launcher

user = SimpleNamespace(organization_id=uuid.uuid4(), id=None)
with tenant_scope(user.organization_id) as session:
    session.add(Organization(name="Acme"))
print(task_launcher(count, current_user=user).get(timeout=60))
"""


@pytest.mark.parametrize("broker", ["PostgreSQL", "Redis"])
def test_setup_of_celery_is_all_that_a_worker_needs(
    broker: str, fresh_database: Database, tmp_path: Path, require_service: RequireService
) -> None:
    """An application made of the lines of the README runs a task, on the broker of BROKER_URL."""
    block = next(block for block in _blocks("python") if "install_tenancy" in block)
    (tmp_path / "shop.py").write_text(f"{_BEFORE_CELERY}{block}{_AFTER_CELERY}")
    with ExitStack() as stack:
        if broker == "Redis":
            require_service(
                redis_program(), "redis-server is not installed (apt install redis-server)"
            )
            url = stack.enter_context(new_redis())
        else:
            courier = fresh_database.server.url("courier", fresh_database.name)
            url = f"sqla+{courier.render_as_string(hide_password=False)}"
        environ = os.environ | {
            "DATABASE_URL": fresh_database.app_url.render_as_string(hide_password=False),
            "BROKER_URL": url,
            "CELERY_RESULT_BACKEND": "",
            "TENANTRY_TASK_KEY": "k" * 32,
        }
        log = stack.enter_context((tmp_path / "log").open("w+b"))
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "shop", "worker", "--concurrency=1"],
            cwd=tmp_path,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stack.callback(stop, worker)
        done = subprocess.run(
            [sys.executable, "-c", _LAUNCH],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.stdout == "1\n", done.stderr + (tmp_path / "log").read_text()


def test_first_example_is_short() -> None:
    """The first example fits the first screen: twenty lines."""
    assert len(_blocks("python")[0].strip().splitlines()) <= 20


@pytest.mark.parametrize("document", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    """Each relative link of a document names a file that exists."""
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize(
    "variable",
    sorted(set(re.findall(r"^\| `([A-Z_]+)` \|", README, flags=re.MULTILINE))),
)
def test_each_variable_of_the_readme_is_explained_in_the_example_file(variable: str) -> None:
    """.env.example names every variable of the README's table."""
    assert variable in (ROOT / ".env.example").read_text()


def test_each_variable_of_compose_is_explained_in_the_example_file() -> None:
    """.env.example names every variable without which compose.yaml is refused."""
    wanted = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker" / "compose.yaml").read_text()))
    assert len(wanted) == 5
    explained = (ROOT / ".env.example").read_text()
    assert [name for name in wanted if f"#{name}=" not in explained] == []


def test_names_of_the_readme_exist() -> None:
    """Every error and function that the README names is importable from `tenantry`, or Celery's."""
    names = set(re.findall(r"`([A-Z][A-Za-z]+Error)", README)) - {"ChordError"} | {
        "create_tenant_engine",
        "get_tenant",
        "maintenance_session",
        "set_tenant",
        "tenant_scope",
    }
    assert names <= set(tenantry.__all__)
