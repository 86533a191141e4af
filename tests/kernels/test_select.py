"""Which kernels run, and that they run where numba or its cache cannot."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from normcli.errors import UsageError
from normcli.kernels.select import SMALL, choose, kernels

ROOT = Path(__file__).parents[2]

MEASURE = """
    import numpy as np
    from normcli.domain.geometry import Geometry
    from normcli.kernels.select import kernels
    found = kernels("numba")
    values = np.arange(12, dtype="i4").reshape(3, 4)  # the kernel that is compiled in a second
    exact = found.measure(values, Geometry((3, 4), (), (), (3, 4)), (0, 0))
    assert exact.finish().mean == 5.5, exact
    print(found.name)
"""


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_small_data_do_not_pay_for_the_import_of_numba():
    assert choose(1) == "numpy"
    assert choose(SMALL - 1) == "numpy"
    assert choose(SMALL) == "numba"
    result = python(
        """
        import sys
        from normcli.kernels.select import kernels
        kernels("numpy")
        assert "numba" not in sys.modules
        """
    )
    assert result.returncode == 0, result.stderr


def test_unknown_kernels_are_refused():
    with pytest.raises(UsageError, match="no kernels 'cuda'"):
        kernels("cuda")


def test_without_numba_the_numpy_kernels_take_its_place():
    result = python("import sys\nsys.modules['numba'] = None\n" + textwrap.dedent(MEASURE))
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "numpy"


@pytest.mark.parametrize("broken", ["no directory anywhere", "full disk"])
def test_without_a_cache_everything_still_works(tmp_path, broken):
    if broken == "full disk":
        # The directory can be made, but nothing can be kept in it.
        setup = """
            import numba.core.caching as caching
            def full(self, *args):
                raise OSError(28, "No space left on device")
            caching.IndexDataCacheFile.save = full
        """
    else:
        setup = """
            import numba.core.caching as caching
            def denied(self):
                raise PermissionError(13, "read-only")
            caching._CacheLocator.ensure_cache_path = denied
        """
    code = textwrap.dedent(setup) + textwrap.dedent(MEASURE)
    result = python(code, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "numba"


def test_a_cache_directory_that_is_a_file_does_not_matter(tmp_path):
    (tmp_path / "cache").write_text("")
    result = python(MEASURE, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "numba"
