"""The command `cifarpipe`, outside the DAG."""
