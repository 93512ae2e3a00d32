//! Human-readable byte counts, in powers of 1000, like go-humanize.

const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// Formats `bytes` as `9 B`, `25 kB` or `2.1 GB`: with one decimal below ten.
pub(crate) fn humanise(bytes: u64) -> String {
    if bytes < 10 {
        return format!("{bytes} B");
    }
    // The floating point operations of go-humanize, for the same rounding.
    let exponent = ((bytes as f64).ln() / 1000f64.ln()).floor();
    let value = (bytes as f64 / 1000f64.powf(exponent) * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[exponent as usize];
    if value < 10.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::humanise;

    #[test]
    fn rounds_as_go_humanize_does() {
        let check = |bytes, text: &str| assert_eq!(humanise(bytes), text);
        check(0, "0 B");
        check(9, "9 B");
        check(10, "10 B");
        check(999, "999 B");
        check(1_500, "1.5 kB");
        check(16_384, "16 kB");
        check(20_480, "20 kB");
        check(24_576, "25 kB");
        check(81_920, "82 kB");
        check(2_147_483_648, "2.1 GB");
        check(64_000_000, "64 MB");
        check(u64::MAX, "18 EB");
    }
}
