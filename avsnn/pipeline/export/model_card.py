"""The model card of a run: README.md of a Hugging Face folder, from what was recorded."""

import re
from typing import Any

import yaml

from avsnn.datasets_manifest.clips import Part
from avsnn.pipeline.evaluation.evaluate import recorded_evaluation, recorded_insight
from avsnn.pipeline.evaluation.measures import Evaluation
from avsnn.pipeline.export.run_network import InputDescription, RunNetwork
from avsnn.pipeline.runs.stored_run import run_name

# The part whose figures the card shows is the first part that was evaluated.
PARTS: tuple[Part, ...] = ("test", "val")

# Characters that mean something in Markdown.
MARKED = re.compile(r"([\\`*_{}\[\]|~$:])")

PICOJOULES_PER_MICROJOULE = 1e6


def model_card(network: RunNetwork) -> str:
    """Return the model card as Markdown behind a YAML header.

    The names of classes, data sets and runs come from files of users, so every such name is
    escaped: the card holds no HTML, no link and no key that a name could bring in.
    """
    results = [recorded_evaluation(network.run, part=part) for part in PARTS]
    evaluation = next((result for result in results if result is not None), None)
    header = yaml.safe_dump(
        _header(network, evaluation), sort_keys=False, allow_unicode=True, width=10_000
    )
    sections = [
        _about(network),
        _figures(network, evaluation),
        _energy(network, evaluation),
        _use(network),
        _inputs(network.description.inputs),
        _notes(network),
    ]
    return f"---\n{header}---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def as_markdown(text: str) -> str:
    """Return a text that Markdown and HTML show as it is, on one line."""
    line = "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return MARKED.sub(r"\\\1", line)


def _header(network: RunNetwork, evaluation: Evaluation | None) -> dict[str, Any]:
    about = network.description
    method = about.settings.method
    task = "audio-classification" if method == "audio" else "video-classification"
    header: dict[str, Any] = {
        "library_name": "avsnn",
        "pipeline_tag": task,
        "tags": ["spiking-neural-network", "audio-visual", method],
    }
    if evaluation is not None:
        header["metrics"] = ["accuracy"]
        result = {
            "task": {"type": task},
            "dataset": {
                "name": network.run.config.manifest.title,
                "type": about.dataset,
                "split": evaluation.part,
            },
            "metrics": [{"type": "accuracy", "value": round(evaluation.top1, 6)}],
        }
        header["model-index"] = [{"name": run_name(network.run.folder), "results": [result]}]
    return header


def _about(network: RunNetwork) -> str:
    config, about = network.run.config, network.description
    model = about.settings
    epoch = f"epoch {about.epoch}" if about.epoch else "an unknown epoch"
    return (
        f"# {as_markdown(run_name(network.run.folder))}\n\n"
        f"A spiking neural network (method {as_markdown(model.method)}, C = {model.channels}, "
        f"T = {model.steps}) that answers with one of {len(about.classes)} classes. The weights "
        f"are those of {epoch}.\n\n"
        "| | |\n|---|---|\n"
        f"| data | {as_markdown(config.manifest.title)} ({as_markdown(config.dataset)}), "
        f"{config.data.clips:,} clips |\n"
        f"| split | {as_markdown(config.split)} |\n"
        f"| epoch chosen on | {as_markdown(config.settings.selection)} |\n"
        f"| seed | {config.settings.seed} |\n"
        f"| classes | {', '.join(map(as_markdown, about.classes))} |"
    )


def _figures(network: RunNetwork, evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return (
            "## How good\n\nThis run was not evaluated before the export, so this card has no "
            "figures: run `avsnn evaluate` on the run, and export the run again."
        )
    share = evaluation.top1_interval
    # Without a hit or without a miss, every sample of the bootstrap would be the same.
    method = "bootstrap" if 0 < evaluation.top1 < 1 else "exact binomial interval"
    lines = [
        f"## How good\n\nTop-1 accuracy on the {evaluation.part} part: **{evaluation.top1:.2%}** "
        f"(95 % interval {share.low:.2%} to {share.high:.2%}, {evaluation.clips:,} clips, "
        f"{method} over {evaluation.resampled_units:,} {evaluation.resampled}).",
        f"An answer by chance is right in {evaluation.chance:.2%} of cases. The class "
        f"{as_markdown(evaluation.majority.name)} alone is {evaluation.majority.share:.2%} of the "
        "clips.",
        *(f"- {as_markdown(caveat)}" for caveat in evaluation.caveats),
    ]
    return "\n\n".join(lines[:2]) + "".join(f"\n{line}" for line in ["", *lines[2:]])


def _energy(network: RunNetwork, evaluation: Evaluation | None) -> str:
    inside = evaluation and recorded_insight(network.run, part=evaluation.part)
    if not inside:
        return ""
    energy = inside.energy
    micro = energy.energy_pj / PICOJOULES_PER_MICROJOULE
    return (
        f"## Energy\n\nOne inference is {energy.acs:,.0f} accumulates and {energy.macs:,.0f} "
        f"multiply-accumulates, products of attention counted: {micro:.3g} µJ of arithmetic "
        "(45 nm, 32 bits; moving data is not counted). The same network without spikes would need "
        f"{energy.ann_energy_pj / PICOJOULES_PER_MICROJOULE:.3g} µJ."
    )


def _use(network: RunNetwork) -> str:
    names = [one.name for one in network.description.inputs]
    call = ", ".join(f"{name}={name}" for name in names)
    return (
        "## Use\n\nInstall avsnn from its source: run this command in the folder of the source.\n\n"
        "```sh\npip install '.[export]'\n```\n\n"
        "```python\nfrom avsnn import SpikingClassifier\n"
        'model = SpikingClassifier.from_pretrained("FOLDER OR REPOSITORY")\n'
        f"answer = model.classes[model({call})[0].argmax()]\n```"
    )


def _inputs(inputs: list[InputDescription]) -> str:
    lines = ["## Inputs\n"]
    for one in inputs:
        shape = ", ".join(map(str, one.shape))
        line = f"- `{one.name}`, float32 `[{shape}]`: {as_markdown(one.content)}."
        if one.mean is not None and one.std is not None:
            mean, std = (", ".join(map(str, values)) for values in (one.mean, one.std))
            line += f" Mean `{mean}`, std `{std}`."
        chosen = [f"{name}={value}" for name, value in one.prepared.items() if value is not None]
        if chosen:
            line += f" Settings of `avsnn prepare`: `{' '.join(chosen)}`."
        lines.append(line)
    lines.append("\nOutput: `logits [batch, classes]`, before softmax.")
    return "\n".join(lines)


def _notes(network: RunNetwork) -> str:
    notes = network.description.notes
    return "## Notes\n\n" + "\n".join(f"- {as_markdown(note)}" for note in notes) if notes else ""
