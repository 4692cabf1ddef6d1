//! Rows to padded batches.
use crate::{
    align::{Encoded, IGNORED},
    random::Stream,
    task::{Target, Targets},
};

/// Padded rows, row-major, each array of `rows * length` elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Rows.
    pub rows: usize,
    /// Sub-tokens a row, padding included.
    pub length: usize,
    /// Vocabulary ids; the padding token at the end.
    pub input_ids: Vec<i64>,
    /// 1 for a sub-token, 0 for padding.
    pub attention_mask: Vec<i64>,
    /// Token types; 0 for padding.
    pub type_ids: Vec<i64>,
    /// What is right for each row.
    pub targets: Targets,
}

/// Pads rows to `length`, or to the longest of them when that is longer. All rows have the same kind of target.
pub fn pad<'a>(rows: impl IntoIterator<Item = &'a Encoded>, length: usize, pad_token_id: usize) -> Batch {
    let rows: Vec<&Encoded> = rows.into_iter().collect();
    let length = rows.iter().map(|row| row.length()).max().unwrap_or(0).max(length);
    let mut batch = Batch {
        rows: rows.len(),
        length,
        input_ids: vec![pad_token_id as i64; rows.len() * length],
        attention_mask: vec![0; rows.len() * length],
        type_ids: vec![0; rows.len() * length],
        targets: targets(&rows, length),
    };
    for (index, row) in rows.into_iter().enumerate() {
        let cells = index * length..index * length + row.length();
        batch.input_ids[cells.clone()].copy_from_slice(&row.input_ids);
        batch.attention_mask[cells.clone()].fill(1);
        batch.type_ids[cells].copy_from_slice(&row.type_ids);
    }
    batch
}

/// Targets of the kind that the first row has; another kind is left out.
fn targets(rows: &[&Encoded], length: usize) -> Targets {
    match rows.first().map(|row| &row.target) {
        Some(Target::Class(_)) => Targets::Class(
            rows.iter()
                .filter_map(|row| if let Target::Class(label) = row.target { Some(label) } else { None })
                .collect(),
        ),
        Some(Target::Value(_)) => Targets::Value(
            rows.iter()
                .filter_map(|row| if let Target::Value(value) = row.target { Some(value) } else { None })
                .collect(),
        ),
        Some(Target::Classes(_)) => Targets::Classes(
            rows.iter()
                .filter_map(|row| if let Target::Classes(labels) = &row.target { Some(labels) } else { None })
                .flatten()
                .copied()
                .collect(),
        ),
        Some(Target::Tokens(_)) | None => {
            let mut cells = vec![IGNORED; rows.len() * length];
            for (index, row) in rows.iter().enumerate() {
                if let Target::Tokens(labels) = &row.target {
                    cells[index * length..index * length + labels.len()].copy_from_slice(labels);
                }
            }
            Targets::Tokens(cells)
        }
    }
}

/// How large a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// So many rows.
    Rows(usize),
    /// As many rows as keep rows * longest row within so many sub-tokens; at least one.
    Tokens(usize),
}

/// The batches of an epoch, in 4 bytes a row and a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    order: Vec<u32>,
    /// Where each batch ends in the order.
    ends: Vec<u32>,
}

