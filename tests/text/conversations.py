"""Conversations and templates of the published shapes, for tests of rendering."""

from pathlib import Path

TEMPLATES = {path.stem: path.read_text() for path in sorted((Path(__file__).parent / "templates").glob("*.jinja"))}
TOKENS = {"bos_token": "<|begin_of_text|>", "eos_token": "</s>"}

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city: <b>°C</b> & wind",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


SYSTEM = {"role": "system", "content": "  You speak in rhymes.\n"}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Łódź", "days": 2}}}
CONVERSATIONS = {
    "one question": [user("Why is the sky blue?")],
    "with a system message": [SYSTEM, user("  Hello!\n")],
    "several turns": [user("1+1?"), assistant("2"), user("And times 3?"), assistant("6"), user("<&'\"> ünï😀")],
    "ends with the assistant": [user("Say a"), assistant("a")],
    "reasoning in the content": [user("x?"), assistant("<think>\nhm\n</think>\n\ny"), user("z?"), assistant("q")],
    "reasoning apart": [user("x?"), assistant("y", reasoning_content="\nlet me see\n")],
    "reasoning under another name": [user("x?"), assistant("y", thinking="so")],
    "tools": [
        user("Weather in Łódź?"),
        assistant("", tool_calls=[CALL]),
        {"role": "tool", "content": '{"celsius": 3}'},
        assistant("Cold."),
        user("Thanks"),
    ],
    "two tool results": [
        user("Weather twice?"),
        assistant("Let me look.", tool_calls=[CALL, CALL]),
        {"role": "tool", "content": "3"},
        {"role": "tool", "content": "4"},
    ],
    "content of None": [user("Weather?"), assistant(None, tool_calls=[CALL]), {"role": "tool", "content": "3"}],
    "system in the middle": [user("a"), SYSTEM, user("b")],
    "no content": [{"role": "user"}],
    "content in parts": [user([{"type": "text", "text": "a"}])],
}
OPTIONS = {
    "plain": {},
    "no prompt": {"add_generation_prompt": False},
    "tools": {"tools": [WEATHER, WEATHER]},
    "thinking off": {"enable_thinking": False},
    "thinking on": {"enable_thinking": True},
    "more": {"date_string": "1 Jan 2027", "tools_in_user_message": False, "tools": [WEATHER]},
}
