import pytest

from tallow.text.answer import split_reasoning


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        ("<think>\nhm\n</think>\n\nYes.", "", ("hm", "Yes.")),
        ("  <think>hm</think>Yes.", "", ("hm", "Yes.")),
        ("hm\n</think>\n\nYes.", "<think>\n", ("hm", "Yes.")),
        ("hm</think>Yes.", "", ("hm", "Yes.")),
        ("<think>\ncut off", "", ("cut off", "")),
        ("cut off", "…<think>\n", ("cut off", "")),
        ("Yes.", "<think>\n\n</think>\n\n", (None, "Yes.")),
        ("<think>\n\n</think>\n\nYes.", "", ("", "Yes.")),
        ("a < think", "", (None, "a < think")),
        ("", "", (None, "")),
    ],
)
def test_reasoning(text, prompt, expected):
    assert split_reasoning(text, prompt) == expected
