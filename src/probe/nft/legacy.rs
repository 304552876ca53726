//! The tables of the old iptables, from the kernel (include/uapi/linux/netfilter_ipv4/ip_tables.h), without a binary.
//!
//! Asking for a table that is not there would create it, so only tables that announce themselves are asked for. What comes is
//! parsed as if the kernel did not write it.

use super::follow::{Action, Outcome};
use super::packet_mark::PacketMark;
use super::walk::{DeviceName, Packet};
use super::xt::{self, Extension};
use crate::vantage::Net;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;

/// IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
const NAME: usize = 32;
const INFO: usize = 84;
/// ipt_get_entries before its entries: name, size, padding.
const ENTRIES: usize = 40;
/// ipt_entry before its matches.
const ENTRY: usize = 112;
/// xt_entry_match and xt_entry_target before their data.
const PART: usize = 32;
/// How often a table is asked for that is being replaced.
const TRIES: usize = 4;
/// Most bytes of a table: some ten thousand services.
const MOST: usize = 64 << 20;
const HOOKS: u32 = 5;

/// The tables that mark, translate and filter, with the priority of their hooks (NF_IP_PRI_MANGLE, NF_IP_PRI_NAT_DST, NF_IP_PRI_FILTER).
pub(super) const TABLES: [(&str, i32); 3] = [("mangle", -150), ("nat", -100), ("filter", 0)];

/// A table.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Base chains: hook and name.
    pub(super) bases: Vec<(u32, String)>,
    /// Rules of each chain, in order.
    pub(super) chains: Vec<(String, Vec<Entry>)>,
}

/// A rule, as the kernel keeps it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    bytes: Vec<u8>,
    /// The chain that it jumps to, if it does.
    to: Option<String>,
}

impl Table {
    /// Reads a table of a network; `None` if it is not loaded there. Blocks for some milliseconds.
    pub(super) fn read(net: &Net, name: &str) -> io::Result<Option<Self>> {
        net.with(|| if loaded(name)? { entries(name).map(|(info, bytes)| Some(Self::parse(&info, &bytes))) } else { Ok(None) })?
    }

    /// Takes a table apart: ipt_getinfo says where the base chains begin, entries with the target ERROR begin the others.
    fn parse(info: &[u8], bytes: &[u8]) -> Self {
        let word = |at: usize| Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?));
        let valid = word(NAME).unwrap_or_default();
        let begins = |hook: &u32| Some((word(NAME + 4 + 4 * *hook as usize)? as usize, *hook));
        let hooks: HashMap<usize, u32> = (0..HOOKS).filter(|hook| valid & (1 << hook) != 0).filter_map(|hook| begins(&hook)).collect();
        let mut table = Self::default();
        let mut starts: HashMap<usize, String> = HashMap::new();
        let mut at = 0;
        while let Some(entry) = entry(bytes, at) {
            let next = at + entry.bytes.len();
            if let Some(hook) = hooks.get(&at) {
                // No chain of a user can be called so: iptables refuses names with a blank.
                let name = format!("hook {hook}");
                table.bases.push((*hook, name.clone()));
                starts.insert(at, name.clone());
                table.chains.push((name, Vec::new()));
            }
            match (entry.begins(), table.chains.last_mut()) {
                (Some(name), _) => {
                    starts.insert(next, name.clone());
                    table.chains.push((name, Vec::new()));
                }
                (None, Some((_, rules))) => rules.push(entry),
                (None, None) => {}
            }
            at = next;
        }
        table.link(&starts);
        table
    }

    /// From bytes: ipt_getinfo and the entries.
    pub(super) fn parse_kept(bytes: &[u8]) -> Self {
        let (info, entries) = bytes.split_at(INFO.min(bytes.len()));
        Self::parse(info, entries)
    }

    /// Names the chains that rules jump to by offset.
    fn link(&mut self, starts: &HashMap<usize, String>) {
        for entry in self.chains.iter_mut().flat_map(|(_, rules)| rules) {
            let to = entry.verdict().and_then(|verdict| usize::try_from(verdict).ok());
            entry.to = to.and_then(|to| starts.get(&to)).cloned();
        }
    }
}

