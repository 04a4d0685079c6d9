"""Pictures of tables and arrays."""
