import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dsirm_jax.serving.card.markdown import escaped, quoted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("red shoe, size 10", "red shoe, size 10", id="plain"),
        pytest.param("a | b", "a \\| b", id="cell"),
        pytest.param("<img src=x>", "\\<img src=x\\>", id="HTML"),
        pytest.param("[a](http://b)", "\\[a\\](http\\://b)", id="link"),
        pytest.param("www.a.com", "www\\.a.com", id="address"),
        pytest.param("paper_match", "paper_match", id="within a word"),
        pytest.param("_a_ __b__ c__d", "\\_a\\_ \\_\\_b\\_\\_ c\\_\\_d", id="emphasis"),
        pytest.param("*a* `b` ~~c~~ $d$", "\\*a\\* \\`b\\` \\~\\~c\\~\\~ \\$d\\$", id="marks"),
        pytest.param("nDCG@10, @amy, a@b.c", "nDCG@10, \\@amy, a\\@b.c", id="mention"),
        pytest.param("a\n\n# b\r\n---\u2028c\0d\u202ee", "a \\# b --- c d e", id="lines"),
        pytest.param("\\", "\\\\", id="backslash"),
        pytest.param("&lt;", "\\&lt;", id="entity"),
        pytest.param("https://amy:hunter2@host/", "https\\://…\\@host/", id="secret"),
    ],
)
def test_a_text_is_only_ever_text(text, expected):
    assert escaped(text) == expected


def test_a_long_text_is_cut():
    assert len(escaped("a" * 5000)) == 1001


@given(st.text())
def test_any_text_is_one_line_that_yaml_reads_back(text):
    read = yaml.safe_load(f"- name: {quoted(text)}\n")
    assert isinstance(read[0]["name"], str)
    assert "\n" not in escaped(text) and len(escaped(text).splitlines()) <= 1
