"""Made-up records of runs, with plausible figures: what a page is made of."""

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from avsnn.pipeline.evaluation.answers import Answer
from avsnn.pipeline.evaluation.calibration import calibrate
from avsnn.pipeline.evaluation.examples import Example, Examples
from avsnn.pipeline.evaluation.insight.record import (
    AttentionMap,
    Contribution,
    EmbeddedClip,
    Embedding,
    Energy,
    Insight,
    LayerEnergy,
    LayerFan,
    LayerRate,
    NeuroBench,
    Raster,
    StepAccuracy,
)
from avsnn.pipeline.evaluation.intervals import Share
from avsnn.pipeline.evaluation.measures import ClassReport, Evaluation, Majority
from avsnn.pipeline.evaluation.results import RunResults
from avsnn.pipeline.evaluation.robustness.record import (
    MissingModality,
    NoiseCurve,
    NoisePoint,
    Robustness,
    SwappedModality,
)
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.formats.prepared_json import Prepared
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.runs.train_settings import TrainSettings

CLASSES = [
    f"{form}-{pitch}" for form in ("cross", "triangle", "ring") for pitch in ("rising", "falling")
]
CLIPS = 120

STREAM = ["stages.0", "stages.1", "stages.2", "stages.3", "position"]
ATTENTION = [
    f"{kind}.{layer}"
    for kind in ("spatial", "temporal")
    for layer in ("query.lif", "key.lif", "value.lif", "lif", "projection.lif")
]


def layer_names(method: str) -> list[str]:
    """Return the names of the spiking layers of a method."""
    lanes = [method] if method in ("audio", "visual") else ["audio", "visual"]
    if len(lanes) == 1:
        inner = ["query.lif", "key.lif", "value.lif", "lif", "projection.lif"]
        return [
            *(f"patch.{name}.lif" for name in STREAM),
            *(f"attention.{name}" for name in inner),
            *("mlp.expand.lif", "mlp.contract.lif"),
        ]
    names = [f"{lane}_patch.{name}.lif" for lane in lanes for name in STREAM]
    if method == "s-cmrl":
        names += [f"fusion.{lane}.{name}" for lane in lanes for name in ATTENTION]
        names += [f"fusion.{lane}_alignment.lif" for lane in lanes]
    if method == "cmci":
        names += ["fusion.lif", "fusion.mlp.expand.lif", "fusion.mlp.contract.lif"]
    return names + [f"{lane}_mlp.{name}.lif" for lane in lanes for name in ("expand", "contract")]


def results(
    name: str = "s-cmrl",
    *,
    method: str = "s-cmrl",
    seed: int = 42,
    accuracy: float = 0.9,
    classes: Sequence[str] = CLASSES,
    clips: int = CLIPS,
    detailed: bool = True,
    caveats: Sequence[str] = (),
    damage: str = "",
    epochs: int = 20,
) -> RunResults:
    """Return everything that was measured on a made-up run.

    Args:
        name: name of the run folder.
        method: name of the fusion method.
        seed: seed of the training, and of the made-up figures.
        accuracy: top-1 accuracy that the answers are drawn for.
        classes: names of the classes.
        clips: number of clips.
        detailed: whether robustness and insight were measured.
        caveats: the caveats of the evaluation.
        damage: what is wrong with ``metrics.jsonl``.
        epochs: number of finished epochs.
    """
    rng = np.random.default_rng([seed, len(name), *name.encode()])
    truth = np.arange(clips) % len(classes)
    wrong = (truth + rng.integers(1, max(2, len(classes)), clips)) % len(classes)
    answers = np.where(rng.random(clips) < accuracy, truth, wrong)
    confidence = np.where(answers == truth, rng.beta(6, 2, clips), rng.beta(3, 3, clips))
    said = [
        Answer(f"clip-{n:04}", f"g{n % 12}", classes[t], classes[a], float(c), float(c))
        for n, (t, a, c) in enumerate(zip(truth, answers, confidence, strict=True))
    ]
    config = _config(method, seed, epochs)
    return RunResults(
        folder=Path("runs") / name,
        config=config,
        evaluation=_evaluation(name, config, truth, answers, confidence, classes, caveats),
        answers=said,
        examples=_examples(said, rng),
        robustness=_robustness(method, float((truth == answers).mean()), 1 / len(classes), rng)
        if detailed
        else None,
        insight=_insight(method, said, rng) if detailed else None,
        metrics=_metrics(method, epochs, rng),
        damage=damage,
    )


def _config(method: str, seed: int, epochs: int) -> RunConfig:
    settings = TrainSettings.model_validate(
        {"model": {"method": method, "channels": 32}, "seed": seed, "epochs": epochs}
    )
    prepared = Prepared(
        dataset="demo",
        settings=PrepareSettings(),
        fingerprint="d709a576",
        shards="shards/a",
        frames="cache/f.zarr",
        audio="cache/a.zarr",
        index="index/i",
        clips=540,
        failed=0,
        bytes=185_207_465,
    )
    return RunConfig(
        fingerprint="075f49ed",
        dataset="demo",
        root=Path("/data"),
        data=prepared,
        settings=settings,
        made_with={"command": "avsnn train demo --set model.channels=32", "torch": "2.13.0"},
    )


