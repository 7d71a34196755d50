"""docs/scaling.md hands the outbox's table to Debezium, with columns that exist."""

import json
import re
from pathlib import Path

from outbox.tables import tables

DOCUMENT = Path(__file__).parents[2] / "docs" / "scaling.md"


def test_the_connector_reads_columns_that_are_there() -> None:
    (connector,) = map(json.loads, re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))
    config = connector["config"]
    named = {value for key, value in config.items() if ".table.field." in key or key.endswith(".route.by.field")}
    headers = config["transforms.outbox.table.fields.additional.placement"].split(",")
    named |= {each.split(":")[0] for each in headers}
    message = tables().message
    assert named <= {column.name for column in message.columns}
    assert {"id", "data", "type", "ordering_key"} <= named
    assert config["table.include.list"] == f"public.{message.name}"
