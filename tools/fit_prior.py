"""Fit the prior that ships in `headgate/cache/prior` to labelled questions, and write down what it is worth.

    pip install -e '.[fit]'
    python tools/fit_prior.py FOLDER        # writes into the source tree; --out DIR elsewhere

FOLDER holds JSON lines, plain or gzip: `*_pairs.jsonl[.gz]` of {a, b, same} and one `*_stream.jsonl[.gz]` of {t, tenant, text, answer}.
Of every file only the first half is read, so that the second half can tell what the prior is worth (`headgate eval`).

Three steps. Pairs alone are what the trees learn difficult cases from. Then the stream is gone through twice, as a gateway would: once
with a cache that serves nothing, once with one that serves what the trees of the first pass are sure of, so that they see the neighbours
that they will meet. Last, trees that have not seen a tenant judge that tenant's questions: from their errors comes the table of bars.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
from numpy.typing import NDArray

from headgate.cache.checks import Checks, Ration
from headgate.cache.embedders import MiniLM
from headgate.cache.evidence import FEATURES, SEEN, Evidence, Standing, gather, row
from headgate.cache.evidence import VERSION as EVIDENCE
from headgate.cache.guards.guards import VERSION as GUARDS
from headgate.cache.labels import Scope
from headgate.cache.prior import SHIPPED, Card, Served, Sight, write
from headgate.cache.reading import Reading
from headgate.cache.verdict import FAR, READ, standing
from headgate.evaluation.files import read_pairs, read_stream
from headgate.model.tenancy import Namespace

VERSION = "p1"
NEAREST = 8
SURE = 0.9
TREES = 250
RISING = frozenset("similarity opening covered covered_most worst shared contained margin kin kins".split())
FALLING = frozenset("lost lost_most rare rare_most figures negated".split())
WEIGHTS = {"qqp": 1.0, "swap": 0.5, "paws_qqp": 0.3, "mrpc": 0.5}
"""What a pair of each set counts; those of the stream count 2, for they are what traffic looks like. Others are not used."""
STREAM_WEIGHT = 2.0
ABOVE = np.round(np.concatenate([np.arange(0.7, 0.9, 0.01), np.arange(0.9, 0.999, 0.005)]), 4)
"""No bar is lower than the first: other traffic may have harder questions than this."""
SIGHTS = (0.74, 0.78, 0.82, 0.86, 0.9, 0.94, 1.01)
"""Similarities up to which pairs are taken together to say what a reader sees of them."""
BEST = 0.02
"""Share of pairs that look better than the best in one of the things that are seen; none did in all of them, by far."""

CROWDED = 0.85
"""The lowest bar among neighbours: in a cache with little in it every candidate stands out from them."""

Floats = NDArray[np.float32]
Judge = Callable[[Floats], Any]


class Sample(msgspec.Struct):
    """Rows of evidence, whether the pair is the same, what each counts, and which guards forbid it."""

    rows: Floats
    same: Floats
    weight: Floats
    vetoed: Floats

    @classmethod
    def of(cls, found: Sequence[tuple[Evidence, bool]], weight: float) -> Sample:
        return cls(
            np.array([row(evidence) for evidence, _ in found], np.float32),
            np.array([same for _, same in found], np.float32),
            np.full(len(found), weight, np.float32),
            np.array([evidence.veto is not None for evidence, _ in found], np.float32),
        )


class Asked(msgspec.Struct):
    """A question that was new when it was asked, its tenant, and the entries that were judged for it."""

    tenant: str
    judged: list[tuple[Evidence, bool]]


class Line(msgspec.Struct, frozen=True):
    """A request of the stream."""

    tenant: str
    text: str
    answer: str


class Shelf:
    """What one tenant has stored in the course of the stream."""

    def __init__(self, most: int) -> None:
        self.texts: dict[str, int] = {}
        self.answers: list[Any] = []
        self.families: list[str] = []
        self.vectors = np.zeros((most, 384), np.float32)

    def keep(self, reading: Reading, answer: Any, family: str | None) -> None:
        place = len(self.answers)
        self.texts[reading.text] = place
        self.vectors[place] = reading.vector
        self.answers.append(answer)
        self.families.append(family or str(place))


def replay(requests: Sequence[Line], readings: dict[str, Reading], rarity: Any, judge: Judge | None) -> list[Asked]:
    """Go through the stream with a cache that serves what `judge` is sure of, or nothing. A served question is not stored, unless
    the answer is checked, by the rules of a gateway."""
    shelves: dict[str, Shelf] = {}
    checks = Checks(Ration())
    found = []
    for number, request in enumerate(requests):
        shelf = shelves.setdefault(request.tenant, Shelf(len(requests)))
        scope = Scope(Namespace(request.tenant), b"")
        checks.asked(scope)
        if request.text in shelf.texts:
            continue
        asked, texts = readings[request.text], list(shelf.texts)
        cosines = shelf.vectors[: len(texts)] @ asked.vector
        places = [int(place) for place in np.argsort(-cosines)[:NEAREST]]
        near = [float(cosines[place]) for place in places]
        families = [shelf.families[place] for place in places]
        judged = [
            (
                gather(asked, readings[texts[place]], rarity, standing(rank, near, families)),
                bool(shelf.answers[place] == request.answer),
            )
            for rank, place in enumerate(places[:READ])
            if near[rank] >= FAR
        ]
        if judged:
            found.append(Asked(request.tenant, judged))
            said = confidences(judge, judged) if judge is not None else [0.0]
            best = int(np.argmax(said))
            if said[best] >= SURE:
                digest, entry = request.text.encode(), texts[places[best]]
                if checks.chosen(str(number), scope, digest, entry, confidence=said[best], bar=SURE) is None:
                    continue
        kin = next((families[rank] for rank, (_, same) in enumerate(judged) if same), None)
        shelf.keep(asked, request.answer, kin)
    return found


def confidences(judge: Judge, judged: Sequence[tuple[Evidence, bool]]) -> Sequence[float]:
    """The judge's word on each, 0 for what a guard forbids."""
    said = judge(np.array([row(evidence) for evidence, _ in judged], np.float32))
    return [0.0 if evidence.veto else float(one) for (evidence, _), one in zip(judged, said, strict=True)]


