"""`quotagate people`: what is stored of a person, and its erasure, through the control plane's admin API."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from quotagate.admin import connected
from quotagate.options import DATA_DIR_DEFAULT, TOKEN_ENV_DEFAULT, AdminTokenEnv, AsJson, ControlUrl, DataDir
from quotagate.output import note, show
from quotagate.private_file import new_private_file

User = Annotated[str | None, typer.Option(metavar="ID", help="The id of a user, as in the user claim of tokens.")]
Email = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="The address of a user, or of somebody who signed in to the console."),
]
Subject = Annotated[str | None, typer.Option(metavar="PROVIDER:ID", help="As the list of sessions names a person.")]

app = typer.Typer(name="people", help="What is stored of a person (GDPR).", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def export(
    to_file: Annotated[Path, typer.Option("--to-file", metavar="FILE", help="A new file, which only you can read.")],
    user: User = None,
    email: Email = None,
    subject: Subject = None,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Write all that is stored of a person into one JSON file. The journal notes that you did."""
    content = _named(user, email, subject)
    with new_private_file(to_file) as file:
        with connected(control_url, admin_token_env, data_dir) as admin:
            person = admin.post("/v1/people/export", content)
        json.dump(person, file, indent=2)
    rows = sum(len(each) for each in person["rows"].values())
    typer.echo(f"{to_file}: {rows} rows and {len(person['journal'])} entries of the journal")
    if person["is_cut"]:
        typer.echo("There is more of it than an export has: see docs/privacy.md", err=True)
    _at_stripe(person["stripe_customers"], "exported", as_json=False)


@app.command()
def erase(
    user: User = None,
    email: Email = None,
    subject: Subject = None,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="For the journal, which stays: name nobody.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
    control_url: ControlUrl = None,
    admin_token_env: AdminTokenEnv = TOKEN_ENV_DEFAULT,
    data_dir: DataDir = DATA_DIR_DEFAULT,
) -> None:
    """Erase a person. This cannot be undone; the journal and the usage stay, without the person. What becomes of what
    is stored is printed before it is asked whether to go on."""
    content = _named(user, email, subject)
    with connected(control_url, admin_token_env, data_dir) as admin:
        if not yes:
            _preview(admin.post("/v1/people/find", content))
            typer.confirm(f"Erase {', '.join(content.values())}? This cannot be undone", abort=True, err=True)
        erased = admin.post("/v1/people/erase", content | ({} if reason is None else {"reason": reason}))
    lines = [f"{place:<32} {count}" for place, count in erased["rows"].items()]
    show(erased, as_json, *lines, f"{'in the journal':<32} {erased['alias']}")
    _at_stripe(erased["stripe_customers"], "erased", as_json)


def _preview(found: dict[str, Any]) -> None:
    for what in ("users", "emails", "subjects", "organizations"):
        typer.echo(f"{what:<32} {', '.join(found[what]) or '-'}", err=True)
    for place, each in found["places"].items():
        typer.echo(f"{place:<32} {each['rows']:>6}  {each['erasure']}", err=True)


def _named(user: str | None, email: str | None, subject: str | None) -> dict[str, str]:
    content = {"user": user, "email": email, "subject": subject}
    named = {key: value for key, value in content.items() if value is not None}
    if not named:
        raise typer.BadParameter("name the person with --user, --email or --subject")
    return named


def _at_stripe(customers: list[str], verb: str, as_json: bool) -> None:
    if customers:
        note(f"What Stripe has of the person is {verb} there: {', '.join(customers)}", as_json)