/// For fuzzers: chains and rules in a table, each of which is followed once.
pub(in crate::probe) fn kept(bytes: &[u8]) -> usize {
    let table = Table::parse_kept(bytes);
    let packet = Packet::to(std::net::Ipv4Addr::new(10, 43, 0, 10), 53, 17);
    table.chains.iter().flat_map(|(_, rules)| rules).for_each(|rule| _ = rule.follow(packet, &mut PacketMark::default()));
    table.chains.iter().map(|(_, rules)| 1 + rules.len()).sum()
}

/// The entry at an offset, if it lies within the table.
fn entry(bytes: &[u8], at: usize) -> Option<Entry> {
    let head = bytes.get(at..at.checked_add(ENTRY)?)?;
    let length = usize::from(u16::from_ne_bytes([head[90], head[91]]));
    Some(Entry { bytes: bytes.get(at..at + length).filter(|b| b.len() >= ENTRY + PART)?.to_vec(), to: None })
}

impl Entry {
    /// The name of the chain that begins after this entry.
    fn begins(&self) -> Option<String> {
        let target = self.target()?;
        (target.name == "ERROR").then(|| String::from_utf8_lossy(until_zero(target.info)).into_owned()).filter(|name| name != "ERROR")
    }

    fn target(&self) -> Option<Extension<'_>> {
        let at = usize::from(u16::from_ne_bytes([self.bytes[88], self.bytes[89]]));
        part(self.bytes.get(at..)?).map(|(part, _)| part)
    }

    /// The verdict of a standard target: an offset to jump to, or below zero what happens.
    fn verdict(&self) -> Option<i32> {
        let target = self.target()?;
        target.info.get(..4).filter(|_| target.name.is_empty()).and_then(|v| v.try_into().ok()).map(i32::from_ne_bytes)
    }

    /// What this rule may do with a packet.
    pub(super) fn follow(&self, packet: Packet, mark: &mut PacketMark) -> Outcome {
        let conditions = self.conditions(packet, mark);
        if conditions.contains(&Some(false)) {
            return Outcome { actions: Vec::new(), passes: true };
        }
        if let Some(target) = self.target() {
            xt::mark(&target, mark);
        }
        match self.action(packet) {
            None => Outcome { actions: Vec::new(), passes: true },
            Some(action) => Outcome { actions: vec![action], passes: conditions.contains(&None) },
        }
    }

    fn conditions(&self, packet: Packet, mark: &PacketMark) -> Vec<Option<bool>> {
        let mut all = self.head(packet);
        let end = usize::from(u16::from_ne_bytes([self.bytes[88], self.bytes[89]]));
        let mut rest = self.bytes.get(ENTRY..end).unwrap_or_default();
        while let Some((part, length)) = part(rest) {
            all.push(xt::holds(&part, &packet, mark));
            rest = rest.get(length..).unwrap_or_default();
        }
        all
    }

    /// Conditions of the rule itself (ipt_ip): addresses, devices, protocol, each of which may be turned round.
    fn head(&self, packet: Packet) -> Vec<Option<bool>> {
        let (incoming, outgoing, source, destination, other_protocol) = (1, 2, 8, 0x10, 0x40);
        let four = |at: usize| u32::from_be_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]]);
        let turned = |flag: u8| self.bytes[83] & flag != 0;
        let protocol = u16::from_ne_bytes([self.bytes[80], self.bytes[81]]);
        let to = u32::from(packet.to);
        // Name at one place, mask at another: a condition without a mask is none.
        let device = |name: Option<DeviceName>, at: usize, flag: u8| {
            let (wanted, mask) = (&self.bytes[at..at + 16], &self.bytes[at + 32..at + 48]);
            match name {
                _ if mask[0] == 0 && !turned(flag) => Some(true),
                None => None,
                Some(name) => Some((0..16).all(|n| name[n] & mask[n] == wanted[n] & mask[n]) != turned(flag)),
            }
        };
        let from = match packet.from {
            _ if four(8) == 0 && !turned(source) => Some(true),
            from => from.map(|from| (u32::from(from) & four(8) == four(0)) != turned(source)),
        };
        vec![
            Some((to & four(12) == four(4)) != turned(destination)),
            Some((protocol == 0 || protocol == u16::from(packet.protocol)) != turned(other_protocol)),
            from,
            device(packet.iif, 16, incoming),
            device(packet.oif, 32, outgoing),
        ]
    }

    /// `None`: the packet goes on to the next rule.
    fn action(&self, packet: Packet) -> Option<Action> {
        const GOTO: u8 = 2;
        const DROP: i32 = -1;
        const RETURN: i32 = -5;
        let target = self.target()?;
        if !target.name.is_empty() {
            return xt::action(&target, packet.port);
        }
        match self.verdict()? {
            DROP => Some(Action::Refuse),
            RETURN => Some(Action::Return),
            ..0 => Some(Action::Accept),
            // A rule without a target jumps to the rule after it, which begins no chain.
            _ => {
                let chain = self.to.clone()?;
                Some(if self.bytes[82] & GOTO != 0 { Action::Goto(chain) } else { Action::Jump(chain) })
            }
        }
    }
}

