#!/bin/sh
# Transformers 5.24.0 takes a message's keys of None away before its chat template sees them. Templates that ask whether
# `content` is none, as those of DeepSeek R1's distilled models do for a message that only calls functions, then take
# the branch for messages with text, and fail: content is undefined, which is not none. OpenAI's API writes such
# messages with `"content": null`.
#
# Seen: the template finds no content, "is not none" holds, and rendering ends with UndefinedError.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 tokenizers==0.23.3 jinja2==3.1.6
"$folder/venv/bin/python" - <<'PYTHON'
import jinja2
import tokenizers
import transformers

inner = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, []))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner)
call = {"type": "function", "function": {"name": "weather", "arguments": "{}"}}
message = {"role": "assistant", "content": None, "tool_calls": [call]}


def rendered(template):
    return tokenizer.apply_chat_template([message], chat_template=template, tokenize=False)


seen = rendered("{{ 'content' in messages[0] }} {{ messages[0].content is not none }}")
print(transformers.__version__, seen)
assert seen == "False True", seen
asks = (
    "{% for m in messages %}{% for call in m.tool_calls %}<call>{{ call.function.name }}{% endfor %}"
    "{% if m.content is not none %}{{ '<answer>' + m.content }}{% endif %}{% endfor %}"
)
assert jinja2.Template(asks).render(messages=[message]) == "<call>weather"
try:
    raise SystemExit(f"rendered: {rendered(asks)}")
except jinja2.UndefinedError as error:
    print("UndefinedError:", error)
PYTHON
