"""Libraries of formats that may be missing: what is then told, and that nothing loads them in vain."""

import subprocess
import sys
from pathlib import Path

import pytest

from bridgetower.errors import MissingExtraError
from bridgetower.installation import how_to_install
from bridgetower.pictures.decode import decode
from bridgetower.pictures.extras.extra import Extra, needed
from tests.pictures import HERE, by_extra, take_away


@pytest.mark.parametrize("extra", Extra)
def test_a_missing_library_names_its_extra(extra: Extra, monkeypatch: pytest.MonkeyPatch) -> None:
    data = by_extra(extra)
    assert decode(data, HERE).width > 0
    take_away(extra, monkeypatch)
    assert not extra.is_installed()
    with pytest.raises(MissingExtraError) as caught:
        decode(data, HERE)
    assert caught.value.reason == f"needs the extra {extra}: {how_to_install(extra)}"
    assert needed(caught.value.reason) is extra


def test_other_reasons_need_no_extra() -> None:
    assert needed("the file is truncated") is None and needed(None) is None


def test_a_library_is_imported_only_for_its_kind() -> None:
    code = """
import sys
from pathlib import Path
from bridgetower.pictures.decode import decode
decode(Path(sys.argv[1]).read_bytes(), Path())
unwanted = {"pi_heif", "pylibjxl", "rawpy", "tifffile", "imagecodecs", "numpy", "importlib.metadata", "urllib.request"}
loaded = unwanted & set(sys.modules)
assert not loaded, loaded
"""
    picture = Path(__file__).parents[3] / "examples/gallery/two-cats-on-a-couch-in-the-desert.jpg"
    subprocess.run([sys.executable, "-c", code, picture], check=True, env={"PYTHONPATH": ":".join(sys.path)})
