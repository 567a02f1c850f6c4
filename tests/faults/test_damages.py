"""Damage of any file of an index, the log among them; benchmarks/damages.py does the same hundreds of times."""

from pathlib import Path

from tests.faults.damages import Damages


def test_damage_of_any_file_is_told_or_changes_no_answer(tmp_path: Path) -> None:
    damages = Damages(tmp_path, seed=11)
    for _ in range(20):
        damages.damage()


def test_a_blow_to_the_manifest_or_its_copy_leaves_nearly_all_pictures(tmp_path: Path) -> None:
    damages = Damages(tmp_path, seed=12)
    for _ in range(20):
        damages.strike()
    assert damages.restored > 4
