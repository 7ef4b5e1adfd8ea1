"""Errors that a user can fix. Every message names the file, the fault and what to do about it.

GeodinosegError
├── SceneError             a raster cannot be opened, read or used
├── LabelError             labels are missing, empty, ambiguous or outside the scene
├── LegendError            class ids, names or colours contradict each other
├── TransformationError    no transformation between two CRSs exists
├── GridError              invalid tile, overlap or window sizes
├── ModelError             an invalid parameter of the network
├── ModelFolderError       a model folder is missing, incomplete, damaged or of another format
├── DeviceError            the device is unavailable, or its memory is too small
│   └── DeviceMemoryError  the memory of the device or the machine is too small
├── ClusterError           workers cannot be started or reached, or do not fit the run
│   └── SchedulerError     the scheduler cannot be reached, or has terminated
└── OutputError            an output cannot be written
    └── OutputExistsError  the output exists, and --overwrite was not given
"""

from geodinoseg.redaction import redact


class GeodinosegError(Exception):
    """Base of all errors that a user can fix; the CLI prints it as one line and exits with 1.

    Messages are redacted on construction: none contains the password or signature of a URL.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(redact(str(message)))


class SceneError(GeodinosegError):
    """A raster cannot be opened, read or used as a scene."""


class LabelError(GeodinosegError):
    """Labels are missing, empty, ambiguous or outside the scene."""


class LegendError(GeodinosegError, ValueError):
    """Class ids, names or colours contradict each other."""


class TransformationError(GeodinosegError):
    """No transformation between two coordinate reference systems exists."""


class GridError(GeodinosegError, ValueError):
    """A tile, overlap or window size is invalid."""


class ModelError(GeodinosegError, ValueError):
    """A parameter of the network is invalid."""


class ModelFolderError(GeodinosegError):
    """A model folder is missing, incomplete, damaged or of another format."""


class DeviceError(GeodinosegError):
    """The device is unavailable, or its memory is too small."""


class DeviceMemoryError(DeviceError):
    """The memory is too small; smaller tiles or batches may fit."""


class ClusterError(GeodinosegError):
    """Workers cannot be started or reached, crash on a chunk, or do not fit the run."""


class SchedulerError(ClusterError):
    """The scheduler cannot be reached, or has terminated: nothing more can be computed."""


class OutputError(GeodinosegError):
    """An output cannot be written."""


class OutputExistsError(OutputError):
    """The output exists, and overwriting was not requested."""


def one_line(error: BaseException) -> str:
    """The message of another library's error on one line, without a trailing full stop."""
    return redact(" ".join(str(error).split())).rstrip(".") or type(error).__name__
