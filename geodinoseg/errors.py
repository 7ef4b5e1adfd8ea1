"""What can go wrong, as a user meets it. Every message names the file, the fault and the way out.

GeodinosegError
├── SceneError             a raster cannot be opened, read or used
├── LabelError             labels are missing, empty, ambiguous or in another place
├── LegendError            class ids, names or colours contradict each other
├── TransformationError    no transformation leads from one coordinate system to another
├── GridError              tile, overlap or window sizes that cannot be
├── ModelError             a parameter of the network that cannot be
├── ModelFolderError       a model folder is missing, incomplete, damaged or of another kind
├── DeviceError            the device is absent, or its memory too small
│   └── DeviceMemoryError  its memory, or the machine's, does not hold what is needed at least
├── ClusterError           workers cannot be started or reached, or do not fit the run
│   └── SchedulerError     the scheduler is not there, or has gone
└── OutputError            an output cannot be written where it should go
    └── OutputExistsError  it is there already, and --overwrite was not given
"""

from geodinoseg.redaction import redact


class GeodinosegError(Exception):
    """Base of all errors that a user can mend; the CLI prints it as one line and exits 1.

    The message of every one is redacted when it is made: a URL's password or signature is in none.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(redact(str(message)))


class SceneError(GeodinosegError):
    """A raster cannot be opened, read or used as a scene."""


class LabelError(GeodinosegError):
    """Labels are missing, empty, ambiguous or lie elsewhere."""


class LegendError(GeodinosegError, ValueError):
    """Class ids, names or colours contradict each other."""


class TransformationError(GeodinosegError):
    """No transformation leads from one coordinate system to another."""


class GridError(GeodinosegError, ValueError):
    """A tile, overlap or window size that cannot be."""


class ModelError(GeodinosegError, ValueError):
    """A parameter of the network that cannot be."""


class ModelFolderError(GeodinosegError):
    """A model folder is missing, incomplete, damaged or of another kind."""


class DeviceError(GeodinosegError):
    """The device is absent, or its memory is too small."""


class DeviceMemoryError(DeviceError):
    """Memory does not hold what is needed at least; with smaller pieces it may."""


class ClusterError(GeodinosegError):
    """Workers cannot be started or reached, die of a chunk, or do not fit the run."""


class SchedulerError(ClusterError):
    """The scheduler cannot be reached, or is gone: nothing more can be computed."""


class OutputError(GeodinosegError):
    """An output cannot be written where it should go."""


class OutputExistsError(OutputError):
    """The output is there already, and overwriting was not asked for."""


def one_line(error: BaseException) -> str:
    """The message of another library's error on one line, without a trailing full stop."""
    return redact(" ".join(str(error).split())).rstrip(".") or type(error).__name__
