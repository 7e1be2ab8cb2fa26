"""Chat templates in the manner of well-known families, small: each has what makes its family hard."""

from __future__ import annotations

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

LLAMA = (
    "{{ '<|begin|>' }}{% set system = '' %}{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] | trim %}{% set messages = messages[1:] %}{% endif %}"
    "<|header|>system<|end_header|>\n\n{{ system }}<|eot|>"
    "{% for m in messages %}<|header|>{{ m['role'] }}<|end_header|>\n\n{{ m['content'] | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|header|>assistant<|end_header|>\n\n{% endif %}"
)
"""Trims contents, and always has a system message."""

MISTRAL = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set turns = messages %}{% endif %}<s>"
    "{% for m in turns %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('conversation roles must alternate user/assistant') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {% if loop.first and system is defined %}{{ system + '\n\n' }}{% endif %}"
    "{{ m['content'] }} [/INST]{% else %} {{ m['content'] }}</s>{% endif %}{% endfor %}"
)
"""Raises where roles do not alternate, writes the system prompt into the first question, and has no generation prompt."""

GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}<bos>"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
"""Has no system role."""

QWEN3 = (
    "{%- if tools %}<|im_start|>system\n{% if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}"
    "# Tools\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n"
    "{%- elif messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n{% endif %}"
    "{%- set ns = namespace(last=messages|length - 1, found=false) %}"
    "{%- for m in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}"
    "{%- if not ns.found and m.role == 'user' %}{%- set ns.found = true %}{%- set ns.last = index %}{% endif %}{% endfor %}"
    "{%- for m in messages %}{%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{%- elif m.role == 'assistant' %}{%- set content = m.content %}{%- set thought = '' %}"
    "{%- if m.reasoning_content is string %}{%- set thought = m.reasoning_content %}"
    "{%- elif '</think>' in content %}{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<|im_start|>assistant\n{% if loop.index0 > ns.last and (loop.last or thought) %}<think>\n{{ thought.strip('\n') }}\n</think>\n\n{% endif %}"
    "{{ content }}{% for call in m.tool_calls or [] %}\n<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n'
    "{%- elif m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response><|im_end|>\n{% endif %}{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Writes tools, calls and thoughts, and removes the thoughts of all answers but the last."""

TOOLS = (
    "{% if tools is defined and tools %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif %}"
    "{% for m in messages %}{% if 'tool_calls' in m %}{% if m.tool_calls|length != 1 %}"
    "{{ raise_exception('one call at a time, please') }}{% endif %}"
    "<|im_start|>assistant\n{{ m.tool_calls[0].function.name }}({% for key, value in m.tool_calls[0].function.arguments.items() %}"
    "{{ key + '=' + value|tojson }},{% endfor %})<|im_end|>\n"
    "{% elif m.role == 'tool' %}<|im_start|>tool {{ m.name + m.tool_call_id }}\n{{ m.content }}<|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}{% if 'name' in m %} {{ m.name }}{% endif %}{{ '\n' + m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Asks `in` for keys, takes one call at a time, iterates over arguments, and needs names and ids of tools."""

STATEFUL = (
    "{% set ns = namespace(count=0, system=none) %}"
    "{% for m in messages %}{% if m.role == 'system' %}{% set ns.system = m.content %}{% else %}"
    "{% if m.role == 'user' %}{% set ns.count = ns.count + 1 %}{% endif %}"
    "<|im_start|>{{ m.role }} {{ ns.count }}{% if ns.system %} [{{ ns.system }}]{% endif %}{{ '\n' + m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {{ ns.count }}{% if ns.system %} [{{ ns.system }}]{% endif %}{{ '\n' }}{% endif %}"
)
"""Counts turns and remembers the last system message."""

BREAKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ 7 // (m.content|length - 3) }}{{ m.content.split('?')[1] }}"
    "{{ m.content.format('a') }}{{ m.tool_calls[0].function.arguments.city + 1 }}<|im_end|>\n{% endfor %}"
)
"""Fails in the ways of Python: divides by zero, indexes what is not there, adds what can't be added."""

FAMILIES = {
    name.lower(): template
    for name, template in globals().items()
    if name.isupper() and isinstance(template, str) and "messages" in template
}
