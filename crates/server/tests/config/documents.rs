//! What is generated from the table of flags, and must be current.

use super::*;

#[test]
fn every_supported_key_has_a_place_in_the_sample() {
    let sample = help::sample_file();
    assert_eq!(
        sample,
        include_str!("../../../../dist/etcd.conf.yml.sample"),
        "dist/etcd.conf.yml.sample is not current: see help::sample_file"
    );
    check_file(
        &sample,
        "warn --max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.\nwarn --v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.\nrun",
    );
    let mut from_sample = config(&Given {
        file: Some(&sample),
        ..Given::default()
    });
    from_sample.config_file.clear();
    assert_eq!(from_sample, config(&Given::default()));
    for flag in FLAGS
        .iter()
        .filter(|flag| matches!(flag.effect, Effect::Field(_)) && flag.group != Group::Older)
    {
        if let Some(key) = flag.key {
            let indent = "  ".repeat(if matches!(key.section, Section::Top | Section::TopText) {
                0
            } else {
                key.path().matches('.').count()
            });
            assert!(
                sample.contains(&format!("\n{indent}{}: ", key.leaf)),
                "{} is missing",
                key.path()
            );
        }
    }
}

#[test]
fn the_page_of_flags_is_current() {
    assert_eq!(
        help::page(),
        include_str!("../../../../docs/flags.md"),
        "docs/flags.md is not current: see help::page"
    );
}
