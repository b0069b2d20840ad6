"""Opening a media file with FFmpeg through PyAV: with care, and by the file's ending where nothing else tells it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tallow.errors import MediaError

if TYPE_CHECKING:
    from av.container import InputContainer

_READ_SIZE = 256 * 1024
_OGG_PAGE = 65_307  # bytes, at most

# Ending -> FFmpeg's demuxer, for the formats that have no header and that FFmpeg knows by their ending alone: its
# demuxers of sound with extensions but without a probe (libavformat, *dec.c) whose rate is part of the format. Not so
# for samples without a header (alaw, mulaw, s16le): nothing says how many a second there are.
_BY_ENDING = {
    "722": "g722", "g722": "g722", "g723_1": "g723_1", "rco": "g723_1", "tco": "g723_1", "g729": "g729", "gsm": "gsm",
    "sln": "sln", "aptx": "aptx", "aptxhd": "aptx_hd", "msbc": "sbc", "sbc": "sbc", "dfpwm": "dfpwm", "302": "daud",
    "daud": "daud",
}  # fmt: skip


def open_container(file: BoundedFile, name: str) -> InputContainer:
    """Open a media file for reading.

    Args:
        file: its bytes.
        name: what messages call it; its ending is the last resort for telling the format.

    Raises:
        MediaError: when FFmpeg does not know it.
    """
    from av.error import FFmpegError

    try:
        try:
            return _open(file, None)
        except FFmpegError:
            format = _BY_ENDING.get(os.path.splitext(name)[1].lower().lstrip("."))
            if format is None or not hasattr(file, "seek") or file.interrupted:
                raise
            file.seek(file.begin)
            return _open(file, format)
    except FFmpegError as error:
        advice = "check that it is the right file and that it is complete"
        if file.head[4:8] == b"ftyp":
            advice = "an MP4 whose index is missing: its recording or copying was broken off; do that again"
        raise MediaError(f"{name}: not audio or video that FFmpeg can read ({error.strerror}); {advice}") from error
    finally:
        if file.interrupted:
            raise KeyboardInterrupt


def _open(file: BoundedFile, format: str | None) -> InputContainer:
    import av

    # No protocol may be used beside the file object itself: see the head of audio.py. It has to be `container_options`:
    # `options` are handed on to each stream too, and PyAV before 17.1 frees too many of those when streams appear while
    # FFmpeg looks for them, as in FLV, MPEG program streams, VOC and SWF (its issue 2010).
    return av.open(
        file, mode="r", format=format, container_options={"protocol_whitelist": "none"}, metadata_errors="ignore",
        buffer_size=_READ_SIZE,
    )  # fmt: skip


class BoundedFile:
    """A file object held to its contract while FFmpeg reads it through PyAV.

    PyAV copies whatever ``read`` returns into a fixed buffer, and drops a KeyboardInterrupt raised in it.

    Attributes:
        head: what the first read returned.
        begin: where reading began, if the file can seek.
        interrupted: whether Ctrl-C came while reading.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.head = b""
        self.interrupted = False
        if hasattr(file, "seek") and hasattr(file, "tell") and getattr(file, "seekable", lambda: True)():
            self.seek, self.tell = file.seek, file.tell
            self.begin = file.tell()

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end, or when Ctrl-C came."""
        try:
            data = self._file.read(size)
        except KeyboardInterrupt:
            self.interrupted = True
            return b""
        if not isinstance(data, bytes | bytearray | memoryview) or len(data) > size:
            raise MediaError("the file object must be binary: read(size) has to return at most size bytes")
        self.head = self.head or bytes(data)
        return bytes(data)

    def lacks_end_of_ogg(self) -> bool:
        """Whether the last page of an Ogg file, which states no length, is not marked as the end of its stream."""
        if not hasattr(self, "seek"):
            return False
        place = self.tell()
        self.seek(max(0, self.seek(0, os.SEEK_END) - _OGG_PAGE))
        tail = self._file.read(_OGG_PAGE)
        self.seek(place)
        page = tail[tail.rfind(b"OggS") :]
        return len(page) > 5 and not page[5] & 4  # RFC 3533, section 6
