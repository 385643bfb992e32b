"""Runs a SavedModel, as a process of its own: `python in_tensorflow.py DIR QUESTIONS ANSWERS`.

It imports TensorFlow, tensorflow-text and NumPy; JAX and this package might as well not be
installed: whatever a bundle's SavedModel needs, it brings along.
"""

import sys

import numpy as np

ABSENT = ("dsirm_jax", "flax", "jax", "jaxlib")


def main(folder: str, questions: str, answers: str) -> None:
    """Writes what the signatures answer.

    Args:
      folder: of the SavedModel.
      questions: `.npz` with `query` (UTF-8), `pieces` and the further inputs of `relevance`, all
        `[pair, ...]`, and `batches`, the batch sizes.
      answers: `.npz` to be written: for every batch size n `sids@n`, `log_probs@n`, `probability@n`
        and, where there is the signature, `vector@n`, all `[pair, ...]`.
    """
    # TensorFlow, too, imports them where it can. None bars an import, which typeshed leaves out.
    sys.modules |= dict.fromkeys(ABSENT)  # type: ignore[arg-type]
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  the graph has its operations

    signatures = tf.saved_model.load(folder).signatures
    with np.load(questions) as file:
        inputs = dict(file)
    batches = inputs.pop("batches")
    pairs = len(inputs["query"])
    arrays = {}
    for batch in batches:
        parts = []
        for start in range(0, pairs, batch):
            rows = np.arange(start, start + batch) % pairs  # all batches are of one size
            some = {name: tf.constant(values[rows]) for name, values in inputs.items()}
            outputs = {}
            for name in ("query_sids", "query_vector", "relevance"):
                if name in signatures:
                    _, wanted = signatures[name].structured_input_signature
                    outputs |= signatures[name](**{each: some[each] for each in wanted})
            parts.append(outputs)
        for name in parts[0]:
            arrays[f"{name}@{batch}"] = np.concatenate([part[name] for part in parts])[:pairs]
    # No output is called `allow_pickle`, the one name whose value is no array.
    np.savez(answers, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
