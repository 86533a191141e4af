"""Runs a plan on dask: tasks, merging, schedulers, progress, reports."""
