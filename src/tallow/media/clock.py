"""The container's clock: where the frames of a sound track belong, and where it has gaps."""

from __future__ import annotations

# Seconds. Below it a timestamp that lies ahead is rounding (milliseconds in Matroska), codec delay or jitter; FFmpeg's
# `aresample=async=1` draws the line at the same place (`min_hard_comp`).
_SHORTEST_GAP = 0.1
# Timestamps that go back further than this are a new beginning (chained Ogg files, broadcasts that were joined); less
# is a track that runs a little behind its own sound.
_NEW_BEGINNING = 1.0
# A file may ask for so much silence in all. Longer gaps are timestamps gone wrong more often than they are true, and a
# few bytes can state a gap of years.
MAX_SILENCE = 3600.0


class Clock:
    """Compares the timestamps of a track's frames with the sound decoded so far.

    Frames follow one another as they are stored, and none is ever left out. A frame whose timestamp lies ahead has
    silence before it; times therefore do not accumulate rounding, since each is compared with the whole before it. A
    timestamp that goes far back, or ahead by more silence than a file may ask for, starts the clock anew.

    Args:
        start: the container's first timestamp in seconds, its zero; None takes the first frame's.

    Attributes:
        position: seconds of sound and silence so far.
        late: seconds of silence before the first frame.
        gaps: how many gaps there were after it.
        silence: their length in all, in seconds.
        refused: seconds that timestamps jumped ahead in all, without silence instead.
    """

    def __init__(self, start: float | None) -> None:
        self.position = 0.0
        self.late = self.silence = self.refused = 0.0
        self.gaps = 0
        self._zero = start

    def place(self, time: float | None, length: float) -> bool:
        """Take a frame.

        Args:
            time: its timestamp in seconds, if it has one.
            length: its length in seconds.

        Returns:
            Whether silence stands before it; it then begins at ``position - length``.
        """
        if time is None:
            self.position += length
            return False
        if self._zero is None:
            self._zero = time - self.position
        ahead = time - self._zero - self.position
        silent = ahead > _SHORTEST_GAP
        if ahead < -_NEW_BEGINNING:
            self._zero += ahead
        elif silent and self.late + self.silence + ahead > MAX_SILENCE:
            self._zero += ahead
            self.refused += ahead
            silent = False
        elif silent:
            if self.position == 0.0:
                self.late = ahead
            else:
                self.gaps += 1
                self.silence += ahead
            self.position += ahead
        self.position += length
        return silent

    def report(self) -> list[str]:
        """What was missing, in words; empty when nothing was."""
        notes = []
        if self.late:
            notes.append(f"its sound begins {self.late:.1f} seconds late, after silence")
        if self.gaps:
            several = f"{self.gaps} gaps" if self.gaps > 1 else "a gap"
            notes.append(f"{several} of {self.silence:.1f} seconds{' in all' * (self.gaps > 1)} became silence")
        if self.refused:
            notes.append(
                f"its clock jumps {self.refused:,.1f} seconds ahead, more silence than is filled in: "
                "what comes after has earlier times"
            )
        return notes
