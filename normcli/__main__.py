"""``python -m normcli`` is the command line."""

from normcli.cli.main import entry

if __name__ == "__main__":
    entry()
