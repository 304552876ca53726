#!/usr/bin/env python3
"""Loads the rules of the captures into this kernel, and keeps what it answers to netlink and getsockopt: the replay tests' input.

    unshare -n tests/data/kube-proxy/make.py        (root; iptables-nft-restore, iptables-legacy-restore, nft)

`*.nfnl`: the messages of the lists of chains, rules, sets and of the elements of each set, as received (NLMSG_DONE left out).
`*.xt`: ipt_getinfo (84 bytes) and the entries of one table.
`nfacct` needs an object that only kube-proxy makes, and is left out.
"""
import ctypes, os, socket, struct, subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
CHAINS, RULES, SETS, ELEMENTS = 4, 7, 10, 13


def attribute(kind, text):
    data = text.encode() + b"\0"
    return struct.pack("HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def dump(what, family=0, body=b""):
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    s.send(struct.pack("IHHIIBBH", 20 + len(body), 10 << 8 | what, 0x301, 1, 0, family, 0, 0) + body)
    messages = []
    while True:
        data = s.recv(1 << 20)
        while data:
            length, kind = struct.unpack("IH", data[:6])
            if kind == 3:
                return messages
            assert kind != 2, data[:20]
            messages.append(data[:length])
            data = data[(length + 3) & ~3:]


def text(message, wanted):
    at = 20
    while at < len(message):
        length, kind = struct.unpack("HH", message[at:at + 4])
        if kind & 0x3FFF == wanted:
            return message[at + 4:at + length].rstrip(b"\0").decode()
        at += (length + 3) & ~3


def keep_nf_tables(name):
    sets = dump(SETS)
    elements = [m for s in sets for m in dump(ELEMENTS, s[16], attribute(1, text(s, 1)) + attribute(2, text(s, 2)))]
    with open(f"{HERE}/{name}.nfnl", "wb") as f:
        for message in dump(CHAINS) + dump(RULES) + sets + elements:
            f.write(message + bytes(-len(message) % 4))


def keep_legacy(table, name):
    s, libc = socket.socket(socket.AF_INET, socket.SOCK_RAW, 255), ctypes.CDLL(None, use_errno=True)

    def option(number, value):
        buffer, length = ctypes.create_string_buffer(value, len(value)), ctypes.c_uint32(len(value))
        assert libc.getsockopt(s.fileno(), 0, number, buffer, ctypes.byref(length)) == 0, ctypes.get_errno()
        return buffer.raw

    info = option(64, table.encode().ljust(84, b"\0"))
    size = struct.unpack("I", info[80:84])[0]
    entries = option(65, table.encode().ljust(32, b"\0") + struct.pack("II", size, 0) + bytes(size))
    with open(f"{HERE}/{name}.{table}.xt", "wb") as f:
        f.write(info + entries[40:])


def run(*command, **more):
    subprocess.run(command, check=True, text=True, **more)


saved = open(f"{HERE}/iptables-mode.iptables-save.txt").read()
rules = "\n".join(line for line in saved.splitlines() if "nfacct" not in line and not line.startswith("#")) + "\n"
run("iptables-nft-restore", "-c", input=rules)
keep_nf_tables("iptables-nft")
run("nft", "flush", "ruleset")
run("nft", "-f", f"{HERE}/nftables-mode.nft.txt")
keep_nf_tables("nftables")
run("nft", "flush", "ruleset")
run("iptables-legacy-restore", "-c", input=rules)
for table in ("nat", "filter"):
    keep_legacy(table, "iptables-legacy")
