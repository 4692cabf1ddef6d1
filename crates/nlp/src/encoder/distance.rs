//! The distance of query and key as a row of a table.

/// Rule by which a distance i - j (query i, key j) chooses a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Buckets {
    /// i - j + middle.
    Plain {
        /// Row of distance 0.
        middle: usize,
    },
    /// i - j + span, cut at 0 and 2 * span - 1. With `log` the distance is first made a bucket that widens with the distance, as in
    /// DeBERTa-v2 (He et al. 2021, as `transformers` computes it): distances up to half the buckets are kept.
    Spanned {
        /// Rows on either side.
        span: usize,
        /// Number of buckets and largest distance.
        log: Option<(usize, usize)>,
    },
    /// 32 buckets of T5 (Raffel et al. 2020): 16 for keys up to the query, 16 for keys after it; 8 of each exact, the others
    /// widening up to a distance of 128.
    T5,
}

impl Buckets {
    /// Row for a distance.
    pub fn row(self, distance: i64) -> usize {
        match self {
            Self::Spanned { span, log } => {
                let bucket = log.map_or(distance, |(buckets, largest)| log_bucket(distance, buckets, largest));
                let span = span as i64;
                usize::try_from(bucket.saturating_add(span).clamp(0, 2 * span - 1)).unwrap_or(0)
            }
            Self::Plain { middle } => usize::try_from(distance.saturating_add(middle as i64)).unwrap_or(0),
            Self::T5 => t5_bucket(distance),
        }
    }

    /// First and number of the rows from the lowest to the highest that the distances of `length` places choose. The farthest need not
    /// be at the ends: buckets turn back where the largest distance is below half of them.
    pub fn rows(self, length: usize) -> (usize, usize) {
        let farthest = length.saturating_sub(1) as i64;
        let (low, high) = (-farthest..=farthest)
            .map(|distance| self.row(distance))
            .fold((usize::MAX, 0), |(low, high), row| (low.min(row), high.max(row)));
        (low, high - low + 1)
    }
}

/// In 32 bits, as the reference computes it: at whole powers another precision would choose another bucket.
fn log_bucket(distance: i64, buckets: usize, largest: usize) -> i64 {
    let middle = (buckets / 2) as i64;
    let size = distance.abs();
    if size <= middle {
        return distance;
    }
    let widest = ((largest as f64 - 1.0) / middle as f64) as f32;
    let share = (size as f32 / middle as f32).ln() / widest.ln();
    let bucket = (share * (middle - 1) as f32).ceil() + middle as f32;
    bucket as i64 * distance.signum()
}

fn t5_bucket(distance: i64) -> usize {
    const HALF: usize = 16;
    const EXACT: usize = 8;
    const LARGEST: f64 = 128.0;
    let size = usize::try_from(distance.unsigned_abs()).unwrap_or(usize::MAX);
    let after = if distance < 0 { HALF } else { 0 };
    if size < EXACT {
        return after + size;
    }
    let share = (size as f32 / EXACT as f32).ln() / (LARGEST / EXACT as f64).ln() as f32;
    after + (EXACT + (share * (HALF - EXACT) as f32) as usize).min(HALF - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `make_log_bucket_position` and `relative_position_bucket` of transformers 4.57.
    #[test]
    fn buckets_equal_those_of_transformers() {
        let log = |buckets, largest, distance| log_bucket(distance, buckets, largest);
        assert_eq!([0, 1, 128, 129, 130, 200, 300, 511].map(|d| log(256, 512, d)), LOG_256_512);
        assert_eq!([1, 2, 3, 5, 7, 9].map(|d| log(4, 8, d)), LOG_4_8);
        assert!((-600..600).all(|d| log(256, 512, -d) == -log(256, 512, d)));
        assert_eq!([0, 7, 8, 11, 16, 32, 64, 127, 128, 1000].map(t5_bucket), T5_BEFORE);
        assert_eq!([-1, -8, -200].map(t5_bucket), [17, 24, 31]);
    }

    const LOG_256_512: [i64; 8] = [0, 1, 128, 129, 130, 169, 207, 255];
    const LOG_4_8: [i64; 6] = [1, 2, 3, 3, 3, 4];
    const TURNING: [usize; 5] = [24, 23, 21, 20, 12];
    const T5_BEFORE: [usize; 10] = [0, 7, 8, 8, 10, 12, 14, 15, 15, 15];

    #[test]
    fn rows_are_cut_at_the_ends_and_only_those_in_reach_are_taken() {
        let plain = Buckets::Spanned { span: 4, log: None };
        assert_eq!([-9, -4, -1, 0, 3, 4, 9].map(|d| plain.row(d)), [0, 0, 3, 4, 7, 7, 7]);
        assert_eq!((plain.rows(1), plain.rows(3), plain.rows(50)), ((4, 1), (2, 5), (0, 8)));
        let log = Buckets::Spanned { span: 256, log: Some((256, 512)) };
        assert_eq!(log.rows(10), (247, 19));
        // Values of transformers 4.57; the buckets turn back beyond distance 8.
        let turning = Buckets::Spanned { span: 16, log: Some((16, 6)) };
        assert_eq!([8, 9, 10, 11, 19].map(|d| turning.row(d)), TURNING);
        assert_eq!([-8, -9, -10, -11, -19].map(|d| turning.row(d)), TURNING.map(|row| 32 - row));
        assert_eq!((turning.rows(9), turning.rows(12), turning.rows(20)), ((8, 17), (8, 17), (8, 17)));
    }
}
