"""A media file, as FFmpeg sees it through PyAV: open it with care, decode its audio, say what is wrong with it."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from tallow.errors import MediaError
from tallow.media.resample import MonoResampler, Samples
from tallow.trace import logger

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# Formats whose header states the length. In others it is a guess from the bit rate, no ground for a warning.
_STATED_LENGTH = ("w64", "aiff", "flac", "mov", "matroska", "caf", "asf", "avi")
_READ_SIZE = 256 * 1024
_OGG_PAGE = 65_307  # bytes, at most


class AudioFile:
    """An open audio or video file, whose best audio track is decoded once from start to end.

    Args:
        source: a path, the bytes of a file, or a binary file object (which stays the caller's to close).

    Attributes:
        name: what messages call it.
        rate: samples a second of the audio track.
        duration: its length in seconds as the file has it, or None.

    Raises:
        MediaError: when the file is missing, is no media, or has no audio track that can be decoded.
    """

    def __init__(self, source: Any) -> None:
        self._owned: BinaryIO | None = None
        self.name, file = self._file(source)
        try:
            self._reader = _Bounded(file)
            self._container = _open(self._reader, self.name)
            self._stream = _audio_stream(self._container, self.name)
        except BaseException:
            self.close()
            raise
        self.rate = int(self._stream.codec_context.sample_rate)
        self.duration = self._duration()
        self._stated = self._stated_seconds()
        self._unended = self._container.format.name == "ogg" and self._reader.lacks_end_of_ogg()

    def blocks(self, rate: int) -> Generator[Samples, None, None]:
        """Decode: the mean of the channels at ``rate``, in blocks of one second. Closes the file at the end.

        Raises:
            MediaError: when nothing can be decoded. When something can, damage is a warning on the logger.
        """
        from av.error import FFmpegError

        resampler = MonoResampler(rate, block=rate)
        seconds = 0.0
        damage: list[str] = []
        try:
            for frame in self._frames(damage):
                seconds += frame.samples / frame.sample_rate
                yield from resampler.push(frame)
            yield from resampler.flush()
        except FFmpegError as error:
            raise MediaError(f"{self.name}: its audio cannot be converted ({error.strerror})") from error
        finally:
            self.close()
        self._report(seconds, damage)

    def close(self) -> None:
        """Close the container, and the file when it was opened here."""
        container = getattr(self, "_container", None)
        if container is not None:
            container.close()
        if self._owned is not None:
            self._owned.close()

    def _file(self, source: Any) -> tuple[str, Any]:
        """What to call the source, and a file object for it."""
        if isinstance(source, bytes | bytearray | memoryview):
            if len(source) == 0:
                raise MediaError("audio of 0 bytes; an array of samples may be empty, a file may not")
            return f"audio of {len(source):,} bytes", io.BytesIO(source)
        if hasattr(source, "read"):
            return str(getattr(source, "name", "audio stream")), source
        path = os.fspath(source)
        try:
            self._owned = open(path, "rb")  # noqa: SIM115 (close() does)
        except FileNotFoundError:
            raise MediaError(f"{path}: no such file; check the name") from None
        except IsADirectoryError:
            raise MediaError(f"{path}: is a folder; name an audio or video file in it") from None
        except (OSError, ValueError) as error:
            folder = os.path.isdir(path)  # Windows reports a folder as forbidden
            reason = "is a folder; name an audio or video file in it" if folder else f"cannot be opened ({error})"
            raise MediaError(f"{path}: {reason}") from error
        status = os.fstat(self._owned.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            self.close()
            raise MediaError(f"{path}: the file is empty (0 bytes); record or copy it again")
        return path, self._owned

    def _duration(self) -> float | None:
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None and stream.duration > 0:
            return float(stream.duration * stream.time_base)
        whole = self._container.duration  # microseconds
        return whole / 1e6 if whole is not None and whole > 0 else None

    def _stated_seconds(self) -> float:
        """The length that the header states, 0 where it states none (other lengths are guessed from the bit rate)."""
        duration, format, head = self.duration or 0.0, self._container.format.name, self._reader.head
        if format == "wav":  # FFmpeg trusts the size of the file where the header says more
            stated, size = int.from_bytes(head[4:8], "little") + 8, self._container.size
            broken_off = head[:4] == b"RIFF" and 0 < size < stated < 0x7FFFF000  # writers to a pipe put in a huge size
            return duration * stated / size if broken_off else duration
        if format == "mp3":
            return duration if b"Xing" in head or b"Info" in head else 0.0
        return duration if any(known in format for known in _STATED_LENGTH) else 0.0

    def _frames(self, damage: list[str]) -> Iterator[AudioFrame]:
        """The decoded frames; what could not be decoded is told in ``damage`` and left out."""
        from av.error import FFmpegError, InvalidDataError

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (FFmpegError, OSError) as error:
                damage.append(str(error.strerror))
                return
            try:
                frames = packet.decode()
            except InvalidDataError as error:
                damage.append(str(error.strerror))
                continue
            for frame in frames:
                if frame.samples > 0 and frame.sample_rate > 0:
                    yield frame

    def _report(self, seconds: float, damage: list[str]) -> None:
        """Say what the recording lacks: nothing, some of it (a warning), or all (an error)."""
        if damage and seconds == 0.0:
            raise MediaError(f"{self.name}: none of its audio can be decoded ({damage[0]}); it is damaged")
        if self._stated - seconds > max(0.5, 0.01 * seconds):
            logger.warning(
                "%s: decoded %.1f seconds of the %.1f that the file declares; it seems to be cut off",
                self.name, seconds, self._stated,
            )  # fmt: skip
        elif self._unended:
            logger.warning("%s: decoded %.1f seconds; the end is missing, it seems to be cut off", self.name, seconds)
        elif damage:
            logger.warning(
                "%s: decoded %.1f seconds; %d damaged place%s left out (%s)",
                self.name, seconds, len(damage), "s" if len(damage) > 1 else "", damage[0],
            )  # fmt: skip


def _open(file: _Bounded, name: str) -> InputContainer:
    import av
    from av.error import FFmpegError

    try:
        # No protocol may be used beside the file object itself: see the head of audio.py.
        return av.open(
            file, mode="r", options={"protocol_whitelist": "none"}, metadata_errors="ignore", buffer_size=_READ_SIZE
        )
    except FFmpegError as error:
        advice = "check that it is the right file and that it is complete"
        if file.head[4:8] == b"ftyp":
            advice = "an MP4 whose index is missing: its recording or copying was broken off; do that again"
        raise MediaError(f"{name}: not audio or video that FFmpeg can read ({error.strerror}); {advice}") from error
    finally:
        if file.interrupted:
            raise KeyboardInterrupt


def _audio_stream(container: InputContainer, name: str) -> AudioStream:
    stream = container.streams.best("audio")
    if stream is None:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        if container.format.name == "tty":  # FFmpeg's reader of text art takes any text file
            raise MediaError(f"{name}: a text, not a recording; name an audio or video file")
        raise MediaError(f"{name}: has no audio track (it holds {found}); name a file with sound")
    if stream.codec_context is None:
        raise MediaError(f"{name}: no decoder for its audio track; convert it, for example to FLAC")
    return stream  # type: ignore[return-value]


class _Bounded:
    """A file object held to its contract while FFmpeg reads it through PyAV.

    PyAV copies whatever ``read`` returns into a fixed buffer, and drops a KeyboardInterrupt raised in it.

    Attributes:
        head: what the first read returned.
        interrupted: whether Ctrl-C came while reading.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.head = b""
        self.interrupted = False
        if hasattr(file, "seek") and hasattr(file, "tell") and getattr(file, "seekable", lambda: True)():
            self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
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
