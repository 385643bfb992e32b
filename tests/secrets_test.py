"""No secret reaches a file, the log, an output or a message, wherever its URL stands."""

import logging

import fsspec
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dsirm_jax import cli
from dsirm_jax.io import storage
from tests.bad_input_test import item_lines, judgement_lines

URLS = {
    "password": "https://amy:hunter2%2Fx@127.0.0.1:9/a.csv",
    "token": "https://hunter2@127.0.0.1:9/a.parquet",
    "signed": "https://127.0.0.1:9/a.csv?sv=1&sig=hunter2%2Fx",
    "amz": "s3://box/a.csv?X-Amz-Signature=hunter2",
    "chained": "simplecache::https://127.0.0.1:9/*.csv?token=hunter2",
    "database": "postgres://amy:hunter2/x@127.0.0.1:9/shop",
    "setting": "duckdb://shop.ddb?motherduck_token=hunter2",
}
BOUND = {
    "items": ("tables", "ITEMS"),
    "judgements": ("tables", "JUDGEMENTS"),
    "several": ("tables", "ITEMS"),
    "esci": ("esci", "DATA_DIR"),
    "wands": ("wands", "DATA_DIR"),
    "url": ("database", "URL"),
    "statement": ("database", "ITEMS"),
    "engine": ("tables", "prepare.run.engine"),
    "vocabulary": ("tables", "prepare.run.vocabulary"),
    "beam": ("tables", "prepare.run.beam_options"),
    "start": ("tables", "generate.run.start"),
    "previous": ("tables", "job.Job.previous"),
    "title": ("tables", "report.run.title"),
    "scoped": ("tables", "unsupervised/generate.run.start"),
}
SHAPES = {
    "several": "('items.csv', '{}')",
    "statement": "\"SELECT * FROM read_csv('{}')\"",
    "beam": "('--input={}',)",
}


