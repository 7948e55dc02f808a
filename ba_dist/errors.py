"""The errors that a person can mend: they are shown as one message, without a traceback."""


class UserError(Exception):
    """Says what was found, what was expected and what to do.

    `agreed` is set on an error that every rank raises at the same place, so that all can end
    together; any other is one rank's own, and that rank ends the job.
    """

    agreed = False


def agreed(error: UserError) -> UserError:
    """Marks an error that all ranks raise at the same place."""
    error.agreed = True
    return error


class ConfigError(UserError, ValueError):
    """A value of the configuration cannot work; every rank finds the same."""

    agreed = True


class LayoutError(ConfigError):
    """Ranks, copies and batch size cannot be laid out together."""


class DataError(UserError):
    """Data is missing, corrupt, or not the same on all ranks."""


class DataUnavailable(DataError):
    """A dataset cannot be had on this machine: nothing of it is there that could be wrong."""


class CorruptRecord(DataError):
    """A record cannot be what was once written: cut short, changed, or not decodable."""


class CheckpointError(UserError):
    """A checkpoint is missing, corrupt, or belongs to another run."""
