"""Ordinary files as FFmpeg's muxers write them: films with sound, several tracks, timestamps of any kind."""

import av
import numpy as np

# format -> its ending, codec of the picture, codec and rate of the sound
ORDINARY = {
    "flv": ("flv", "flv1", "adpcm_swf", 44_100),
    "mpeg": ("mpg", "mpeg1video", "mp2", 44_100),
    "vob": ("vob", "mpeg2video", "ac3", 48_000),
    "voc": ("voc", None, "pcm_u8", 22_222),
    "swf": ("swf", None, "libmp3lame", 44_100),
}


def tone(seconds, rate, hertz=440):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_film(path, format, picture="mpeg4", codecs=("aac",), rate=44_100, seconds=2.0, film_seconds=None, **more):
    """A film with a sound track for each codec, the n-th a tone of 440 * (n + 1) Hz.

    Args:
        more: ``languages``, one for each track; ``times``: the second at which a second of sound begins, for each
            second, as the timestamps have it.
    """
    languages, times = more.get("languages"), more.get("times")
    with av.open(str(path), "w", format=format) as container:
        video = container.add_stream(picture, rate=25) if picture else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        sounds = [container.add_stream(codec, rate=rate, layout="mono") for codec in codecs]
        for sound, language in zip(sounds, languages or [], strict=False):
            sound.metadata["language"] = language
        for sound in sounds:
            sound.codec_context.open()
        for i in range(round(25 * (seconds if film_seconds is None else film_seconds)) if video is not None else 0):
            frame = av.VideoFrame(64, 64, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([i % 256]) * plane.buffer_size)
            frame.pts = i
            container.mux(video.encode(frame))
        if video is not None:
            container.mux(video.encode(None))
        for number, sound in enumerate(sounds):
            samples, step = tone(seconds, rate, 440 * (number + 1)), sound.codec_context.frame_size or 1024
            resampler = av.AudioResampler(sound.codec_context.format.name, "mono", rate)
            for begin in range(0, len(samples), step):
                frame = av.AudioFrame.from_ndarray(samples[None, begin : begin + step], "flt", "mono")
                frame.sample_rate, frame.pts = rate, begin
                for made in resampler.resample(frame):
                    for packet in sound.encode(made):
                        container.mux(_moved(packet, times))
            for packet in sound.encode(None):
                container.mux(_moved(packet, times))
    return path


def _moved(packet, times):
    """A packet with its timestamp where ``times`` says that its second is."""
    if times is not None and packet.pts is not None:
        second = max(0, int(packet.pts * packet.time_base))
        packet.pts += round((times[min(second, len(times) - 1)] - second) / packet.time_base)
        packet.dts = packet.pts
    return packet
