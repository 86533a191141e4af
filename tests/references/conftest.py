"""Keep pytest out of this folder: its modules import frameworks that the suite does without."""

collect_ignore_glob = ["*.py"]
