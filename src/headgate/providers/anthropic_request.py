"""From an OpenAI chat request to one of Anthropic's Messages API: pure functions over JSON.

What has no counterpart:
    n > 1                      rejected: Anthropic gives one answer a call
    audio, files that are not PDFs, tool arguments that are not JSON objects   rejected, naming the field
    logprobs, penalties, logit_bias, seed, store, reasoning_effort and the like   left out: they ask for nothing that would
                               make the answer wrong by missing
    response_format json_schema   a tool that must be called, whose input becomes the answer's text; where a tool cannot be
                               forced (other tools, thinking, a schema that is no object) an instruction in the system prompt
    response_format json_object   an instruction in the system prompt
    system turns in the middle    all move to the front, where Anthropic wants them
Every other field (`thinking`, `top_k`, `container`, ...) passes through.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headgate.model.chat import ChatRequest, Json
from headgate.model.deployment import Deployment
from headgate.model.errors import Rejected, Unable

ANSWER_TOOL = "json_answer"
"""The tool that stands in for a JSON schema; its input is the answer."""

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.DOTALL)
_TRANSLATED = frozenset(
    "model messages stream stream_options max_tokens max_completion_tokens temperature top_p stop tools tool_choice"
    " parallel_tool_calls user safety_identifier metadata response_format".split()
)
_WITHOUT_COUNTERPART = frozenset(
    "n frequency_penalty presence_penalty logit_bias logprobs top_logprobs seed store modalities audio prediction"
    " reasoning_effort verbosity web_search_options prompt_cache_key prompt_cache_retention functions function_call".split()
)
_TIERS = ("auto", "standard_only")


class Translation(msgspec.Struct, frozen=True):
    """The body to send, and whether the answer comes as the input of ANSWER_TOOL."""

    body: Json
    answer_tool: bool = False


def translate(deployment: Deployment, request: ChatRequest, *, limit: int) -> Translation:
    """The Messages request that asks the same. Raises Rejected when there is none."""
    if request.choices > 1:
        raise Unable("This provider gives one answer a call; `n` must be 1.", param="n")
    asked = request.body
    body = {k: v for k, v in asked.items() if k not in _TRANSLATED and k not in _WITHOUT_COUNTERPART}
    if body.get("service_tier") not in _TIERS:
        body.pop("service_tier", None)
    system, messages = _turns(asked.get("messages") or [])
    body |= {"model": deployment.model, "max_tokens": limit, "messages": messages}
    _add_sampling(body, asked)
    _add_tools(body, asked)
    answer_tool = _add_format(body, asked.get("response_format"), system)
    if system:
        body["system"] = system
    user = asked.get("user") or asked.get("safety_identifier") or _dict(asked.get("metadata")).get("user_id")
    if isinstance(user, str) and user:
        body["metadata"] = {"user_id": user}
    if request.stream:
        body["stream"] = True
    return Translation(body, answer_tool)


def _add_sampling(body: Json, asked: Json) -> None:
    if asked.get("temperature") is not None:
        body["temperature"] = min(asked["temperature"], 1.0)
    if asked.get("top_p") is not None:
        body["top_p"] = asked["top_p"]
    stop = asked.get("stop")
    sequences = [text for text in ([stop] if isinstance(stop, str) else stop or []) if text.strip()]
    if sequences:
        body["stop_sequences"] = sequences


def _turns(messages: list[Json]) -> tuple[list[Json], list[Json]]:
    """System blocks, and the turns with neighbours of one role merged."""
    system: list[Json] = []
    turns: list[Json] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role = message.get("role")
        if role in ("system", "developer"):
            system += _blocks(message.get("content"), where)
            continue
        blocks = _of_assistant(message, where) if role == "assistant" else _of_user(message, where)
        role = "assistant" if role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if turns and turns[-1]["role"] == "assistant":
        _strip_end(turns[-1]["content"])
    return system, turns


def _strip_end(blocks: list[Json]) -> None:
    """An answer that is to be continued must not end in white space."""
    last = blocks[-1] if blocks else {}
    if last.get("type") == "text":
        blocks[-1] = {**last, "text": last["text"].rstrip()}


def _of_user(message: Json, where: str) -> list[Json]:
    content = message.get("content")
    if message.get("role") not in ("tool", "function"):
        return _blocks(content, where)
    call = message.get("tool_call_id") or _call_of(message.get("name"))
    result: Json = {"type": "tool_result", "tool_use_id": call}
    if content:
        result["content"] = content if isinstance(content, str) else _blocks(content, where)
    return [result | {name: message[name] for name in ("is_error", "cache_control") if name in message}]


def _of_assistant(message: Json, where: str) -> list[Json]:
    thoughts, refusal = message.get("thinking_blocks"), message.get("refusal")
    blocks: list[Json] = list(thoughts) if isinstance(thoughts, list) else []
    blocks += _blocks(message.get("content"), where)
    if isinstance(refusal, str) and not blocks:
        blocks = _blocks(refusal, where)
    calls = list(message.get("tool_calls") or [])
    old = _dict(message.get("function_call"))
    if old:
        calls.append({"id": _call_of(old.get("name")), "function": old})
    for index, call in enumerate(calls):
        function = call.get("function") or {}
        param = f"{where}.tool_calls[{index}].function.arguments"
        blocks.append(
            {
                "type": "tool_use",
                "id": call.get("id"),
                "name": function.get("name"),
                "input": _object(function.get("arguments"), param),
            }
        )
    return blocks


def _call_of(name: Any) -> str:
    """The id of a call in the old style, which has none: function and result have the name in common."""
    return f"call_{name}"


def _object(text: Any, param: str) -> Json:
    try:
        value = msgspec.json.decode(text) if text else {}
    except (msgspec.DecodeError, TypeError):
        value = None
    if not isinstance(value, dict):
        raise Rejected("Tool arguments must be a JSON object.", param=param)
    return value


def _blocks(content: Any, where: str) -> list[Json]:
    """Content as blocks; empty texts, which Anthropic refuses, are left out."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    blocks = []
    for index, part in enumerate(content or []):
        block = _block(part, f"{where}.content[{index}]")
        if block.get("type") != "text" or (block.get("text") or "").strip():
            blocks.append(block)
    return blocks


