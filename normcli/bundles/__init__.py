"""Small named arrays with attributes: sidecars of statistics, scale and bias files."""
