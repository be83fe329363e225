"""Speed and size, measured against what one would do without this server; `python -m bench --help`."""
