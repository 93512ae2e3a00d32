//! Feature gates: `--feature-gates=A=true,B=false`.
//!
//! `AllAlpha` and `AllBeta` set every gate of their stage that was not set by name.

use std::collections::BTreeMap;

use super::table::Status;

/// A feature that can be switched, by its name in etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the table below says what each does")]
pub enum Gate {
    AllAlpha,
    AllBeta,
    CompactHashCheck,
    FastLeaseKeepAlive,
    InitialCorruptCheck,
    LeaseCheckpoint,
    LeaseCheckpointPersist,
    PriorityRequest,
    SetMemberLocalAddr,
    StopGRPCServiceOnDefrag,
    TxnModeWriteWithSharedBuffer,
}

/// What is fixed about a gate.
#[derive(Debug)]
pub struct GateInfo {
    /// The gate.
    pub gate: Gate,
    /// Its name on the command line and in metrics.
    pub name: &'static str,
    /// Its value when nobody sets it.
    pub default: bool,
    /// `ALPHA` or `BETA`.
    pub stage: &'static str,
    /// Whether another value than the default has its effect here.
    pub status: Status,
}

use Gate::*;
use Status::{NotYet, Supported};

/// Every gate, by name.
pub static GATES: [GateInfo; 11] = [
    gate(AllAlpha, "AllAlpha", false, "ALPHA", Supported),
    gate(AllBeta, "AllBeta", false, "BETA", Supported),
    gate(
        CompactHashCheck,
        "CompactHashCheck",
        false,
        "ALPHA",
        Supported,
    ),
    gate(
        FastLeaseKeepAlive,
        "FastLeaseKeepAlive",
        true,
        "BETA",
        Supported,
    ),
    gate(
        InitialCorruptCheck,
        "InitialCorruptCheck",
        false,
        "ALPHA",
        Supported,
    ),
    gate(
        LeaseCheckpoint,
        "LeaseCheckpoint",
        false,
        "ALPHA",
        Supported,
    ),
    gate(
        LeaseCheckpointPersist,
        "LeaseCheckpointPersist",
        false,
        "ALPHA",
        Supported,
    ),
    gate(
        PriorityRequest,
        "PriorityRequest",
        false,
        "ALPHA",
        NotYet("request priorities"),
    ),
    gate(
        SetMemberLocalAddr,
        "SetMemberLocalAddr",
        false,
        "ALPHA",
        NotYet("connections to other members"),
    ),
    gate(
        StopGRPCServiceOnDefrag,
        "StopGRPCServiceOnDefrag",
        false,
        "ALPHA",
        NotYet("defragmentation that stops service"),
    ),
    // A buffering mode inside of etcd; there is nothing here that it could change.
    gate(
        TxnModeWriteWithSharedBuffer,
        "TxnModeWriteWithSharedBuffer",
        true,
        "BETA",
        Supported,
    ),
];

const fn gate(
    gate: Gate,
    name: &'static str,
    default: bool,
    stage: &'static str,
    status: Status,
) -> GateInfo {
    GateInfo {
        gate,
        name,
        default,
        stage,
        status,
    }
}

/// The gates that were set; the others have their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    set: BTreeMap<Gate, bool>,
}

impl FeatureGates {
    /// Whether a feature is on.
    pub fn enabled(&self, gate: Gate) -> bool {
        let info = &GATES[gate as usize];
        assert_eq!(
            info.gate, gate,
            "the table of gates is in the order of the enum"
        );
        self.set.get(&gate).copied().unwrap_or(info.default)
    }

    /// Every gate with whether it is on, by name.
    pub fn all(&self) -> impl Iterator<Item = (&'static GateInfo, bool)> + '_ {
        GATES.iter().map(|info| (info, self.enabled(info.gate)))
    }

    /// Applies a list `name=bool,…` on top of what is set. On an error nothing changes.
    pub(super) fn apply(&mut self, list: &str) -> Result<(), String> {
        let mut named = BTreeMap::new();
        for item in list.split(',').filter(|item| !item.is_empty()) {
            let (name, value) = item
                .split_once('=')
                .ok_or_else(|| format!("missing bool value for {}", item.trim()))?;
            let (name, value) = (name.trim(), value.trim());
            let on = super::literal::parse_bool(value).ok_or_else(|| {
                format!("invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")
            })?;
            named.insert(name, on);
        }
        let mut set = self.set.clone();
        for (name, on) in named {
            let info = GATES.iter().find(|info| info.name == name);
            set.insert(
                info.ok_or_else(|| format!("unrecognized feature gate: {name}"))?
                    .gate,
                on,
            );
        }
        for all in [AllAlpha, AllBeta] {
            if let Some(&on) = set.get(&all) {
                let stage = GATES[all as usize].stage;
                for info in GATES.iter().filter(|info| info.stage == stage) {
                    set.entry(info.gate).or_insert(on);
                }
            }
        }
        self.set = set;
        Ok(())
    }

    /// The gates that were set, as a list.
    pub(super) fn text(&self) -> String {
        let pairs: Vec<String> = self
            .set
            .iter()
            .map(|(&gate, on)| format!("{}={on}", GATES[gate as usize].name))
            .collect();
        pairs.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(list: &str, expected: &str) {
        let mut gates = FeatureGates::default();
        let got = match gates.apply(list) {
            Ok(()) => gates.text(),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(got, expected, "for {list:?}");
    }

    #[test]
    fn lists_set_gates() {
        check("", "");
        check(" LeaseCheckpoint = true ,", "LeaseCheckpoint=true");
        check(
            "PriorityRequest=F,CompactHashCheck=1",
            "CompactHashCheck=true,PriorityRequest=false",
        );
        check(
            "AllBeta=false,FastLeaseKeepAlive=true",
            "AllBeta=false,FastLeaseKeepAlive=true,TxnModeWriteWithSharedBuffer=false",
        );
        check("foo", "error: missing bool value for foo");
        check("Foo=true", "error: unrecognized feature gate: Foo");
        check(
            "LeaseCheckpoint=x",
            "error: invalid value of LeaseCheckpoint=x, err: strconv.ParseBool: parsing \"x\": invalid syntax",
        );
    }

    #[test]
    fn defaults_hold_where_nothing_is_set() {
        let mut gates = FeatureGates::default();
        let on = |gates: &FeatureGates| {
            gates
                .all()
                .filter(|(_, on)| *on)
                .map(|(info, _)| info.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            on(&gates),
            ["FastLeaseKeepAlive", "TxnModeWriteWithSharedBuffer"]
        );
        gates
            .apply("AllBeta=false,PriorityRequest=true")
            .expect("valid");
        assert_eq!(on(&gates), ["PriorityRequest"]);
    }
}