def _evaluation(
    name: str,
    config: RunConfig,
    truth: Any,
    answers: Any,
    confidence: Any,
    classes: Sequence[str],
    caveats: Sequence[str],
) -> Evaluation:
    labels = list(range(len(classes)))
    columns: Any = precision_recall_fscore_support(truth, answers, labels=labels, zero_division=0)
    top1 = float((truth == answers).mean())
    counts = np.bincount(truth, minlength=len(classes))
    return Evaluation(
        fingerprint="f",
        run=name,
        dataset="demo",
        method=config.settings.model.method,
        seed=config.settings.seed,
        split="random",
        part="test",
        epoch=20,
        selection="val",
        clips=len(truth),
        loss=0.3,
        top1=top1,
        top1_interval=_share(top1, len(truth)),
        top5=min(1.0, top1 + 0.05) if len(classes) > 5 else None,
        top5_interval=_share(min(1.0, top1 + 0.05), len(truth)) if len(classes) > 5 else None,
        resampled="groups",
        resampled_units=12,
        chance=1 / len(classes),
        majority=Majority(
            name=classes[int(counts.argmax())], share=float(counts.max() / len(truth))
        ),
        calibration=calibrate(confidence, truth == answers),
        classes=[
            ClassReport(name=c, precision=p, recall=r, f1=f, clips=n)
            for c, p, r, f, n in zip(classes, *columns, strict=True)
        ],
        confusion=confusion_matrix(truth, answers, labels=labels).tolist(),
        caveats=list(caveats),
        clips_sha256="0",
    )


