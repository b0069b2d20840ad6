"""A media file, as FFmpeg sees it through PyAV: open it with care, decode its audio, say what is wrong with it."""

from __future__ import annotations

import io
import itertools
import os
import stat
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from tallow.errors import MediaError
from tallow.media.clock import Clock
from tallow.media.demuxer import BoundedFile, open_container
from tallow.media.phase import opposite_phase
from tallow.media.resample import MonoResampler, Samples
from tallow.media.tracks import audio_stream
from tallow.trace import logger

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

# Formats whose header states the length. In others it is a guess from the bit rate, no ground for a warning.
_STATED_LENGTH = ("w64", "aiff", "flac", "mov", "matroska", "caf", "asf", "avi", "ogg", "flv")


class AudioFile:
    """An open audio or video file, one audio track of which is decoded once from start to end.

    Args:
        source: a path, the bytes of a file, or a binary file object (which stays the caller's to close).
        track: number (from 0) or language code of the audio track; None for the one that FFmpeg takes for the best.

    Attributes:
        name: what messages call it.
        rate: samples a second of the audio track.
        duration: its length in seconds as the file has it, or None.

    Raises:
        MediaError: when the file is missing, is no media, or has no audio track that can be decoded.
    """

    def __init__(self, source: Any, track: int | str | None = None) -> None:
        self._owned: BinaryIO | None = None
        self.name, file = self._file(source)
        self._damage: list[str] = []
        self._unread = ""  # why nothing is read any more, before the end
        self._reached = 0.0  # seconds at which the last packet of any track ends
        try:
            self._reader = BoundedFile(file)
            self._container = open_container(self._reader, self.name)
            self._stream = audio_stream(self._container, self.name, track)
            self._unended = self._container.format.name == "ogg" and self._reader.lacks_end_of_ogg()
            self._frames = self._decoded()
            self.rate = int(self._stream.codec_context.sample_rate) or self._first_rate()
        except BaseException:
            self.close()
            raise
        self.duration = self._duration()
        self._stated = self._stated_seconds()

    def blocks(self, rate: int) -> Generator[Samples, None, None]:
        """Decode: the mean of the channels at ``rate``, in blocks of a second or less. Closes the file at the end.

        Silence stands where the container's clock says that the track has a gap or has not begun.

        Raises:
            MediaError: when nothing can be decoded. When something can, damage is a warning on the logger.
        """
        from av.error import FFmpegError

        start = self._container.start_time  # microseconds
        clock = Clock(None if start is None else start / 1e6)
        resampler = MonoResampler(rate, block=rate)
        seconds, made = 0.0, 0
        try:
            for frame in self._frames:
                length = frame.samples / frame.sample_rate
                seconds += length
                blocks: Iterator[Samples] = iter(())
                if clock.place(frame.time, length):
                    flushed = resampler.flush()
                    silence = round((clock.position - length) * rate) - made - sum(map(len, flushed))
                    blocks = itertools.chain(flushed, _silence(silence, rate))
                for block in itertools.chain(blocks, resampler.push(frame)):
                    made += len(block)
                    yield block
            yield from resampler.flush()
        except FFmpegError as error:
            raise MediaError(f"{self.name}: its audio cannot be converted ({error.strerror})") from error
        finally:
            self.close()
        notes = clock.report()
        if resampler.cancelled:
            notes.append(opposite_phase(resampler.cancelled / rate))
        self._report(seconds, clock.position - clock.late + clock.refused, notes)

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
            length = stream.duration
            if self._container.format.name == "ogg" and stream.codec_context.name == "opus":
                length -= stream.start_time or 0  # FFmpeg has the last page's time, wherever a broadcast was joined
            return float(max(0, length) * stream.time_base)
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

    def _first_rate(self) -> int:
        """The rate of a track that does not state it before its first frame, which is decoded now."""
        first = next(self._frames, None)
        if first is None:
            reason = f" ({self._damage[0] if self._damage else self._unread})" if self._damage or self._unread else ""
            raise MediaError(f"{self.name}: none of its audio can be decoded{reason}; it is damaged or empty")
        self._frames = itertools.chain([first], self._frames)
        return int(first.sample_rate)

    def _decoded(self) -> Iterator[AudioFrame]:
        """The decoded frames; what could not be decoded is told in ``_damage`` and left out."""
        from av.error import FFmpegError

        packets = self._container.demux()  # all tracks: where the others end tells whether the file is whole
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (FFmpegError, OSError) as error:
                self._unread = str(error.strerror)  # to read on gives the same error again
                return
            if packet.pts is not None and packet.time_base is not None:
                self._reached = max(self._reached, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != self._stream.index:
                continue
            try:
                frames: Any = packet.decode()
            except MemoryError:
                raise
            except FFmpegError as error:  # whatever its number: many decoders have their own
                self._damage.append(str(error.strerror))
                continue
            for frame in frames:
                if frame.samples > 0 and frame.sample_rate > 0:
                    yield frame

    def _report(self, seconds: float, end: float, notes: list[str]) -> None:
        """Say what the recording lacks: nothing, some of it (a warning), or all (an error).

        Args:
            seconds: decoded.
            end: seconds from the track's first sample to its end by the container's clock, gaps included.
            notes: what else is to be told.
        """
        damage = self._damage
        reason = damage[0] if damage else self._unread
        if reason and seconds == 0.0:
            raise MediaError(f"{self.name}: none of its audio can be decoded ({reason}); it is damaged")
        if self._stream.duration is None:  # the length is that of the longest track
            end = max(end, self._reached)
        told = f"decoded {seconds:.1f} seconds"
        if self._stated - end > max(0.5, 0.01 * seconds):
            told += f" of the {self._stated:.1f} that the file declares"
            notes = ["it seems to be cut off", *notes]
        elif self._unended:
            notes = ["the end is missing, it seems to be cut off", *notes]
        if self._unread:
            notes = [f"the rest cannot be read ({self._unread})", *notes]
        if damage:
            notes.append(f"{len(damage)} damaged place{'s' * (len(damage) > 1)} left out ({damage[0]})")
        if notes:
            logger.warning("%s: %s; %s", self.name, told, "; ".join(notes))


def _silence(count: int, most: int) -> Iterator[Samples]:
    """``count`` samples of silence in blocks of at most ``most``."""
    for begin in range(0, count, most):
        yield np.zeros(min(most, count - begin), np.float32)
