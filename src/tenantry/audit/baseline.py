"""The allow-list: findings that somebody has looked at and accepted, with a reason."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tenantry.exceptions import ConfigurationError

_KEYS: Final = ("check", "object", "reason", "found")
_NEEDED: Final = frozenset(_KEYS) - {"found"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """One check's finding on one object is allowed, for this reason.

    Attributes:
        check: the check's id.
        object: the finding's.
        reason: why.
        found: the finding's fingerprint, without which nothing is allowed: a graver fault of the
            same object would be hidden by what was said of a smaller one.
    """

    check: str
    object: str
    reason: str
    found: str = ""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The allowances of a project."""

    allowances: tuple[Allowance, ...] = ()


def read_baseline(path: Path) -> Baseline:
    """Return the allow-list of a TOML file: tables `[[allow]]` of check, object, found and reason.

    An entry without `found`, as older files have them, is read and allows nothing: the report names
    it as stale, with what to add.

    Raises:
        ConfigurationError: the file cannot be read, is not TOML, or an entry lacks one of the
            others, has another key, or repeats one; a reason must not be empty.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"the baseline {path} cannot be read: {error}") from error
    entries = document.pop("allow", [])
    if document or not isinstance(entries, list):
        raise ConfigurationError(
            f"the baseline {path} holds {', '.join(document) or 'no list'}: write [[allow]] tables "
            "of check, object, found and reason, and nothing else"
        )
    allowances = [_allowance(path, position, entry) for position, entry in enumerate(entries, 1)]
    seen: set[tuple[str, str, str]] = set()
    for allowance in allowances:
        key = (allowance.check, allowance.object, allowance.found)
        if key in seen:
            raise ConfigurationError(
                f"the baseline {path} allows {allowance.check} on {allowance.object} twice"
            )
        seen.add(key)
    return Baseline(tuple(allowances))


def _allowance(path: Path, position: int, entry: Any) -> Allowance:
    if not isinstance(entry, dict) or not _NEEDED <= set(entry) <= set(_KEYS):
        raise ConfigurationError(
            f"entry {position} of the baseline {path} must have check, object and reason, found, "
            "and nothing else"
        )
    for key in entry:
        if not isinstance(entry[key], str) or not entry[key].strip():
            raise ConfigurationError(
                f"entry {position} of the baseline {path} has no {key}: write a text that says it"
            )
    return Allowance(
        check=entry["check"],
        object=entry["object"],
        reason=entry["reason"].strip(),
        found=entry.get("found", ""),
    )
