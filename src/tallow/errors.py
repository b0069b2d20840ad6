"""Every error that a user of Tallow can cause.

Each message says what was expected, what was found, and what to do. The command line prints it as one line.
"""


class TallowError(Exception):
    """Base of all errors that Tallow raises on purpose.

    Attributes:
        foreign: whether NumPy or Python raised it inside an operation that had not foreseen it. The operands are then
            wrong: a mistake of whoever chose them, which is Tallow itself where its command runs a model.
    """

    foreign = False


class ShapeError(TallowError, ValueError):
    """Shapes that do not fit the operation or the module."""


class BoundsError(ShapeError, IndexError):
    """An index or an axis that lies outside the tensor."""


class ArgumentError(TallowError, ValueError):
    """An argument's value that the function cannot take."""


class DTypeError(TallowError, TypeError):
    """A data type that the operation does not take."""


class DeviceError(TallowError, RuntimeError):
    """A device that is absent, or operands that lie on different devices."""


class ExchangeError(TallowError, BufferError):
    """Memory that cannot be shared with another library in the way asked for."""


class WeightsError(TallowError):
    """A weight file that is damaged, hostile, incomplete or of another architecture."""


class ModelNotFoundError(TallowError):
    """A model name or file that exists in none of the places looked in."""


class DownloadError(TallowError):
    """A download that failed: no network, no permission, no space."""


class MediaError(TallowError):
    """Audio, video or an image that cannot be decoded."""


class TemplateError(TallowError):
    """A chat template that is missing, damaged or hostile, or that refuses the conversation."""


class CaptureError(TallowError):
    """An operation that cannot be recorded for replay."""


class OutOfMemoryError(TallowError, MemoryError):
    """A model or a buffer that does not fit in what the device has free."""
