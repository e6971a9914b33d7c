"""The files that images and services are made from, as Compose, a shell and the code read them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from tests.conftest import ROOT

DOCKER: Final = ROOT / "docker"
SCRIPTS: Final = sorted(DOCKER.glob("*.sh"))

# Of https://github.com/compose-spec/compose-spec/blob/main/05-services.md, what is used here.
SERVICE_KEYS: Final = {
    *("build", "command", "depends_on", "environment", "healthcheck", "image", "init", "ports"),
    *("restart", "stop_grace_period", "volumes"),
}
HEALTH_KEYS: Final = {"test", "interval", "timeout", "retries", "start_period"}
CONDITIONS: Final = {"service_started", "service_healthy", "service_completed_successfully"}

# The server's image reads these, and not our code.
OF_THE_IMAGE: Final = {"POSTGRES_DB", "POSTGRES_PASSWORD"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Return the file as YAML 1.1 with its merges, which is how Compose reads it."""
    loaded = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_services_are_those_of_the_backend(compose: dict[str, Any]) -> None:
    """PostgreSQL, Redis, migrations, API, worker, sweeper: each an image or a build, not both."""
    names = {"postgres", "redis", "migrations", "api", "worker", "sweeper"}
    assert compose["services"].keys() == names
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "volumes"}
    for service in compose["services"].values():
        assert service.keys() <= SERVICE_KEYS
        assert ("image" in service) is not ("build" in service)


def test_services_wait_for_services_that_exist(compose: dict[str, Any]) -> None:
    """Whom a service waits for is there, and has a check where its health is waited for."""
    services = compose["services"]
    for service in services.values():
        assert set(service.get("healthcheck", {})) <= HEALTH_KEYS
        for name, wanted in service.get("depends_on", {}).items():
            assert wanted["condition"] in CONDITIONS
            if wanted["condition"] == "service_healthy":
                assert services[name]["healthcheck"]["test"][0] == "CMD"
            if wanted["condition"] == "service_completed_successfully":
                assert services[name]["restart"] == "on-failure"


def test_volumes_and_builds_lead_somewhere(compose: dict[str, Any]) -> None:
    """Each named volume is declared; each path is of a file or folder of the project."""
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DOCKER / source).exists(), source
            else:
                assert source in compose["volumes"]
        if "build" in service:
            context = DOCKER / service["build"]["context"]
            assert (context / service["build"]["dockerfile"]).is_file()


def test_each_variable_is_read_by_the_code(compose: dict[str, Any]) -> None:
    """A service is given no variable that neither the code nor a script of its image knows."""
    sources = [*(ROOT / "src").rglob("*.py"), *SCRIPTS, ROOT / "sql" / "roles.sql"]
    text = "\n".join(path.read_text() for path in sources)
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            # Compose passes texts on: a bare yes or 5 would be something else before.
            assert isinstance(value, str), variable
            known = re.search(rf"\b{variable}\b", text)
            assert known or variable in OF_THE_IMAGE, f"{name}: {variable}"


def test_secrets_have_no_default(compose: dict[str, Any]) -> None:
    """A password or key comes from outside, and Compose refuses to start without it."""
    text = (DOCKER / "compose.yaml").read_text()
    for variable in set(re.findall(r"\$\{(\w+)", text)):
        if re.search("PASSWORD|KEY", variable):
            assert set(re.findall(rf"\$\{{{variable}([^}}]*)\}}", text)) == {":?"}, variable


def test_only_the_sweeper_may_look_across_organizations(compose: dict[str, Any]) -> None:
    """API and worker get the application's login alone."""
    for name, service in compose["services"].items():
        allowed = {
            "postgres": {"TENANTRY_MAINTENANCE_PASSWORD"},
            "sweeper": {"MAINTENANCE_DATABASE_URL"},
        }.get(name, set())
        given = {key for key in service.get("environment", {}) if "MAINTENANCE" in key}
        assert given == allowed, name


def test_image_copies_what_exists() -> None:
    """Each path that the Dockerfile copies from the project is there, and the script is run."""
    text = (DOCKER / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, flags=re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    assert 'CMD ["worker.sh"]' in text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_has_no_fault_that_shellcheck_knows(script: Path) -> None:
    """A script of the images is one that any POSIX shell reads as it is meant."""
    program = Path(sys.executable).parent / "shellcheck"
    answer = subprocess.run(
        [str(program), "--shell=sh", str(script)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout
