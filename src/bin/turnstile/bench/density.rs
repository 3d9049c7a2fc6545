//! A distribution of latencies as a smooth curve over a logarithmic axis.

/// Samples of the curve per decade.
const PER_DECADE: f64 = 100.0;
/// Standard deviation of the Gaussian that smooths it, in samples: a twenty-fifth of a decade,
/// fine enough to keep the steps of SQLite's delay table apart.
const SMOOTH: f64 = 4.0;

/// The density of `nanoseconds` per decade at evenly spaced points of log10 from `low` to `high`;
/// the area under it is 1.
pub fn curve(nanoseconds: &[u64], low: f64, high: f64) -> Vec<(f64, f64)> {
    let points = ((high - low) * PER_DECADE) as usize + 1;
    let mut histogram = vec![0.0; points];
    for &ns in nanoseconds {
        let place = ((ns.max(1) as f64).log10() - low) * PER_DECADE;
        histogram[(place.max(0.0).round() as usize).min(points - 1)] += 1.0;
    }
    let reach = (3.0 * SMOOTH) as isize;
    let kernel: Vec<f64> = (-reach..=reach)
        .map(|i| (-0.5 * (i as f64 / SMOOTH).powi(2)).exp())
        .collect();
    let scale = PER_DECADE / (kernel.iter().sum::<f64>() * nanoseconds.len().max(1) as f64);
    let at = |i: isize| {
        usize::try_from(i)
            .ok()
            .and_then(|i| histogram.get(i))
            .unwrap_or(&0.0)
    };
    (0..points)
        .map(|i| {
            let near = (-reach..=reach).map(|offset| at(i as isize + offset));
            let sum: f64 = near
                .zip(&kernel)
                .map(|(count, weight)| count * weight)
                .sum();
            (low + i as f64 / PER_DECADE, sum * scale)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_one_and_the_peak_is_where_the_samples_are() {
        let curve = curve(&[1_000_000; 50], 3.0, 9.0);
        let area: f64 = curve.iter().map(|(_, y)| y / PER_DECADE).sum();
        assert!((area - 1.0).abs() < 1e-9, "{area}");
        let peak = curve
            .iter()
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .expect("points");
        assert!((peak.0 - 6.0).abs() < 0.011, "{peak:?}");
    }
}
