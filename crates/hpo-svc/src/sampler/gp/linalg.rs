//! Dense algebra of positive definite matrices: the inverse of the Cholesky factor, by halves, so that matrix products do the work.

use nalgebra::DMatrix;

/// Matrices up to this size are worked on number by number.
const LEAF: usize = 32;

/// The inverse of the lower Cholesky factor: `m` with `m a mᵀ = 1`. Reads the lower triangle of `a`; `None` unless it is positive
/// definite.
pub(super) fn inverse_factor(a: &DMatrix<f64>) -> Option<DMatrix<f64>> {
    let n = a.nrows();
    if n <= LEAF {
        return leaf(a);
    }
    // a = [[a11, .], [a21, a22]] has the factor [[l11, 0], [a21 l11⁻ᵀ, factor of (a22 - l21 l21ᵀ)]].
    let half = n / 2;
    let rest = n - half;
    let m11 = inverse_factor(&a.view((0, 0), (half, half)).into_owned())?;
    let l21 = a.view((half, 0), (rest, half)) * m11.transpose();
    let mut a22 = a.view((half, half), (rest, rest)).into_owned();
    a22.gemm(-1.0, &l21, &l21.transpose(), 1.0);
    let m22 = inverse_factor(&a22)?;
    let m21 = &m22 * (l21 * &m11);
    let mut m = DMatrix::zeros(n, n);
    m.view_mut((0, 0), (half, half)).copy_from(&m11);
    m.view_mut((half, 0), (rest, half)).copy_from(&-m21);
    m.view_mut((half, half), (rest, rest)).copy_from(&m22);
    Some(m)
}

/// [`inverse_factor`] of a small matrix.
fn leaf(a: &DMatrix<f64>) -> Option<DMatrix<f64>> {
    let n = a.nrows();
    let mut l = DMatrix::zeros(n, n);
    for j in 0..n {
        for i in j..n {
            let known: f64 = (0..j).map(|k| l[(i, k)] * l[(j, k)]).sum();
            l[(i, j)] = a[(i, j)] - known;
        }
        let pivot: f64 = l[(j, j)];
        // Not `pivot <= 0.0`: it may be NaN.
        if !(pivot > 0.0 && pivot.is_finite()) {
            return None;
        }
        let scale = pivot.sqrt();
        for i in j..n {
            l[(i, j)] /= scale;
        }
    }
    let mut m = DMatrix::zeros(n, n);
    for j in 0..n {
        m[(j, j)] = 1.0 / l[(j, j)];
        for i in j + 1..n {
            let known: f64 = (j..i).map(|k| l[(i, k)] * m[(k, j)]).sum();
            m[(i, j)] = -known / l[(i, i)];
        }
    }
    Some(m)
}

/// The lower triangle of `mᵀ m` for a lower triangular `m`; what is above the diagonal means nothing.
pub(super) fn gram(m: &DMatrix<f64>) -> DMatrix<f64> {
    let n = m.nrows();
    if n <= LEAF {
        return m.transpose() * m;
    }
    let half = n / 2;
    let rest = n - half;
    let m21 = m.view((half, 0), (rest, half));
    let m22 = m.view((half, half), (rest, rest)).into_owned();
    let mut top = gram(&m.view((0, 0), (half, half)).into_owned());
    top.gemm(1.0, &m21.transpose(), &m21, 1.0);
    let mut product = DMatrix::zeros(n, n);
    product.view_mut((0, 0), (half, half)).copy_from(&top);
    product.view_mut((half, 0), (rest, half)).copy_from(&(m22.transpose() * m21));
    product.view_mut((half, half), (rest, rest)).copy_from(&gram(&m22));
    product
}

/// Inner product, in four sums that a processor can compute side by side.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let (chunks, others) = (a.chunks_exact(4), b.chunks_exact(4));
    let tail: f64 = chunks.remainder().iter().zip(others.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in chunks.zip(others) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f64>() + tail
}

/// `m v` for a lower triangular `m`.
pub(super) fn lower_times(m: &DMatrix<f64>, v: &[f64]) -> Vec<f64> {
    let n = m.nrows();
    let mut product = vec![0.0; n];
    for (j, (column, factor)) in m.as_slice().chunks_exact(n.max(1)).zip(v).enumerate() {
        for (sum, entry) in product[j..].iter_mut().zip(&column[j..]) {
            *sum += entry * factor;
        }
    }
    product
}

/// `mᵀ v` for a lower triangular `m`.
pub(super) fn lower_transposed_times(m: &DMatrix<f64>, v: &[f64]) -> Vec<f64> {
    let columns = m.as_slice().chunks_exact(m.nrows().max(1));
    columns.enumerate().map(|(j, column)| dot(&column[j..], &v[j..])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A covariance of points on a line, with noise.
    fn covariance(n: usize) -> DMatrix<f64> {
        DMatrix::from_fn(n, n, |i, j| {
            let noise = if i == j { 1e-3 } else { 0.0 };
            (-(i as f64 - j as f64).abs() / 7.0).exp() + noise
        })
    }

    #[test]
    fn factors_are_inverted_at_all_sizes() {
        for n in [1, 2, 31, 32, 33, 70, 131] {
            let a = covariance(n);
            let m = inverse_factor(&a).unwrap();
            let error = (&m * &a * m.transpose() - DMatrix::identity(n, n)).amax();
            assert!(error < 1e-10, "{n}: {error}");
            assert!((0..n).all(|j| (0..j).all(|i| m[(i, j)] == 0.0)));
            let inverse = gram(&m);
            let full = m.transpose() * &m;
            assert!((0..n).all(|j| (j..n).all(|i| (inverse[(i, j)] - full[(i, j)]).abs() < 1e-9)));
            let v: Vec<f64> = (0..n).map(|i| (i as f64).sin()).collect();
            let column = DMatrix::from_column_slice(n, 1, &v);
            let close = |ours: Vec<f64>, theirs: DMatrix<f64>| {
                ours.iter().zip(theirs.iter()).all(|(a, b)| (a - b).abs() < 1e-9)
            };
            assert!(close(lower_times(&m, &v), &m * &column));
            assert!(close(lower_transposed_times(&m, &v), m.transpose() * &column));
        }
    }

    #[test]
    fn what_is_not_positive_definite_is_refused() {
        let mut a = covariance(40);
        a[(39, 39)] = 0.1;
        assert!(inverse_factor(&a).is_none());
        a[(39, 39)] = f64::NAN;
        assert!(inverse_factor(&a).is_none());
        assert!(inverse_factor(&DMatrix::from_element(3, 3, 1.0)).is_none());
    }
}
