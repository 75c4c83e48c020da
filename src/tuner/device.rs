//! Who the tuner says it is.

use std::fs;

use crate::config::{self, DeviceId};
use crate::fnv::fnv32;

/// What our ids begin with: no number range of real devices, some of which clients take for old ones without HTTP.
const PREFIX: u32 = 0x1ACE_0000;

/// A device of HTTP alone that no client takes for one which transcodes.
pub const MODEL: &str = "HDHR5-4US";

/// The software of such a device, as clients know it.
pub const FIRMWARE: &str = "hdhomerun5_atsc";

/// The software's version, which is the day of its making; clients warn of much older ones.
pub const FIRMWARE_VERSION: &str = "20250815";

/// Presented to the maker's guide server by real clients. We have no account there; it only must not be empty.
pub const AUTH: &str = "acerelay";

/// More tuners than this have made clients fail (playlist-facts.md section 3.1).
const MAX_TUNERS: usize = 32;

/// Where a machine's own name or number stands, the most lasting first.
const IDENTITIES: [&str; 2] = ["/etc/machine-id", "/proc/sys/kernel/hostname"];

/// The tuner as it presents itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its id, for good.
    pub id: DeviceId,
    /// What a person calls it.
    pub name: String,
    /// Channels at once.
    pub tuners: u8,
}

impl Device {
    /// An UUID that lasts as long as the id: version 5, as one that was made from a name.
    #[must_use]
    pub fn uuid(&self) -> String {
        format!("{:08x}-ace0-5ace-8ace-0000{:08x}", self.id.number(), self.id.number())
    }
}

/// A tuner that was switched on.
#[derive(Clone, Debug)]
pub struct Tuner {
    /// `[tuner]`
    pub settings: config::Tuner,
    /// The id it has when the section names none.
    pub made_id: DeviceId,
}

impl Tuner {
    /// How it presents itself when so many channels can play at once.
    #[must_use]
    pub fn device(&self, max_channels: usize) -> Device {
        let config::Tuner { name, tuners, device_id, .. } = &self.settings;
        let all = max_channels.clamp(1, MAX_TUNERS) as u8;
        Device {
            id: device_id.unwrap_or(self.made_id),
            name: name.clone(),
            tuners: tuners.map_or(all, |tuners| tuners.get()),
        }
    }
}

/// The id of this machine's tuner: what was `kept` of an earlier run, else one that is made of the machine's own name and
/// the port, and so is the same each time for as long as these are.
#[must_use]
pub fn lasting_id(kept: Option<&[u8]>, port: u16) -> DeviceId {
    let kept = kept.and_then(|bytes| str::from_utf8(bytes).ok()?.trim().parse().ok());
    kept.unwrap_or_else(|| made_id(port))
}

fn made_id(port: u16) -> DeviceId {
    let mut texts = IDENTITIES.iter().filter_map(|path| fs::read_to_string(path).ok());
    let identity = texts.find(|text| !text.trim().is_empty()).unwrap_or_default();
    of_seed(&format!("{}:{port}", identity.trim()))
}

fn of_seed(seed: &str) -> DeviceId {
    let hash = fnv32(seed.bytes());
    DeviceId::checked(PREFIX | (hash ^ hash >> 16) & 0xFFFF)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use super::*;

    #[test]
    fn an_id_is_the_same_each_time_and_another_on_another_port() {
        assert_eq!(made_id(8000), made_id(8000));
        assert_ne!(made_id(8000), made_id(8001));
        for seed in ["", "a", "box:8000"] {
            let id = of_seed(seed).to_string();
            assert!(id.starts_with("1ACE"), "{id}");
            assert!(id.parse::<DeviceId>().is_ok(), "{id}");
        }
    }

    #[test]
    fn an_id_that_was_kept_outlives_the_name_it_was_made_of() {
        assert_eq!(lasting_id(Some(b"1ACE1234\n"), 8000).to_string(), "1ACE1234");
        for broken in [None, Some(&b"12345678"[..]), Some(b""), Some(b"\xff")] {
            assert_eq!(lasting_id(broken, 8000), made_id(8000));
        }
    }

    #[test]
    fn tuners_are_as_many_as_channels_can_play() {
        let mut tuner = Tuner { settings: config::Tuner::default(), made_id: of_seed("") };
        assert_eq!([0, 1, 10, 50, 1000].map(|max| tuner.device(max).tuners), [1, 1, 10, 32, 32]);
        tuner.settings.tuners = NonZeroU8::new(3);
        assert_eq!(tuner.device(50).tuners, 3);
        tuner.settings.device_id = Some("1ACE1234".parse().expect("an id"));
        let device = tuner.device(1);
        assert_eq!(device.id.to_string(), "1ACE1234");
        assert_eq!(device.uuid(), "1ace1234-ace0-5ace-8ace-00001ace1234");
    }
}
