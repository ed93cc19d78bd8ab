"""`steer inspect` of formats that are not ours: what is known, what is to be chosen, and the draft of what nobody states."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from policies.lerobot.features import Sidecar
from policies.openvla import load as load_openvla
from steer.cli.main import main
from steer.model_name import ModelName
from steer.online.refused import refuse
from steer.robot import read_robot
from steer.serial import from_json
from tests.critics.vgps.toys import DIRECTORY_FORM, FILE_FORM
from tests.policies.openvla.toys import OFT, SHARDED, copy_without

GOLDEN = Path(__file__).parents[1] / "golden"
OCTO = GOLDEN / "octo/octo15_tiny"
DDIM = GOLDEN / "lerobot/policies/diffusion_state_ddim/pretrained_model"
ACT = GOLDEN / "lerobot/policies/act_state/pretrained_model"


def told(capsys: pytest.CaptureFixture[str], name: str) -> dict[str, Any]:
    main(["inspect", name, "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["inspect", *words])
    assert ended.value.code == 2
    error: str = capsys.readouterr().err
    return error


def test_openvla_without_a_data_set_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, f"openvla:{SHARDED}")
    assert found["choices"] == {"?unnorm_key=": ["bridge_orig", "libero_spatial_no_noops", "tiny_no_mask"]}
    assert (found["parameters"], found["weight files"], found["stochastic"]) == (270692, 4, True)
    assert "action" not in found


def test_openvla_says_what_the_loaded_policy_says(capsys: pytest.CaptureFixture[str]) -> None:
    for folder, key in ((SHARDED, "bridge_orig"), (OFT, "libero_spatial_no_noops")):
        name = f"openvla:{folder}?unnorm_key={key}&dtype=float32"
        found, spec = told(capsys, name), load_openvla(ModelName.parse(name)).spec
        assert found["horizon"] == spec.horizon
        assert found["stochastic"] == spec.stochastic
        assert [axis["low"] for axis in found["action"]["axes"]] == [axis.low for axis in spec.action.axes]
        assert [array["name"] for array in found["observation"]["arrays"]] == list(spec.observation.keys)


def test_octo_says_cameras_sizes_and_data_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, f"octo:{OCTO}")["choices"] == {"?dataset=": ["bridge_dataset", "six_dof_dataset"]}
    found = told(capsys, f"octo:{OCTO}?dataset=six_dof_dataset")
    assert found["parameters"] == 345588
    assert len(found["action"]["axes"]) == 6
    assert found["image sizes"] == {"primary": [64, 64], "wrist": [48, 48]}


def test_lerobot_needs_no_lerobot(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, f"lerobot:{DDIM}")
    assert (found["type"], found["horizon"], found["observation"]["window"]) == ("diffusion", 8, 2)
    assert found["unknown"] == ["kind", "frame", "reference", "rotation", "gripper", "units"]
    act = told(capsys, f"lerobot:{ACT}")
    assert (act["stochastic"], act["parameters"]) == (False, 32695)


def test_both_forms_of_a_vgps_critic_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (told(capsys, f"vgps:{place}?image_size=32") for place in (DIRECTORY_FORM, FILE_FORM))
    assert first.pop("file") != second.pop("file")
    assert first == second
    assert first["choices"]["?bounds="] == ["bridge", "fractal", "FILE.json"]
    assert (first["members"], first["action axes"]) == (2, 7)


def test_the_draft_of_openvla_is_read_back_once_it_lies_in_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, draft = copy_without(SHARDED, tmp_path / "model"), tmp_path / "draft.json"
    name = f"openvla:{folder}?unnorm_key=bridge_orig"
    main(["inspect", name, "--draft", str(draft)])
    assert f"{folder}/robot.json" in capsys.readouterr().out
    draft.write_text(draft.read_text().replace('"kind": "unknown"', '"kind": "delta"'))
    shutil.copy(draft, folder / "robot.json")
    assert told(capsys, name)["unknown"] == ["frame", "reference", "rotation", "gripper", "units"]
    assert read_robot(draft).observation.keys == ("image",)


def test_the_draft_of_lerobot_is_its_own_sidecar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft = tmp_path / "steer.json"
    main(["inspect", f"lerobot:{ACT}", "--draft", str(draft)])
    sidecar = from_json(Sidecar, json.loads(draft.read_text()), "draft")
    assert [array.name for array in sidecar.observation] == ["state", "environment_state"]
    assert sidecar.action.size == 7
    capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"openvla:{GOLDEN}/nowhere", "no such file"),
        (f"octo:{GOLDEN}/nowhere", "no such folder"),
        (f"lerobot:{GOLDEN}/nowhere", "give the folder of a LeRobot checkpoint"),
        (f"vgps:{GOLDEN}/nowhere", "give a Flax checkpoint"),
        (f"diffusion:{GOLDEN}/nowhere", "not a checkpoint folder of kind 'diffusion'"),
        (str(SHARDED), "write kind:"),
        (f"openvla:{SHARDED}?unnorm_key=mars", "unnorm_key 'mars' is none of its data sets"),
        (f"octo:{OCTO}?datasets=x", "has no options"),
        ("nothing:here", "unknown kind 'nothing'"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_to_give(capsys: pytest.CaptureFixture[str], name: str, words: str) -> None:
    assert words in refused(capsys, name)


def test_no_draft_before_the_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft = str(tmp_path / "draft.json")
    assert "?unnorm_key=bridge_orig" in refused(capsys, f"openvla:{SHARDED}", "--draft", draft)
    assert not (tmp_path / "draft.json").exists()


def test_a_missing_tensor_is_found_without_loading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_without(SHARDED, tmp_path / "model")
    shard = folder / "model-00004-of-00004.safetensors"
    tensors = load_file(shard)
    tensors.pop("language_model.lm_head.weight")
    save_file(tensors, shard)
    assert "1 missing ['language_model.lm_head.weight']" in refused(capsys, f"openvla:{folder}")


def test_a_run_says_how_far_it_is_and_what_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"policy": "demo/policy", "config": {"utd": 1.0}}))
    assert told(capsys, str(tmp_path))["served"] is None
    for number in range(3):
        (tmp_path / "versions" / f"{number:06d}").mkdir(parents=True)
    told_of = {"robot_minutes": 1.25, "success": 0.5, "rolling_success": 0.75, "seconds": 90.0}
    lines = [json.dumps({"version": number, "episodes": 25 * number, **told_of}) for number in (1, 2)]
    (tmp_path / "rounds.jsonl").write_text("\n".join(lines) + "\n")
    refuse(tmp_path, 2, "drops [the] cube")

    found = told(capsys, str(tmp_path))
    assert (found["served"], found["refused"]) == (1, {"2": "drops [the] cube"})
    assert [line["episodes"] for line in found["rounds"]] == [25, 50]
    main(["inspect", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "demo/policy" in shown
    assert "served" in shown
    assert "version 2 is refused: drops [the] cube" in shown

    refuse(tmp_path, 1, "is slow")
    main(["inspect", str(tmp_path)])
    assert "served: version 0" in capsys.readouterr().out
