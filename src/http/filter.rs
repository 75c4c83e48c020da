//! What the kernel lets through to a listening socket.
//!
//! It must not know why somebody is to be kept out.

use std::io;
use std::net::IpAddr;

use socket2::{SockFilter, SockRef, Socket};

/// Codes of the classic packet filter (Linux, `uapi/linux/filter.h` and `bpf_common.h`), as far as they are used here.
const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Where the IP header begins, seen from a socket (`SKF_NET_OFF`).
const HEADER: u32 = 0xfff0_0000;

/// Where in it the source stands, with either version.
const SOURCE_V4: u32 = HEADER + 12;
const SOURCE_V6: u32 = HEADER + 8;

/// Has a listening socket drop whatever comes from these networks: a connect of theirs is never answered.
///
/// # Errors
///
/// When the system does not let it.
pub(super) fn drop_packets_of<'s>(socket: impl Into<SockRef<'s>>, networks: &[IpAddr]) -> io::Result<()> {
    let socket: &Socket = &socket.into();
    if !networks.is_empty() {
        return socket.attach_filter(&program(networks));
    }
    match socket.detach_filter() {
        // There was none.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A program that lets all packets through but for those of these networks.
fn program(networks: &[IpAddr]) -> Vec<SockFilter> {
    let step = |code, value| SockFilter::new(code, 0, 0, value);
    let load_word = |offset| step(LOAD_WORD, offset);
    let skip_unless = |value, skipped| SockFilter::new(JUMP_IF_EQUAL, 0, skipped, value);
    let end = |passed_bytes| step(RETURN, passed_bytes);
    let mut v4 = vec![load_word(SOURCE_V4)];
    let mut v6 = Vec::new();
    for network in networks {
        match network {
            IpAddr::V4(ip) => v4.extend([skip_unless(ip.to_bits(), 1), end(0)]),
            IpAddr::V6(ip) => {
                let [high, low] = [96, 64].map(|shift| (ip.to_bits() >> shift) as u32);
                v6.extend([load_word(SOURCE_V6), skip_unless(high, 3)]);
                v6.extend([load_word(SOURCE_V6 + 4), skip_unless(low, 1), end(0)]);
            }
        }
    }
    v4.push(end(u32::MAX));
    v6.push(end(u32::MAX));
    let mut program = vec![
        step(LOAD_BYTE, HEADER),
        step(AND, 0xf0),
        skip_unless(0x40, u8::try_from(v4.len()).unwrap_or(u8::MAX)),
    ];
    program.extend(v4);
    program.extend(v6);
    program
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    use socket2::{Domain, Type};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Whether a connect from this address comes through.
    fn connects(listener: &TcpListener, from: &str) -> bool {
        let to = SocketAddr::new(ip(from), listener.local_addr().expect("it listens").port());
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(ip(from), 0).into()).expect("an address of this machine");
        socket.connect_timeout(&to.into(), Duration::from_millis(500)).is_ok()
    }

    #[test]
    fn the_kernel_lets_nothing_of_them_through() {
        let listener = TcpListener::bind("[::]:0").expect("a free port");
        let others: Vec<_> = (1..=30_u32).map(|number| IpAddr::V4(number.into())).collect();
        let tell = || ["127.0.0.1", "127.0.0.9", "::1"].map(|from| connects(&listener, from));
        let with = |more: &str| {
            let networks: Vec<_> = others.iter().copied().chain([ip(more)]).collect();
            drop_packets_of(&listener, &networks).expect("it is let");
            tell()
        };
        assert_eq!(with("127.0.0.9"), [true, false, true]);
        assert_eq!(with("::"), [true, true, false], "the network of ::1");
        assert_eq!(with("2001:db8::"), [true; 3]);
        drop_packets_of(&listener, &[]).expect("it is let");
        drop_packets_of(&listener, &[]).expect("there is none");
        assert_eq!(tell(), [true; 3]);
    }
}