def _share(value: float, clips: int = CLIPS) -> Share:
    half = 1.96 * (max(value * (1 - value), 0.005) / clips) ** 0.5
    return Share(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


def _png(image: Any) -> str:
    return b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()


def _examples(said: Sequence[Answer], rng: np.random.Generator) -> Examples:
    def example(answer: Answer) -> Example:
        frame = np.full((64, 64, 3), rng.integers(40, 90), np.uint8)
        centre = tuple(int(x) for x in rng.integers(20, 44, 2))
        cv2.circle(frame, centre, 12, tuple(int(x) for x in rng.integers(90, 255, 3)), -1)
        sound = np.zeros((64, 64), np.uint8)
        cv2.line(sound, (0, int(rng.integers(10, 54))), (63, int(rng.integers(10, 54))), 255, 3)
        sound = cv2.applyColorMap(cv2.GaussianBlur(sound, (5, 5), 0), cv2.COLORMAP_MAGMA)
        return Example(
            key=answer.key,
            truth=answer.truth,
            answer=answer.answer,
            confidence=answer.confidence,
            frame=_png(frame),
            spectrogram=_png(sound),
        )

    by_confidence = sorted(said, key=lambda one: -one.confidence)
    mistakes = [one for one in by_confidence if not one.is_right][:8]
    right = {one.truth: one for one in reversed(by_confidence) if one.is_right}
    return Examples(
        fingerprint="f",
        mistakes=[example(one) for one in mistakes],
        right=[example(one) for one in list(right.values())[:4]],
    )


def _robustness(method: str, clean: float, chance: float, rng: np.random.Generator) -> Robustness:
    def curve(target: str, knee: float) -> NoiseCurve:
        levels = [None, 30.0, 25.0, 20.0, 15.0, 10.0, 5.0, 0.0]
        points = []
        for snr in levels:
            kept = 1.0 if snr is None else 1 / (1 + np.exp(-(snr - knee) / 4))
            value = float(np.clip(chance + (clean - chance) * kept + rng.normal(0, 0.01), 0, 1))
            points.append(NoisePoint(snr=snr, top1=_share(value)))
        return NoiseCurve(target=target, points=points)  # type: ignore[arg-type]

    lanes = [method] if method in ("audio", "visual") else ["audio", "visual", "both"]
    both = len(lanes) == 3
    missing = [
        MissingModality(missing=m, filling=f, top1=_share(float(rng.uniform(0.3, 0.6))))  # type: ignore[arg-type]
        for m, f in (
            ("audio", "zeros"),
            ("audio", "silence"),
            ("visual", "zeros"),
            ("visual", "grey"),
        )
    ]
    return Robustness(
        fingerprint="f",
        part="test",
        clips=CLIPS,
        trained_with_noise=10.0 if method == "add" else None,
        prepared_with_noise=20.0 if method == "add" else None,
        audio_noise="waveform",
        curves=[curve(lane, 6 + 5 * n) for n, lane in enumerate(lanes)],
        missing=missing if both else [],
        swapped=SwappedModality(
            clips=CLIPS,
            follows_audio=_share(0.34),
            follows_visual=_share(0.45),
            follows_neither=_share(0.21),
        )
        if both
        else None,
    )


def _insight(method: str, said: Sequence[Answer], rng: np.random.Generator) -> Insight:
    names = layer_names(method)
    rates = {name: 0.0 if ".temporal.lif" in name else float(rng.beta(2, 25)) for name in names}
    centres = {name: rng.normal(0, 12, 2) for name in {one.truth for one in said}}
    places = [centres[one.answer if one.answer in centres else one.truth] for one in said]
    grids = [rng.dirichlet(np.full(16, 0.4)).reshape(4, 4).tolist() for _ in range(4)]
    wrong = [one for one in said if not one.is_right]
    looked = sorted(wrong, key=lambda one: -one.confidence)[:2]
    return Insight(
        fingerprint="f",
        part="test",
        clips=CLIPS,
        rates=[LayerRate(layer=name, rate=rate) for name, rate in rates.items()],
        energy=_energy(rates, rng),
        neurobench=NeuroBench(
            Footprint=731_222.0,
            ParameterCount=181_350,
            ConnectionSparsity=0.0,
            ActivationSparsity=0.93,
            SynapticOperations={
                "Effective_MACs": 1_204_224.0,
                "Effective_ACs": 3_611_091.4,
                "Dense": 52_101_120.0,
            },
        ),
        fan_limit=4096,
        fans=[
            LayerFan(layer=name, fan_in=n * 96, fan_out=n * 144, fits=n * 144 <= 4096)
            for n, name in enumerate(names, start=1)
        ],
        steps=[StepAccuracy(steps=t, top1=_share(0.2 + 0.7 * (1 - 0.5**t))) for t in range(1, 5)],
        contribution=None
        if method in ("audio", "visual")
        else Contribution(neither=0.17, audio=0.33, visual=0.4),
        embedding=Embedding(
            method="t-SNE",
            clips=[
                EmbeddedClip(
                    key=one.key,
                    truth=one.truth,
                    answer=one.answer,
                    x=float(place[0] + rng.normal(0, 2)),
                    y=float(place[1] + rng.normal(0, 2)),
                )
                for one, place in zip(said, places, strict=True)
            ],
        ),
        attention=[
            AttentionMap(
                key=one.key, truth=one.truth, answer=one.answer, frame=grids[n], spectrogram=grid
            )
            for n, one in enumerate(looked)
            for grid in [grids[n + 2] if n else [[0.0] * 4 for _ in range(4)]]
        ]
        if method == "s-cmrl"
        else [],
        rasters=_rasters(names, said[0].key, rng),
    )


def _energy(rates: dict[str, float], rng: np.random.Generator) -> Energy:
    layers = []
    for number, name in enumerate(rates):
        dense = float(rng.integers(1, 40) * 100_000)
        first = number == 0
        layers.append(
            LayerEnergy(
                layer=name.removesuffix(".lif"),
                kind="product" if name.endswith("l.lif") else "convolution",
                dense=dense,
                ann_macs=dense / 4,
                macs=dense if first else 0,
                acs=0 if first else dense * rates[name],
            )
        )
    energy = sum(4.6 * layer.macs + 0.9 * layer.acs for layer in layers)
    dense = sum(layer.dense for layer in layers)
    return Energy(
        parameters=181_350,
        clips=32,
        macs=sum(layer.macs for layer in layers),
        acs=sum(layer.acs for layer in layers),
        dense=dense,
        ann_macs=dense / 4,
        energy_pj=energy,
        ann_energy_pj=4.6 * dense / 4,
        attention_share=0.07,
        layers=layers,
    )


def _rasters(names: Sequence[str], key: str, rng: np.random.Generator) -> list[Raster]:
    return [
        Raster(
            layer=name,
            key=key,
            steps=4,
            neurons=64,
            spikes=[(int(t), int(n)) for t, n in np.argwhere(rng.random((4, 64)) < rate)],
        )
        for name, rate in ((names[1], 0.12), (names[len(names) // 2], 0.0), (names[-1], 0.05))
    ]


def _metrics(method: str, epochs: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    lines = []
    for epoch in range(1, epochs + 1):
        done = 1 - 0.85**epoch
        lines.append(
            {
                "epoch": epoch,
                "lr": 1e-3,
                "loss": 2.5 - 1.3 * done + float(rng.normal(0, 0.02)),
                "accuracy": 0.17 + 0.8 * done,
                "val_loss": 1.8 - 1.5 * done + float(rng.normal(0, 0.05)),
                "val_accuracy": 0.17 + 0.0002 * epoch + 0.72 * done,
                "samples_per_second": 345.0,
                "spike_rates": {
                    name: 0.0 if "temporal.lif" in name else 0.04 + 0.1 * done * float(rng.random())
                    for name in layer_names(method)
                },
            }
        )
    return lines
