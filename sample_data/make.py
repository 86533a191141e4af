"""Make the sample arrays in this folder from data sets that ship inside Python packages.

Needs: numpy, h5py, zarr (3.x), numcodecs, scikit-learn, scikit-image, statsmodels.
Nothing is downloaded: the origin of every value is a file inside one of those packages.

    python sample_data/make.py

writes digits.npy, co2.h5, patches.zarr and wine.zarr next to this script (replacing the old
ones), re-reads each of them, compares it with its origin, and prints the facts that are quoted
in README.md. No random numbers and no time stamps are involved.
"""

import shutil
from pathlib import Path

import h5py
import numpy as np
import zarr
from numcodecs import Blosc
from skimage.data import astronaut
from sklearn.datasets import load_digits, load_wine
from statsmodels.datasets import co2

HERE = Path(__file__).resolve().parent
CC_BY = "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/"

# The part of the photograph that is kept, and the side of the square patches it is cut into.
ROWS, COLUMNS, SIDE = slice(0, 256), slice(96, 352), 32


# --- the origins -------------------------------------------------------------------------------


def digits_origin() -> np.ndarray:
    """Images of handwritten digits, (1797, 8, 8); the values are whole numbers from 0 to 16."""
    return load_digits().images


def co2_origin() -> tuple[np.ndarray, np.ndarray]:
    """Saturday dates (datetime64[D]) and weekly CO2 in ppmv (float64, NaN where missing)."""
    table = co2.load_pandas().data
    return table.index.to_numpy().astype("datetime64[D]"), table["co2"].to_numpy(np.float64)


def patches_origin() -> np.ndarray:
    """The kept part of the photograph, (256, 256, 3) uint8."""
    return astronaut()[ROWS, COLUMNS]


# --- the files ---------------------------------------------------------------------------------


def make_digits(path: Path) -> None:
    """NPY: uint8 instead of the float64 that load_digits gives; no value changes."""
    np.save(path, digits_origin().astype(np.uint8))


