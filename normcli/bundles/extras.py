"""What to say where a format needs a package that is not installed."""

from __future__ import annotations

from normcli.errors import InputError


def missing_package(path: str, package: str, extra: str, least: str = "") -> InputError:
    """Return the error for a file that cannot be read or written without a package.

    Parameters
    ----------
    path : str
        The file.
    package : str
        The package that reads it.
    extra : str
        The extra of normcli that brings the package.
    least : str
        The oldest version that will do, where that matters.
    """
    version = f" {least} or newer" if least else ""
    return InputError(
        f"{path} needs the package {package}{version}.", f"needs: pip install 'normcli[{extra}]'"
    )
