"""``cct-export doctor``."""

from typing import Any

import click

from cct_export.commands import options


@click.command()
@options.common
def command() -> dict[str, Any]:
    """List the engines and delegates that work on this machine, and why the others do not.

    Each runs a small CCT in a process of its own, and is compared with what Keras answered.
    """
    from cct_export import api, machine
    from cct_export.records.encoding import to_json
    from cct_export.report import diagnosis
    from cct_export.report.progress import saying

    with saying() as say:
        found = api.doctor(progress=say)
    facts = machine.describe()
    diagnosis.show(facts, found)
    return {"machine": to_json(facts), "delegates": to_json(found)}
