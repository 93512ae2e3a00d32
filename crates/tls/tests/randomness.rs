//! Where random numbers come from. Whoever builds has to find `.cargo/config.toml`.

#![cfg(test)]

/// AWS-LC's other source takes 40 ms of computing at the start of every process that speaks TLS.
#[test]
fn the_seed_is_the_kernels() {
    assert_eq!(option_env!("AWS_LC_SYS_NO_JITTER_ENTROPY"), Some("1"));
}