impl Epoch {
    /// The order of an epoch, cut into batches of a size (the last may be smaller). There are at most 2^32 rows.
    ///
    /// With `group_by_length` as in `transformers` (`get_length_grouped_indices`): a permutation is cut into megabatches of up to
    /// 50 batches, each sorted by descending length, and the longest row of all comes first, so that running out of memory
    /// shows at once. Without it, the permutation alone.
    pub fn new(lengths: &[u32], size: Size, group_by_length: bool, seed: u64, epoch: u64) -> Self {
        let batch_size = match size {
            Size::Rows(rows) => rows.max(1),
            Size::Tokens(budget) => {
                let tokens: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
                ((budget as u64 * lengths.len() as u64 / tokens.max(1)) as usize).max(1)
            }
        };
        let mut order = Stream::new(seed, "epoch", epoch).order(lengths.len());
        let length = |row: u32| lengths.get(row as usize).copied().unwrap_or(0);
        if group_by_length {
            let megabatch = batch_size * (lengths.len() / (batch_size * 4)).clamp(1, 50);
            // Stable, so that rows of one length keep their random order.
            order.chunks_mut(megabatch).for_each(|chunk| chunk.sort_by_key(|row| std::cmp::Reverse(length(*row))));
            let longest =
                (0..order.len()).step_by(megabatch).max_by_key(|at| (length(order[*at]), std::cmp::Reverse(*at)));
            if let Some(longest) = longest {
                order.swap(0, longest);
            }
        }
        let ends = match size {
            Size::Rows(_) => {
                (1..=order.len().div_ceil(batch_size)).map(|n| (n * batch_size).min(order.len()) as u32).collect()
            }
            Size::Tokens(budget) => within_budget(order.iter().map(|row| length(*row)), budget),
        };
        Self { order, ends }
    }

    /// Batches.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The rows of a batch; none beyond the last.
    pub fn batch(&self, index: usize) -> &[u32] {
        let start = index.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied());
        let range = start.zip(self.ends.get(index)).map(|(start, end)| start as usize..*end as usize);
        range.and_then(|range| self.order.get(range)).unwrap_or_default()
    }
}

/// Ends of batches of as many rows as keep rows * longest row within the budget; at least one.
fn within_budget(lengths: impl Iterator<Item = u32>, budget: usize) -> Vec<u32> {
    let mut ends = Vec::new();
    let (mut rows, mut longest, mut end) = (0usize, 0u32, 0u32);
    for length in lengths {
        if rows > 0 && (rows + 1) * length.max(longest) as usize > budget {
            ends.push(end);
            (rows, longest) = (0, 0);
        }
        (rows, longest, end) = (rows + 1, longest.max(length), end + 1);
    }
    if rows > 0 {
        ends.push(end);
    }
    ends
}

/// Batches for evaluation: all rows by descending length, so that little is padded.
pub fn by_length<L: Copy + Ord>(lengths: &[L], batch_size: usize) -> Vec<Vec<usize>> {
    longest_first(lengths).chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect()
}

/// Batches as [`by_length`], in which rows * longest row stays within so many sub-tokens besides; at least one row each.
pub fn by_length_within(lengths: &[usize], batch_size: usize, budget: usize) -> Vec<Vec<usize>> {
    let order = longest_first(lengths);
    let mut batches = Vec::new();
    let mut rest = order.as_slice();
    while let Some(longest) = rest.first() {
        let rows = (budget / lengths[*longest].max(1)).clamp(1, batch_size.max(1));
        let (batch, further) = rest.split_at(rows.min(rest.len()));
        batches.push(batch.to_vec());
        rest = further;
    }
    batches
}

