//! Symmetric int8 quantization of weights, bit for bit as ONNX Runtime's dynamic quantizer does it.
//!
//! Source: `onnxruntime/python/tools/quantization/quant_utils.py` (`compute_scale_zp`, `quantize_nparray`), version 1.32:
//! the scale is `(2 * absmax) / 254` in 64 bits, cast to 32; values are divided by it in 32 bits and rounded half to even.

/// Quantized values with their scales; the zero point is 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Values from -127 to 127, in the order of the source.
    pub values: Vec<i8>,
    /// One scale for each column, or one in all.
    pub scales: Vec<f32>,
}

/// Quantizes a matrix `[rows, columns]` with one scale for each column.
pub fn per_column(values: &[f32], columns: usize) -> Quantized {
    let mut largest = vec![0f32; columns];
    for row in values.chunks_exact(columns) {
        for (largest, value) in largest.iter_mut().zip(row) {
            *largest = largest.max(value.abs());
        }
    }
    let scales: Vec<f32> = largest.into_iter().map(scale).collect();
    let values = values
        .chunks_exact(columns)
        .flat_map(|row| row.iter().zip(&scales).map(|(value, scale)| round(*value, *scale)))
        .collect();
    Quantized { values, scales }
}

/// Quantizes a table with one scale.
pub fn per_tensor(values: &[f32]) -> Quantized {
    let scale = scale(values.iter().fold(0f32, |largest, value| largest.max(value.abs())));
    Quantized { values: values.iter().map(|value| round(*value, scale)).collect(), scales: vec![scale] }
}

fn scale(largest: f32) -> f32 {
    let scale = (2.0 * f64::from(largest) / 254.0) as f32;
    // A range so small that dividing by its scale overflows counts as zero.
    if scale < f32::MIN_POSITIVE { 1.0 } else { scale }
}

fn round(value: f32, scale: f32) -> i8 {
    (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_scaled_apart_and_halves_go_to_even() {
        // Column 0: absmax 127, scale 1. Column 1: absmax 0, scale 1. Column 2: absmax 12.7, scale 0.1.
        let quantized = per_column(&[127.0, 0.0, 12.7, 0.5, 0.0, -12.7, 1.5, 0.0, 0.1, -2.5, 0.0, 0.0], 3);
        assert_eq!(quantized.scales[0], 1.0);
        assert_eq!(quantized.scales[1], 1.0);
        assert_eq!(quantized.scales[2], (2.0 * f64::from(12.7f32) / 254.0) as f32);
        assert_eq!(quantized.values, [127, 0, 127, 0, 0, -127, 2, 0, 1, -2, 0, 0]);
    }

    #[test]
    fn a_table_has_one_scale() {
        let quantized = per_tensor(&[-254.0, 1.0, 2.9, 254.0]);
        assert_eq!((quantized.values, quantized.scales), (vec![-127, 0, 1, 127], vec![2.0]));
    }
}
