"""Which of a file's sound tracks is decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tallow.errors import MediaError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# ISO 639: the two-letter code, then those of three letters (of part 2, bibliographic and terminological) that files
# carry in its stead.
_CODES = """
af afr;ar ara;be bel;bg bul;bn ben;bs bos;ca cat;cs cze ces;cy wel cym;da dan;de ger deu;el gre ell;en eng;es spa;et est
eu baq eus;fa per fas;fi fin;fr fre fra;ga gle;gl glg;gu guj;he heb;hi hin;hr hrv;hu hun;hy arm hye;id ind;is ice isl
it ita;ja jpn;ka geo kat;kk kaz;kn kan;ko kor;lt lit;lv lav;mk mac mkd;ml mal;mn mon;mr mar;ms may msa;my bur mya;ne nep
nl dut nld;no nor nob;pa pan;pl pol;pt por;ro rum ron;ru rus;sk slo slk;sl slv;sq alb sqi;sr srp;sv swe;sw swa;ta tam
te tel;th tha;tl tgl fil;tr tur;uk ukr;ur urd;vi vie;zh chi zho
"""
_TWO_LETTERS = {
    code: codes[0] for line in _CODES.replace("\n", ";").split(";") if (codes := line.split()) for code in codes
}


def audio_stream(container: InputContainer, name: str, track: int | str | None) -> AudioStream:
    """The sound track that was asked for, or the one that FFmpeg takes for the best.

    Args:
        container: an open file.
        name: what messages call it.
        track: the number of a sound track, from 0 (FFmpeg's ``0:a:0``), or its language's code; None for the best.

    Raises:
        MediaError: when there is none, or no decoder for it.
    """
    tracks = list(container.streams.audio)
    if not tracks:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        if container.format.name == "tty":  # FFmpeg's reader of text art takes any text file
            raise MediaError(f"{name}: a text, not a recording; name an audio or video file")
        raise MediaError(f"{name}: has no audio track (it holds {found}); name a file with sound")
    if track is None:
        # FFmpeg passes over tracks whose rate is unknown until their first frame.
        stream: Any = container.streams.best("audio") or tracks[0]
    elif isinstance(track, str):
        stream = next((each for each in tracks if _same_language(_language(each), track)), None)
    else:
        stream = tracks[track] if 0 <= track < len(tracks) else None
    if stream is None:
        listed = ", ".join(_describe(number, each) for number, each in enumerate(tracks))
        raise MediaError(f"{name}: no audio track {track}; it has {listed}")
    if stream.codec_context is None:
        raise MediaError(f"{name}: no decoder for its audio track; convert it, for example to FLAC")
    return stream  # type: ignore[no-any-return]


def _describe(number: int, stream: Any) -> str:
    title = stream.metadata.get("title") or stream.metadata.get("handler_name")
    return f"{number} ({_language(stream) or 'language unknown'}{f', {title}' if title else ''})"


def _language(stream: Any) -> str:
    return str(stream.metadata.get("language", ""))


def _same_language(stated: str, wanted: str) -> bool:
    def code(language: str) -> str:
        language = language.strip().lower().replace("_", "-").split("-")[0]
        return _TWO_LETTERS.get(language, language)

    return bool(stated) and code(stated) == code(wanted)
