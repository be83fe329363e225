"""A big usage report, made by the engine: 5,000 people, two years of days, skewed, half of the cells blank."""

from pathlib import Path

import duckdb

HEADERS = (
    "Instance user ID", "User Email", "Username", "Active Sourcegraph User", "Client Name", "Timestamp Date",
    "Language", "Searches", "Code Navigation Events", "Code Insight Views", "Chat Events", "Command Events",
    "Combined Completion Suggestions", "Combined Completion Acceptances", "Total Accepted Char Count", "Combined CAR",
    "Weighted CAR", "Total Characters Written by Cody", "Total Characters Written",
    "Percentage of Code Written by Cody", "Auto-edit suggested events", "Auto-edit accepted events",
    "Auto-edit acceptance rate", "Lines changed by chats and commands",
    "Lines changed by completions and auto-edits",
)  # fmt: skip
_COUNT = "CASE WHEN random() < {share} THEN CAST(1 - ln(random() + 1e-9) * {mean} AS BIGINT) END"
_RATIO = "CASE WHEN random() < 0.4 THEN round(random(), 4) END"


def report(path: Path, rows: int) -> Path:
    """Write a report of so many rows, unless it is there already."""
    if path.exists():
        return path
    counts = [(0.5, 6), (0.4, 9), (0.05, 2), (0.4, 4), (0.2, 2), (0.5, 40), (0.45, 12), (0.45, 400)]
    values = [_COUNT.format(share=share, mean=mean) for share, mean in counts]
    values += [_RATIO, _RATIO, _COUNT.format(share=0.45, mean=400), _COUNT.format(share=0.5, mean=1500), _RATIO]
    values += [_COUNT.format(share=0.3, mean=8), _COUNT.format(share=0.3, mean=3), _RATIO]
    values += [_COUNT.format(share=0.3, mean=20), _COUNT.format(share=0.3, mean=20)]
    who = "CAST(5000 * pow(random(), 2) AS BIGINT)"
    columns = [
        "u", "'user' || u || '@example.com'", "'user' || u", "u % 20 <> 0",
        "list_value('VSCode.cody', 'Neovim.cody', 'Jetbrains.cody', 'server.web')[1 + CAST(random() * 3 AS INT)]",
        "DATE '2024-11-01' + CAST(floor(random() * 730) AS INT)",
        "list_value('Go', 'Python', 'TypeScript', 'Java', NULL, NULL)[1 + CAST(floor(random() * 6) AS INT)]",
        *values,
    ]  # fmt: skip
    named = ", ".join(f'{value} AS "{header}"' for value, header in zip(columns, HEADERS, strict=True))
    partial = path.with_suffix(".partial")
    connection = duckdb.connect()
    connection.execute("SELECT setseed(0.42)")
    connection.execute(
        f"COPY (SELECT {named} FROM (SELECT {who} AS u FROM range({rows}))) TO '{partial}' (HEADER, DELIMITER ',')"
    )
    partial.rename(path)
    return path
