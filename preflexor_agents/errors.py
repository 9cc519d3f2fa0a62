"""The one tree of errors; each class knows the exit code that the command line ends with.

A message says what failed, which value, and what to do about it, in one line.
"""


class PreflexorError(Exception):
    """Work that was asked for could not be done."""

    exit_code = 1


class InputError(PreflexorError):
    """What the user gave is wrong: a value, a file, a name."""

    exit_code = 2


class ConfigError(InputError):
    """A setting, flag or component field is unknown or out of range."""


class BackendError(PreflexorError):
    """A model could not generate: server gone, decode failed, reply malformed."""


class ModelError(InputError, BackendError):
    """The model that was named cannot be used: missing, truncated, unknown, without a chat template."""


class StoreError(PreflexorError):
    """The knowledge store could not do what was asked."""


class StoreFileError(InputError, StoreError):
    """The store's file cannot be used: no SQLite file, newer version, read-only, another embedder."""


class DocumentError(InputError, StoreError):
    """A document could not be ingested: unreadable, binary, empty."""


class TraceError(InputError):
    """A trace file is missing, damaged or of a newer version."""


class DiskError(PreflexorError):
    """A file could not be written further: the disk is full or gone. What was written before is kept."""


class ForgeError(PreflexorError):
    """Making preference data stopped: a model is gone."""


class TrainingError(PreflexorError):
    """Training stopped: a loss that is not finite, memory, a damaged checkpoint."""
