//! What several probes share: sockets inside a vantage's network, and the words for what `connect()` said.

use crate::vantage::Net;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

/// Longest wait for a TCP handshake. A dead neighbour answers EHOSTUNREACH after about 3.05 s (three ARP tries), so less
/// than 4 s would turn that answer into a timeout.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(4500);

/// The word for an I/O error: its errno name, or TIMEOUT.
pub fn errno_word(error: &io::Error) -> String {
    if matches!(error.kind(), io::ErrorKind::TimedOut) {
        return "TIMEOUT".to_owned();
    }
    match error.raw_os_error() {
        Some(code) => match nix::errno::Errno::from_raw(code) {
            nix::errno::Errno::UnknownErrno => format!("errno {code}"),
            nix::errno::Errno::ETIMEDOUT => "TIMEOUT".to_owned(),
            errno => format!("{errno:?}"),
        },
        None => format!("{:?}", error.kind()),
    }
}

/// [`errno_word`], and EOF where the peer closed the connection early.
pub fn io_word(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => errno_word(error),
    }
}

/// A TCP connection that could not be made: the errno word and when it was known.
#[derive(Clone, Debug)]
pub struct ConnectError {
    /// Errno name or TIMEOUT.
    pub word: String,
    /// Time until it was known.
    pub after: Duration,
}

/// Connects from inside a network; at most [`CONNECT_TIMEOUT`] and at most until `deadline`.
pub async fn connect(net: &Net, to: SocketAddrV4, deadline: Instant) -> Result<(TcpStream, Duration), ConnectError> {
    connect_to(net, SocketAddr::V4(to), deadline).await
}

/// [`connect`] to an address of either family.
pub async fn connect_to(net: &Net, to: SocketAddr, deadline: Instant) -> Result<(TcpStream, Duration), ConnectError> {
    let began = Instant::now();
    let patience = deadline.saturating_duration_since(began).min(CONNECT_TIMEOUT);
    let attempt = async {
        let socket = net.with(if to.is_ipv4() { TcpSocket::new_v4 } else { TcpSocket::new_v6 })??;
        socket.connect(to).await
    };
    let outcome = match timeout(patience, attempt).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    let after = began.elapsed();
    match outcome {
        Ok(stream) => Ok((stream, after)),
        Err(error) => Err(ConnectError { word: errno_word(&error), after }),
    }
}

/// The source address that the kernel chooses for a destination. Connecting a UDP socket sends nothing: it makes the kernel
/// choose the route, and with it the address.
pub fn source_address(net: &Net, to: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    net.with(|| {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip())
    })?
}

/// What the kernel itself has measured of a TCP connection: true also where this process was late to look.
#[derive(Clone, Copy, Debug)]
pub struct TcpTimes {
    /// Smoothed round trip.
    pub round_trip: Duration,
    /// Since the last data came, to a millisecond or a clock tick.
    pub quiet: Duration,
}

/// What has been sent on a TCP connection, and how long the path took to carry it.
#[derive(Clone, Copy, Debug)]
pub struct Upload {
    /// Bytes that the other end has acknowledged.
    pub bytes: u64,
    /// Time with bytes under way (`tcpi_busy_time`), to a clock tick.
    pub took: Duration,
}

/// How a connection's sending went; `None` before the first byte is acknowledged, and where the kernel does not tell (before 4.10).
pub fn upload(socket: BorrowedFd<'_>) -> Option<Upload> {
    let (info, size) = tcp_info(socket)?;
    let told = std::mem::offset_of!(libc::tcp_info, tcpi_busy_time) + size_of::<u64>();
    (size >= told && info.tcpi_bytes_acked > 0)
        .then(|| Upload { bytes: info.tcpi_bytes_acked, took: Duration::from_micros(info.tcpi_busy_time) })
}

/// The kernel's times of a connection (tcp(7), `TCP_INFO`).
pub fn tcp_times(socket: BorrowedFd<'_>) -> Option<TcpTimes> {
    let (info, _) = tcp_info(socket)?;
    let round_trip = Duration::from_micros(info.tcpi_rtt.into());
    Some(TcpTimes { round_trip, quiet: Duration::from_millis(info.tcpi_last_data_recv.into()) })
}

/// Segments that a connection has sent again, in all.
pub fn retransmitted(socket: BorrowedFd<'_>) -> Option<u32> {
    let (info, size) = tcp_info(socket)?;
    let told = std::mem::offset_of!(libc::tcp_info, tcpi_total_retrans) + size_of::<u32>();
    (size >= told).then_some(info.tcpi_total_retrans)
}

/// `TCP_INFO`, and how much of it this kernel has filled in.
fn tcp_info(socket: BorrowedFd<'_>) -> Option<(libc::tcp_info, usize)> {
    // SAFETY: tcp_info is plain data, for which zero is a valid value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut size = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the buffer has the size given and outlives the call.
    let outcome = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut size) };
    (outcome == 0).then_some((info, usize::try_from(size).unwrap_or_default()))
}

/// Milliseconds with three digits after the point, as facts carry them.
pub fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}
