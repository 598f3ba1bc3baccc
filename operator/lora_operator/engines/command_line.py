"""The words that a container's process starts with: command and args, `$(VAR)` put in, shells looked into.

Pure. What only a running pod could tell (a script's file, an environment from elsewhere) keeps its `$` or is refused.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

Object = dict[str, Any]

SHELLS: Final = frozenset({"sh", "bash", "dash", "ash", "zsh"})
_KUBERNETES: Final = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
_SHELL: Final = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_SUBSTITUTION: Final = re.compile(r"\$\([^()]*\)|`[^`]*`")
_CONTROL: Final = ";&|<>\n"


class UnreadableError(Exception):
    """The words can't be told from the pod template; the text says why."""


def commands(container: Object) -> list[list[str]]:
    """Return the commands that a container runs: one, or those of the script that a shell is given."""
    env = literal_env(container)
    words = [_expand(word, env) for word in [*container.get("command", []), *container.get("args", [])]]
    script = _script(words)
    return [words] if script is None else _simple_commands(script, env)


def literal_env(container: Object) -> dict[str, str]:
    """Return the variables whose value stands in the pod template, with references to earlier ones put in."""
    env: dict[str, str] = {}
    for entry in container.get("env", []):
        if "valueFrom" not in entry:
            env[entry["name"]] = _expand(entry.get("value", ""), env)
    return env


def base_name(word: str) -> str:
    """Return the last part of a path."""
    return word.rsplit("/", 1)[-1]


def _expand(text: str, env: Mapping[str, str]) -> str:
    return _KUBERNETES.sub(lambda match: "$" if match[0] == "$$" else env.get(match[1], match[0]), text)


def _script(words: Sequence[str]) -> str | None:
    """Return what a shell among the words is to run; None where there is no shell."""
    for index, word in enumerate(words):
        if base_name(word) not in SHELLS:
            continue
        for offset, option in enumerate(words[index + 1 :], start=index + 1):
            if not option.startswith("-"):
                raise UnreadableError(f"it starts with the script file {option}")
            if option.endswith("c") and not option.startswith("--") and offset + 1 < len(words):
                return words[offset + 1]
        raise UnreadableError(f"it starts with {word} and no -c")
    return None


def _simple_commands(script: str, env: Mapping[str, str]) -> list[list[str]]:
    text = _SUBSTITUTION.sub("$?", script.replace("\\\n", " "))
    text = _SHELL.sub(lambda match: env.get(match[1] or match[2], match[0]), text)
    lexer = shlex.shlex(text, posix=True, punctuation_chars=_CONTROL)
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    found: list[list[str]] = [[]]
    try:
        for token in lexer:
            if token and set(token) <= set(_CONTROL):
                found.append([])
            else:
                found[-1].append(token)
    except ValueError as error:
        raise UnreadableError(f"its shell script can't be parsed ({error})") from error
    return [words for words in found if words]
