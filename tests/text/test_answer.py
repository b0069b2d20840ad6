import pytest

from tallow.text.answer import split_reasoning, split_tool_calls


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


CALL = '{"name": "weather", "arguments": {"city": "Łódź"}}'
WANTED = ("weather", {"city": "Łódź"})


@pytest.mark.parametrize(
    ("text", "calls", "rest"),
    [
        (f"<tool_call>\n{CALL}\n</tool_call>", [WANTED], ""),
        (
            f"Let me look.\n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>{CALL}</tool_call>",
            [WANTED] * 2,
            "Let me look.",
        ),
        (CALL, [WANTED], ""),
        (f" [{CALL}, {CALL}]", [WANTED] * 2, ""),
        ('{"name": "weather", "parameters": {"city": "Łódź"}}', [WANTED], ""),
        ('{"name": "weather", "arguments": "{\\"city\\": \\"Łódź\\"}"}', [WANTED], ""),
        ('{"name": "weather"}', [("weather", {})], ""),
        ('<tool_call>{"name": "weather", "argu</tool_call>', [], '<tool_call>{"name": "weather", "argu</tool_call>'),
        (f"<tool_call>{CALL}", [], f"<tool_call>{CALL}"),
        ('{"name": "other"}', [], '{"name": "other"}'),
        ('{"name": "weather", "arguments": "no json"}', [], '{"name": "weather", "arguments": "no json"}'),
        ('{"name": "weather", "arguments": [1]}', [], '{"name": "weather", "arguments": [1]}'),
        ("[" * 100_000, [], "[" * 100_000),
        ("plain", [], "plain"),
    ],
)
def test_tool_calls(text, calls, rest):
    assert split_tool_calls(text, {"weather"}) == (calls, rest)