def split_by_year(dates: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Years, and the values as (year, week): week k holds the (k+1)th Saturday of the year.

    A year has 52 or 53 Saturdays; cells with no Saturday, or before the series starts, are NaN.
    """
    year = dates.astype("datetime64[Y]")
    week = (dates - year.astype("datetime64[D]")).astype(np.int64) // 7
    years = np.unique(year)
    table = np.full((years.size, 53), np.nan)
    table[np.searchsorted(years, year), week] = values
    return years.astype(np.int64) + 1970, table


def make_co2(path: Path) -> None:
    """HDF5: two data sets and two dimension scales in one group."""
    dates, values = co2_origin()
    years, table = split_by_year(dates, values)
    packed = {"compression": "gzip", "compression_opts": 6, "shuffle": True}
    with h5py.File(path, "w") as file:
        file.attrs["title"] = "Weekly atmospheric CO2, Mauna Loa Observatory, Hawaii, 1958-2001"
        file.attrs["source"] = (
            "Keeling, C.D. and T.P. Whorf (2004), Atmospheric CO2 concentrations derived from "
            "flask air samples at sites in the SIO network, CDIAC; from statsmodels.datasets.co2"
        )
        file.attrs["license"] = "public domain"
        group = file.create_group("co2")

        time = group.create_dataset("time", data=(dates - dates[0]).astype(np.int32), **packed)
        time.attrs["units"] = f"days since {dates[0]}"
        time.attrs["long_name"] = "Saturday of the week"
        time.make_scale("time")

        year = group.create_dataset("year", data=years.astype(np.int16))
        year.attrs["long_name"] = "calendar year"
        year.make_scale("year")

        weekly = group.create_dataset(
            "weekly", data=values.astype(np.float32), chunks=(512,), fillvalue=np.nan, **packed
        )
        weekly.attrs["long_name"] = "weekly mean CO2 mole fraction in air"
        weekly.dims[0].label = "time"
        weekly.dims[0].attach_scale(time)

        by_year = group.create_dataset(
            "by_year", data=table, chunks=(11, 53), fillvalue=np.nan, **packed
        )
        by_year.attrs["long_name"] = "weekly mean CO2 mole fraction in air, one row per year"
        by_year.dims[0].label = "year"
        by_year.dims[0].attach_scale(year)
        by_year.dims[1].label = "week"

        for dataset in (weekly, by_year):
            dataset.attrs["units"] = "ppmv"


def make_patches(path: Path) -> None:
    """Zarr format 3: one array at the root, chunks of 24 patches (the last one is partial)."""
    image = patches_origin()
    down, across = image.shape[0] // SIDE, image.shape[1] // SIDE
    tiles = image.reshape(down, SIDE, across, SIDE, 3).transpose(0, 2, 4, 1, 3)
    patches = tiles.reshape(down * across, 3, SIDE, SIDE)
    array = zarr.create_array(
        path,
        shape=patches.shape,
        chunks=(24, 3, SIDE, SIDE),
        dtype=patches.dtype,
        dimension_names=["sample", "channel", "y", "x"],
        attributes={
            "title": "Photograph of the astronaut Eileen Collins, cut into patches",
            "long_name": "pixel value",
            "units": "1",
            "channel_names": ["red", "green", "blue"],
            "source": "NASA, https://flic.kr/p/r9qvLn; from skimage.data.astronaut",
            "license": "public domain",
        },
        zarr_format=3,
    )
    array[:] = patches


def make_wine(path: Path) -> None:
    """Zarr format 2: a group with one array, dimension names in _ARRAY_DIMENSIONS."""
    wine = load_wine()
    group = zarr.create_group(
        path,
        zarr_format=2,
        attributes={
            "title": "Chemical analysis of wines from three cultivars",
            "source": (
                "S. Aeberhard and M. Forina (1992), Wine, UCI Machine Learning Repository, "
                "https://doi.org/10.24432/C5PC7J; from sklearn.datasets.load_wine"
            ),
            "license": CC_BY,
        },
    )
    array = group.create_array(
        "measurements",
        shape=wine.data.shape,
        chunks=(64, 13),
        dtype=np.float64,
        compressors=Blosc(cname="lz4", clevel=5, shuffle=Blosc.SHUFFLE),
        attributes={
            "_ARRAY_DIMENSIONS": ["sample", "measurement"],
            "long_name": "results of the chemical analysis, one column per quantity",
            "measurement_names": list(wine.feature_names),
        },
    )
    array[:] = wine.data


# --- the check ---------------------------------------------------------------------------------


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise SystemExit(f"check failed: {what}")


def report(name: str, values: np.ndarray) -> None:
    """Print shape, dtype and float64 statistics over the values that are not NaN."""
    wide = values.astype(np.float64)
    print(
        f"{name}: {values.shape} {values.dtype}, mean {np.nanmean(wide):.10g}, "
        f"std {np.nanstd(wide):.10g}, min {np.nanmin(wide):.10g}, max {np.nanmax(wide):.10g}, "
        f"{np.isnan(wide).sum()} NaN"
    )


def check() -> None:
    """Read every array back and compare it with its origin."""
    digits = np.load(HERE / "digits.npy")
    expect(digits.dtype == np.uint8, "digits.npy is uint8")
    expect(np.array_equal(digits, digits_origin()), "digits.npy equals load_digits().images")
    report("digits.npy", digits)

    dates, values = co2_origin()
    with h5py.File(HERE / "co2.h5", "r") as file:
        weekly, by_year = file["co2/weekly"], file["co2/by_year"]
        time, year = weekly.dims[0][0][:], by_year.dims[0][0][:]
        labels = [dimension.label for dimension in (*weekly.dims, *by_year.dims)]
        weekly, by_year = weekly[:], by_year[:]
    expect(labels == ["time", "year", "week"], "co2.h5 has labelled dimensions")
    expect(np.array_equal(dates[0] + time, dates), "co2/time gives the dates")
    expect(np.array_equal(year, np.arange(1958, 2002)), "co2/year gives the years")
    expect(
        np.array_equal(weekly, values.astype(np.float32), equal_nan=True),
        "co2/weekly equals the series rounded to float32",
    )
    expect(
        np.array_equal(by_year[~np.isnan(by_year)], values[~np.isnan(values)]),
        "co2/by_year holds every measured week once, in order",
    )
    report("co2.h5/co2/weekly", weekly)
    report("co2.h5/co2/by_year", by_year)

    array = zarr.open_array(HERE / "patches.zarr", mode="r")
    patches, image = array[:], patches_origin()
    expect(array.metadata.zarr_format == 3, "patches.zarr is Zarr format 3")
    expect(array.metadata.dimension_names == ("sample", "channel", "y", "x"), "patch dimensions")
    for number, patch in enumerate(patches):
        y, x = (SIDE * place for place in divmod(number, image.shape[1] // SIDE))
        there = image[y : y + SIDE, x : x + SIDE]
        expect(np.array_equal(np.moveaxis(patch, 0, -1), there), f"patch {number} equals its place")
    report("patches.zarr", patches)

    array = zarr.open_group(HERE / "wine.zarr", mode="r")["measurements"]
    expect(array.metadata.zarr_format == 2, "wine.zarr is Zarr format 2")
    expect(array.attrs["_ARRAY_DIMENSIONS"] == ["sample", "measurement"], "wine dimensions")
    expect(np.array_equal(array[:], load_wine().data), "wine.zarr equals load_wine().data")
    report("wine.zarr/measurements", array[:])


def main() -> None:
    for name in ("patches.zarr", "wine.zarr"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    make_digits(HERE / "digits.npy")
    make_co2(HERE / "co2.h5")
    make_patches(HERE / "patches.zarr")
    make_wine(HERE / "wine.zarr")
    check()


if __name__ == "__main__":
    main()
