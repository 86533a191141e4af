"""The command line: thin commands over `normcli.api`. click and rich live here alone."""
