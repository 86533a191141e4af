"""verify finds every changed bit, names the damaged part, and passes what is sound."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import normcli
from normcli.api.options import RunOptions
from normcli.api.verification import Verification
from normcli.api.verifying import verify_output
from normcli.arrays.manifest import Manifest, manifest_path, read_manifest, write_manifest
from normcli.domain.moments import Moments
from normcli.engine.events import Observer
from normcli.errors import InputError, UsageError
from tests.figures import Figures

from ..arrays.outputs import OUTPUTS, VALUES, make

RUN = RunOptions(workers=2)


def verify(path: Path | str) -> Verification:
    return verify_output(str(path), RUN, Observer())


def files(output: Path) -> list[Path]:
    if output.is_file():
        return [output]
    return sorted(path for path in output.rglob("*") if path.is_file())


def flip(output: Path, rng: random.Random) -> tuple[Path, int, bytes]:
    """Flip one bit, each byte of the output being as likely; return where, and what was there."""
    sizes = [path.stat().st_size for path in files(output)]
    position = rng.randrange(sum(sizes))
    several = iter(zip(files(output), sizes, strict=True))
    path, size = next(several)
    while position >= size:
        position -= size
        path, size = next(several)
    data = path.read_bytes()
    changed = bytearray(data)
    changed[position] ^= 1 << rng.randrange(8)
    path.write_bytes(changed)
    return path, position, data


def flips_are_found(folder: Path, case: str, count: int, figures: Figures) -> None:
    output = make(folder, case)
    assert verify(output).sound
    rng = random.Random(case)
    for _ in range(count):
        path, position, before = flip(output, rng)
        figures.count("R3", flips=1)
        found = verify(output)
        assert len(found.damage) == 1, (path, position, found.damage)
        assert str(path) in found.damage[0]
        if output.is_dir():
            assert path.relative_to(output).as_posix() in found.damage[0]
        figures.count("R3", found_and_named=1)
        path.write_bytes(before)
    assert verify(output).sound


@pytest.mark.parametrize("case", OUTPUTS)
def test_a_flipped_bit_is_found_and_its_part_named(tmp_path, figures, case):
    flips_are_found(tmp_path, case, 20, figures)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", OUTPUTS)
def test_500_flipped_bits_are_found(tmp_path, figures, case):
    flips_are_found(tmp_path, case, 500, figures)


@pytest.mark.parametrize("case", OUTPUTS)
class TestEveryOutput:
    def test_a_sound_one_has_the_moments_that_were_written(self, tmp_path, case):
        found = verify(make(tmp_path, case))
        assert found.sound
        assert found.against == "manifest"
        (array,) = found.arrays
        assert array.promised
        assert array.as_dict()["mean"] == pytest.approx(float(VALUES.mean(dtype="f8")), rel=1e-12)
        assert array.as_dict()["count"] == VALUES.size

    def test_other_moments_than_written_are_told(self, tmp_path, case):
        output = make(tmp_path, case)
        known = read_manifest(manifest_path(output))
        ((inner, good),) = known.written.items()
        for field, value in (("mean", 0.0), ("count", 779), ("maximum", 9.0), ("nonfinite", 1)):
            values = {name: getattr(good, name) for name in good.__dataclass_fields__}
            wrong = Moments(**{**values, field: np.asarray(value)})
            changed = Manifest(known.container, known.arrays, known.parts, {inner: wrong})
            write_manifest(manifest_path(output), changed, overwrite=True)
            (damage,) = verify(output).damage
            assert field in damage

    def test_bytes_too_many_or_too_few_are_told(self, tmp_path, case):
        output = make(tmp_path, case)
        last = files(output)[-1]
        data = last.read_bytes()
        for changed in (data + b"\0", data[:-1], b""):
            last.write_bytes(changed)
            assert not verify(output).sound
        last.write_bytes(data)
        assert verify(output).sound

    def test_a_damaged_manifest_is_no_excuse(self, tmp_path, case):
        output = make(tmp_path, case)
        beside = manifest_path(output)
        beside.write_bytes(beside.read_bytes()[:-3])
        assert "not as it was written" in verify(output).damage[0]
        beside.unlink()
        found = verify(output)
        assert found.sound
        assert found.against == "checksums"

    def test_without_a_manifest_its_own_checksums_are_compared(self, tmp_path, case):
        output = make(tmp_path, case, manifest=False)
        bare = case in ("npy", "npy_f_big", "hdf5_contiguous", "zarr_2")
        assert bool(verify(output).unprotected) is bare
        if bare:
            return
        # A chunk in the middle of a file of elements.
        holding = [path for path in files(output) if path.name[0] != "." and path.suffix != ".json"]
        target = max(holding, key=lambda path: path.stat().st_size)
        data = bytearray(target.read_bytes())
        place = _element_byte(output, target)
        data[place] ^= 4
        target.write_bytes(data)
        found = verify(output)
        assert not found.sound
        assert str(output) in found.damage[0]


def _element_byte(output: Path, target: Path) -> int:
    if output.suffix == ".h5":
        with h5py.File(output) as file:
            return file["data"].id.get_chunk_info(1).byte_offset + 20
    return target.stat().st_size // 2


def test_chunks_in_each_others_places_are_found(tmp_path):
    # Each ends with its own checksum, so that only the manifest can tell.
    output = make(tmp_path, "zarr_3")
    first, second = sorted(path for path in files(output) if path.name != "zarr.json")[:2]
    data = first.read_bytes(), second.read_bytes()
    first.write_bytes(data[1])
    second.write_bytes(data[0])
    damage = verify(output).damage
    assert len(damage) == 2
    assert all(path.relative_to(output).as_posix() in " ".join(damage) for path in (first, second))


class TestZarrFiles:
    def test_missing_surplus_linked_and_replaced_files(self, tmp_path):
        output = make(tmp_path, "zarr_sharded")
        chunk = output / "c/0/0/0"
        data = chunk.read_bytes()
        chunk.unlink()
        assert verify(output).damage == (f"c/0/0/0 (file {chunk}) is missing",)
        chunk.mkdir()
        assert len(verify(output).damage) == 1
        chunk.rmdir()
        outside = tmp_path / "outside"
        outside.write_bytes(data)
        chunk.symlink_to(outside)
        assert "is a link" in verify(output).damage[0]
        chunk.unlink()
        chunk.write_bytes(data)
        (output / "c/0/0/7").write_bytes(b"x")
        (damage,) = verify(output).damage
        assert "c/0/0/7" in damage
        assert "not one of its parts" in damage

    def test_a_manifest_that_climbs_out_is_not_followed(self, tmp_path):
        output = make(tmp_path, "zarr_3")
        known = read_manifest(manifest_path(output))
        (tmp_path / "secret").write_bytes(b"4242.5")
        for key in ("../secret", str(tmp_path / "secret")):
            parts = tuple(
                sorted((*known.parts, type(known.parts[0])(key, 6, 0)), key=lambda p: p.key)
            )
            changed = Manifest(known.container, known.arrays, parts, known.written)
            write_manifest(manifest_path(output), changed, overwrite=True)
            (damage,) = verify(output).damage
            assert "outside of the store" in damage

    def test_all_damages_are_counted_without_a_manifest(self, tmp_path):
        output = make(tmp_path, "zarr_3", manifest=False)
        chunks = [path for path in files(output) if path.name != "zarr.json"]
        for path in chunks[:5]:
            path.write_bytes(path.read_bytes()[:-1])
        assert len(verify(output).damage) == 5


class TestStatistics:
    @pytest.fixture
    def stats(self, tmp_path) -> Path:
        np.save(tmp_path / "x.npy", VALUES)
        return tmp_path

    @pytest.mark.parametrize("suffix", ["json", "npz", "h5", "zarr", "safetensors"])
    def test_sound_ones_pass(self, stats, suffix):
        if suffix == "safetensors":
            pytest.importorskip("safetensors")
        path = stats / f"s.{suffix}"
        normcli.fit(stats / "x.npy", path, layout="NCS", momentum=0.9, batch_size=5)
        found = verify(path)
        assert found.sound, found.damage
        assert found.against == "statistics"

    def test_numbers_that_cannot_belong_together_are_told(self, stats):
        import json

        path = stats / "s.json"
        normcli.fit(stats / "x.npy", path, layout="NCS")
        good = json.loads(path.read_text())
        for name, value, what in (
            ("mean", 99.0, "not between"),
            ("m2", 1e9, "larger than"),
            ("variance", 0.5, "not m2"),
            ("minimum", 50.0, "larger than the maximum"),
            ("maximum", -50.0, "larger than the maximum"),
        ):
            bad = json.loads(json.dumps(good))
            _put(bad["arrays"][name], value)
            path.write_text(json.dumps(bad))
            damage = " ".join(verify(path).damage)
            assert what in damage, (name, damage)
            assert "group 2" in damage or "(2,)" in damage
        path.write_text(json.dumps(good)[:-20])
        assert not verify(path).sound


def _put(values, value):
    """Replace the third number of an array in JSON."""
    numbers = (
        values
        if isinstance(values, list)
        else next(v for v in values.values() if isinstance(v, list) and len(v) > 2)
    )
    numbers[2] = value


def test_what_is_not_there_or_no_file(tmp_path):
    with pytest.raises(InputError, match="There is no"):
        verify(tmp_path / "x.npy")
    with pytest.raises(InputError, match="There is no"):
        verify(tmp_path / "x.json")
    with pytest.raises(UsageError, match="pipe"):
        verify("-")


def test_outputs_of_others_are_read_too(tmp_path):
    np.save(tmp_path / "x.npy", VALUES)
    np.savez_compressed(tmp_path / "x.npz", x=VALUES, y=VALUES)
    zarr.save_array(tmp_path / "x.zarr", VALUES)
    for name, arrays in (("x.npy", 1), ("x.npz", 2), ("x.zarr", 1)):
        found = verify(tmp_path / name)
        assert found.sound
        assert len(found.arrays) == arrays
    shutil.rmtree(tmp_path / "x.zarr")
