"""Fitted statistics as training loops use them: normalize and denormalize arrays in memory."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from normcli.api.parameters import Known, require_fit
from normcli.bundles.statistics_file import read_statistics as read_file
from normcli.bundles.statistics_file import write_statistics
from normcli.domain.affine import Affine
from normcli.domain.dtypes import output_dtype, parse_dtype
from normcli.domain.geometry import bind
from normcli.domain.losses import Losses
from normcli.domain.norm_moments import NormMoments
from normcli.domain.normalizers import fitted_normalizer, require_told_apart
from normcli.domain.quantile_moments import QuantileMoments
from normcli.domain.statistics import Statistics, require_whole
from normcli.domain.transform import Normalizer, backward, forward
from normcli.domain.wide_moments import WideMoments
from normcli.errors import UsageError
from normcli.kernels.select import choose, kernels

K = TypeVar("K", QuantileMoments, NormMoments)


@dataclass(frozen=True)
class FittedStatistics:
    """Statistics of a dataset, ready to normalize arrays in memory.

    What `normalize` and `denormalize` return is what ``normcli apply --stats`` and
    ``normcli apply --inverse --stats`` write for the same elements.

    Attributes
    ----------
    statistics : Statistics
        The values behind it: spec, source, moments, moving statistics, scale and bias.

    Examples
    --------
    >>> import numpy as np, normcli
    >>> images = np.load("sample_data/digits.npy")
    >>> stats = normcli.fit("sample_data/digits.npy", layout="NHW")
    >>> batch = stats.normalize(images[:32])
    >>> batch.dtype, round(float(stats.normalize(images).std()), 6)
    (dtype('float32'), 1.0)
    >>> bool(np.allclose(stats.denormalize(batch), images[:32], atol=1e-5))
    True
    """

    statistics: Statistics

    @property
    def mean(self) -> np.ndarray:
        """Pooled mean of each group, float64, with the extents of the kept axes."""
        return self.statistics.mean

    @property
    def variance(self) -> np.ndarray:
        """Pooled variance of each group, float64."""
        return self.statistics.variance

    @property
    def std(self) -> np.ndarray:
        """Square root of the variance, without epsilon."""
        statistics = self.statistics
        if isinstance(statistics.moments, WideMoments):
            # It fits float64 where the variance does not.
            unknown = np.isnan(self.variance)
            return np.where(unknown, np.nan, statistics.moments.deviation(statistics.spec.ddof))
        return np.sqrt(self.variance)

    @property
    def count(self) -> np.ndarray:
        """Finite elements of each group, int64.

        Raises
        ------
        UsageError
            When only a mean and a variance were supplied.
        """
        if self.statistics.moments is None:
            raise UsageError("These statistics hold no counts.")
        return self.statistics.moments.count

    @property
    def moving_mean(self) -> np.ndarray | None:
        """Moving mean of each group, where the fit kept one."""
        return None if self.statistics.moving is None else self.statistics.moving.mean

    @property
    def moving_variance(self) -> np.ndarray | None:
        """Moving variance of each group, where the fit kept one."""
        return None if self.statistics.moving is None else self.statistics.moving.variance

    @property
    def center(self) -> np.ndarray:
        """Median of each group, float64, with the method ``robust``.

        Raises
        ------
        UsageError
            With any other method.
        """
        return self._of(QuantileMoments).center

    @property
    def spread(self) -> np.ndarray:
        """Upper less lower quantile of each group, float64, with the method ``robust``.

        Raises
        ------
        UsageError
            With any other method.
        """
        return self._of(QuantileMoments).spread

    @property
    def norm(self) -> np.ndarray:
        """Norm of each group, float64, with the method ``lp``.

        Raises
        ------
        UsageError
            With any other method.
        """
        return self._of(NormMoments).norm

    def _of(self, kind: type[K]) -> K:
        moments = self.statistics.moments
        if not isinstance(moments, kind):
            raise UsageError(
                f"Statistics of method {self.statistics.spec.method} hold no such numbers.",
                "Fit with --method robust or lp.",
            )
        return moments

    def normalize(
        self, values: np.ndarray, *, estimate: str | None = None, dtype: str | None = None
    ) -> np.ndarray:
        """Return the normalized values.

        Parameters
        ----------
        values : ndarray
            An array of the layout that was fitted; any number of observations, or one
            observation without the batch axis.
        estimate : {"pooled", "moving"}, optional
            None takes the moving statistics where the fit kept them.
        dtype : str, optional
            Element type of the result; by default the input's own, and float32 or float64 for
            integers.

        Returns
        -------
        ndarray

        Raises
        ------
        InputError
            When the extents of the kept axes are not those of the statistics.
        """
        return self._transform(values, estimate, dtype, inverse=False)

    def denormalize(
        self, values: np.ndarray, *, estimate: str | None = None, dtype: str | None = None
    ) -> np.ndarray:
        """Return the data that normalized values came from; the inverse of `normalize`."""
        return self._transform(values, estimate, dtype, inverse=True)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a sidecar: .json, .npz, .h5, .zarr or .safetensors.

        Raises
        ------
        UsageError
            When the suffix is unknown or the file exists.
        """
        write_statistics(str(path), self.statistics, overwrite)

    def _transform(
        self, values: np.ndarray, estimate: str | None, dtype: str | None, inverse: bool
    ) -> np.ndarray:
        require_whole(self.statistics, "This")
        spec = self.statistics.spec
        array = np.asarray(values)
        batch = spec.layout.batch_axis
        single = batch is not None and array.ndim == spec.layout.ndim - 1
        if single and batch is not None:
            array = np.expand_dims(array, batch)
        if not inverse:
            require_told_apart(self.statistics, spec, estimate, array.dtype, "The array")
        geometry = bind(spec, array.shape)
        require_fit(Known(self.statistics), geometry, "an array")
        affine = self.statistics.affine
        axes = ", ".join(spec.layout.axis_label(axis) for axis in spec.scale_axes)
        affine = Affine(affine.scale, affine.bias).fitted(geometry.scale_shape, axes)
        affine = affine.after(spec.offset, geometry.scale_shape)
        transform = (backward if inverse else forward)(self._normalizer(estimate), affine)
        target = output_dtype(array.dtype) if dtype is None else parse_dtype(dtype)
        start = (0,) * array.ndim
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        apply = kernels(choose(array.nbytes)).transform
        lost: list[Losses] = []
        result = apply(native, transform, geometry, start, target, lost)
        if lost:
            # As NumPy tells of casts: an array in memory has no policy and no report.
            told = sum(lost, Losses()).words(target)
            warnings.warn(f"the results held {told}", RuntimeWarning, stacklevel=3)
        return result.reshape(np.shape(values)) if single else result

    def _normalizer(self, estimate: str | None) -> Normalizer:
        # Folded once, because training loops ask again for every batch.
        if estimate is None:
            return self._preferred
        return self._pooled if estimate == "pooled" else self._fold(estimate)

    @cached_property
    def _preferred(self) -> Normalizer:
        return self._fold(None)

    @cached_property
    def _pooled(self) -> Normalizer:
        return self._fold("pooled")

    def _fold(self, estimate: str | None) -> Normalizer:
        return fitted_normalizer(self.statistics, self.statistics.spec, estimate)


def read_statistics(path: str | Path) -> FittedStatistics:
    """Read fitted statistics from a sidecar of any format.

    Parameters
    ----------
    path : str or Path
        A file that ``normcli fit`` or ``normcli apply`` wrote.

    Returns
    -------
    FittedStatistics

    Raises
    ------
    InputError
        When it is missing, malformed, or holds no statistics.
    """
    return FittedStatistics(read_file(str(path)))
