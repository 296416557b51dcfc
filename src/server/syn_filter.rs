//! Drops new SYNs with a socket filter before a TCP listener closes, so that no connection is lost.
//!
//! Without the filter, the kernel may complete a handshake between the last accept and the close. That connection is reset, and its client
//! cannot know whether its request was executed. The filter drops SYNs only. Clients retransmit theirs after a second, and the
//! connection is refused then.

use std::{io, time::Duration};

use tokio::net::TcpListener;

/// How long handshakes that have begun may take. Clients are on this machine or in its cluster.
pub(super) const HANDSHAKE_GRACE: Duration = Duration::from_millis(20);

/// Makes the kernel drop all further SYNs.
///
/// # Errors
///
/// If the system does not support it. Some connections may then be lost at the close.
#[cfg(target_os = "linux")]
pub(super) fn drop_new_syns(listener: &TcpListener) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};

    // Classic BPF, from linux/filter.h and linux/bpf_common.h. The filter of a TCP socket sees packets from the TCP header on.
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    // The offset of the flags, and two of them (RFC 9293, section 3.1).
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    // Accepted connections inherit the filter, which has no effect there: they receive no SYN.
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),        // dropped
        SockFilter::new(RETURN, 0, 0, u32::MAX), // accepted, whole
    ])
}

/// Not supported on other systems.
#[cfg(not(target_os = "linux"))]
pub(super) fn drop_new_syns(_listener: &TcpListener) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        time::timeout,
    };

    use super::*;

    #[tokio::test]
    async fn q02_new_connections_are_dropped_and_queued_ones_served() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address).await else { continue };
            let address = listener.local_addr().unwrap();
            let mut pending = TcpStream::connect(address).await.unwrap();
            drop_new_syns(&listener).unwrap();
            pending.write_all(b"request").await.unwrap();
            // Nor is it refused while the listener is open.
            assert!(timeout(Duration::from_millis(100), TcpStream::connect(address)).await.is_err());
            let (mut accepted, _) = listener.accept().await.unwrap();
            drop(listener);
            let mut request = [0; 7];
            accepted.read_exact(&mut request).await.unwrap();
            accepted.write_all(&request).await.unwrap();
            pending.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"request");
            assert!(TcpStream::connect(address).await.is_err());
        }
    }
}
