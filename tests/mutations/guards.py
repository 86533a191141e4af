"""The guards of normcli: each with its source text, what takes its place, and tests that then fail.

A guard is named by what it prevents. `text` is found in its file exactly once, so that a guard
which was rewritten makes its proof fail until it is entered anew.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    """One guard, and how to do without it.

    Attributes
    ----------
    name : str
        What it prevents.
    file : str
        Its file under ``normcli/``.
    text : str
        Its source text.
    without : str
        The same place without it.
    tests : tuple of str
        Tests under ``tests/`` of which at least one then fails.
    hangs : bool
        Whether that is because it never ends.
    """

    name: str
    file: str
    text: str
    without: str
    tests: tuple[str, ...]
    hangs: bool = False


NPY = "hostile/test_npy_and_npz.py"
HDF5 = "hostile/test_hdf5_files.py"
ZARR = "hostile/test_zarr_files.py"
MODELS = "hostile/test_parameters_and_models.py"
NAMES = "hostile/test_names_and_secrets.py"
MISSING = "hostile/test_missing_chunks.py"
ISOLATION = "hostile/test_isolation.py"
BUNDLES = "bundles/test_hostile_files.py"
CHECKPOINTS = "bundles/test_checkpoints.py"
BROKEN = "bundles/test_broken_statistics.py"
VERIFY = "api/test_verify.py"
MANIFEST = "arrays/test_manifest.py"
JOURNAL = "engine/test_journal.py"
WORKPLACE = "publishing/test_workplace.py"
HANDOVER = "publishing/test_handover.py"
BAD = "cli/test_bad_input.py"
FOLDERS = "cli/test_names.py"
REPLACING = "cli/test_replacing.py"
ADDRESSES = "cluster/test_addresses.py"
READING = "faults/test_storage_that_reads_badly.py"
OVERFLOW = "cli/test_overflow.py"
DRIFT = "cli/test_drift.py"
MOTION = "faults/test_inputs_in_motion.py"


def refused(file: str, *cases: str) -> tuple[str, ...]:
    """Return the tests of some cases of a file."""
    return tuple(f"{file}::test_refused[{case}]" for case in cases)


def _condition(
    name: str, file: str, condition: str, *tests: str, never: str = "False", hangs: bool = False
) -> Guard:
    """Return a guard that is an ``if``, which then is never true.

    The condition may go on with the lines below it, which stay.
    """
    _, colon, body = condition.partition(":\n")
    below = colon + body if colon else ":"
    text = f"if {condition}{'' if colon else ':'}"
    return Guard(name, file, text, f"if {never}{below}", tests, hangs)


GUARDS = (
    # NPY and NPZ
    _condition(
        "a header of gigabytes is read",
        "arrays/npy_format.py",
        "length > _MAX_HEADER",
        *refused(NPY, "header of 4 GiB", "header too long"),
    ),
    _condition(
        "an unknown version is believed",
        "arrays/npy_format.py",
        "version not in ((1, 0), (2, 0), (3, 0))",
        *refused(NPY, "version 9"),
    ),
    _condition(
        "a header that was cut is parsed",
        "arrays/npy_format.py",
        "len(field) < width or len(header) < length",
        *refused(NPY, "version only", "header cut"),
    ),
    _condition(
        "pickled objects are taken for numbers",
        "arrays/npy_format.py",
        "header.dtype.hasobject",
        *refused(NPY, "objects", "object field"),
    ),
    _condition(
        "extents that are no extents are believed",
        "arrays/npy_format.py",
        "any(isinstance(n, bool) or n < 0 for n in shape) or len(shape) > _MAX_AXES",
        *refused(NPY, "negative shape", "bool shape"),
    ),
    _condition(
        "memory is taken for what a file cannot hold",
        "arrays/npy.py",
        "size < expected",
        *refused(NPY, "8 TiB", "data cut"),
    ),
    _condition(
        "bytes after an array are not told",
        "arrays/npy.py",
        "size > expected",
        f"{NPY}::test_bytes_behind_the_array_are_told",
    ),
    _condition(
        "an input that ends while it is read is read on",
        "arrays/npy.py",
        "done < len(view)",
        "arrays/test_errors.py::test_file_cut_while_it_is_read",
    ),
    _condition(
        "a pipe is opened, and waited for",
        "arrays/files.py",
        "not stat.S_ISREG(status.st_mode)",
        *refused(NPY, "device"),
    ),
    _condition(
        "a pickle of any name is just not understood",
        "arrays/sniffing.py",
        "_PICKLE.match(head)",
        *refused(NPY, "pickle as npy", "pickle as h5"),
    ),
    _condition(
        "a web page is just not understood",
        "arrays/sniffing.py",
        'start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head"))',
        *refused(NPY, "HTML"),
    ),
    _condition(
        "a member of a promised size is inflated whole",
        "arrays/npz.py",
        "member.file_size > needed + _PIECE",
        *refused(NPY, "npz bomb"),
    ),
    _condition(
        "a member shorter than its array is read",
        "arrays/npz.py",
        "member.file_size < needed",
        *refused(NPY, "npz shape lies, bzip2"),
    ),
    _condition(
        "a stored member is not compared with its checksum",
        "arrays/npz.py",
        "found != expected",
        f"{NPY}::test_a_flipped_bit_in_a_large_stored_member",
    ),
    _condition(
        "two members of one name hide each other",
        "arrays/npz.py",
        "member.filename in seen",
        "arrays/test_errors.py",
    ),
    _condition(
        "an encrypted member is read",
        "arrays/npz.py",
        "member.flag_bits & 1",
        *refused(NPY, "npz encrypted"),
    ),
    # HDF5
    _condition(
        "soft links go round for ever",
        "arrays/hdf5_guard.py",
        "links > _MAX_LINKS",
        *refused(HDF5, "soft loop"),
    ),
    Guard(
        "a link to another file is followed",
        "arrays/hdf5_guard.py",
        """            if not rules.allow_external_refs:
                raise SafetyError(
                    f"{name}/{path} is a link""",
        """            if False:
                raise SafetyError(
                    f"{name}/{path} is a link""",
        (f"{HDF5}::test_leads_out_of_the_file[external_last]",),
    ),
    Guard(
        "links in the middle of a path are followed by HDF5",
        "arrays/hdf5_guard.py",
        "        if isinstance(link, h5py.SoftLink):",
        "        if False:",
        (f"{HDF5}::test_leads_out_of_the_file[external_middle]",
         f"{HDF5}::test_leads_out_of_the_file[through_soft]"),
    ),
    Guard(
        "data in another file are read",
        "arrays/hdf5_guard.py",
        """        if not rules.allow_external_refs:
            raise SafetyError(f"{name}/{path} keeps""",
        """        if False:
            raise SafetyError(f"{name}/{path} keeps""",
        (f"{HDF5}::test_leads_out_of_the_file[raw_storage]", f"{HDF5}::test_proc_is_not_read"),
    ),
    Guard(
        "virtual datasets over other files are read",
        "arrays/hdf5_guard.py",
        """        if not rules.allow_external_refs:
            raise SafetyError(
                f"{name}/{path} is a virtual""",
        """        if False:
            raise SafetyError(
                f"{name}/{path} is a virtual""",
        (f"{HDF5}::test_leads_out_of_the_file[virtual]",),
    ),
    Guard(
        "the sources of a virtual dataset lead out",
        "arrays/hdf5_guard.py",
        "            safe_dataset(file, source, name, links + 1, rules)\n            continue",
        "            continue",
        (f"{HDF5}::test_leads_out_of_the_file[virtual_over_link]",),
    ),
    _condition(
        "a pipe is taken for the other file",
        "arrays/hdf5_guard.py",
        "not stat.S_ISREG(status.st_mode)",
        f"{HDF5}::test_allowed_targets_must_be_there_and_plain",
        hangs=True,
    ),
    Guard(
        "a source that is not there is read as zeros",
        "arrays/hdf5_guard.py",
        """    raise InputError(f"{name} takes its data from {target!r}, which does not exist.")""",
        "    return",
        (f"{HDF5}::test_allowed_targets_must_be_there_and_plain",),
    ),
    Guard(
        "libraries of the environment are loaded by HDF5",
        "arrays/hdf5_open.py",
        "while h5py.h5pl.size():",
        "while False:",
        (f"{NAMES}::test_plugins_of_hdf5_are_not_loaded",),
    ),
    Guard(
        "a chunk inflates to more than it is",
        "arrays/hdf5_builtin_filters.py",
        "    if len(result) > size:\n        raise OversizedChunkError",
        "    if False:\n        raise OversizedChunkError",
        refused(HDF5, "bomb", "long chunk"),
    ),
    _condition(
        "the tail of a chunk that inflates short is what memory held",
        "arrays/hdf5_builtin_filters.py",
        "len(result) < size",
        *refused(HDF5, "short chunk"),
    ),
    Guard(
        "fletcher32 is not compared",
        "arrays/hdf5_builtin_filters.py",
        '    raise BadChunkError("fails its checksum (fletcher32)")',
        "    return body",
        refused(HDF5, "bit under fletcher32"),
    ),
    _condition(
        "what a chunk left to HDF5 inflates to is not bounded",
        "arrays/hdf5_builtin_filters.py",
        "found > size",
        *refused(HDF5, "bomb left to HDF5", "bomb behind scale-offset"),
    ),
    Guard(
        "chunks left to HDF5 are not looked at",
        "arrays/hdf5_chunk_check.py",
        'return bool(self._chunks) and _DEFLATE in self._codes and not self._dataset.is_virtual',
        "return False",
        refused(HDF5, "bomb left to HDF5", "bomb of the size of a chunk"),
    ),
    Guard(
        "a file is opened without a trial",
        "isolation.py",
        "    if text in _SURVIVED:\n        return",
        "    return",
        (f"{ISOLATION}::TestTrials::test_a_crash",),
    ),
    Guard(
        "a trial has all the time of the world",
        "isolation.py",
        "        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))\n",
        "",
        (f"{ISOLATION}::test_what_a_trial_may_take",),
    ),
    _condition(
        "a trial that waits for ever counts as survived",
        "isolation.py",
        'not in_time:\n        return {"seconds": WALL_SECONDS}',
        f"{ISOLATION}::TestTrials::test_waiting",
    ),
    Guard(
        "a trial takes all memory",
        "isolation.py",
        "            limit(resource.RLIMIT_AS, address_space() + MEMORY_BYTES)",
        "            pass",
        (f"{ISOLATION}::TestTrials::test_memory[forked]",),
    ),
    Guard(
        "a child tries in children of its own",
        "isolation.py",
        "    if _serving:\n        return\n",
        "",
        (f"{ISOLATION}::TestTrials::test_no_trial_in_a_trial",),
    ),
    Guard(
        "a library of the environment is loaded into the helper",
        "isolation.py",
        'return {name: value for name, value in os.environ.items() if name not in _DROPPED}',
        "return dict(os.environ)",
        (f"{ISOLATION}::test_the_helper_has_a_clean_environment",),
    ),
    # Zarr
    _condition(
        "a codec that runs code is let through",
        "arrays/zarr_documents.py",
        '"pickle" in name.lower()',
        *refused(ZARR, "pickle as compressor", "pickle in format 3", "pickle in a shard"),
    ),
    _condition(
        "codecs that nobody knows are let through",
        "arrays/zarr_documents.py",
        'name.removeprefix("numcodecs.") not in _CODECS',
        *refused(ZARR, "unknown codec", "msgpack"),
    ),
    Guard(
        "codecs inside of shards are not looked at",
        "arrays/zarr_documents.py",
        "                    yield from _codec_names(configuration)",
        "                    pass",
        refused(ZARR, "pickle in a shard", "pickle in the index of a shard"),
    ),
    Guard(
        "only one of two names of a codec is looked at",
        "arrays/zarr_documents.py",
        'for k in ("id", "name") if k in codec)',
        'for k in ("id",) if k in codec)',
        refused(ZARR, "pickle in format 3", "pickle under two names"),
    ),
    Guard(
        "keys of chunks lead out of the store",
        "arrays/zarr_documents.py",
        'if name not in ("default", "v2") or separator not in (None, "/", "."):',
        "if False:",
        refused(ZARR, "separator", "key encoding"),
    ),
    _condition(
        "keys of chunks of format 2 lead out of the store",
        "arrays/zarr_documents.py",
        'separator not in (".", "/")',
        *refused(ZARR, "separator, 2"),
    ),
    _condition(
        "chunks are transformed by what metadata name",
        "arrays/zarr_documents.py",
        'document.get("storage_transformers")',
        *refused(ZARR, "storage transformer"),
    ),
    _condition(
        "one of two keys of the same name wins",
        "arrays/zarr_documents.py",
        "len(found) < len(items)",
        *refused(ZARR, "a key twice"),
    ),
    _condition(
        "one of two formats wins",
        "arrays/zarr_documents.py",
        "len(found) > 1",
        *refused(ZARR, "both formats"),
    ),
    _condition(
        "extents beyond 64 bits are believed",
        "arrays/zarr_documents.py",
        "any(n < least or n >= 1 << 63 for n in listed)",
        *refused(ZARR, "shape negative", "shape overflows", "chunks of 0"),
    ),
    _condition(
        "ranks that differ are believed",
        "arrays/zarr_documents.py",
        "len(shape) != len(chunks)",
        *refused(ZARR, "rank", "rank, 2"),
    ),
    Guard(
        "metadata too deep for the parser are a bug",
        "arrays/zarr_documents.py",
        "    except RecursionError as error:",
        "    except ZeroDivisionError as error:",
        refused(ZARR, "JSON too deep"),
    ),
    Guard(
        "a store that is a link is followed",
        "arrays/zarr_links.py",
        "    if not folder.resolve().is_relative_to(root.resolve()):",
        "    if False:",
        (f"{ZARR}::test_a_linked_array_of_a_group",),
    ),
    _condition(
        "links out of a store are followed",
        "arrays/zarr_links.py",
        "not target.is_relative_to(root.resolve())",
        f"{ZARR}::test_links_out_of_the_store",
    ),
    _condition(
        "a pipe is opened for metadata",
        "arrays/zarr_links.py",
        "not stat.S_ISREG(status.st_mode)",
        *refused(ZARR, "pipe as metadata"),
    ),
    _condition(
        "metadata of any size are parsed",
        "arrays/zarr_links.py",
        "status.st_size > _MAX_DOCUMENT",
        f"{ZARR}::test_metadata_too_large_to_be_any",
    ),
    Guard(
        "links of chunks are not looked at",
        "arrays/zarr_listing.py",
        "                if entry.is_symlink():\n                    require_link_inside",
        "                if False:\n                    require_link_inside",
        (f"{ZARR}::test_links_out_of_the_store[link_chunk]",),
    ),
    Guard(
        "a chunk that is a folder is read as zeros",
        "arrays/zarr_listing.py",
        "        if stat.S_ISDIR(status.st_mode):\n            raise InputError",
        "        if False:\n            raise InputError",
        refused(ZARR, "chunk a folder"),
    ),
    _condition(
        "a pipe is opened for a chunk",
        "arrays/zarr_listing.py",
        "not stat.S_ISREG(status.st_mode)",
        *refused(ZARR, "pipe", "socket"),
    ),
    _condition(
        "a chunk of no bytes is read as zeros",
        "arrays/zarr_listing.py",
        "not status.st_size",
        *refused(ZARR, "chunk empty", "shard empty"),
    ),
    _condition(
        "a shard shorter than its index is read",
        "arrays/zarr_listing.py",
        "size < length",
        *refused(ZARR, "shard of an index"),
    ),
    _condition(
        "an index points out of its shard",
        "arrays/zarr_listing.py",
        "outside.any()",
        *refused(ZARR, "shard index beyond"),
    ),
    Guard(
        "zarr's decoders are not bounded",
        "arrays/zarr_open.py",
        "        bound(array)\n",
        "",
        refused(ZARR, "bomb gzip", "bomb zstd", "bomb bz2, 2"),
    ),
    Guard(
        "a chunk inflates to more than its array says",
        "arrays/zarr_codecs.py",
        "        if size > self._limit:",
        "        if False:",
        refused(ZARR, "bomb blosc", "bomb lz4, 2"),
    ),
    _condition(
        "streams inflate without end",
        "arrays/zarr_codecs.py",
        "len(result) > self._limit",
        *refused(ZARR, "bomb gzip of members"),
    ),
    Guard(
        "frames that hide their size inflate without end",
        "arrays/zarr_codecs.py",
        "            return self._codec.decode(data, room)",
        "            return self._codec.decode(data)",
        (f"{ZARR}::test_a_bomb_of_a_gibibyte_takes_no_memory[None-False]",
         *refused(ZARR, "bomb zstd of no size")),
    ),
    Guard(
        "blosc reads behind a chunk that was cut",
        "arrays/zarr_codecs.py",
        'if len(data) < 16 or int.from_bytes(data[12:16], "little") != len(data):',
        "if False:",
        refused(ZARR, "chunk cut, blosc"),
    ),
    _condition(
        "a chunk is decoded that has another checksum",
        "arrays/zarr_chunk_form.py",
        'crc32c(stored).to_bytes(_SUM, "little") != tail',
        *refused(ZARR, "bit under crc32c"),
    ),
    Guard(
        "a chunk that gives less than its size leaves what was in memory",
        "arrays/zarr_codecs.py",
        "        elif told != len(room):",
        "        elif False:",
        ("arrays/test_zarr_chunk_form.py::test_a_chunk_of_another_size_is_not_sound",),
    ),
    Guard(
        "a plain chunk of another size is taken",
        "arrays/zarr_chunk_form.py",
        "        elif len(stored) == len(target):\n            target[:] = stored",
        "        elif True:\n            n = min(len(stored), len(target))\n"
        "            target[:n] = stored[:n]",
        refused(ZARR, "chunk short", "chunk long"),
    ),
    Guard(
        "zarrs inflates frames whose bounds nobody knows",
        "arrays/zarr.py",
        "return self._frames is not None and self._frames.cover(block.start, block.stop)",
        "return True",
        (f"{ZARR}::test_a_bomb_of_a_gibibyte_takes_no_memory[240-True]",
         f"{ZARR}::test_a_bomb_of_a_gibibyte_takes_no_memory[None-False]"),
    ),
    Guard(
        "zarrs reads a part of a plain chunk of another size",
        "arrays/zarr.py",
        "if self._cells is not None and _cuts(block, self._cells):",
        "if False:",
        ("arrays/test_zarr_reading.py", *refused(ZARR, "chunk short", "chunk long")),
    ),
    # what is not stored
    _condition(
        "chunks are missing where none may be",
        "arrays/missing.py",
        'rules.missing == "error"',
        f"{MISSING}::test_refused",
    ),
    _condition(
        "an array of nothing but claims is read",
        "arrays/missing.py",
        "rules.missing is None and share < _LEAST_STORED and info.nbytes > _GIB",
        *refused(HDF5, "2**60 rows"),
        *refused(ZARR, "8 TiB"),
        hangs=True,
    ),
    _condition(
        "one chunk of terabytes is made room for",
        "arrays/missing.py",
        "nbytes > _GIB and nbytes > _MOST_INFLATED * max(stored_bytes, 1)",
        *refused(ZARR, "a chunk of 1.5 TiB"),
    ),
    # parameters, checkpoints and statistics
    _condition(
        "pickled objects are taken for parameters",
        "bundles/npy_file.py",
        "dtype.hasobject",
        *refused(MODELS, "objects"),
        f"{BUNDLES}::test_object_arrays",
    ),
    _condition(
        "a header of parameters of any length is read",
        "bundles/npy_file.py",
        "header > min(_MAX_HEADER, size)",
        f"{BUNDLES}::test_npy_files_that_lie",
    ),
    _condition(
        "parameters of a shape that their bytes do not have are read",
        "bundles/npy_file.py",
        "nbytes != size - header",
        f"{BUNDLES}::test_npy_files_that_lie",
    ),
    _condition(
        "a promise of gigabytes in a few bytes is believed",
        "bundles/guards.py",
        "nbytes > _GIB and nbytes > _MAX_RATIO * self.stored",
        *refused(MODELS, "torch promise"),
        f"{BUNDLES}::test_a_huge_array_is_refused_by_its_promise",
    ),
    _condition(
        "parameters fill the memory",
        "bundles/guards.py",
        "self.used > MAX_BYTES",
        f"{BUNDLES}::test_arrays_too_large_for_memory",
    ),
    _condition(
        "a pipe is opened for parameters",
        "bundles/guards.py",
        "not stat.S_ISREG(status.st_mode)",
        f"{BUNDLES}::test_pipes_and_folders[.npy]",
        hangs=True,
    ),
    _condition(
        "parameters are read out of another file",
        "bundles/hdf5_file.py",
        "isinstance(item, h5py.ExternalLink)",
        *refused(MODELS, "HDF5 link"),
    ),
    _condition(
        "parameters are read out of external storage",
        "bundles/hdf5_file.py",
        "item.is_virtual or item.external",
        f"{BUNDLES}::test_hdf5_that_leads_elsewhere",
    ),
    _condition(
        "parameters that were never written are zeros",
        "bundles/hdf5_file.py",
        "missing",
        f"{BUNDLES}::test_hdf5_that_leads_elsewhere",
    ),
    _condition(
        "links in a store of parameters are followed",
        "bundles/zarr_file.py",
        "full.is_symlink()",
        f"{BUNDLES}::test_zarr_stores_that_are_refused",
    ),
    _condition(
        "a codec of parameters runs code",
        "bundles/zarr_file.py",
        'codec.endswith("pickle")',
        f"{BUNDLES}::test_zarr_metadata_that_is_refused",
    ),
    _condition(
        "missing chunks of a sidecar are zeros",
        "bundles/zarr_file.py",
        "ours and item.size and item.nchunks_initialized < item.nchunks",
        f"{BUNDLES}::test_zarr_stores_that_are_refused",
    ),
    Guard(
        "checkpoints are unpickled",
        "bundles/torch_file.py",
        'torch.load(path, map_location="cpu", weights_only=True, mmap=True)',
        'torch.load(path, map_location="cpu", weights_only=False, mmap=True)',
        refused(MODELS, "torch code"),
    ),
    _condition(
        "a bare pickle is given to torch",
        "bundles/torch_file.py",
        'start[:1] == b"\\x80"',
        *refused(MODELS, "bare pickle as pt"),
    ),
    _condition(
        "checksums of checkpoints are not compared",
        "bundles/torch_file.py",
        "damaged is not None",
        *refused(MODELS, "torch bit"),
    ),
    _condition(
        "a torch that runs code is used",
        "bundles/torch_file.py",
        "version < _LEAST",
        f"{CHECKPOINTS}::TestTorch::test_an_old_torch_is_refused",
    ),
    _condition(
        "programs are taken for checkpoints",
        "bundles/torch_file.py",
        '"constants.pkl" in names or any(name.startswith("code/") for name in names)',
        *refused(MODELS, "torch script"),
    ),
    Guard(
        "external data of a model are read by onnx",
        "bundles/onnx_file.py",
        "onnx.load_model(path, load_external_data=False)",
        "onnx.load_model(path)",
        (f"{CHECKPOINTS}::TestOnnx::test_external_data_that_are_refused",),
    ),
    _condition(
        "external data lead out of the folder of a model",
        "bundles/onnx_file.py",
        'not parts or Path(location).is_absolute() or ".." in parts or "\\\\" in location',
        *refused(MODELS, "onnx ..", "onnx absolute"),
    ),
    _condition(
        "external data lie behind links",
        "bundles/onnx_file.py",
        "stat.S_ISLNK(status.st_mode)",
        *refused(MODELS, "onnx link"),
    ),
    _condition(
        "external data are longer than their file",
        "bundles/onnx_file.py",
        "start < 0 or length != nbytes or start + length > status.st_size",
        f"{CHECKPOINTS}::TestOnnx::test_external_data_that_are_refused",
    ),
    _condition(
        "a model inflates without end",
        "bundles/keras_file.py",
        "info.file_size > _MOST_RATIO * size + _MAX_CONFIG",
        *refused(MODELS, "keras bomb"),
    ),
    _condition(
        "a JSON file of any size is parsed",
        "bundles/json_file.py",
        "size > _MAX_FILE",
        f"{BUNDLES}::test_a_large_json_file_is_refused_by_its_size",
    ),
    _condition(
        "a minimum above its maximum is believed",
        "bundles/statistics_bundle.py",
        "np.any(crossed)",
        BROKEN,
    ),
    # outputs
    _condition(
        "an output is replaced unasked",
        "publishing/draft.py",
        "not overwrite and (target.exists() or target.is_symlink())",
        *refused(BAD, "existing output"),
    ),
    _condition(
        "others' files are replaced by statistics and parameters",
        "bundles/replacing.py",
        "not own",
        f"{REPLACING}::test_others_data_stay[fit-.json]",
        f"{REPLACING}::test_others_data_stay[convert-.npz]",
    ),
    _condition(
        "others' arrays are lost with the array that is replaced",
        "arrays/replacing.py",
        "others and not (several and len(others) < len(held) and _has_mark(path))",
        f"{REPLACING}::test_others_data_stay[apply-.h5]",
    ),
    _condition(
        "others' files in the folder of a store are lost",
        "publishing/draft.py",
        "other is not None",
        f"{REPLACING}::test_what_is_no_array_is_not_lost_either",
    ),
    _condition(
        "others' files are replaced by a manifest",
        "arrays/replacing.py",
        "path.exists() and not is_empty(path) and not is_manifest(path)",
        f"{REPLACING}::test_companions_of_an_output_may_be_others_files",
    ),
    _condition(
        "a scheduler that others can use is used",
        "engine/cluster_address.py",
        "is_exposed(address)",
        f"{ADDRESSES}::test_an_exposed_scheduler_is_refused_before_it_is_asked",
    ),
    _condition(
        "dask talks to a server that is no scheduler",
        "engine/cluster_address.py",
        'len(start) < _LENGTH or struct.unpack("<Q", start)[0] > _LONGEST_GREETING',
        f"{ADDRESSES}::test_what_greets_otherwise_is_no_scheduler",
    ),
    _condition(
        "memory is taken for what an HDF5 chunk claims to be",
        "arrays/hdf5_chunk_check.py",
        "size > 2 * chunk_bytes + 4096",
        *refused(HDF5, "chunk said to be long"),
    ),
    Guard(
        "a file that cannot be opened for a moment ends a run",
        "arrays/handles.py",
        "self._handle = reopened(self._opener)",
        "self._handle = self._opener()",
        (f"{READING}::test_verify_reads_again[x.zarr]",),
    ),
    _condition(
        "a link is taken for the work folder",
        "publishing/workplace.py",
        "folder.is_symlink()",
        f"{WORKPLACE}::test_a_link_in_place_of_the_work_folder_is_refused",
    ),
    Guard(
        "two runs write one output",
        "publishing/workplace.py",
        "        lock.acquire()\n    except OSError as error:",
        "    except OSError as error:",
        (f"{WORKPLACE}::test_a_second_run_is_told_who_owns_the_output",),
    ),
    Guard(
        "the lock goes before what it guards",
        "publishing/workplace.py",
        """            if entry.name not in (LOCK, MARKER, OWNER):
                _remove(entry)""",
        """            if True:
                _remove(entry)""",
        (f"{WORKPLACE}::test_the_lock_stays_while_what_it_guards_is_removed",),
    ),
    Guard(
        "companions of an earlier output stand beside the new one",
        "publishing/handover.py",
        "                if os.path.lexists(draft):\n                    _step_aside",
        "                if False:\n                    _step_aside",
        (HANDOVER,),
    ),
    Guard(
        "what changed places is exchanged back",
        "publishing/handover.py",
        "            if self._is_exchanged():\n",
        "            if False:\n",
        (HANDOVER,),
    ),
    Guard(
        "an earlier output is lost when renaming fails",
        "publishing/handover.py",
        "            if not named:\n",
        "            if False:\n",
        (HANDOVER, "faults/test_odd_file_systems.py::test_renaming_fails[x.npy-EACCES]"),
    ),
    # the journal
    Guard(
        "a damaged line of the journal is believed",
        "engine/journal_file.py",
        'if not raw.endswith(b"\\n") or int(head, 16) != zlib.crc32(text):',
        "if False:",
        (f"{JOURNAL}::test_every_flipped_bit_is_noticed",),
    ),
    Guard(
        "lines after a damaged one are believed",
        "engine/journal_file.py",
        "            if line is None:\n                break",
        "            if line is None:\n                continue",
        (f"{JOURNAL}::test_every_flipped_bit_is_noticed",),
    ),
    Guard(
        "lines are not durable when they count",
        "engine/journal_file.py",
        "        os.fsync(self._file)\n",
        "",
        (f"{JOURNAL}::test_lines_are_synced_before_they_count",),
    ),
    Guard(
        "a torn line stays before new ones",
        "engine/journal_file.py",
        "        os.ftruncate(self._file, keep)\n",
        "",
        (f"{JOURNAL}::test_what_follows_a_damaged_line_is_gone_for_good",),
    ),
    Guard(
        "a run is written down before it is durable",
        "engine/journal.py",
        "            self._sync(done)\n",
        "            pass\n",
        (f"{JOURNAL}::test_nothing_is_written_down_before_it_is_durable",),
    ),
    Guard(
        "other settings are continued",
        "engine/journal.py",
        "        if self.changed:\n            return\n",
        "",
        (f"{JOURNAL}::test_other_settings_begin_afresh",),
    ),
    Guard(
        "a journal is written through a link",
        "engine/journal_file.py",
        "os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW",
        "os.O_WRONLY | os.O_CREAT",
        (f"{JOURNAL}::test_no_link_is_written_through",),
    ),
    # manifests and verify
    _condition(
        "a header of a manifest is believed",
        "arrays/manifest.py",
        "given != _hex(checksum)",
        f"{MANIFEST}::test_a_damaged_header_is_no_later_version",
    ),
    _condition(
        "a manifest that was cut is believed",
        "arrays/manifest.py",
        'values != end or file.read(1) or header.get("parts") != len(parts)',
        f"{MANIFEST}::test_edited_lines_are_noticed",
        f"{MANIFEST}::test_a_changed_bit_is_noticed_everywhere",
    ),
    _condition(
        "a later manifest is believed",
        "arrays/manifest.py",
        'header.get("version") != VERSION',
        f"{MANIFEST}::test_a_later_version_and_no_file",
    ),
    _condition(
        "changed bytes are not noticed",
        "arrays/stored_parts.py",
        "checksum != part.crc32c",
        f"{VERIFY}::test_a_flipped_bit_is_found_and_its_part_named[npy]",
        f"{VERIFY}::test_a_flipped_bit_is_found_and_its_part_named",
    ),
    _condition(
        "parts outside of a store are read",
        "arrays/stored_parts.py",
        "not path.resolve().is_relative_to(self._real) or path.is_symlink()",
        f"{VERIFY}::TestZarrFiles::test_missing_surplus_linked_and_replaced_files",
    ),
    _condition(
        "other moments than were written are not noticed",
        "api/verifying.py",
        "a != b and not abs(a - b) <= allowed.get(field, 0)",
        f"{VERIFY}::TestEveryOutput::test_other_moments_than_written_are_told",
    ),
    Guard(
        "files that do not belong to a store are not noticed",
        "api/verifying.py",
        "            self.damage += stored.surplus(known)\n",
        "",
        (VERIFY,),
    ),
    # names and secrets
    Guard(
        "credentials are shown",
        "redaction.py",
        '_CREDENTIALS.sub(rf"\\1{_MASK}@", text)',
        "text",
        (f"{NAMES}::test_secrets_of_addresses",),
    ),
    Guard(
        "signatures are shown",
        "redaction.py",
        'return _QUERY.sub(rf"\\1{_MASK}", _CREDENTIALS.sub(rf"\\1{_MASK}@", text))',
        'return _CREDENTIALS.sub(rf"\\1{_MASK}@", text)',
        (f"{NAMES}::test_secrets_of_addresses",),
    ),
    Guard(
        "a stop that no thread watches never ends",
        "cli/running.py",
        "signal.setitimer(signal.ITIMER_REAL, CLEAN_SECONDS)",
        "pass",
        ("faults/test_limits.py::test_a_signal_ends_what_has_no_memory_for_threads",),
    ),
    _condition(
        "threads begin without room for them",
        "engine/resources.py",
        "space is not None and space < need",
        "engine/test_resources.py::test_threads_are_not_begun_without_room_for_them",
    ),
    Guard(
        "tracebacks show secrets",
        "cli/running.py",
        'redacted("".join(traceback.format_exception(error)))',
        '"".join(traceback.format_exception(error))',
        (f"{NAMES}::test_secrets_of_addresses",),
    ),
    Guard(
        "secrets of addresses that became paths are shown",
        "redaction.py",
        "]{2}:/{1,2}",
        "]{2}://",
        (f"{NAMES}::test_secrets_of_addresses",),
    ),
    _condition(
        "names climb out of their container",
        "arrays/paths.py",
        '".." in inner',
        "arrays/test_names_and_layouts.py::test_unknown_names",
    ),
    _condition(
        "a pickle is known by nothing but its content",
        "arrays/paths.py",
        'what == "input" and Path(text).suffix.lower() in _PICKLES',
        *refused(NPY, "pickle"),
    ),
    # what is replaced
    _condition(
        "a folder of other things is removed for an output",
        "publishing/draft.py",
        'names and (target.suffix.lower() != ".zarr" or names.isdisjoint(DOCUMENTS))',
        f"{FOLDERS}::test_a_folder_of_other_things_is_not_replaced",
    ),
    Guard(
        "a name that is no UTF-8 cannot be journalled",
        "engine/journal_file.py",
        'json.dumps(line, separators=(",", ":"))',
        'json.dumps(line, ensure_ascii=False, separators=(",", ":"))',
        (f"{FOLDERS}::test_names_that_are_no_utf8",),
    ),
    # reads that fail
    _condition(
        "a read error that passes ends the run",
        "retrying.py",
        "error.errno not in PASSING",
        "faults/test_inputs_in_motion.py::test_a_read_that_fails_once_is_tried_again[9]",
        never="True",
    ),
    Guard(
        "a library's read that fails and passes ends the run",
        "retrying.py",
        "        except TransientError:\n            time.sleep(wait)",
        "        except TransientError:\n            raise",
        (f"{MOTION}::test_a_read_by_hdf5_that_fails_once_is_tried_again[x.h5-6]",),
    ),
    Guard(
        "what HDF5 tells of storage is taken for a malformed file",
        "retrying.py",
        "        told = _TOLD.search(str(error))\n",
        "        told = None\n",
        (f"{MOTION}::test_a_read_by_hdf5_that_fails_once_is_tried_again[x.h5-6]",),
    ),
    Guard(
        "names of axes are lost where a read fails",
        "arrays/hdf5_dims.py",
        "        raise_storage_error(dataset.file.filename, error)\n        return None",
        "        return None",
        (f"{MOTION}::test_names_of_axes_are_not_lost_to_a_failing_read[False]",),
    ),
    Guard(
        "parameters are opened by HDF5 without a trial",
        "bundles/formats.py",
        "    if module in _BY_HDF5:\n",
        "    if False:\n",
        (f"{ISOLATION}::TestParameters::test_nothing_opens_them_before_their_trial",),
    ),
    Guard(
        "a file that ended a trial is tried once more",
        "isolation.py",
        "    if earlier is not None:\n",
        "    if False:\n",
        (f"{ISOLATION}::TestTrials::test_a_file_that_ended_one_is_not_tried_again",),
    ),
    Guard(
        "a name is taken for want of memory",
        "isolation.py",
        '_NAMES.sub("", told)',
        "told",
        (f"{ISOLATION}::test_only_want_of_memory_is_want_of_memory",),
    ),
    Guard(
        "statistics of an input that has changed are applied to it",
        "api/drift.py",
        "        elif certain or _differs(",
        "        elif False and _differs(",
        (f"{DRIFT}::TestOneFile::test_one_changed_value[400-x.npy]",),
    ),
    Guard(
        "an element that changed where nothing was sampled goes unnoticed",
        "api/drift.py",
        "    return not _same(found.moments, moments)",
        "    return False",
        (f"{DRIFT}::TestOneFile::test_one_changed_value",),
    ),
    Guard(
        "results that integers cannot hold are clipped in silence",
        "engine/tasks.py",
        "    if losses and not job.saturate:\n",
        "    if False:\n",
        (f"{OVERFLOW}::test_integers[y.npy-u1]",),
    ),
    Guard(
        "floats become infinite in silence",
        "engine/tasks.py",
        "            if summary.nonfinite:\n",
        "            if False:\n",
        (f"{OVERFLOW}::test_floats_that_overflow",),
    ),
    Guard(
        "what was clipped before a run was interrupted is not counted",
        "engine/done.py",
        "    if done.losses:\n",
        "    if False:\n",
        (f"{OVERFLOW}::test_an_interrupted_run_keeps_its_counts",),
    ),
)  # fmt: skip
