"""Compare the settings of finished experiments: `cifarpipe sweep`."""
