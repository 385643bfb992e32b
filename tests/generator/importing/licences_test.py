import pytest

from dsirm_jax.generator.importing.licences import found_licences, licence_files, stated_licence


def test_files_are_known_by_their_names(tmp_path):
    kept = ("LICENSE", "LICENCE.md", "NOTICE.md", "COPYING", "GEMMA_TERMS.html", "USE_POLICY.md")
    for name in (*kept, "README.md", "config.json", "licensing.py.bak~"):
        (tmp_path / name).write_text("x")
    assert {path.name for path in licence_files(tmp_path)} == {*kept}


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: gemma\nlicense_link: https://a/b\n---\n", "says gemma, https://a/b"),
        ('---\nlicense: "mit"\n---\n', "README.md says mit"),
        ("license: mit\n", "no licence text found"),
        ("---\nlicense: mit\n", "no licence text found"),
        ("---\nlanguage: en\n---\nlicense: mit\n", "no licence text found"),
    ],
    ids=["with a link", "quoted", "no head", "a head without end", "behind the head"],
)
def test_the_head_of_a_model_card_is_read(card, expected, tmp_path):
    (tmp_path / "README.md").write_text(card)
    assert expected in found_licences(tmp_path, stated={})


def test_a_page_is_told_by_its_first_words(tmp_path):
    (tmp_path / "TERMS.html").write_text("<html>\n<head><title>Terms  of Use</title></head>")
    found = found_licences(tmp_path, stated={"model.gguf": "gemma"})
    assert found == "TERMS.html (Terms of Use); model.gguf says gemma"


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        pytest.param("---\nlicense: 'Apache-2.0'\n---\n", "apache-2.0", id="named"),
        pytest.param("---\nlicense: ask us first\n---\n", None, id="a sentence"),
        pytest.param("---\nlanguage: en\n---\n", None, id="none"),
        pytest.param("license: mit\n", None, id="no head"),
    ],
)
def test_a_licence_is_stated_by_its_name(card, expected, tmp_path):
    assert stated_licence(tmp_path) is None
    (tmp_path / "README.md").write_text(card)
    assert stated_licence(tmp_path) == expected
