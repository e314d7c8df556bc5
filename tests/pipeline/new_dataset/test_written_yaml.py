"""The text of the YAML: any names survive, and an edit changes its field alone."""

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from avsnn.pipeline.new_dataset.written_yaml import edit_yaml, render_field, render_yaml

NAMES = st.lists(st.text(min_size=1, max_size=60).filter(str.isprintable), min_size=2, unique=True)
FACTS = {"name": "x", "folder": "/a", "table": "x.csv", "visual": "video", "group": "none"}


@given(NAMES)
def test_classes_of_any_names_are_read_back(names: list[str]) -> None:
    text = render_field("classes", names)
    assert yaml.safe_load(text) == {"classes": names}


@settings(max_examples=30)
@given(NAMES, NAMES, st.text(min_size=1).filter(str.isprintable))
def test_an_edit_changes_its_field_and_keeps_the_other_lines(
    before: list[str], after: list[str], folder: str
) -> None:
    facts = FACTS | {"classes": before, "folder": folder, "default_split": "d", "splits": {"d": 1}}
    text = render_yaml(facts, why_group="why", why_split="so", sound="in: the # video")
    assert yaml.safe_load(text) == facts
    edited = edit_yaml(text, "x", {"classes": after})
    assert yaml.safe_load(edited) == facts | {"classes": after}
    kept = set(text.splitlines()) - set(render_field("classes", before).splitlines())
    assert kept <= set(edited.splitlines())
