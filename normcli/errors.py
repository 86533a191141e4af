"""What can go wrong, as a tree; each leaf carries the exit code that scripts rely on.

::

    NormcliError                 1   a bug if it is none of those below
    ├── UsageError               2   the command line or the arguments contradict themselves
    │   └── PlanError            2   no plan fits the memory budget
    ├── InputError               3   an input is missing, malformed, unsupported or does not fit
    ├── SafetyError              4   refused for safety (pickles, links out of a file)
    ├── OutputError              5   the output or its storage failed
    ├── TransientError           6   try again (a lost worker, an unreachable scheduler)
    ├── DataPolicyError          7   the data violates a policy (non-finite values, zero variance)
    └── PartialFailureError      8   some of several items failed

Every message is one line in the user's words, with names and sizes; `hint` says what to type.
"""

from __future__ import annotations


class NormcliError(Exception):
    """Base of all errors that normcli raises on purpose.

    Parameters
    ----------
    message : str
        One line: what is, and what was asked.
    hint : str, optional
        What the user can type to get further.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[NormcliError], tuple[str, str | None]]:
        # Errors travel from worker processes, so message and hint must survive pickling.
        return (type(self), (self.message, self.hint))


class UsageError(NormcliError):
    """The arguments are wrong or contradict each other."""

    exit_code = 2


class PlanError(UsageError):
    """No plan stays inside the memory budget."""


class InputError(NormcliError):
    """An input cannot be read, is not supported, or does not fit the other inputs."""

    exit_code = 3


class SafetyError(NormcliError):
    """Something in a file was refused because following it would be unsafe."""

    exit_code = 4


class OutputError(NormcliError):
    """The output could not be written."""

    exit_code = 5


class TransientError(NormcliError):
    """Something outside of the data failed; the same command may succeed later."""

    exit_code = 6


class DataPolicyError(NormcliError):
    """The data break a rule that the user (or a default) set."""

    exit_code = 7


class PartialFailureError(NormcliError):
    """Some of several items failed; the others are complete."""

    exit_code = 8


def missing_file(name: object) -> InputError:
    """Return the error for a file that does not exist."""
    pattern = any(letter in str(name) for letter in "*?[")
    hint = "Patterns are left to the shell: do not quote them." if pattern else "Check the name."
    return InputError(f"{name} does not exist.", hint)


def missing_package(
    what: object, package: str, extra: str, least: str = "", verb: str = "needs"
) -> InputError:
    """Return the error for what cannot be done without a package that is not installed.

    Parameters
    ----------
    what : object
        The file or option that needs it.
    package : str
        The package.
    extra : str
        The extra of normcli that brings the package.
    least : str
        The oldest version that will do, where that matters.
    verb : str
        ``need`` where `what` is several things.
    """
    version = f" {least} or newer" if least else ""
    return InputError(
        f"{what} {verb} the package {package}{version}.", f"needs: pip install 'normcli[{extra}]'"
    )
