//! Means as numpy rounds them.

/// Mean of the entries above -1, in order, rounded as numpy rounds it; -1 without any.
pub(super) fn mean(entries: impl IntoIterator<Item = f64>) -> f64 {
    let kept: Vec<f64> = entries.into_iter().filter(|&x| x > -1.).collect();
    if kept.is_empty() { -1. } else { pairwise_sum(&kept) / kept.len() as f64 }
}

/// `numpy.sum` of contiguous doubles: pairwise, with eight accumulators in blocks of up to 128.
fn pairwise_sum(x: &[f64]) -> f64 {
    if x.len() < 8 {
        return x.iter().fold(0., |sum, x| sum + x);
    }
    if x.len() <= 128 {
        let eights = x.chunks_exact(8);
        let tail = eights.remainder();
        let mut r = [0.; 8];
        for eight in eights {
            for (r, x) in r.iter_mut().zip(eight) {
                *r += x;
            }
        }
        let sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
        return tail.iter().fold(sum, |sum, x| sum + x);
    }
    let half = x.len() / 2 / 8 * 8;
    pairwise_sum(&x[..half]) + pairwise_sum(&x[half..])
}

#[cfg(test)]
#[expect(clippy::unreadable_literal, reason = "digits as they are printed elsewhere")]
mod tests {
    use super::*;

    #[test]
    fn sums_are_rounded_as_numpy_rounds_them() {
        // By numpy 2.4: (1 / numpy.arange(1, n + 1, dtype=float)).sum() for each n.
        let sums = [
            (7, 2.5928571428571425),
            (8, 2.7178571428571425),
            (9, 2.8289682539682537),
            (100, 5.187377517639621),
            (128, 5.433147092589173),
            (129, 5.440899030573669),
            (200, 5.878030948121444),
            (257, 6.128236013400938),
            (1000, 7.485470860550345),
        ];
        let x: Vec<f64> = (1..=1000).map(|i| 1. / f64::from(i)).collect();
        for (n, sum) in sums {
            assert_eq!(pairwise_sum(&x[..n]).to_bits(), f64::to_bits(sum), "{n}");
        }
        // The plain loop differs, so the test can tell.
        assert!(sums.iter().any(|&(n, sum)| x[..n].iter().sum::<f64>() != sum));
    }
}
