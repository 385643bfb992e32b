"""All programs that a bundle holds and answers with multiply in full float32."""

import pytest
from jax import export

from dsirm_jax.serving import verify
from dsirm_jax.serving.formats import stablehlo
from tests.devices.programs import compiled_by, float32_products, inexact
from tests.serving import tiny


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny.make(tmp_path_factory.mktemp("precision") / "bundle", whole=True)


@pytest.mark.slow
def test_what_is_compiled_to_answer_in_any_form_is_exact(bundle, tmp_path):
    def verified():
        assert all(each.agrees for each in verify.verify(bundle, pairs=3, batches=(2,)))

    text = compiled_by(verified, folder=tmp_path)
    assert len(float32_products(text)) > 50
    assert inexact(text) == []


def test_every_program_of_a_bundle_is_exact(bundle):
    files = sorted((bundle / "model").glob("*.stablehlo"))
    assert {file.stem for file in files} >= {stablehlo.SEARCH, stablehlo.SCORE, stablehlo.ENCODER}
    for file in files:
        text = export.deserialize(bytearray(file.read_bytes())).mlir_module()
        assert float32_products(text) and inexact(text) == [], file.name


def test_every_program_of_the_saved_model_is_exact(bundle):
    from jax.extend.mlir import ir
    from jax.extend.mlir.dialects import stablehlo as dialect
    from jax.interpreters import mlir
    from tensorflow.core.protobuf import saved_model_pb2

    (file,) = bundle.rglob("saved_model.pb")
    graph = saved_model_pb2.SavedModel.FromString(file.read_bytes()).meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    programs = {node.attr["module"].s for node in nodes if node.op == "XlaCallModule"}
    assert len(programs) == 3  # of the signatures
    for program in programs:
        with mlir.make_ir_context():
            text = str(dialect.deserialize_portable_artifact(ir.Context.current, program))
        assert float32_products(text) and inexact(text) == []
