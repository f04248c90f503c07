"""The `headgate` command: its subcommands, loaded when they are asked for, and how it fails.

Every failure is one line on standard error: exit code 2 for bad usage and a configuration that cannot be used, else 1.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Any, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

COMMANDS = {
    "serve": "Run the gateway.",
    "worker": "Answer submitted requests and nothing else.",
    "migrate": "Prepare a PostgreSQL for several processes.",
    "demo": "Watch it work on a bundled trace.",
    "tenants": "Create and change tenants.",
    "keys": "Create and revoke API keys.",
    "organisations": "Group tenants that share budgets.",
    "budgets": "Show and change what may be spent.",
    "prices": "Show and change what models cost.",
    "usage": "Show what was used and what it cost.",
    "statement": "Write what a tenant owes for a month.",
    "cache": "Show and clear what has been answered, and explain it.",
    "route": "Explain how models are chosen.",
    "billing": "Show who was told what tenants owe.",
    "eval": "Measure how sure the semantic cache is.",
    "replay": "Try other settings on a log of real traffic.",
    "config": "Check a configuration file.",
    "doctor": "Check that everything needed is well.",
    "simulate": "Run a simulated provider.",
}
"""Each command is the object of its name in the module of its name; what it does is said here so that help loads none."""

RENAMED = {"eval": "evaluate"}
"""Names that mean something else in Python."""


class Commands(click.Group):
    """The top of the command tree."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All names, in the order of a first day."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the module of one command."""
        if cmd_name not in COMMANDS:
            return None
        name = RENAMED.get(cmd_name, cmd_name)
        command: click.Command = getattr(importlib.import_module(f"headgate.cli.{name}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but a near miss is looked for without importing anything."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"No such command '{args[0]}'" + (f"; did you mean {near[0]}?" if near else "."))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run one command line and exit."""
        try:
            outcome = super().main(*args, **{**extra, "standalone_mode": False})
        except NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except BrokenPipeError:
            # Whoever read our output has left; Python would complain when it flushes at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception as error:
            code = _exit_code(error)
            if code is None:
                raise
            click.echo(f"error: {_one_line(error)}", err=True)
            sys.exit(code)
        sys.exit(outcome if isinstance(outcome, int) else 0)


def _exit_code(error: Exception) -> int | None:
    """2 when the user must say it differently, 1 when it did not work, None for a fault of ours."""
    if isinstance(error, click.ClickException):
        return error.exit_code
    # Late imports: help and good usage need none of them.
    import sqlite3

    from headgate.config_file import ConfigError
    from headgate.model.errors import GatewayError

    if isinstance(error, ConfigError):
        return 2
    return 1 if isinstance(error, GatewayError | OSError | sqlite3.Error | click.Abort) else None


def _one_line(error: Exception) -> str:
    if isinstance(error, click.Abort):
        return "interrupted"
    if not isinstance(error, click.ClickException):
        return " ".join(str(error).split())
    text = " ".join(error.format_message().split())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{text.rstrip('.')}; try '{error.ctx.command_path} --help'"
    return text


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # late: it is slow

        click.echo(f"headgate {version('headgate')}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version and exit."
)
def main() -> None:
    """An AI gateway: OpenAI-compatible, with a cache, budgets and a bill for every tenant.

    \b
    A first day:
      headgate serve                              # SQLite, no other service
      headgate tenants create acme --hour 5.00    # may spend $5 an hour
      headgate keys create acme                   # shown once
      headgate usage --group-by tenant,model

    Every command that prints something takes --json. Exit codes: 0 well, 1 failed, 2 used wrongly.
    """
