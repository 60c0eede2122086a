//! In which order subjects are measured.

/// The turns of `subjects` in one repetition: 0, 1, 2 …, and in the next one back again (A B C C B A). What drifts while
/// all are measured — the machine's clock, what else runs on it — then falls on all of them alike, to first order.
pub fn turns(subjects: usize, repetition: u32) -> Vec<usize> {
    let forth = 0..subjects;
    if repetition.is_multiple_of(2) { forth.collect() } else { forth.rev().collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn goes_forth_and_back() {
        let order: Vec<_> = (0..4).flat_map(|repetition| turns(3, repetition)).collect();
        assert_eq!(order, [0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0]);
    }

    proptest! {
        /// Over an even number of repetitions, what grows by the same amount from turn to turn adds the same to all.
        #[test]
        fn a_steady_drift_falls_on_all_alike(subjects in 1_usize..8, pairs in 1_u32..5) {
            let mut sums = vec![0; subjects];
            let order = (0..2 * pairs).flat_map(|repetition| turns(subjects, repetition));
            for (time, subject) in order.enumerate() {
                sums[subject] += time;
            }
            prop_assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
        }
    }
}
