//! Guards that the build uses `.cargo/config.toml`, which selects the source of random numbers.

#![cfg(test)]

/// AWS-LC's default source takes 40 ms of CPU at the start of every process that uses TLS.
#[test]
fn the_seed_comes_from_the_kernel() {
    assert_eq!(option_env!("AWS_LC_SYS_NO_JITTER_ENTROPY"), Some("1"));
}
