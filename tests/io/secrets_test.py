"""No secret passes, in whatever URL it stands; what is none does."""

import dataclasses
import functools

import pytest

from dsirm_jax.io import secrets
from dsirm_jax.io.errors import InputError

SECRET = {
    "password": "postgres://user:hunter2@host/shop",
    "password-slash": "postgres://user:hunter/2hunter2@host/shop",
    "password-hash": "postgres://user:hunter#2hunter2@host/shop",
    "password-question": "postgres://user:hunter?2hunter2@host/shop",
    "password-at": "postgres://user:hunter@2hunter2@host/shop",
    "password-port": "postgres://user:12/hunter2@host/shop",
    "password-blank": "postgres://user:hunter 2hunter2@host/shop",
    "password-quote": "postgres://user:hunter'2hunter2@host/shop",
    "password-colons": "postgres://user:hunter::2hunter2@host/shop",
    "password-beside-a-reference": "postgres://user:${PASSWORD}hunter2@host/shop",
    "password-alone": "redis://:hunter2@host",
    "password-of-a-web-server": "https://amy:hunter2@host/items.csv",
    "token-as-user": "https://hunter2@host/items.csv",
    "token-with-empty-password": "https://hunter2:@host/items.csv",
    "keys-of-a-bucket": "s3://AKIA:hunter2@bucket/items.csv",
    "databricks": "databricks://token:hunter2@host",
    "password-setting": "postgres://host/shop?user=amy&password=hunter2",
    "sslpassword": "postgres://host/shop?sslpassword=hunter2",
    "encoded-name": "postgres://host/shop?%70assword=hunter2",
    "capitals": "postgres://host/shop?PassWord=hunter2",
    "sig": "https://host/items.csv?sv=1&sig=hunter2&se=3",
    "amz": "https://host/items.csv?X-Amz-Date=1&X-Amz-Signature=hunter2",
    "amz-credential": "https://host/items.csv?X-Amz-Credential=hunter2",
    "amz-token": "https://host/items.csv?X-Amz-Security-Token=hunter2",
    "goog": "https://host/items.csv?X-Goog-Signature=hunter2",
    "aws-key": "https://host/items.csv?AWSAccessKeyId=hunter2",
    "signature": "https://host/items.csv?Signature=hunter2",
    "access-key": "s3://bucket/items.csv?access_key=hunter2",
    "api-key": "https://host/items.csv?api-key=hunter2",
    "key": "https://host/items.csv?key=hunter2",
    "private-key": "snowflake://amy@account/shop?private_key=hunter2",
    "account-key": "az://box/items.csv?account_key=hunter2",
    "fragment": "https://host/items.csv#access_token=hunter2",
    "url-in-a-setting": "https://host/?next=https%3A%2F%2Famy%3Ahunter2%40host%2F",
    "chained": "simplecache::https://host/items.csv?sig=hunter2",
    "chained-twice": "zip://items.csv::simplecache::s3://AKIA:hunter2@bucket/items.zip",
    "spark-key": "pyspark://?spark.hadoop.fs.s3a.secret.key=hunter2",
    "spark-sas": "pyspark://?fs.azure.sas.box.account=hunter2",
    "jdbc": "jdbc:sqlserver://host;user=sa;password=hunter2",
    "motherduck": "md:shop?motherduck_token=hunter2",
    "libpq": "host=localhost user=amy password=hunter2",
    "libpq-blanks": "host = localhost password = hunter2",
    "odbc": "Server=host;User ID=sa;Password=hunter2",
    "ado": "Data Source=host;User ID=sa;PWD={hunter2;hunter2}",
    "azure": "DefaultEndpointsProtocol=https;AccountName=amy;AccountKey=hunter2==",
    "shared-access": "SharedAccessSignature=hunter2",
    "flag": "--s3_secret_access_key=hunter2",
    "url-in-a-statement": "SELECT * FROM read_csv('https://host/items.csv?sig=hunter2')",
    "settings-in-a-statement": "SELECT * FROM postgres_scan('host=h password=hunter2', 's', 'a')",
}
PUBLIC = {
    "reference": "postgres://user:${PASSWORD}@host/shop",
    "references": "postgres://${NAME}:${PASSWORD}@host/shop",
    "whole": "${DATABASE}",
    "user": "postgres://user@host/shop",
    "file": "duckdb:///shops/shop.ddb?access_mode=read_only",
    "port": "trino://host:8080/shop?user=amy@host.com",
    "port-and-at": "https://host:9000/bucket/items@2.csv",
    "address": "http://[::1]:8080/items@2.csv",
    "wildcard": "gs://bucket/part-?.csv",
    "at": "s3://bucket/items@2.csv",
    "container": "abfs://box@account.dfs.core.windows.net/items.csv",
    "signed": "https://host/items.csv?sig=${SIG}",
    "page": "https://host/items.csv?page=2",
    "chained": "simplecache::https://amy:${PASSWORD}@host/items.csv",
    "zipped": "zip://items.csv::https://amy:${PASSWORD}@host/items.zip",
    "column": "SELECT query, token FROM log WHERE token = 'hunter2' AND key=5",
    "column-beside-a-url": "SELECT url FROM log WHERE url = 'https://host/' AND token='hunter2'",
    "files-of-keys": "postgres://host/shop?sslkey=my.key&password_file=mine",
    "table": "items",
    "title": "Shoes: 3 for 2? key=none",
}


