//! A Gaussian process with a Matérn 5/2 kernel: likelihood of its parameters, posterior at a point, and gradients of both.
//!
//! Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), chapters 2 and 5; the kernel is that of Optuna's
//! `_gp/gp.py`: a length scale for each parameter, and choices at distance 0 or 1.

use std::sync::Arc;

use nalgebra::DMatrix;

use super::{
    domain::Dimension,
    linalg::{dot, gram, inverse_factor, lower_times, lower_transposed_times},
};

/// Points in a scaled space, a column for each parameter.
#[derive(Debug, Clone)]
pub(super) struct Points {
    columns: Vec<Column>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Column {
    is_choice: bool,
    values: Vec<f64>,
}

impl Points {
    /// From a row for each point.
    pub(super) fn new(space: &[Dimension], rows: &[Vec<f64>]) -> Self {
        let column = |(i, dimension): (usize, &Dimension)| Column {
            is_choice: dimension.is_choice(),
            values: rows.iter().map(|row| row[i]).collect(),
        };
        Self { columns: space.iter().enumerate().map(column).collect(), len: rows.len() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn row(&self, index: usize) -> Vec<f64> {
        self.columns.iter().map(|column| column.values[index]).collect()
    }

    /// Adds to `out` the weighted squared distances of `x` from the points from `first` on.
    fn distances(&self, x: &[f64], weights: &[f64], first: usize, out: &mut [f64]) {
        for ((column, x), weight) in self.columns.iter().zip(x).zip(weights) {
            for (out, value) in out.iter_mut().zip(&column.values[first..]) {
                *out += weight * column.squared(*x, *value);
            }
        }
    }
}

impl Column {
    fn squared(&self, a: f64, b: f64) -> f64 {
        if self.is_choice { f64::from(u8::from(a != b)) } else { (a - b) * (a - b) }
    }
}

/// The kernel at a squared distance, and its derivative there.
fn matern(squared: f64) -> (f64, f64) {
    let root = (5.0 * squared).sqrt();
    let fade = (-root).exp();
    (fade * (5.0 / 3.0 * squared + root + 1.0), -5.0 / 6.0 * (root + 1.0) * fade)
}

/// What is fitted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parameters {
    /// Inverse squared length scale of each parameter of the space.
    pub(super) relevance: Vec<f64>,
    /// Variance of the function.
    pub(super) scale: f64,
    /// Variance of the noise.
    pub(super) noise: f64,
}

impl Parameters {
    /// All 1, where Optuna begins.
    pub(super) fn ones(dimensions: usize) -> Self {
        Self { relevance: vec![1.0; dimensions], scale: 1.0, noise: 1.0 }
    }

    /// Kernel between `x` and the points from `first` on, with the derivatives by the squared distances.
    fn kernel(&self, points: &Points, x: &[f64], first: usize) -> (Vec<f64>, Vec<f64>) {
        let mut values = vec![0.0; points.len - first];
        points.distances(x, &self.relevance, first, &mut values);
        let mut slopes = Vec::with_capacity(values.len());
        for value in &mut values {
            let (kernel, slope) = matern(*value);
            *value = self.scale * kernel;
            slopes.push(self.scale * slope);
        }
        (values, slopes)
    }

