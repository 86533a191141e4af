"""Block in, numbers out: the only loops over elements. `select` says which of them run."""
