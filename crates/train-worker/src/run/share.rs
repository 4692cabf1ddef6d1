//! How the work of a step is shared among devices: policy alone.

/// Parts that each of `batches` is cut into so that as many parts come to each of `devices`.
pub(super) fn parts(batches: usize, devices: usize) -> usize {
    devices / greatest_common_divisor(batches.max(1), devices.max(1))
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Gives pieces of these sizes to devices: the largest first, each to the device with the least work so far. Each device has its pieces
/// in their order; the same sizes are shared in the same way always.
pub(super) fn share(sizes: &[usize], devices: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|piece| std::cmp::Reverse(sizes[*piece]));
    let mut shares: Vec<(usize, Vec<usize>)> = vec![(0, Vec::new()); devices.max(1)];
    for piece in order {
        if let Some((load, pieces)) = shares.iter_mut().min_by_key(|(load, _)| *load) {
            *load += sizes[piece];
            pieces.push(piece);
        }
    }
    let in_order = |(_, mut pieces): (usize, Vec<usize>)| {
        pieces.sort_unstable();
        pieces
    };
    shares.into_iter().map(in_order).collect()
}

#[cfg(test)]
mod tests {
    use quintet_nlp::random::Stream;

    use super::*;

    #[test]
    fn batches_are_cut_no_further_than_needed() {
        assert_eq!([1, 2, 3, 4, 6].map(|batches| parts(batches, 4)), [4, 2, 4, 1, 2]);
        assert_eq!([parts(1, 1), parts(5, 1), parts(0, 3)], [1, 1, 3]);
    }

    #[test]
    fn every_piece_has_one_device_and_none_has_much_more_than_its_share() {
        let mut stream = Stream::new(1, "share", 0);
        for round in 0..500 {
            let sizes: Vec<usize> = (0..round % 17).map(|_| 1 + stream.below(100)).collect();
            let devices = 1 + stream.below(5);
            let shares = share(&sizes, devices);
            assert_eq!(shares.len(), devices);
            assert!(shares.iter().all(|pieces| pieces.is_sorted()));
            let mut all = shares.concat();
            all.sort_unstable();
            assert_eq!(all, (0..sizes.len()).collect::<Vec<_>>());
            let load = |pieces: &Vec<usize>| pieces.iter().map(|piece| sizes[*piece]).sum::<usize>();
            let (most, largest) = (shares.iter().map(load).max(), sizes.iter().max());
            let bound = sizes.iter().sum::<usize>() / devices + largest.copied().unwrap_or(0);
            assert!(most.unwrap_or(0) <= bound, "{sizes:?} on {devices}: {shares:?}");
            assert_eq!(shares, share(&sizes, devices));
        }
        assert_eq!(share(&[5, 5, 5, 5], 2), [[0, 2], [1, 3]]);
    }
}