def fit(samples: Iterable[Sample]) -> lightgbm.Booster:
    """Trees on everything that no guard forbids."""
    parts = list(samples)
    rows, same, weight, vetoed = (
        np.concatenate([getattr(part, name) for part in parts]) for name in Sample.__struct_fields__
    )
    fair = vetoed == 0
    monotone = [1 if name in RISING else -1 if name in FALLING or name.startswith("guard:") else 0 for name in FEATURES]
    settings = {
        "objective": "binary", "num_leaves": 15, "learning_rate": 0.05, "min_data_in_leaf": 50, "feature_fraction": 0.5,
        "bagging_fraction": 0.7, "bagging_freq": 1, "monotone_constraints": monotone, "seed": 1, "num_threads": 2, "verbose": -1,
        "deterministic": True, "force_row_wise": True,
    }  # fmt: skip
    table = lightgbm.Dataset(rows[fair], same[fair], weight=weight[fair])
    return lightgbm.train(settings, table, num_boost_round=TREES)


def judged_by(trees: lightgbm.Booster) -> Judge:
    return lambda rows: trees.predict(rows, num_threads=1)


def worth(streams: Sequence[Asked], judges: dict[str, Judge], *, alone: bool) -> tuple[Served, ...]:
    """What serving the best candidate of each new question would have meant, by how sure a judge that never saw the tenant was; one who
    looks at each candidate `alone`, or among its neighbours."""
    best = []
    for asked in streams:
        judged = asked.judged
        if alone:
            judged = [(msgspec.structs.replace(evidence, standing=Standing()), same) for evidence, same in judged]
        said = confidences(judges[asked.tenant], judged)
        place = int(np.argmax(said))
        best.append((said[place], judged[place][1]))
    return tuple(
        Served(
            float(above),
            sum(1 for one, _ in best if one >= above),
            sum(1 for one, same in best if one >= above and not same),
        )
        for above in ABOVE
    )


def sights(samples: Iterable[Sample]) -> tuple[Sight, ...]:
    """What a reader sees of pairs, by their similarity."""
    rows = np.concatenate([sample.rows for sample in samples])
    columns = [FEATURES.index(name) for name in SEEN]
    best = [1.0 - BEST if name in RISING else BEST for name in SEEN]
    found, least = [], FAR
    for most in SIGHTS:
        seen = rows[(rows[:, 0] > least) & (rows[:, 0] <= most)][:, columns]
        usual = np.median(seen, axis=0).astype(float).round(4).tolist()
        at_best = [round(float(np.quantile(seen[:, at], share)), 4) for at, share in enumerate(best)]
        found.append(Sight(most, tuple(usual), tuple(at_best)))
        least = most
    return tuple(found)


