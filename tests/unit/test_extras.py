"""What is optional says by which extra it comes."""

import subprocess
import sys

import pytest

_ENGINE = "from tenantry import create_tenant_engine as f; f('postgresql+psycopg://u@h/d')"
_ASYNC = "from tenantry.asyncio import create_async_tenant_engine as f; f('postgresql+{}://u@h/d')"


@pytest.mark.parametrize(
    ("absent", "statement", "extra"),
    [
        ("celery", "import tenantry.celery", "celery"),
        ("celery", "from tenantry.celery import task_launcher", "celery"),
        ("fastapi", "import tenantry.fastapi", "fastapi"),
        ("prometheus_client", "from tenantry.celery import install_metrics", "monitoring"),
        ("psycopg", _ENGINE, "psycopg"),
        ("psycopg", _ASYNC.format("psycopg"), "psycopg"),
        ("asyncpg", _ASYNC.format("asyncpg"), "asyncpg"),
    ],
)
def test_absent_dependency_names_its_extra(absent: str, statement: str, extra: str) -> None:
    """One error, ours and an ImportError, whose message is the command that installs it."""
    program = f"""
import sys
from tenantry import ConfigurationError, MissingExtraError
sys.modules[{absent!r}] = None
try:
    {statement.replace("; ", chr(10) + "    ")}
except MissingExtraError as error:
    assert isinstance(error, ConfigurationError) and isinstance(error, ImportError)
    print(error.name, error)
"""
    assert _output(program) == (
        f"{absent} {absent} is not installed: pip install 'tenantry[{extra}]'\n"
    )


def test_other_missing_module_is_no_extra() -> None:
    """What no extra brings stays the error that it is."""
    program = """
from tenantry.extras import extras
try:
    with extras():
        import nowhere.to.be.found
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert _output(program) == "nowhere\n"


def test_star_takes_what_is_installed() -> None:
    """Without prometheus_client everything else of tenantry.celery can be had."""
    program = """
import sys
sys.modules["prometheus_client"] = None
from tenantry.celery import *
print(task_launcher.__name__)
"""
    assert _output(program) == "task_launcher\n"


def test_command_without_celery_is_one_line() -> None:
    """`tenantry tasks` says how it is installed."""
    program = """
import sys
sys.modules["celery"] = None
sys.argv = ["tenantry", "tasks", "list", "--all", "--reason", "r"]
from tenantry.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "error: celery is not installed: pip install 'tenantry[celery]'\n"


def _output(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
