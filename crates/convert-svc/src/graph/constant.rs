//! What of an encoder does not depend on its input, computed at conversion.

/// A matrix that is known.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Constant {
    /// Row-major.
    pub(super) values: Vec<f32>,
    pub(super) width: usize,
}

impl Constant {
    pub(super) fn rows(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// LayerNorm of each row, in 64 bits.
    pub(super) fn norm(&self, weight: &[f32], bias: Option<&[f32]>, eps: f64) -> Self {
        let mut values = Vec::with_capacity(self.values.len());
        for row in self.values.chunks_exact(self.width) {
            let count = row.len() as f64;
            let mean = row.iter().copied().map(f64::from).sum::<f64>() / count;
            let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
            let scale = 1.0 / (variance + eps).sqrt();
            values.extend(row.iter().enumerate().map(|(at, x)| {
                let shift = bias.map_or(0.0, |bias| f64::from(bias[at]));
                ((f64::from(*x) - mean) * scale * f64::from(weight[at]) + shift) as f32
            }));
        }
        Self { values, width: self.width }
    }

    /// Rows times `weight` [outputs, inputs] plus `bias`, summed in 64 bits.
    pub(super) fn linear(&self, weight: &[f32], bias: Option<&[f32]>) -> Self {
        let outputs = weight.len() / self.width.max(1);
        let mut values = Vec::with_capacity(self.rows() * outputs);
        for row in self.values.chunks_exact(self.width) {
            values.extend(weight.chunks_exact(self.width).enumerate().map(|(output, weights)| {
                let product: f64 = row.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                (product + bias.map_or(0.0, |bias| f64::from(bias[output]))) as f32
            }));
        }
        Self { values, width: outputs }
    }

    /// [rows, heads * size] as [heads, rows, size], or with `transposed` as [heads, size, rows].
    pub(super) fn by_head(&self, heads: usize, transposed: bool) -> Vec<f32> {
        let (rows, size) = (self.rows(), self.width / heads.max(1));
        let at = |head: usize, row: usize, place: usize| self.values[row * self.width + head * size + place];
        let mut values = Vec::with_capacity(self.values.len());
        for head in 0..heads {
            if transposed {
                values.extend((0..size).flat_map(|place| (0..rows).map(move |row| at(head, row, place))));
            } else {
                values.extend((0..rows).flat_map(|row| (0..size).map(move |place| at(head, row, place))));
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_normed_multiplied_and_laid_out_by_head() {
        let matrix = Constant { values: vec![1.0, 3.0, 2.0, 2.0], width: 2 };
        let normed = matrix.norm(&[2.0, 1.0], Some(&[0.5, 0.0]), 0.0);
        assert_eq!(normed.values[..2], [-1.5, 1.0]);
        let product = matrix.linear(&[1.0, 0.0, 0.0, 2.0, 1.0, 1.0, 0.0, 0.0], Some(&[0.0, 1.0, 0.0, 5.0]));
        assert_eq!(product, Constant { values: vec![1.0, 7.0, 4.0, 5.0, 2.0, 5.0, 4.0, 5.0], width: 4 });
        assert_eq!(product.by_head(2, false), [1.0, 7.0, 2.0, 5.0, 4.0, 5.0, 4.0, 5.0]);
        assert_eq!(product.by_head(2, true), [1.0, 2.0, 7.0, 5.0, 4.0, 4.0, 5.0, 5.0]);
    }
}