/// The first match or target of a list (struct xt_entry_match: length, name, revision), and its length.
fn part(bytes: &[u8]) -> Option<(Extension<'_>, usize)> {
    let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let whole = bytes.get(..length).filter(|b| b.len() >= PART)?;
    // No part that is known here has another name.
    let name = std::str::from_utf8(until_zero(&whole[2..31])).unwrap_or("?");
    Some((Extension { name, revision: u32::from(whole[31]), info: &whole[PART..] }, length))
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

/// Whether a table is loaded in the network of this thread. Without the module there is no such file.
///
/// In a user namespace of our own the file belongs to somebody else although nf_tables could be listed: the network is our own too,
/// and nobody has loaded any table there. Elsewhere (CAP_NET_ADMIN without being root) it cannot be said.
fn loaded(name: &str) -> io::Result<bool> {
    match std::fs::read_to_string("/proc/thread-self/net/ip_tables_names") {
        Ok(text) => Ok(text.lines().any(|line| line.trim() == name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_first_user_namespace() => Ok(false),
        Err(error) => Err(io::Error::new(error.kind(), format!("/proc/net/ip_tables_names: {error}"))),
    }
}

/// The machine's first user namespace maps every id to itself (user_namespaces(7)).
fn is_first_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// ipt_getinfo and the entries of a table of this thread's network.
fn entries(name: &str) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    // A table that is being replaced has another size at the second question (EAGAIN).
    for _ in 1..TRIES {
        match both(&socket, name) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
    both(&socket, name)
}

fn both(socket: &std::net::UdpSocket, name: &str) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut info = vec![0; INFO];
    info[..name.len()].copy_from_slice(name.as_bytes());
    let mut entries = info[..ENTRIES].to_vec();
    option(socket, GET_INFO, &mut info)?;
    let size = u32::from_ne_bytes([info[80], info[81], info[82], info[83]]);
    if size as usize > MOST {
        return Err(io::Error::other("the table is larger than is read"));
    }
    entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    entries.resize(ENTRIES + size as usize, 0);
    option(socket, GET_ENTRIES, &mut entries)?;
    Ok((info, entries.split_off(ENTRIES)))
}

fn option(socket: &std::net::UdpSocket, option: libc::c_int, value: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(value.len()).unwrap_or_default();
    // SAFETY: the buffer is valid for the length given, during the call.
    match unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_IP, option, value.as_mut_ptr().cast(), &raw mut length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
