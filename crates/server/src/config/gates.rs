//! Feature gates: `--feature-gates=A=true,B=false`.
//!
//! `AllAlpha` and `AllBeta` set those gates of their stage that are not set by name.

use std::collections::BTreeMap;

/// A feature gate, by its name in etcd.
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

/// A row of the table of gates.
#[derive(Debug)]
pub struct GateInfo {
    /// The gate that the row describes.
    pub gate: Gate,
    /// Its name on the command line and in metrics.
    pub name: &'static str,
    /// Whether it is on if it is not set.
    pub default: bool,
    /// `ALPHA` or `BETA`.
    pub stage: &'static str,
    /// What it does, for help and documentation.
    pub help: &'static str,
}

use Gate::*;

/// Every gate, by name.
#[rustfmt::skip]
pub(crate) static GATES: [GateInfo; 11] = [
    alpha(AllAlpha, "AllAlpha", "All gates of this stage."),
    beta(AllBeta, "AllBeta", "All gates of this stage.").off(),
    alpha(CompactHashCheck, "CompactHashCheck", "The leader compares hashes that the members make of their data at each compaction."),
    beta(FastLeaseKeepAlive, "FastLeaseKeepAlive", "A leader renews a lease that it knows without waiting for what is still to be applied."),
    alpha(InitialCorruptCheck, "InitialCorruptCheck", "A member compares its data with the others' before it serves."),
    alpha(LeaseCheckpoint, "LeaseCheckpoint", "The leader tells the others what long leases have left, so that a new leader does not begin them anew."),
    alpha(LeaseCheckpointPersist, "LeaseCheckpointPersist", "What leases have left is stored, too."),
    alpha(PriorityRequest, "PriorityRequest", "A member that is too far behind for other requests still takes revocations of leases."),
    alpha(SetMemberLocalAddr, "SetMemberLocalAddr", "Connections to other members leave from the first address in --initial-advertise-peer-urls that is an IP and not loopback."),
    alpha(StopGRPCServiceOnDefrag, "StopGRPCServiceOnDefrag", "gRPC's health service says NOT_SERVING while the member defragments, so that clients that ask for it take another."),
    beta(TxnModeWriteWithSharedBuffer, "TxnModeWriteWithSharedBuffer", "A way of buffering inside of etcd. Without effect here, where there is no such buffer."),
];

const fn alpha(gate: Gate, name: &'static str, help: &'static str) -> GateInfo {
    GateInfo {
        gate,
        name,
        default: false,
        stage: "ALPHA",
        help,
    }
}

const fn beta(gate: Gate, name: &'static str, help: &'static str) -> GateInfo {
    GateInfo {
        gate,
        name,
        default: true,
        stage: "BETA",
        help,
    }
}

impl GateInfo {
    const fn off(mut self) -> GateInfo {
        self.default = false;
        self
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

    /// Every gate and whether it is on, by name.
    pub fn all(&self) -> impl Iterator<Item = (&'static GateInfo, bool)> + '_ {
        GATES.iter().map(|info| (info, self.enabled(info.gate)))
    }

    /// Sets the gates of a list `name=bool,…`. On an error none is set.
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
