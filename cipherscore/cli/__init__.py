"""The command line: ``cipherscore …``, one thin function a command.

Host-side folders and their frameworks are imported inside the commands that need them, so that
``--help`` is quick and the client works without them.
"""

from __future__ import annotations

import os
import sys

import typer

from cipherscore.cli import (
    audit,
    clients,
    evaluate,
    keys,
    models,
    owner,
    run,
    schema,
    settings,
    sweep,
    talk,
    trainer,
)
from cipherscore.cli.common import complain
from cipherscore.errors import CipherScoreError

app = typer.Typer(
    name="cipherscore",
    help="Score credit applications and make synthetic credit data on a host that never sees a "
    "value or a key.\n\nThe data owner's side: keys, schema, data, encrypt, decrypt, evaluate, audit, "
    "score, generate, gateway.  The host's side: train, sweep, export, models, serve, settings, clients.  "
    "`cipherscore run` does it all once, on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(keys.app, name="keys", rich_help_panel="Data owner")
app.add_typer(schema.app, name="schema", rich_help_panel="Data owner")
app.command("data", rich_help_panel="Data owner")(owner.data)
app.command("encrypt", rich_help_panel="Data owner")(owner.encrypt)
app.command("decrypt", rich_help_panel="Data owner")(owner.decrypt)
app.command("evaluate", rich_help_panel="Data owner")(evaluate.evaluate)
app.command("audit", rich_help_panel="Data owner")(audit.audit)
app.command("score", rich_help_panel="Data owner")(talk.score)
app.command("generate", rich_help_panel="Data owner")(talk.generate)
app.command("gateway", rich_help_panel="Data owner")(talk.gateway)
app.add_typer(trainer.app, name="train", rich_help_panel="Host")
app.command("sweep", rich_help_panel="Host")(sweep.sweep)
app.command("export", rich_help_panel="Host")(trainer.export)
app.add_typer(models.app, name="models", rich_help_panel="Host")
app.command("serve", rich_help_panel="Host")(models.serve)
app.add_typer(settings.app, name="settings", rich_help_panel="Host")
app.add_typer(clients.app, name="clients", rich_help_panel="Host")
app.command("run", rich_help_panel="All at once")(run.run)


def main() -> None:
    """Run the command line; a CipherScore error becomes one line on stderr and its exit code."""
    try:
        app()
    except CipherScoreError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except ModuleNotFoundError as error:
        extra = _extra_for(error.name or "")
        if extra is None:
            raise
        complain(
            f"this command needs {error.name}; install it with: pip install 'cipherscore[{extra}]'"
        )
        sys.exit(2)
    except OSError as error:
        complain(f"{error.filename or 'input/output'}: {error.strerror or error}")
        sys.exit(1)


def _extra_for(module: str) -> str | None:
    """Return the extra that installs a missing third-party module."""
    extras = {
        "tables": ("numpy", "pyarrow"),
        "serve": ("bentoml", "onnxruntime", "pydantic_settings", "serving", "registry"),
        "evaluate": (
            "jinja2",
            "imblearn",
            "matplotlib",
            "optuna",
            "attacks",
            "evaluation",
            "threadpoolctl",
        ),
        "train": ("torch", "tensorflow", "keras", "onnx", "tf2onnx", "onnxscript", "sklearn"),
    }
    return next(
        (name for name, modules in extras.items() if module.partition(".")[0] in modules), None
    )