@pytest.mark.parametrize("text", SECRET.values(), ids=SECRET)
def test_secrets_are_refused_and_masked(text):
    with pytest.raises(InputError, match="^gin binding URL .*") as error:
        secrets.check_public("gin binding URL", text)
    for shown in (
        str(error.value),
        secrets.masked(text),
        secrets.masked(f"--gin.URL='{text}'"),
        secrets.masked(f"it failed: {text}") if " " not in text.split("SELECT")[0] else "",
        secrets.public_url(text) if "://" in text and "SELECT" not in text else "",
    ):
        assert "hunter2" not in shown and "\n" not in shown


@pytest.mark.parametrize("text", PUBLIC.values(), ids=PUBLIC)
def test_what_is_no_secret_passes(text):
    secrets.check_public("gin binding URL", text)


def test_references_stay_where_texts_are_masked():
    for text in ("https://host/a.csv?sig=${SIG}&page=2", "https://${NAME}:${PASSWORD}@host/a.csv"):
        assert secrets.masked(text) == text
    assert secrets.masked("see https://a:b@host/x?token=c&d=1 now") == (
        "see https://…@host/x?token=…&d=1 now"
    )
    assert (
        secrets.masked("""{"password": "b c", 'token': 'd'}""") == """{"password": …, 'token': …}"""
    )
    assert secrets.masked("Authorization: Bearer abcdefgh") == "Authorization: Bearer …"


@dataclasses.dataclass(frozen=True)
class Bound:
    files: tuple
    columns: dict


@pytest.mark.parametrize(
    "value",
    [
        "https://host/a.csv?sig=hunter2",
        ["a.csv", ("https://host/a.csv?sig=hunter2",)],
        {"a": {"https://host/a.csv?sig=hunter2": 1}},
        Bound(files=("https://host/a.csv?sig=hunter2",), columns={}),
        [Bound(files=(), columns={"a": "https://host/a.csv?sig=hunter2"})],
        functools.partial(print, "https://host/a.csv?sig=hunter2"),
        functools.partial(print, end="https://host/a.csv?sig=hunter2"),
    ],
    ids=["text", "nested", "key", "dataclass", "deep", "partial", "keyword"],
)
def test_a_secret_is_found_in_any_value(value):
    with pytest.raises(InputError, match=r"^gin binding a\.b[\w.]* holds") as error:
        secrets.check_texts(value, binding="gin binding a.b")
    assert "hunter2" not in str(error.value)


def test_values_without_a_secret_pass():
    secrets.check_texts(
        [1, None, 2.0, Bound, Bound(files=("a.csv",), columns={"token": "string"}), print],
        binding="gin binding a.b",
    )


def test_the_environment_takes_the_place_of_references(monkeypatch):
    monkeypatch.setenv("SIG", "a%2Fb")
    url = "https://host/a.csv?sig=${SIG}&price=$5"
    assert secrets.resolved(url, binding="it") == "https://host/a.csv?sig=a%2Fb&price=$5"
    assert secrets.referring("https://host/b.csv?sig=a%2Fb", like=url) == (
        "https://host/b.csv?sig=${SIG}"
    )
    with pytest.raises(InputError, match="^it: the environment variable NONE is not set$"):
        secrets.resolved("s3://${NONE}", binding="it")


@pytest.mark.parametrize(
    ("url", "values"),
    [
        ("postgres://amy:${SECRET}@host/shop", {"SECRET": "hunter%2F2 ü"}),
        ("${SECRET}", {"SECRET": "postgres://amy:hunter%2F2%20%C3%BC@host/shop"}),
        ("postgres://host/shop?password=${SECRET}", {"SECRET": "hunter/2 ü"}),
        ("postgres://host/shop?option=hunter%2F2%20%C3%BC", {}),
    ],
    ids=["password", "whole", "setting", "of no known name"],
)
def test_what_engines_say_is_shown_without_secrets_in_any_form(monkeypatch, url, values):
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    for said in ("hunter%2F2%20%C3%BC", "hunter/2 ü", "hunter/2%20%C3%BC", "hunter%2F2+%C3%BC"):
        shown = secrets.erased(f"no {said} here", url)
        assert shown == "no … here"