@pytest.fixture
def told(tmp_path, monkeypatch, capfd, caplog):
    """Returns all that a command wrote, printed and logged."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)

    def told():
        printed = capfd.readouterr()
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        names = " ".join(map(str, tmp_path.rglob("*")))
        parquet = [str(pq.read_table(path).to_pydict()) for path in files if "parquet" in path.name]
        contents = [path.read_bytes().decode("latin1") for path in files]
        return "\n".join([printed.out, printed.err, caplog.text, names, *parquet, *contents])

    return told


def dsirm(name, *flags, of="tables"):
    required = {"ITEMS": "'items.csv'", "JUDGEMENTS": "'judgements.csv'", "MODEL_DIR": "'run'"}
    required |= {"URL": "'duckdb://shop.ddb'"} if of == "database" else {}
    if of in ("esci", "wands"):
        required = {"MODEL_DIR": "'run'", "DATA_DIR": "'data'"}
    given = [f"--gin.{key}={value}" for key, value in required.items()]
    return cli.main([name, f"--gin_file=gin/runs/{of}.gin", *given, *flags])


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
@pytest.mark.parametrize("place", BOUND)
def test_a_bound_url_with_a_secret_is_refused_before_anything_is_written(place, url, told):
    of, binding = BOUND[place]
    value = SHAPES.get(place, "'{}'").format(url)
    assert dsirm("prepare", f"--gin.{binding}={value}", of=of) == 2
    everything = told()
    assert "hunter2" not in everything
    assert f"dsirm: gin binding {binding} holds a password, token or signature" in everything
    assert "write ${NAME} in its place" in everything
    assert "config.gin" not in everything


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_a_gin_file_with_a_secret_is_refused_likewise(url, told, tmp_path_factory):
    file = tmp_path_factory.mktemp("gin") / "own.gin"
    file.write_text(
        "from __gin__ import dynamic_registration\n"
        "from dsirm_jax.data import vectors\n"
        "from dsirm_jax.stages import encode\n"
        f"include 'gin/runs/tables.gin'\n"
        "encode.run.encoder = @vectors.VectorFiles()\n"
        f"vectors.VectorFiles.pattern = {url[:9]!r} {url[9:]!r}\n"
    )
    assert dsirm("encode", f"--gin_file={file}") == 2
    everything = told()
    assert "hunter2" not in everything
    assert "dsirm: gin binding vectors.VectorFiles.pattern holds a password" in everything
    assert "config.gin" not in everything


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
@pytest.mark.parametrize(
    "arguments",
    [
        ("score", "--pairs={}"),
        ("predict-sids", "--queries={}"),
        ("update-bundle", "--items={}", "none"),
        ("update-bundle", "--remove={}", "none"),
        ("update-bundle", "--queries={}", "none"),
        ("prepare", "--gin.URL={}"),
        ("prepare", "--gin.ITEMS={}"),
        ("prepare", "--gin_file={}"),
        ("prepare", "{}"),
        ("{}",),
        ("prepare", "--no_such_flag={}"),
    ],
    ids=["score", "predict-sids", "items", "removed", "queries", "macro", "text", "file", *"abc"],
)
def test_a_url_of_the_command_line_is_not_shown(arguments, url, told):
    command, *flags = (argument.format(url) for argument in arguments)
    code = cli.main([command, *flags]) if "none" in flags else dsirm(command, *flags)
    assert code == 2
    everything = told()
    assert "hunter2" not in everything
    assert "config.gin" not in everything


class Signed(MemoryFileSystem):
    """A web server whose files have to be asked for with a signature, and that says too much."""

    protocol = ("https",)
    store = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("https://").lstrip("/")

    def unstrip_protocol(self, name):
        return "https://" + name.lstrip("/")

    def _checked(self, path):
        plain, _, settings = path.partition("?")
        if settings not in ("sig=hunter2%2Fx", "sig=hunter2%2Fz"):
            raise PermissionError(f"403, url='https:/{path}'")
        return plain

    def info(self, path, **options):
        found = super().info(self._checked(path), **options)
        return found | {"name": path, "url": f"https:/{path}", "ETag": "v1"}

    def _open(self, path, mode="rb", **options):
        return super()._open(self._checked(path) if "r" in mode else path, mode, **options)


@pytest.fixture
def server():
    before = fsspec.registry.get("https")
    fsspec.register_implementation("https", Signed, clobber=True)
    Signed.store.clear()
    for name, lines in (("items", [*item_lines(), ",nameless"]), ("judgements", judgement_lines())):
        Signed().pipe_file(f"/host/{name}.csv", "\n".join(lines).encode())
    yield
    Signed.store.clear()
    if before is not None:
        fsspec.register_implementation("https", before, clobber=True)


SIGNED = (
    "--gin.ITEMS='https://host/items.csv?sig=${SIG}'",
    "--gin.JUDGEMENTS='https://host/judgements.csv?sig=${SIG}'",
    "--gin.prepare.run.vocabulary_size=600",
    "--gin.prepare.run.workers=1",
)


def test_a_signature_of_the_environment_opens_files_and_is_not_written(server, told, monkeypatch):
    monkeypatch.setenv("SIG", "hunter2%2Fx")
    assert dsirm("prepare", *SIGNED) == 0
    rejected = pq.read_table("run/prepare/rejected.parquet").to_pylist()
    assert [row["file"] for row in rejected] == ["https://host/items.csv?sig=${SIG}"]
    everything = told()
    assert "hunter2" not in everything
    assert "https://host/items.csv?sig=${SIG}" in everything


@pytest.mark.parametrize("value", ["hunter2/y", None], ids=["wrong", "not set"])
def test_what_a_store_says_is_shown_without_the_signature(server, told, monkeypatch, value):
    if value:
        monkeypatch.setenv("SIG", value)
    else:
        monkeypatch.delenv("SIG", raising=False)
    assert dsirm("prepare", *SIGNED) == 2
    everything = told()
    assert "hunter2" not in everything
    said = "cannot be reached: 403" if value else "the environment variable SIG is not set"
    assert f"https://host/items.csv?sig=${{SIG}}: {said}" in everything


def test_a_renewed_signature_is_the_same_file(server, monkeypatch):
    seen = []
    for value in ("hunter2%2Fx", "hunter2%2Fz"):
        monkeypatch.setenv("SIG", value)
        seen.append(storage.version("https://host/items.csv?sig=${SIG}"))
    assert seen[0] == seen[1]
    assert seen[0][1]["ETag"] == "v1"
    assert "hunter2" not in str(seen)
