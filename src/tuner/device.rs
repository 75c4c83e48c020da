//! Who the tuner says it is.

use std::fs;
use std::path::Path;

use crate::config::{self, DeviceId};

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

/// An id for this machine and port, the same each time as long as the machine keeps its own name.
#[must_use]
pub fn made_id(port: u16) -> DeviceId {
    let identity = IDENTITIES
        .iter()
        .find_map(|path| fs::read_to_string(path).ok().filter(|text| !text.trim().is_empty()));
    of_seed(&format!("{}:{port}", identity.unwrap_or_default().trim()))
}

/// FNV-1a (RFC draft-eastlake-fnv): the same in every version of the program, unlike the standard library's hash.
fn of_seed(seed: &str) -> DeviceId {
    let hash =
        seed.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    DeviceId::checked(PREFIX | (hash ^ hash >> 16) & 0xFFFF)
}

/// The id that lasts: what `file` says, else `made`, which is then written there. Who cannot write keeps an id that lasts as
/// long as the machine's name does.
#[must_use]
pub fn kept_id(file: Option<&Path>, made: DeviceId) -> DeviceId {
    let Some(file) = file else { return made };
    match fs::read_to_string(file).map(|text| text.trim().parse()) {
        Ok(Ok(id)) => return id,
        Ok(Err(_)) => log::warn!("{} holds no device id; it is written anew", file.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            log::warn!("The tuner's id cannot be read from {}: {error}", file.display());
            return made;
        }
    }
    let fresh = file.with_extension("new");
    if let Err(error) = fs::write(&fresh, format!("{made}\n")).and_then(|()| fs::rename(&fresh, file)) {
        log::warn!("The tuner's id cannot be kept in {}: {error}", file.display());
    }
    made
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
    fn an_id_outlives_the_name_it_was_made_of() {
        let directory = std::env::temp_dir().join(format!("acerelay-device-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let file = directory.join("tuner-id");
        let (first, other) = (of_seed("one"), of_seed("other"));
        assert_eq!(kept_id(Some(&file), first), first);
        assert_eq!(kept_id(Some(&file), other), first);
        fs::write(&file, "12345678").expect("it is ours");
        assert_eq!(kept_id(Some(&file), other), other, "a broken file is written anew");
        assert_eq!(kept_id(Some(&file), first), other);
        assert_eq!(kept_id(None, first), first);
        assert_eq!(kept_id(Some(&directory.join("missing/id")), first), first);
        fs::remove_dir_all(&directory).expect("it is ours");
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