def exported(trees: lightgbm.Booster) -> dict[str, Any]:
    """The trees as arrays, in the form that `Prior` reads."""
    table: dict[str, list[Any]] = {
        name: [] for name in ("feature", "threshold", "absent", "left", "right", "leaf", "root")
    }
    depth = 0

    def put(node: dict[str, Any], level: int) -> int:
        nonlocal depth
        if "leaf_value" in node:
            depth = max(depth, level)
            table["leaf"].append(node["leaf_value"])
            return -len(table["leaf"])
        place = len(table["feature"])
        table["feature"].append(node["split_feature"])
        table["threshold"].append(node["threshold"])
        table["absent"].append(node["default_left"] if node["missing_type"] == "NaN" else node["threshold"] >= 0.0)
        table["left"].append(0)
        table["right"].append(0)
        table["left"][place] = put(node["left_child"], level + 1)
        table["right"][place] = put(node["right_child"], level + 1)
        return place

    for tree in trees.dump_model()["tree_info"]:
        table["root"].append(put(tree["tree_structure"], 0))
    kinds = {"threshold": np.float32, "leaf": np.float32, "absent": np.bool_}
    arrays: dict[str, Any] = {name: np.array(column, kinds.get(name, np.int16)) for name, column in table.items()}
    return {**arrays, "depth": np.array(depth)}


async def read_all(texts: Iterable[str]) -> tuple[dict[str, Reading], Any]:
    """Every text's reading, and the reader's rarities."""
    reader = MiniLM.load(threads=2)
    readings: dict[str, Reading] = {}
    waiting = list(dict.fromkeys(texts))
    for start in range(0, len(waiting), 512):
        batch = waiting[start : start + 512]
        readings.update(zip(batch, await asyncio.gather(*map(reader.read, batch)), strict=True))
        print(f"\rreading {len(readings)} of {len(waiting)}", end="", file=sys.stderr)
    await reader.close()
    return readings, reader.rarity


def main() -> int:
    parser = argparse.ArgumentParser(description="Fit the prior that ships in the package.")
    parser.add_argument("folder", type=Path, help="the labelled questions")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder to write to (default: the source tree's)")
    arguments = parser.parse_args()
    (file,) = arguments.folder.glob("*_stream.jsonl*")
    stream = [Line(one.tenant, one.chat.question or "", one.answer.text) for one in read_stream(file)]
    requests, known = stream[: len(stream) // 2], {one.text for one in stream}
    samples = []
    for name, weight in WEIGHTS.items():
        (file,) = arguments.folder.glob(f"{name}_pairs.jsonl*")
        # A pair that the stream is made of would tell its answer beforehand.
        pairs = [one for one in read_pairs(file, "first") if not {one.a, one.b} <= known]
        readings, rarity = asyncio.run(read_all(text for one in pairs for text in (one.a, one.b)))
        found = [(gather(readings[one.a], readings[one.b], rarity), one.same) for one in pairs]
        samples.append(Sample.of(found, weight))
        print(f"\n{name}: {len(pairs)} pairs")
    readings, rarity = asyncio.run(read_all(one.text for one in requests))
    unserved = replay(requests, readings, rarity, None)
    first = fit([*samples, sampled(unserved)])
    served = replay(requests, readings, rarity, judged_by(first))
    trees = fit([*samples, sampled(unserved), sampled(served)])
    judges = {
        tenant: judged_by(fit([*samples, *(sampled(asked, but=tenant) for asked in (unserved, served))]))
        for tenant in {one.tenant for one in requests}
    }
    card = Card(
        version=VERSION,
        evidence=EVIDENCE,
        guards=GUARDS,
        features=FEATURES,
        served=tuple(one for one in worth(served, judges, alone=False) if one.above >= CROWDED),
        served_alone=worth(served, judges, alone=True),
        sha256="",
        sights=sights([*samples, sampled(unserved), sampled(served)]),
    )
    write(arguments.out, card, exported(trees))
    for one, alone in zip(card.served, card.served_alone[-len(card.served) :], strict=True):
        told = f"{one.answers} served, {one.wrong} wrong; alone {alone.answers} served, {alone.wrong} wrong"
        print(f"above {one.above:.3f}: {told}")
    return 0


def sampled(streams: Iterable[Asked], *, but: str | None = None) -> Sample:
    """All candidates of all tenants, but one."""
    return Sample.of([pair for asked in streams if asked.tenant != but for pair in asked.judged], STREAM_WEIGHT)


if __name__ == "__main__":
    sys.exit(main())
