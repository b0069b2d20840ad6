import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow.errors import ArgumentError
from tallow.text.transcript import FORMATS, Segment, Transcript, Word, timestamp


@pytest.fixture
def transcript():
    return Transcript(
        text=" Hello there. A < B & C --> D.",
        segments=[
            Segment(0, 0.0, 1.5, " Hello there.", tokens=[50363, 18435], words=[Word(0.0, 0.5, " Hello", 0.9)]),
            Segment(1, 1.5, 1.5, "  "),
            Segment(2, 3661.0625, 3662.9996, " A < B & C\n--> D."),
        ],
        language="en",
        duration=3663.0,
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "00:00:00.000"),
        (-1.0, "00:00:00.000"),
        (59.9996, "00:01:00.000"),
        (3599.9999, "01:00:00.000"),
        (36000.25, "10:00:00.250"),
        (360000.0, "100:00:00.000"),
    ],
)
def test_timestamp(seconds, text):
    assert timestamp(seconds) == text


def test_timestamp_without_hours():
    assert timestamp(61.5, hours=False) == "01:01.500"
    assert timestamp(3661.5, hours=False, mark=",") == "01:01:01,500"


@settings(max_examples=200)
@given(st.integers(0, 10**9))
def test_timestamp_reads_back(milliseconds):
    hours, minutes, seconds = timestamp(milliseconds / 1000).split(":")
    assert int(hours) * 3_600_000 + int(minutes) * 60_000 + round(float(seconds) * 1000) == milliseconds


def test_txt(transcript):
    assert transcript.render("txt") == "Hello there.\nA < B & C --> D.\n"


def test_srt(transcript):
    assert transcript.render("srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n2\n01:01:01,062 --> 01:01:03,000\nA < B & C -> D.\n"
    )


def test_vtt(transcript):
    assert transcript.render("vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello there.\n\n"
        "01:01:01.062 --> 01:01:03.000\nA &lt; B &amp; C --&gt; D.\n"
    )


def test_tsv(transcript):
    rows = transcript.render("tsv").splitlines()
    assert rows == ["start\tend\ttext", "0\t1500\tHello there.", "1500\t1500\t", "3661062\t3663000\tA < B & C --> D."]


def test_json(transcript):
    transcript.segments[2].avg_logprob = float("-inf")
    read = json.loads(transcript.render("json"))
    assert read["language"] == "en"
    assert read["duration"] == 3663.0
    assert read["segments"][0]["words"] == [{"start": 0.0, "end": 0.5, "text": " Hello", "probability": 0.9}]
    assert read["segments"][2]["avg_logprob"] is None


def test_json_keeps_letters_of_every_script():
    assert "Москва 東京" in Transcript("Москва 東京", [], "ru").render("json")


def test_a_cue_is_never_empty_of_time():
    cue = Transcript("x", [Segment(0, 2.0, 2.0, "x")], "en").render("srt")
    assert "00:00:02,000 --> 00:00:02,001" in cue


@pytest.mark.parametrize(
    ("said", "srt", "vtt"),
    [
        ("a --> b", "a -> b", "a --&gt; b"),
        ("<!---> & -->", "<!-> & ->", "&lt;!---&gt; &amp; --&gt;"),
        ("x->y", "x->y", "x-&gt;y"),
        ("a\n\n--> b", "a -> b", "a --&gt; b"),
    ],
)
def test_an_arrow_in_a_text_is_no_line_of_times(said, srt, vtt):
    transcript = Transcript(said, [Segment(0, 1.0, 2.0, said)], "en")
    assert transcript.render("srt") == f"1\n00:00:01,000 --> 00:00:02,000\n{srt}\n"
    assert transcript.render("vtt") == f"WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n{vtt}\n"


@pytest.mark.parametrize(("format", "expected"), [("txt", ""), ("srt", ""), ("vtt", "WEBVTT\n")])
def test_empty(format, expected):
    assert Transcript("", [], "en").render(format) == expected


@pytest.mark.parametrize("format", FORMATS)
def test_save_follows_the_suffix(transcript, tmp_path, format):
    path = tmp_path / f"talk.{format.upper()}"
    transcript.save(path)
    assert path.read_text(encoding="utf-8") == transcript.render(format)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_save_leaves_nothing_behind_when_it_fails(transcript, tmp_path):
    target = tmp_path / "talk.txt"
    target.mkdir()
    with pytest.raises(OSError):
        transcript.save(target)
    assert [p.name for p in tmp_path.iterdir()] == ["talk.txt"]


def test_unknown_format(transcript, tmp_path):
    with pytest.raises(ArgumentError, match=r"docx.*txt, srt, vtt, tsv, json"):
        transcript.save(tmp_path / "talk.docx")
    assert list(tmp_path.iterdir()) == []
