"""Big arrays, read and written by block: NPY, HDF5, Zarr and streams."""
