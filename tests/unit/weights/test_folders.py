"""Checkpoints are read strictly, and every damage is named in one line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from bridgetower.errors import ModelError
from bridgetower.preprocess import Preprocessing
from bridgetower.weights import load_model, resolve
from tests.tiny import ALL_HEADS, tiny_checkpoint, tiny_config
from tests.unit.weights.conftest import QUERY, WORDS, change_config, change_weights, refusal, shard

# Folders


def test_a_folder_without_configuration(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"{tmp_path}: no config.json here")


def test_a_folder_of_another_kind_of_model(folder: Path) -> None:
    change_config(folder, model_type="clip")
    message = refusal(folder)
    assert str(folder / "config.json") in message and "'clip'" in message


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_configuration_that_is_no_json(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    assert refusal(folder).startswith(str(folder / "config.json"))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_file_that_is_no_utf8(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b'{"a": "\xe9"}')
    assert refusal(folder) == f"{folder / name}: not UTF-8 text; fetch it again"


def test_a_configuration_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    assert refusal(folder) == f"{folder / 'config.json'}: cannot be read (Permission denied); check its permissions"


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "neither model.safetensors nor pytorch_model.bin" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 4, 1000, -1])
def test_a_truncated_file(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert refusal(folder).startswith(f"{file}: not a complete safetensors file")


def test_a_missing_key(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.pop(WORDS))
    assert f"the weights lack {WORDS};" in refusal(folder)
    change_weights(folder, lambda tensors: [tensors.pop(QUERY), tensors.pop(QUERY.replace("query", "key"))])
    assert f"the weights lack {WORDS} and 2 more keys;" in refusal(folder)


def test_half_of_a_head(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.pop("itc_image_head.fc.bias"))
    assert "itc_image_head.fc.bias" in refusal(folder)


def test_an_unknown_key(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update(vqa_head=torch.zeros(2)))
    assert "vqa_head, unknown to the network" in refusal(folder)


def test_more_layers_than_the_configuration_says(folder: Path) -> None:
    vision = tiny_config().to_json()["vision_config"]
    change_config(folder, text_config={**tiny_config().to_json()["text_config"], "num_hidden_layers": 2})
    assert "bridgetower.text_model.encoder.layer.2." in refusal(folder)
    change_config(folder, vision_config={**vision, "num_hidden_layers": 4})
    assert "bridgetower.vision_model.visual.transformer.resblocks.3." in refusal(folder)


@pytest.mark.parametrize("key", [WORDS, QUERY, "logit_scale"])
def test_a_wrong_shape(folder: Path, key: str) -> None:
    change_weights(folder, lambda tensors: tensors.update({key: torch.zeros(3, 5)}))
    assert f"{key} has shape [3, 5] in the weights but " in refusal(folder)


def test_weights_that_are_no_floats(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.update({QUERY: torch.zeros(64, 64, dtype=torch.int8)}))
    assert f"{QUERY} is of type I8, none of F16, BF16, F32, F64" in refusal(folder)
    tiny = torch.zeros(64, 64).to(torch.float8_e4m3fn)
    change_weights(folder, lambda tensors: tensors.update({QUERY: tiny}))
    assert f"{QUERY} is of type F8_E4M3, none of F16, BF16, F32, F64" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("key", [WORDS, QUERY, "logit_scale"])
def test_numbers_that_are_not_finite(folder: Path, key: str, dtype: torch.dtype, value: float) -> None:
    def damage(tensors: dict[str, Any]) -> None:
        tensors[key] = tensors[key].to(dtype).clone()
        tensors[key].view(-1)[-1:] = value

    change_weights(folder, damage)
    for wanted in (torch.float32, torch.bfloat16):
        with pytest.raises(ModelError, match=f"{re.escape(key)} holds numbers that are not finite"):
            load_model(resolve(str(folder)), wanted)


def test_keys_that_nothing_reads_are_passed_over(folder: Path) -> None:
    def add(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["bridgetower.text_model.pooler.dense.bias"]
        tensors["bridgetower.text_model.embeddings.position_ids"] = torch.arange(34)[None]
        tensors["bridgetower.text_model.embeddings.token_type_ids"] = torch.zeros(1, 34, dtype=torch.long)
        tensors["bridgetower.vision_model.visual.embeddings.position_ids"] = torch.arange(37)[None]
        tensors["bridgetower.vision_model.visual.ln_separate.0.weight"] = torch.ones(64)

    change_weights(folder, add)
    assert load_model(resolve(str(folder))).heads == ALL_HEADS


def test_tied_words_may_stand_twice_but_must_be_equal(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, tiny_config(tie_word_embeddings=True))
    change_weights(folder, lambda tensors: tensors.update({"mlm_score.decoder.weight": tensors[WORDS].clone()}))
    model = load_model(resolve(str(folder)))
    assert model.mlm_head is not None
    assert model.mlm_head.decoder.weight is model.text_tower.word.weight
    change_weights(folder, lambda tensors: tensors["mlm_score.decoder.weight"].add_(1))
    with pytest.raises(ModelError, match=r"mlm_score\.decoder\.weight differs from the word embeddings"):
        load_model(resolve(str(folder)))


def test_a_tokenizer_with_more_words_than_the_network(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, tiny_config(text={"vocab_size": 300}))
    with pytest.raises(ModelError, match="the network only 300"):
        resolve(str(folder)).tokenizer()


def test_a_tokenizer_with_few_words_of_which_one_is_beyond_the_network(folder: Path) -> None:
    assert resolve(str(folder)).tokenizer().highest_id == 349
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["zebra"] = 400  # the network has 0 to 399
    file.write_text(json.dumps(content))
    with pytest.raises(
        ModelError, match=f"{re.escape(str(folder))}: the tokenizer has ids up to 400, the network only 400"
    ):
        resolve(str(folder)).tokenizer()


def test_preprocessing_under_its_old_and_its_new_name(folder: Path) -> None:
    written = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    assert resolve(str(folder)).preprocessing == Preprocessing(96, 96)  # the defaults of the reference
    new = {"image_processor": {**written, "size": {"shortest_edge": 128}}, "processor_class": "BridgeTowerProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(new))
    assert resolve(str(folder)).preprocessing == Preprocessing(128, 96)
    (folder / "processor_config.json").write_text("{")
    assert "processor_config.json" in refusal(folder)


def test_another_preprocessing_for_the_same_weights(folder: Path) -> None:
    checkpoint = resolve(str(folder))
    plain = checkpoint.with_preprocessing("plain")
    assert plain.preprocessing == Preprocessing(96, 96, name="plain")
    assert plain.weights_sha256 == checkpoint.weights_sha256
    assert plain.with_preprocessing("hf") == checkpoint
    with pytest.raises(ModelError, match='"square" is unknown'):
        checkpoint.with_preprocessing("square")


# Shards


def test_weights_in_several_files(folder: Path) -> None:
    before = load_model(resolve(str(folder))).state_dict()
    shards = shard(folder)
    checkpoint = resolve(str(folder))
    after = load_model(checkpoint).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert checkpoint.weights == tuple(shards)


def test_half_a_download(folder: Path) -> None:
    shards = shard(folder)
    shards[1].unlink()
    message = refusal(folder)
    assert shards[1].name in message and "1 of 3" in message and "incomplete" in message


def test_an_index_that_names_nothing(folder: Path) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    assert "model.safetensors.index.json: it names no weights" in refusal(folder)
