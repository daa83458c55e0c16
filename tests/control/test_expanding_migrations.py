"""A migration takes nothing away that the release before still uses: both run side by side during an upgrade."""

import re

import pytest

from control.schema import Migration, migrations

OLDER = "0042"
"""Up to here, releases were stopped for an upgrade."""
CONTRACTS = re.compile(r"^-- contract: \S.*", re.MULTILINE)
"""A migration of a later release says what no release before it uses any more."""
BREAKS = {
    "takes a table, column, constraint or function away": r"\bDROP\s+(?:TABLE|COLUMN|VIEW"
    r"|FUNCTION|SEQUENCE|CONSTRAINT)\b",
    "gives something another name": r"\bRENAME\s+(?:TO|COLUMN|CONSTRAINT)\b|\bRENAME\s+\w+\s+TO\b",
    "changes a column's type": r"\bALTER\s+(?:COLUMN\s+)?\w+\s+(?:SET\s+DATA\s+)?TYPE\b",
    "asks for a value that older releases do not write": r"\bSET\s+NOT\s+NULL\b"
    r"|\bADD\s+COLUMN\s+(?:(?!\bDEFAULT\b|\bGENERATED\b)[^,;])*\bNOT\s+NULL\b(?:(?!\bDEFAULT\b|\bGENERATED\b)[^,;])*[,;]",
    "takes a default away": r"\bDROP\s+(?:DEFAULT|IDENTITY)\b",
}


def breaks(text: str) -> list[str]:
    """What a release that knows nothing of this migration would fail at."""
    if CONTRACTS.search(text):
        return []
    statements = re.sub(r"--[^\n]*", "", text)
    return [what for what, pattern in BREAKS.items() if re.search(pattern, statements, re.IGNORECASE)]


@pytest.mark.parametrize("migration", [m for m in migrations() if m.version > OLDER], ids=lambda m: m.file.stem)
def test_the_release_before_goes_on_with_the_schema_of_the_next(migration: Migration) -> None:
    assert breaks(migration.file.read_text()) == []


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE a DROP COLUMN b;",
        "DROP TABLE a;",
        "ALTER TABLE a RENAME COLUMN b TO c;",
        "ALTER TABLE a RENAME b TO c;",
        "ALTER TABLE a ALTER COLUMN b TYPE bigint;",
        "ALTER TABLE a ALTER b SET NOT NULL;",
        "ALTER TABLE a ADD COLUMN b text NOT NULL;",
        "ALTER TABLE a ADD COLUMN b text NOT NULL, ADD COLUMN c text DEFAULT '';",
        "ALTER TABLE a ALTER COLUMN b DROP DEFAULT;",
    ],
)
def test_what_an_older_release_would_fail_at_is_seen(statement: str) -> None:
    assert breaks(statement)
    assert not breaks(f"-- contract: b is used by no release since 3\n{statement}")


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE a ADD COLUMN b text;",
        "ALTER TABLE a ADD COLUMN b boolean NOT NULL DEFAULT false;",
        "CREATE TABLE a (b text NOT NULL);",
        "CREATE OR REPLACE FUNCTION a() RETURNS void LANGUAGE sql AS '';",
        "DROP TRIGGER a ON b;",
        "DROP INDEX a;",
    ],
)
def test_what_is_added_is_let_through(statement: str) -> None:
    assert not breaks(statement)


def test_each_migration_has_a_number_of_its_own() -> None:
    """A database that has seen one of two with the same number would never get the other."""
    versions = [migration.version for migration in migrations()]
    assert versions == sorted(set(versions))
