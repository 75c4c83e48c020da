//! What a HDHomeRun answers about itself (playlist-facts.md section 3.1).
//!
//! Which of its numbers are strings and which are not matters: a count of tuners in quotes made Plex show 49 of them.

use serde::Serialize;

use super::device::{AUTH, Device, FIRMWARE, FIRMWARE_VERSION, MODEL};
use super::lineup::in_xml;

/// The content type of a device's JSON.
pub const JSON: &str = "application/json; charset=\"utf-8\"";

/// `discover.json`
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Discover<'a> {
    friendly_name: &'a str,
    model_number: &'static str,
    firmware_name: &'static str,
    firmware_version: &'static str,
    #[serde(rename = "DeviceID")]
    device_id: String,
    device_auth: &'static str,
    #[serde(rename = "BaseURL")]
    base_url: &'a str,
    #[serde(rename = "LineupURL")]
    lineup_url: String,
    tuner_count: u8,
}

impl<'a> Discover<'a> {
    /// Of this device, at this base.
    #[must_use]
    pub fn of(device: &'a Device, base: &'a str) -> Self {
        Self {
            friendly_name: &device.name,
            model_number: MODEL,
            firmware_name: FIRMWARE,
            firmware_version: FIRMWARE_VERSION,
            device_id: device.id.to_string(),
            device_auth: AUTH,
            base_url: base,
            lineup_url: format!("{base}/lineup.json"),
            tuner_count: device.tuners,
        }
    }
}

/// `lineup_status.json`: there is nothing to look for, the channels are known.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LineupStatus {
    scan_in_progress: u8,
    scan_possible: u8,
    source: &'static str,
    source_list: [&'static str; 1],
}

impl LineupStatus {
    /// The only one there is.
    pub const IDLE: Self =
        Self { scan_in_progress: 0, scan_possible: 1, source: "Cable", source_list: ["Cable"] };
}

/// `device.xml` and `capability`: the description of a UPnP device (UPnP Device Architecture 1.0 section 2.1).
#[must_use]
pub fn description(device: &Device, base: &str) -> Vec<u8> {
    let (name, base, id, uuid) = (in_xml(&device.name), in_xml(base), device.id, device.uuid());
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <root xmlns=\"urn:schemas-upnp-org:device-1-0\">\n\
         <specVersion><major>1</major><minor>0</minor></specVersion>\n\
         <URLBase>{base}</URLBase>\n\
         <device>\n\
         <deviceType>urn:schemas-upnp-org:device:MediaServer:1</deviceType>\n\
         <friendlyName>{name}</friendlyName>\n\
         <manufacturer>acerelay</manufacturer>\n\
         <modelName>{MODEL}</modelName>\n\
         <modelNumber>{MODEL}</modelNumber>\n\
         <serialNumber>{id}</serialNumber>\n\
         <UDN>uuid:{uuid}</UDN>\n\
         </device>\n\
         </root>\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn device() -> Device {
        Device { id: "1ACE1234".parse().expect("an id"), name: "A & B".to_owned(), tuners: 4 }
    }

    #[test]
    fn names_and_types_are_those_of_a_device() {
        let told = serde_json::to_value(Discover::of(&device(), "http://box:8000")).expect("JSON");
        assert_eq!(
            told,
            json!({
                "FriendlyName": "A & B", "ModelNumber": "HDHR5-4US", "FirmwareName": "hdhomerun5_atsc",
                "FirmwareVersion": "20250815", "DeviceID": "1ACE1234", "DeviceAuth": "acerelay",
                "BaseURL": "http://box:8000", "LineupURL": "http://box:8000/lineup.json", "TunerCount": 4,
            })
        );
        assert_eq!(
            serde_json::to_value(LineupStatus::IDLE).expect("JSON"),
            json!({"ScanInProgress": 0, "ScanPossible": 1, "Source": "Cable", "SourceList": ["Cable"]})
        );
    }

    #[test]
    fn the_description_has_a_lasting_uuid() {
        let text = String::from_utf8(description(&device(), "http://box:8000")).expect("UTF-8");
        assert!(text.contains("<friendlyName>A &amp; B</friendlyName>"), "{text}");
        assert!(text.contains("<UDN>uuid:1ace1234-ace0-5ace-8ace-00001ace1234</UDN>"), "{text}");
        assert!(text.contains("<URLBase>http://box:8000</URLBase>"), "{text}");
    }
}
