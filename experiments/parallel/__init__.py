"""What docs/parallel.md says, measured. The rows of its tables are kept in docs/parallel.json."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def keep_rows(part: str, rows: list[str], record: Path | None) -> None:
    """Print the rows of a Markdown table, and put them into a JSON file if one is named."""
    print("\n".join(rows), flush=True)
    if record:
        kept = json.loads(record.read_text()) if record.exists() else {}
        record.write_text(json.dumps(kept | {part: rows}, indent=1, ensure_ascii=False) + "\n")
