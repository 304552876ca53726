//! A STUN server (RFC 8489): it answers a binding request with the address that it came from.

use super::ServerHandle;
use super::handle::bind_udp;
use crate::vantage::Net;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};

const MAGIC_COOKIE: u32 = 0x2112_a442;
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const XOR_MAPPED_ADDRESS: [u8; 2] = [0x00, 0x20];

/// Serves it.
pub fn serve(net: &Net, address: SocketAddrV4) -> io::Result<ServerHandle> {
    let socket = bind_udp(net, address)?;
    let mut handle = ServerHandle::new(Some(address));
    handle.spawn(|mut stop| async move {
        let mut buffer = [0; 1500];
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut buffer) => received,
                () = stop.wait() => return,
            };
            // An error is that of an earlier answer, which nobody took.
            let Ok((length, SocketAddr::V4(from))) = received else { continue };
            if let Some(answer) = answer(&buffer[..length], from) {
                socket.send_to(&answer, from).await.ok();
            }
        }
    });
    Ok(handle)
}

/// The answer to a binding request; anything else has none.
fn answer(request: &[u8], from: SocketAddrV4) -> Option<Vec<u8>> {
    let head = request.get(..20)?;
    if head[..2] != BINDING_REQUEST || head[4..8] != MAGIC_COOKIE.to_be_bytes() {
        return None;
    }
    let address = (u32::from(*from.ip()) ^ MAGIC_COOKIE).to_be_bytes();
    let [high, low, ..] = MAGIC_COOKIE.to_be_bytes();
    let [p, q] = from.port().to_be_bytes();
    let attribute = [&XOR_MAPPED_ADDRESS[..], &[0, 8, 0, 1, p ^ high, q ^ low], &address].concat();
    Some([&BINDING_SUCCESS[..], &[0, 12], &head[4..], &attribute].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_as_the_rfc_codes_it() {
        let request = [&b"\x00\x01\x00\x00\x21\x12\xa4\x42"[..], b"transaction!"].concat();
        // RFC 5769, section 2.2: 192.0.2.1:32853.
        let attribute = b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43";
        let expected = [&b"\x01\x01\x00\x0c\x21\x12\xa4\x42"[..], b"transaction!", attribute].concat();
        assert_eq!(answer(&request, "192.0.2.1:32853".parse().unwrap()), Some(expected));
        assert_eq!(answer(&request[..19], "192.0.2.1:1".parse().unwrap()), None);
        assert_eq!(answer(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "192.0.2.1:1".parse().unwrap()), None);
    }
}