    /// Lower triangle of the points' covariance with noise, and of the derivatives by the squared distances.
    pub(super) fn covariance(&self, points: &Points) -> (DMatrix<f64>, DMatrix<f64>) {
        let n = points.len;
        let (mut covariance, mut slopes) = (DMatrix::zeros(n, n), DMatrix::zeros(n, n));
        for j in 0..n {
            let (values, derivatives) = self.kernel(points, &points.row(j), j);
            covariance.view_mut((j, j), (n - j, 1)).copy_from_slice(&values);
            slopes.view_mut((j, j), (n - j, 1)).copy_from_slice(&derivatives);
            covariance[(j, j)] += self.noise;
        }
        (covariance, slopes)
    }
}

/// The log of the marginal likelihood, less its constant, with its gradient by relevance, then scale, then noise. `None` where the
/// covariance is not positive definite.
pub(super) fn log_likelihood(points: &Points, scores: &[f64], parameters: &Parameters) -> Option<(f64, Vec<f64>)> {
    let n = points.len;
    let (covariance, slopes) = parameters.covariance(points);
    let factor = inverse_factor(&covariance)?;
    let whitened = lower_times(&factor, scores);
    let alpha = lower_transposed_times(&factor, &whitened);
    let log_determinant: f64 = (0..n).map(|i| factor[(i, i)].ln()).sum();
    let value = log_determinant - 0.5 * dot(&whitened, &whitened);

    // The derivative by any parameter is half the inner product of (alpha alphaᵀ - inverse) with the covariance's derivative.
    let inverse = gram(&factor);
    let mut gradient = vec![0.0; points.columns.len()];
    let (mut by_scale, mut by_noise) = (0.0, 0.0);
    let mut weights = vec![0.0; n];
    for j in 0..n {
        by_noise += 0.5 * (alpha[j] * alpha[j] - inverse[(j, j)]);
        // Off the diagonal everything is there twice.
        let below = j + 1..n;
        let column = |matrix: &'_ DMatrix<f64>| -> Vec<f64> { matrix.as_slice()[j * n..][below.clone()].to_vec() };
        let weights = &mut weights[below.clone()];
        for ((weight, alpha_i), inverse) in weights.iter_mut().zip(&alpha[below.clone()]).zip(column(&inverse)) {
            *weight = alpha[j] * alpha_i - inverse;
        }
        by_scale += dot(weights, &column(&covariance)) / parameters.scale;
        for (weight, slope) in weights.iter_mut().zip(column(&slopes)) {
            *weight *= slope;
        }
        for (sum, column) in gradient.iter_mut().zip(&points.columns) {
            let x = column.values[j];
            let others = column.values[below.clone()].iter();
            *sum += weights.iter().zip(others).map(|(weight, y)| weight * column.squared(x, *y)).sum::<f64>();
        }
    }
    gradient.push(by_scale + by_noise);
    gradient.push(by_noise);
    Some((value, gradient))
}

/// A process that has seen its points.
#[derive(Debug, Clone)]
pub(super) struct Model {
    points: Arc<Points>,
    parameters: Parameters,
    /// Inverse of the covariance's lower Cholesky factor.
    factor: DMatrix<f64>,
    /// Inverse covariance times scores.
    alpha: Vec<f64>,
    pending: Option<Pending>,
}

/// Points whose scores are not known yet.
#[derive(Debug, Clone)]
struct Pending {
    points: Points,
    /// Inverse covariance of what was seen times its covariance with each of these points.
    solved: Vec<Vec<f64>>,
}

/// What a model says about a point.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Belief {
    pub(super) mean: f64,
    /// Not below 0.
    pub(super) variance: f64,
    /// Covariance with each pending point.
    pub(super) cross: Vec<f64>,
}

/// The derivatives of some function of a belief.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Slopes {
    pub(super) mean: f64,
    pub(super) variance: f64,
    /// Empty for zeros.
    pub(super) cross: Vec<f64>,
}

impl Model {
    /// `None` where the covariance is not positive definite.
    pub(super) fn new(points: Arc<Points>, scores: &[f64], parameters: Parameters) -> Option<Self> {
        let factor = inverse_factor(&parameters.covariance(&points).0)?;
        let alpha = lower_transposed_times(&factor, &lower_times(&factor, scores));
        Some(Self { points, parameters, factor, alpha, pending: None })
    }

    pub(super) fn length_scales(&self) -> Vec<f64> {
        self.parameters.relevance.iter().map(|relevance| 1.0 / relevance.sqrt()).collect()
    }

    /// Names the points that are being tried, and answers what is believed about them: means and covariances.
    pub(super) fn await_points(&mut self, pending: Points) -> (Vec<f64>, DMatrix<f64>) {
        let rows: Vec<Vec<f64>> = (0..pending.len).map(|index| pending.row(index)).collect();
        let solve = |row: &Vec<f64>| {
            let kernel = self.parameters.kernel(&self.points, row, 0).0;
            lower_transposed_times(&self.factor, &lower_times(&self.factor, &kernel))
        };
        let solved = rows.iter().map(solve).collect();
        self.pending = Some(Pending { points: pending, solved });
        let beliefs = self.beliefs(&rows);
        let covariance = DMatrix::from_fn(rows.len(), rows.len(), |i, j| beliefs[i].cross[j]);
        (beliefs.iter().map(|belief| belief.mean).collect(), covariance)
    }

