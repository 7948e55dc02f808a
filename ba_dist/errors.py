"""Errors that a user can correct: they are shown as one message, without a traceback."""


class UserError(Exception):
    """Says what was found, what was expected and what to do.

    `agreed` is set on an error that every rank raises at the same point, so that all ranks can end
    together. Any other error belongs to one rank, and that rank ends the job.
    """

    agreed = False


def agreed(error: UserError) -> UserError:
    """Marks an error that all ranks raise at the same point."""
    error.agreed = True
    return error


class ConfigError(UserError, ValueError):
    """A value of the configuration cannot work; every rank raises the same."""

    agreed = True


class LayoutError(ConfigError):
    """Ranks, copies and batch size cannot be laid out together."""


class DataError(UserError):
    """Data is missing, corrupt, or not the same on all ranks."""


class DataUnavailable(DataError):
    """A dataset is not available on this machine, as opposed to being there and wrong."""


class CorruptRecord(DataError):
    """A record is not what was once written: it is cut short, changed, or cannot be decoded."""


class CheckpointError(UserError):
    """A checkpoint is missing, corrupt, or belongs to another run."""


def reason(error: BaseException) -> str:
    """What is wrong, in words: an error of the system without its number and its path."""
    return error.strerror or f"{error}" if isinstance(error, OSError) else f"{error}"
