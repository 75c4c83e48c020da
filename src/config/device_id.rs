//! The number by which a HDHomeRun tuner is known to the programs that record from it.

use std::fmt;
use std::str::FromStr;

use super::mistake::Refused;
use crate::escape::Escaped;

/// How many hex digits an id has; the last of them is the check digit.
const DIGITS: u32 = 8;

/// What each digit at an odd place (counted from 1) counts for in the check, as every HDHomeRun client has it
/// (playlist-facts.md section 3.2).
const WEIGHTS: [u8; 16] = [0xA, 0x5, 0xF, 0x6, 0x7, 0xC, 0x1, 0xB, 0x9, 0x2, 0x8, 0xD, 0x4, 0x3, 0xE, 0x0];

/// The id of a tuner: eight hex digits of which the last checks the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId(u32);

impl DeviceId {
    /// The id of this number but for its last digit, which is set so that the check holds.
    #[must_use]
    pub fn checked(number: u32) -> Self {
        let number = number & !0xF;
        // The last place is an even one, where a digit counts for itself.
        Self(number | u32::from(sum(number)))
    }

    /// The number itself.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

/// What the digits come to; 0 for a right id.
fn sum(number: u32) -> u8 {
    (0..DIGITS).fold(0, |sum, place| {
        let digit = (number >> (4 * (DIGITS - 1 - place))) as u8 & 0xF;
        sum ^ if place % 2 == 0 { WEIGHTS[usize::from(digit)] } else { digit }
    })
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}", self.0)
    }
}

impl FromStr for DeviceId {
    type Err = Refused;

    /// # Errors
    ///
    /// For all that is not eight hex digits, and for digits whose check does not hold.
    fn from_str(text: &str) -> Result<Self, Refused> {
        let is_hex = text.len() == DIGITS as usize && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_hex.then(|| u32::from_str_radix(text, 16).ok()).flatten().ok_or_else(|| {
            let wrong = format!("\"{}\" is no device id", Escaped(text));
            Refused::new(wrong, "allowed are eight hex digits, or empty for one that is made once and kept")
        })?;
        let right = Self::checked(number);
        if right.number() == number {
            return Ok(right);
        }
        let wrong = format!("the last digit of \"{}\" does not fit the others", Escaped(text));
        Err(Refused::new(wrong, format!("with these others it is {right}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_real_devices_are_right() {
        for text in ["124205A5", "10439EFD", "1251E8E2", "1ACE0005", "1ACE1234", "1ACEFFFA", "1acefffa"] {
            let id: DeviceId = text.parse().unwrap_or_else(|refused| panic!("{refused}"));
            assert_eq!(id.to_string(), text.to_uppercase());
        }
    }

    #[test]
    fn a_wrong_check_digit_is_told_with_the_right_one() {
        let refused = "1ACE1230".parse::<DeviceId>().expect_err("its check does not hold");
        assert!(refused.to_string().contains("1ACE1234"), "{refused}");
        for text in ["12345678", "", "1ACE123", "1ACE12345", "1ACE123G", "+ACE1234", "1ÄCE123"] {
            assert!(text.parse::<DeviceId>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_number_has_one_right_last_digit() {
        for number in (0..=0xFFFF_u32).map(|low| 0x1ACE_0000 | low) {
            let id = DeviceId::checked(number);
            assert_eq!((id.number() >> 4, sum(id.number())), (number >> 4, 0));
            let wrong = format!("{:08X}", id.number() ^ 1);
            assert!(wrong.parse::<DeviceId>().is_err(), "{wrong}");
        }
    }
}