fn longest_first<L: Copy + Ord>(lengths: &[L]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|row| std::cmp::Reverse(lengths[*row]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(length: usize) -> Encoded {
        Encoded {
            input_ids: vec![7; length],
            type_ids: vec![0; length],
            target: Target::Tokens(vec![1; length]),
            words: (0..length).map(Some).collect(),
            word_count: length,
            covered: Vec::new(),
        }
    }

    #[test]
    fn rows_are_padded_to_the_longest() {
        let batch = pad([&row(1), &row(3)], 0, 9);
        assert_eq!((batch.rows, batch.length), (2, 3));
        assert_eq!(batch.input_ids, [7, 9, 9, 7, 7, 7]);
        assert_eq!(batch.attention_mask, [1, 0, 0, 1, 1, 1]);
        assert_eq!(batch.targets, Targets::Tokens(vec![1, IGNORED, IGNORED, 1, 1, 1]));
        let pair = Encoded { type_ids: vec![0, 1], target: Target::Class(4), ..row(2) };
        let batch = pad([&pair, &Encoded { target: Target::Class(2), ..row(3) }], 0, 9);
        assert_eq!(batch.type_ids, [0, 1, 0, 0, 0, 0]);
        assert_eq!(batch.targets, Targets::Class(vec![4, 2]));
        let labels = |first: f32, second: f32| Encoded { target: Target::Classes(vec![first, second]), ..row(1) };
        assert_eq!(
            pad([&labels(1.0, 0.0), &labels(0.0, 1.0)], 0, 9).targets,
            Targets::Classes(vec![1.0, 0.0, 0.0, 1.0])
        );
        assert_eq!(pad([&row(1)], 4, 9).length, 4);
    }

    fn batches(lengths: &[u32], size: Size, group: bool, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
        let epoch = Epoch::new(lengths, size, group, seed, epoch);
        assert!(epoch.batch(epoch.len()).is_empty());
        (0..epoch.len()).map(|index| epoch.batch(index).iter().map(|row| *row as usize).collect()).collect()
    }

    proptest::proptest! {
        #[test]
        fn every_row_comes_once(lengths in proptest::collection::vec(1u32..50, 1..200), size in 1usize..20, group in proptest::bool::ANY) {
            let batches = batches(&lengths, Size::Rows(size), group, 3, 1);
            let mut rows: Vec<usize> = batches.concat();
            if group {
                proptest::prop_assert_eq!(lengths[rows[0]], *lengths.iter().max().unwrap());
            }
            rows.sort_unstable();
            proptest::prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
            proptest::prop_assert!(batches.iter().rev().skip(1).all(|batch| batch.len() == size));
        }

        #[test]
        fn batches_of_long_rows_are_smaller(lengths in proptest::collection::vec(1usize..50, 1..200), size in 1usize..20, budget in 1usize..300) {
            let batches = by_length_within(&lengths, size, budget);
            let longest = |batch: &[usize]| batch.iter().map(|row| lengths[*row]).max().unwrap();
            let fits = |batch: &Vec<usize>| batch.len() <= size && (batch.len() == 1 || batch.len() * longest(batch) <= budget);
            proptest::prop_assert!(batches.iter().all(fits));
            proptest::prop_assert!(batches.is_sorted_by_key(|batch| std::cmp::Reverse(longest(batch))));
            if budget >= size * 50 {
                proptest::prop_assert_eq!(&batches, &by_length(&lengths, size));
            }
            let mut rows: Vec<usize> = batches.concat();
            rows.sort_unstable();
            proptest::prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        }

        #[test]
        fn budgets_hold(lengths in proptest::collection::vec(1u32..50, 1..200), budget in 50usize..300, group in proptest::bool::ANY) {
            let batches = batches(&lengths, Size::Tokens(budget), group, 3, 1);
            for batch in &batches {
                proptest::prop_assert!(batch.len() * batch.iter().map(|row| lengths[*row]).max().unwrap() as usize <= budget);
            }
            let mut rows: Vec<usize> = batches.concat();
            rows.sort_unstable();
            proptest::prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn grouping_saves_padding_and_seeds_differ() {
        let lengths: Vec<u32> = (0..1000).map(|n| 1 + (n * 7919) % 60).collect();
        let padded = |batches: &[Vec<usize>]| -> u32 {
            batches.iter().map(|b| b.len() as u32 * b.iter().map(|r| lengths[*r]).max().unwrap()).sum()
        };
        let used: u32 = lengths.iter().sum();
        let sixteen = |group, seed, epoch| batches(&lengths, Size::Rows(16), group, seed, epoch);
        let grouped = sixteen(true, 1, 0);
        assert!(padded(&grouped) < used * 11 / 10, "{} of {used}", padded(&grouped));
        assert!(padded(&sixteen(false, 1, 0)) > used * 15 / 10);
        assert_eq!(grouped, sixteen(true, 1, 0));
        assert_ne!(grouped, sixteen(true, 2, 0));
        assert_ne!(grouped, sixteen(true, 1, 1));
        assert!(padded(&by_length(&lengths, 16)) < used * 11 / 10);
    }
}
