//! CRC-32/MPEG-2, the checksum at the end of each PSI section (ISO/IEC 13818-1 annex A).
//!
//! Neither reflected nor inverted at the end, unlike the CRC-32 of zip and Ethernet. A section together with
//! its own checksum gives 0.

/// x^32 + x^26 + x^23 + x^22 + x^16 + x^12 + x^11 + x^10 + x^8 + x^7 + x^5 + x^4 + x^2 + x + 1.
const POLYNOMIAL: u32 = 0x04C1_1DB7;

static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            let carry = remainder >> 31;
            remainder = (remainder << 1) ^ (carry * POLYNOMIAL);
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
}

/// The CRC-32/MPEG-2 of these bytes; 0 for a section that ends with its own correct checksum.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| (crc << 8) ^ TABLE[usize::from((crc >> 24) as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_catalogue_comes_out() {
        // "123456789" is the input of the published check value of every catalogued CRC.
        assert_eq!(crc32(b"123456789"), 0x0376_E6E7);
        assert_eq!(crc32(b""), u32::MAX);
    }

    #[test]
    fn a_message_with_its_checksum_gives_zero() {
        let mut message = b"any section".to_vec();
        message.extend(crc32(&message).to_be_bytes());
        assert_eq!(crc32(&message), 0);
        message[3] ^= 0x10;
        assert_ne!(crc32(&message), 0);
    }
}
