"""The data engine in child processes; the server itself never imports it."""