    /// Beliefs about many points at once.
    pub(super) fn beliefs(&self, rows: &[Vec<f64>]) -> Vec<Belief> {
        // In portions, so that a long history needs little memory.
        rows.chunks(256)
            .flat_map(|rows| {
                let kernels: Vec<Vec<f64>> =
                    rows.iter().map(|row| self.parameters.kernel(&self.points, row, 0).0).collect();
                let all: Vec<f64> = kernels.iter().flatten().copied().collect();
                let whitened = &self.factor * DMatrix::from_vec(self.points.len, rows.len(), all);
                let columns = whitened.as_slice().chunks_exact(self.points.len.max(1));
                let belief = |((row, kernel), whitened): ((&Vec<f64>, &Vec<f64>), &[f64])| Belief {
                    mean: dot(kernel, &self.alpha),
                    variance: (self.parameters.scale - dot(whitened, whitened)).max(0.0),
                    cross: self.cross(row, kernel),
                };
                rows.iter().zip(&kernels).zip(columns).map(belief).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Covariances with the pending points, given the kernel with what was seen.
    fn cross(&self, row: &[f64], kernel: &[f64]) -> Vec<f64> {
        let Some(pending) = &self.pending else { return Vec::new() };
        let mut cross = self.parameters.kernel(&pending.points, row, 0).0;
        for (cross, solved) in cross.iter_mut().zip(&pending.solved) {
            *cross -= dot(kernel, solved);
        }
        cross
    }

    /// The belief about one point, with a function that turns slopes by the belief into the gradient by the point; it is 0 for
    /// choices.
    pub(super) fn belief(&self, x: &[f64]) -> (Belief, impl Fn(&Slopes) -> Vec<f64>) {
        let (kernel, derivatives) = self.parameters.kernel(&self.points, x, 0);
        let whitened = lower_times(&self.factor, &kernel);
        let belief = Belief {
            mean: dot(&kernel, &self.alpha),
            variance: (self.parameters.scale - dot(&whitened, &whitened)).max(0.0),
            cross: self.cross(x, &kernel),
        };
        let x = x.to_vec();
        let pull = move |slopes: &Slopes| {
            // By the kernel: the mean is linear in it, the variance quadratic, the covariances linear.
            let solved = lower_transposed_times(&self.factor, &whitened);
            let by_kernel = |(alpha, solved): (&f64, &f64)| slopes.mean * alpha - 2.0 * slopes.variance * solved;
            let mut weights: Vec<f64> = self.alpha.iter().zip(&solved).map(by_kernel).collect();
            let mut gradient = vec![0.0; x.len()];
            if let Some(pending) = &self.pending {
                for (slope, solved) in slopes.cross.iter().zip(&pending.solved) {
                    weights.iter_mut().zip(solved).for_each(|(weight, solved)| *weight -= slope * solved);
                }
                let mut by_distance = self.parameters.kernel(&pending.points, &x, 0).1;
                by_distance.truncate(slopes.cross.len());
                by_distance.iter_mut().zip(&slopes.cross).for_each(|(derivative, slope)| *derivative *= slope);
                self.add_gradient(&pending.points, &x, &by_distance, &mut gradient);
            }
            weights.iter_mut().zip(&derivatives).for_each(|(weight, derivative)| *weight *= derivative);
            self.add_gradient(&self.points, &x, &weights, &mut gradient);
            gradient
        };
        (belief, pull)
    }

    /// Adds the gradient by `x` of a function with these derivatives by the squared distances from the points.
    fn add_gradient(&self, points: &Points, x: &[f64], by_distance: &[f64], gradient: &mut [f64]) {
        let dimensions = points.columns.iter().zip(&self.parameters.relevance).zip(x);
        for (sum, ((column, relevance), x)) in gradient.iter_mut().zip(dimensions) {
            if !column.is_choice {
                let gaps = by_distance.iter().zip(&column.values).map(|(slope, value)| slope * (x - value));
                *sum += 2.0 * relevance * gaps.sum::<f64>();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn parameters(&self) -> &Parameters {
        &self.parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::{Distribution, ParamValue};

    fn space() -> Vec<Dimension> {
        let choices = (0..3).map(ParamValue::Int).collect();
        [
            Distribution::float(0.0, 1.0, false, None).unwrap(),
            Distribution::categorical(choices).unwrap(),
            Distribution::float(1e-3, 1.0, true, None).unwrap(),
        ]
        .iter()
        .map(Dimension::new)
        .collect()
    }

    fn rows(n: usize) -> Vec<Vec<f64>> {
        crate::sampler::gp::domain::quasi_random(&space(), n as u32, 3)
    }

    fn scores(rows: &[Vec<f64>]) -> Vec<f64> {
        rows.iter().map(|x| (5.0 * x[0]).sin() + x[1] * 0.3 - x[2] * x[2]).collect()
    }

    #[test]
    fn the_likelihoods_gradient_is_its_slope() {
        let rows = rows(40);
        let points = Points::new(&space(), &rows);
        let at = |values: &[f64]| {
            let parameters = Parameters { relevance: values[..3].to_vec(), scale: values[3], noise: values[4] };
            log_likelihood(&points, &scores(&rows), &parameters).unwrap()
        };
        let here = vec![3.0, 0.4, 1.2, 0.8, 0.05];
        let (_, gradient) = at(&here);
        for i in 0..5 {
            let moved = |by: f64| {
                let mut there = here.clone();
                there[i] += by;
                at(&there).0
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - gradient[i]).abs() < 1e-5 * slope.abs().max(1.0), "{i}: {slope} {}", gradient[i]);
        }
    }

    #[test]
    fn beliefs_agree_pass_through_what_was_seen_and_have_gradients() {
        let rows = rows(50);
        let points = Arc::new(Points::new(&space(), &rows));
        let parameters = Parameters { relevance: vec![4.0, 0.5, 2.0], scale: 1.5, noise: 1e-6 };
        let scores = scores(&rows);
        let mut model = Model::new(points, &scores, parameters).unwrap();
        for (belief, score) in model.beliefs(&rows).iter().zip(&scores) {
            assert!((belief.mean - score).abs() < 1e-3 && belief.variance < 1e-5, "{belief:?} {score}");
        }
        let pending = Points::new(&space(), &[vec![0.31, 1.0, 0.2], vec![0.9, 2.0, 0.7]]);
        let (means, covariance) = model.await_points(pending);
        let there = model.belief(&[0.31, 1.0, 0.2]).0;
        assert!((there.mean - means[0]).abs() < 1e-9 && (there.variance - covariance[(0, 0)]).abs() < 1e-9);
        let x = [0.4, 1.0, 0.3];
        let value = |x: &[f64]| {
            let belief = model.belief(x).0;
            0.7 * belief.mean + 20.0 * belief.variance + 3.0 * belief.cross[0] - 5.0 * belief.cross[1]
        };
        let (belief, pull) = model.belief(&x);
        let batch = &model.beliefs(&[x.to_vec()])[0];
        assert!((belief.variance - batch.variance).abs() < 1e-9 && (belief.cross[1] - batch.cross[1]).abs() < 1e-9);
        let gradient = pull(&Slopes { mean: 0.7, variance: 20.0, cross: vec![3.0, -5.0] });
        assert_eq!(gradient[1], 0.0);
        for i in [0, 2] {
            let moved = |by: f64| {
                let mut there = x;
                there[i] += by;
                value(&there)
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - gradient[i]).abs() < 1e-4 * slope.abs().max(1.0), "{i}: {slope} {}", gradient[i]);
        }
    }

    #[test]
    fn points_that_are_there_many_times_are_survived() {
        let rows = vec![vec![0.5, 1.0, 0.5]; 60];
        let points = Arc::new(Points::new(&space(), &rows));
        let scores: Vec<f64> = (0..60).map(|i| f64::from(i % 2)).collect();
        let model = Model::new(points, &scores, Parameters { noise: 1e-6, ..Parameters::ones(3) }).unwrap();
        assert!((model.beliefs(&rows[..1])[0].mean - 0.5).abs() < 1e-3);
    }
}
