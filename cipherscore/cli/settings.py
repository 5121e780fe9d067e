"""``cipherscore settings``: what the server is set to, and where that was set."""

from __future__ import annotations

import typer
from rich.table import Table

from cipherscore.cli.common import JsonOption, note, out, show

app = typer.Typer(help="The server's settings.", no_args_is_help=True)


@app.command("show")
def show_(as_json: JsonOption = False) -> None:
    """Check the settings and show each with its value and origin; none holds a secret.

    A setting is an environment variable, CIPHERSCORE_ and its name in capitals, or a key of the
    TOML file that CIPHERSCORE_SETTINGS_FILE names; the environment wins.
    """
    from serving.settings import PREFIX, Settings, load_settings
    from serving.settings_check import warnings
    from serving.settings_file import Origins

    settings = load_settings()
    origins = Origins.now(Settings.model_fields)
    facts = [
        {
            "name": name,
            "value": getattr(settings, name),
            "origin": origins.of(name),
            "variable": f"{PREFIX}{name.upper()}",
            "description": field.description,
        }
        for name, field in Settings.model_fields.items()
    ]

    def human() -> None:
        view = Table("setting", "value", "origin", "meaning", box=None)
        for fact in facts:
            view.add_row(
                *(_text(fact[part]) for part in ("name", "value", "origin", "description"))
            )
        out.print(view)

    show(facts, as_json, human)
    for warning in warnings(settings):
        note(f"warning: {warning}")


def _text(value: object) -> str:
    if value in (None, "", []):
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
