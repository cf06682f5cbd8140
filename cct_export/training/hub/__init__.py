"""A finished run on the Hugging Face Hub: which files, and one commit of them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cct_export.records import Pushed, SentFile
from cct_export.training.hub import client, contents

MAIN = "main"


def push(
    hub_id: str,
    run: Path,
    artifacts: Sequence[Path],
    license: str | None,
    revision: str | None,
    private: bool,
    dry_run: bool,
) -> Pushed:
    """Sends a run, see ``cct_export.api.push``."""
    client.check_id(hub_id)
    record = contents.record_of(run)
    files, notes = contents.gather(run, artifacts, hub_id, license)
    named = (record["train"]["data"], (record.get("start") or {}).get("source", ""))
    notes += [
        f"{contents.CARD} and {contents.RECORD} name {path}, where it lies here"
        for path in named
        if Path(path).is_absolute()
    ]
    sent = tuple(
        SentFile(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    )
    plan = Pushed(hub_id, revision or MAIN, private, sent, tuple(notes))
    if dry_run:
        return plan
    done = client.send(hub_id, files, _message(record), revision, private)
    return Pushed(
        done.repository, plan.revision, private, sent, plan.notes, done.checksum, done.url
    )


def _message(record: dict[str, Any]) -> str:
    test = record["test"]
    top1 = f"top-1 {test['top1']:.2%} on {test['samples']:,} test images"
    return f"Add {record['model']['name']}, {top1}"
