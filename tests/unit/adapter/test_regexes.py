"""The automaton against Python's own re, on patterns and names where re ends."""

import re
import warnings
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_operator.adapter.backtracking import Backtracking
from lora_operator.adapter.regex_syntax import BrokenRegexError, EndlessRegexError, RegexError, UnknownRegexError
from lora_operator.adapter.regexes import Regex

ATOMS = st.sampled_from(
    [
        "a",
        "b",
        ".",
        r"\.",
        "q_proj",
        "[ab]",
        "[^a]",
        "[a-c_]",
        r"[\d.]",
        r"\d",
        r"\w",
        r"\W",
        r"\b",
        "^",
        "$",
        "1",
        "{",
        "-",
    ]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,2}", "{,2}", "{1,}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=6,
)
NAMES = st.text("ab.1_q{-", max_size=8) | st.sampled_from(["q_proj", "a.q_proj", "layers.1.q_proj"])


def by_re(pattern: str, name: str) -> bool | None:
    """Return what re says, None where it refuses the pattern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return re.fullmatch(pattern, name) is not None
        except re.error:
            return None


@given(PATTERNS, st.lists(NAMES, max_size=5))
def test_it_matches_what_re_matches(pattern: str, names: list[str]) -> None:
    try:
        regex = Regex(pattern)
    except EndlessRegexError:
        return
    except BrokenRegexError:
        assert by_re(pattern, "") is None
        return
    for name in names:
        assert regex.fullmatch(name) is by_re(pattern, name), (pattern, name)


@given(st.text(r"a.*+?()[]|{}^$\-1,:=!<Pb", max_size=9), st.lists(NAMES, max_size=3))
def test_any_text_is_a_regex_or_refused(pattern: str, names: list[str]) -> None:
    try:
        regex = Regex(pattern)
        found = [regex.fullmatch(name) for name in names]
    except RegexError:
        return
    assert found == [by_re(pattern, name) for name in names], pattern


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|v_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.q_proj)",
        r"^(?!.*vision).*\.(?:q|v)_proj$",
        r"(?=.*layers)(?!.*mlp)model\..*_proj",
        r"model\.layers\.(1[0-9]|2[0-3]|[89])\.(self_attn|mlp)\.\w+_proj",
    ],
)
def test_what_people_write_is_understood(pattern: str) -> None:
    names = [
        f"{stem}.{layer}.{module}"
        for stem in ("model.layers", "vision.layers", "language_model.layers")
        for layer in (0, 8, 23, 24)
        for module in ("self_attn.q_proj", "mlp.down_proj", "q_proj")
    ]
    regex = Regex(pattern)
    assert [regex.fullmatch(name) for name in names] == [by_re(pattern, name) for name in names]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "pattern",
    [
        "(((.*)*)*)*X$",
        "(a+)+$",
        "(a|a)*b",
        "(.|.)*!",
        "(a?){50}a{50}",
        ".*" * 9 + "X",
        "x" * 9000,
        "(a{100}){100}",
        "a{9999}",
        ".?" * 40 + "!",
        "(.|.)" * 40 + "!",
        "((.|.)(.|.)?){8}.*.*.*!",
    ],
)
def test_what_may_never_end_is_refused(pattern: str) -> None:
    with pytest.raises(EndlessRegexError):
        Regex(pattern)


@pytest.mark.parametrize("pattern", ["(q_proj", "q)", "*a", "a**", "[a", "a{3,2}", "\\", r"\k", "[b-a]", "^*"])
def test_what_re_refuses_is_broken(pattern: str) -> None:
    assert by_re(pattern, "") is None
    with pytest.raises(BrokenRegexError):
        Regex(pattern)


@pytest.mark.parametrize(
    "pattern",
    [r"(a)\1", "(?i)a", "a*(?=b)", "(?!a)b|c", "(?=a)*", "(?<=a)b", "a++", r"\x41", "(" * 60 + ")" * 60],
)
def test_what_is_not_understood_says_so(pattern: str) -> None:
    with pytest.raises(UnknownRegexError):
        Regex(pattern)


@pytest.mark.timeout(60)
def test_a_regex_made_to_be_slow_costs_no_more_than_its_bound() -> None:
    regex = Regex(".*a.{200}")
    names = ["".join("ab"[int(bit)] for bit in f"{3**number:0400b}"[:400]) for number in range(200, 400)]
    with pytest.raises(EndlessRegexError):
        deque(map(regex.fullmatch, names), maxlen=0)


AHEAD = st.sampled_from(
    [
        "(?=", "(?!", "(?!.*(lm_head|mlp))", "(?=.*proj)", "(model)", "model", "(lm|mo)", "(a|bc)", "^", "$", ".*", ")",
        "(", "|", "{2}", "[a-z]{5}", "*", "q_proj", "(?:", r"\.layers", r"\.", "(?P<a>", "mlp", "_head",
    ]
)  # fmt: skip
MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj", "lm_head", "model.norm", "model")


@given(st.lists(AHEAD, max_size=6).map("".join))
def test_what_looks_ahead_or_begins_a_name_is_told_as_by_re(pattern: str) -> None:
    try:
        regex = Regex(pattern)
    except BrokenRegexError:
        regex = None
    except RegexError:
        return
    assert (regex is None) is (by_re(pattern, "") is None)
    if regex is None:
        return
    assert [regex.fullmatch(name) for name in MODULES] == [by_re(pattern, name) for name in MODULES]
    assert [regex.match(name) for name in MODULES] == [re.match(pattern, name) is not None for name in MODULES]


def test_a_condition_after_a_beginning_of_one_length_is_understood() -> None:
    regex = Regex("^(model)(?!.*(lm_head|embed|norm)).*")
    assert [regex.fullmatch(name) for name in MODULES] == [True, True, False, False, True]


ONLY_RE = st.sampled_from(
    ["(?<=a)", "(?<!_)", r"(a)\1", "(?i)", "a++", "(?>a|ab)", "(?#x)", r"\x61", "(?(1)a|b)", ".*", "[^]|]", "?", "|"]
)


@given(st.lists(ONLY_RE | ATOMS, max_size=6).map("".join), st.lists(NAMES, max_size=3))
def test_what_only_re_understands_is_told_as_by_re_or_refused(pattern: str, names: list[str]) -> None:
    try:
        regex = Backtracking(pattern)
        found = [regex.fullmatch(name) for name in names]
    except BrokenRegexError:
        assert by_re(pattern, "") is None
    except RegexError:
        return
    else:
        assert found == [by_re(pattern, name) for name in names]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", [".*.*.*!", "(.|.)" * 20 + "!", ".?" * 24 + "!", "(a|b" + "|.." * 20 + "){,9}!"])
def test_what_re_may_take_long_for_is_run_on_some_names_only(pattern: str) -> None:
    with pytest.raises(RegexError):
        deque(map(Backtracking(f"(?<=)?{pattern}").fullmatch, [f"{number}{'ab' * 100}" for number in range(1000)]), 0)


def test_what_people_write_is_run_on_all_modules_of_the_largest_models() -> None:
    names = [f"model.layers.{layer}.self_attn.part_{number:02}.up_proj" for layer in range(126) for number in range(17)]
    regex = Backtracking(r".*(?<!vision_tower)\.layers\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)")
    assert all(map(regex.fullmatch, names))
