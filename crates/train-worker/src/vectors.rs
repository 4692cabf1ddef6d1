//! Loops compiled for the vector instructions that this processor has, whatever the program was compiled for.

/// Whether the processor has all of some instructions.
#[cfg(target_arch = "x86_64")]
macro_rules! has {
    ($($feature:tt),*) => { $(std::arch::is_x86_feature_detected!($feature))&&* };
}

/// A loop. `run` and what it calls have to be `#[inline(always)]`, or they are compiled for any processor.
pub(crate) trait Work {
    /// What it finds.
    type Output;
    /// Does it.
    fn run(self) -> Self::Output;
}

/// Runs work compiled for the widest vectors of this processor. The numbers are the same on every processor: nothing is contracted or
/// put in another order.
pub(crate) fn widest<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if has!("avx512f", "avx512bw", "avx512dq", "avx512vl") {
            // SAFETY: the processor has these instructions.
            return unsafe { avx512(work) };
        }
        if has!("avx2") {
            // SAFETY: the processor has these instructions.
            return unsafe { avx2(work) };
        }
    }
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn avx512<W: Work>(work: W) -> W::Output {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<W: Work>(work: W) -> W::Output {
    work.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Change<'a>(&'a mut [f32]);

    impl Work for Change<'_> {
        type Output = f32;

        #[inline(always)]
        fn run(self) -> f32 {
            self.0.iter_mut().for_each(|value| *value = value.sqrt() / 3.0 - 0.1 * *value);
            self.0.iter().sum()
        }
    }

    #[test]
    fn wide_loops_give_the_same_bits() {
        let mut plain: Vec<f32> = (0u16..1003).map(|at| f32::from(at) * 0.37).collect();
        let mut wide = plain.clone();
        let sums = (Change(&mut plain).run(), widest(Change(&mut wide)));
        assert_eq!(sums.0.to_bits(), sums.1.to_bits());
        assert!(plain.iter().zip(&wide).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}
