"""Configuration: defaults, messages, and the generated files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from nicheloop import config
from nicheloop.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def test_shipped_yaml_is_generated():
    assert (ROOT / "config.yaml").read_text() == config.default_yaml(), "run `make generate`"


def test_shipped_schema_is_generated():
    shipped = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
    assert shipped == json.loads(json.dumps(config.json_schema())), "run `make generate`"


def test_yaml_gives_back_the_defaults():
    assert config.load_config(yaml.safe_load(config.default_yaml())) == config.Config()


def test_every_option_has_unit_and_reason():
    for name in config.SECTIONS:
        section = config.Config.model_fields[name].annotation
        for key, field in section.model_fields.items():
            assert field.description, f"{name}.{key}"
            assert set(field.json_schema_extra) >= {"unit", "why"}, f"{name}.{key}"


def test_all_problems_come_together_with_the_key_named():
    with pytest.raises(UserError) as err:
        config.load_config({"qc": {"n_mad": 3, "max_mito_cap": "many"}, "sampels": "x"}, "my.yaml")
    text = "\n".join(err.value.messages)
    assert len(err.value.messages) == 3
    assert "my.yaml: unknown key 'qc.n_mad'. Did you mean 'n_mads'?" in text
    assert "'qc.max_mito_cap' is 'many'" in text
    assert "'sampels'" in text
    assert "'samples'" in text


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2", "just words"])
def test_unreadable_file_is_a_message(tmp_path: Path, text: str):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"c\.yaml"):
        config.read_config(path)


def test_empty_file_means_defaults(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert config.read_config(tmp_path / "c.yaml") == config.Config()


@pytest.mark.parametrize(
    ("section", "key", "value"), [("csc", "positive", 1.2), ("qc", "n_mads", -1), ("embed", "leiden", "louvain")]
)
def test_out_of_range_is_refused(section: str, key: str, value: object):
    with pytest.raises(UserError, match=f"{section}.{key}"):
        config.load_config({section: {key: value}})
