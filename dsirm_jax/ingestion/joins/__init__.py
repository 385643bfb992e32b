"""What needs whole tables, in Ibis on DuckDB or an engine of your own."""