def _block(part: Json, where: str) -> Json:
    kind = part.get("type")
    if kind == "image_url":
        return _kept(part) | {"type": "image", "source": _source(_dict(part.get("image_url")).get("url"), where)}
    if kind == "file":
        return _kept(part) | _document(_dict(part.get("file")), where)
    if kind == "refusal":
        return {"type": "text", "text": str(part.get("refusal") or "")}
    if kind == "input_audio":
        raise Unable("This provider takes no audio.", param=where)
    return part


def _kept(part: Json) -> Json:
    return {"cache_control": part["cache_control"]} if "cache_control" in part else {}


def _source(url: Any, where: str) -> Json:
    inline = _inline(url)
    if inline:
        return {"type": "base64", "media_type": inline[1], "data": inline[2]}
    if isinstance(url, str) and url.startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    raise Rejected("An image must be a base64 data: URL or an http(s) URL.", param=where)


def _inline(url: Any) -> re.Match[str] | None:
    return _DATA_URL.fullmatch(url) if isinstance(url, str) else None


def _document(file: Json, where: str) -> Json:
    inline = _inline(file.get("file_data"))
    if inline is None or inline[1] != "application/pdf":
        raise Rejected("A file must be a PDF given as a base64 data: URL.", param=where)
    document: Json = {"type": "document", "source": _source(inline[0], where)}
    return document | ({"title": file["filename"]} if file.get("filename") else {})


def _add_tools(body: Json, asked: Json) -> None:
    tools = [_tool(tool) for tool in asked.get("tools") or []]
    if not tools:
        return
    body["tools"] = tools
    choice = _tool_choice(asked.get("tool_choice"))
    if asked.get("parallel_tool_calls") is False and (choice or {}).get("type") != "none":
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    if choice is not None:
        body["tool_choice"] = choice


def _dict(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _tool(tool: Json) -> Json:
    """Functions are translated; Anthropic's own kinds pass through."""
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        return tool
    shaped: Json = {
        "name": function.get("name"),
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    if function.get("description"):
        shaped["description"] = function["description"]
    return shaped | _kept(tool) | _kept(function)


def _tool_choice(choice: Any) -> Json | None:
    if isinstance(choice, dict):
        name = _dict(choice.get("function")).get("name")
        return choice if name is None else {"type": "tool", "name": name}
    kind = {"auto": "auto", "none": "none", "required": "any"}.get(choice or "")
    return None if kind is None else {"type": kind}


def _add_format(body: Json, wanted: Any, system: list[Json]) -> bool:
    """Ask for JSON if the caller does; True when the answer comes as the input of ANSWER_TOOL."""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        system.append(
            {"type": "text", "text": "Answer with one JSON object and nothing else: no prose, no code fence."}
        )
    if kind != "json_schema":
        return False
    described = _dict(wanted.get("json_schema"))
    schema = _dict(described.get("schema")) or {"type": "object"}
    thinks = _dict(body.get("thinking")).get("type", "disabled") != "disabled"
    if "tools" in body or thinks or schema.get("type") != "object":
        text = msgspec.json.encode(schema).decode()
        told = f"Answer with JSON that this schema allows and nothing else: no prose, no code fence.\n{text}"
        system.append({"type": "text", "text": told})
        return False
    tool: Json = {"name": ANSWER_TOOL, "input_schema": schema}
    tool["description"] = described.get("description") or "Gives the answer. Always call this tool."
    body["tools"] = [tool]
    body["tool_choice"] = {"type": "tool", "name": ANSWER_TOOL}
    return True
