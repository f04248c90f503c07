"""`headgate route`: how models are chosen for questions."""

from __future__ import annotations

import click

from headgate.cli.route_explain import explain
from headgate.cli.route_learning import evaluate, export, train


@click.group()
def route() -> None:
    """Explain how models are chosen for questions, and learn it from logs.

    \b
    Examples:
      headgate route explain "Why does my import fail with a deadlock?"
      headgate route train graded.jsonl.gz --out uplift.json
      headgate route eval graded.jsonl.gz --model uplift.json
      headgate route export > outcomes.jsonl
    """


for command in (explain, train, evaluate, export):
    route.add_command(command)
